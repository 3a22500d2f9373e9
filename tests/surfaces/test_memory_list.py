"""Listing memories: filters, orders, pages that are cut by key, and the indexes that they walk along."""

import itertools
import random

import pytest

from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import memories, memory_edits, memory_list
from memoturnd.surfaces.memory_list import Listing, parse_listing


def item(type_="event", summary="s", **more):
    return {"type": type_, "summary": summary, "content": summary, **more}


async def ingest(profile, *items):
    return (await memories.ingest(profile, memories.parse_items({"memories": list(items)}))).value


async def page(profile, *, order=None, limit=100, cursor=None, **filters):
    listing = parse_listing(filters, order=order, limit=limit, cursor=cursor)
    return (await memory_list.page(profile, listing)).value


async def summaries(profile, **asked):
    return [memory["summary"] for memory in (await page(profile, **asked))["memories"]]


async def all_pages(profile, between=None, **asked):
    found, cursor = [], None
    while True:
        got = await page(profile, cursor=cursor, **asked)
        found += [memory["summary"] for memory in got["memories"]]
        cursor = got["next_cursor"]
        if cursor is None:
            return found
        if between is not None:
            await between()


@pytest.fixture
async def filled(profile):
    """Ten memories, one a second."""
    rows = [
        item("fact", "0", topic_key="a.x", source="chat", session_id="s1"),
        item("fact", "1", topic_key="a.y", pinned=True),
        item("instruction", "2", topic_key="a.x", source="chat"),
        item("event", "3", session_id="s1", importance=0.5),
        item("event", "4", source="mail", importance=1),
        item("task", "5", session_id="s2"),
        item("fact", "6", topic_key="a.x", reason="moved", importance=0),
        item("event", "7", pinned=True, importance=0.5),
        item("fact", "8"),
        item("event", "9", session_id="s1", source="chat"),
    ]
    for row in rows:
        profile.now_ms += 1000
        await ingest(profile, row)
    return profile


# ---- filters


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "987654321"),
        ({"include_superseded": True}, "9876543210"),
        ({"types": ["fact"]}, "861"),
        ({"types": ["fact", "task"]}, "8651"),
        ({"types": []}, ""),
        ({"topic_key": "a.x"}, "62"),
        ({"topic_key": "a.x", "include_superseded": True}, "620"),
        ({"topic_key": ""}, ""),
        ({"topic_prefix": "a."}, "621"),
        ({"topic_prefix": "A"}, ""),
        ({"topic_prefix": ""}, "621"),
        ({"session_id": "s1"}, "93"),
        ({"source": "chat"}, "92"),
        ({"source": "chat", "session_id": "s1"}, "9"),
        ({"pinned": True}, "71"),
        ({"pinned": False}, "9865432"),
        ({"since": 1_008_000}, "987"),
        ({"until": 1_003_000}, "21"),
        ({"since": 1_004_000, "until": 1_004_000}, "3"),
        ({"since": "1970-01-01T00:16:49Z", "pinned": False}, "98"),
        ({"since": 1_009_000, "until": 1_001_000}, ""),
        ({"source": "'; DROP TABLE x; --"}, ""),
    ],
)
async def test_filters_mean_the_same_in_every_order_and_page_size(filled, asked, expected):
    assert "".join(await summaries(filled, **asked)) == expected
    assert "".join(await summaries(filled, order="oldest", **asked)) == expected[::-1]
    assert "".join(await all_pages(filled, limit=1, **asked)) == expected
    assert "".join(await all_pages(filled, order="oldest", limit=2, **asked)) == expected[::-1]
    important = await all_pages(filled, order="most_important", limit=2, **asked)
    assert important == await summaries(filled, order="most_important", **asked)
    assert sorted(important) == sorted(expected)


async def test_importance_orders_first_who_is_rated_then_the_others_by_time(filled):
    assert "".join(await summaries(filled, order="most_important")) == "4736" + "98521"
    assert "".join(await summaries(filled, order="least_important")) == "6374" + "12589"
    for limit in range(1, 11):
        assert await all_pages(filled, order="most_important", limit=limit) == list("473698521")
        assert await all_pages(filled, order="least_important", limit=limit) == list("637412589")


async def test_what_expired_is_not_listed(filled):
    filled.now_ms += 86_400_000
    assert "5" not in await summaries(filled)


async def test_a_listed_memory_has_every_field(filled, plain):
    (memory,) = plain(await page(filled, source="mail"))["memories"]

    shown = plain((await memories.get(filled, memory["id"])).value)
    shown.pop("supersedes")
    assert memory == shown
    assert (memory["content"], memory["importance"], memory["pinned"]) == ("4", 1.0, False)


# ---- pages


async def test_what_is_written_meanwhile_neither_repeats_nor_hides_what_was_there(profile):
    await ingest(profile, *(item(summary=str(n)) for n in range(40)))
    numbers = itertools.count(1000)
    doomed = iter(range(3, 40, 4))

    async def between():
        profile.now_ms += random.Random(1).randrange(2)
        await ingest(profile, item(summary=str(next(numbers))))
        listed = (await page(profile, order="oldest", limit=1000))["memories"]
        gone = str(next(doomed))
        await memories.forget(profile, next(m["id"] for m in listed if m["summary"] == gone))

    found = await all_pages(profile, between, order="newest", limit=7)

    stayed = {str(n) for n in range(40)} - {str(n) for n in range(3, 40, 4)}
    assert len(found) == len(set(found))
    assert stayed <= set(found)


async def test_a_page_ends_at_its_bytes_and_holds_one_memory_at_least(profile, monkeypatch):
    monkeypatch.setattr(memory_list, "PAGE_LIMIT_BYTES", 1000)
    await ingest(profile, *(item(summary=f"{n}" + "x" * 400) for n in range(5)), item(summary="y" * 5000))

    first = await page(profile)
    second = await page(profile, cursor=first["next_cursor"])

    assert [len(first["memories"]), len(second["memories"])] == [1, 2]
    assert len(await all_pages(profile)) == 6


async def test_a_cursor_of_another_listing_is_refused(filled):
    cursor = (await page(filled, limit=2))["next_cursor"]
    again = {"limit": 5, "cursor": cursor}

    assert len((await page(filled, **again))["memories"]) == 5
    for other in ({"order": "oldest"}, {"pinned": True}, {"include_superseded": True}, {"since": 0}):
        with pytest.raises(InvalidRequestError, match="cursor is not one that this listing gave"):
            await page(filled, **again, **other)


@pytest.mark.parametrize(
    "position", [["time"], ["time", []], ["time", [1]], ["time", [1, 2, 3]], ["rated", [1, 2, 3]], {}, 5,
                 ["time", [2**63, 1]], ["time", [2**70, 1]], ["time", ["x", 1]], ["time", [None, 1]]],
)  # fmt: skip
async def test_a_forged_cursor_is_refused(filled, position):
    from memoturnd.core import cursors

    forged = cursors.make(Listing(memory_list.Filter()).identity, position)
    with pytest.raises(InvalidRequestError, match="cursor"):
        await page(filled, cursor=forged)


@pytest.mark.parametrize("cursor", ["", "x", "ä", "%%%", "A" * 20_000, "AAAAAAAA", "\0"])
async def test_nonsense_for_a_cursor_is_refused(filled, cursor):
    with pytest.raises(InvalidRequestError, match="cursor"):
        await page(filled, cursor=cursor)


# ---- what is refused


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("types", "fact"),
        ("types", ["facts"]),
        ("types", [1]),
        ("topic_key", 1),
        ("topic_key", "x" * 1025),
        ("topic_prefix", "x" * 1025),
        ("session_id", ["s"]),
        ("source", "a\0"),
        ("pinned", "yes"),
        ("pinned", 1),
        ("since", "yesterday"),
        ("since", "head"),
        ("since", "12"),
        ("since", -1),
        ("since", 1.5),
        ("since", 2**63),
        ("until", True),
        ("include_superseded", 1),
    ],
)
def test_a_wrong_filter_is_named(field, value):
    with pytest.raises(InvalidRequestError, match=field):
        parse_listing({field: value})


def test_an_unknown_order_is_refused():
    with pytest.raises(InvalidRequestError, match="order is 'best': it takes newest, oldest"):
        parse_listing({}, order="best")


# ---- cost


def plan(conn, sql, bindings):
    return [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]


@pytest.mark.parametrize(
    ("filters", "index"),
    [
        ({}, "created"),
        ({"types": ["fact"], "since": 5}, "created"),
        ({"topic_key": "a"}, "topic"),
        ({"session_id": "a"}, "session"),
        ({"source": "a"}, "source"),
        ({"pinned": True}, "pinned"),
        ({"pinned": False}, "created"),
    ],
)
@pytest.mark.parametrize("order", memory_list.ORDERS)
def test_every_listing_walks_along_an_index_and_sorts_nothing(profile, filters, index, order):
    listing = parse_listing(filters, order=order)
    parts = ["time"] if order in {"newest", "oldest"} else ["rated", "unrated"]
    for part in parts:
        sql, bindings = memory_list.statement(listing, 0, part)
        for behind in (False, True):
            end = memory_list.end_of(listing, part, behind=behind)
            keys = [1] * (3 if part == "rated" else 2) if behind else []
            (step,) = plan(profile.conn, sql + end, (*bindings, *keys))
            named = "importance" if part == "rated" else index
            assert f"USING INDEX __memoturn_memories_{named}" in step
            if behind or "=" in step:
                assert step.startswith("SEARCH")


async def test_a_listing_may_leave_the_event_loop(filled):
    await page(filled)
    assert filled.works[-1] == ("read", Work.SCAN)


async def test_a_patch_of_importance_moves_a_memory_in_the_order(filled):
    (first, *_) = (await page(filled, order="oldest"))["memories"]
    await memory_edits.patch(filled, first["id"], memory_edits.parse_patch({"importance": 0.9}))
    assert (await summaries(filled, order="most_important"))[:3] == ["4", first["summary"], "7"]
