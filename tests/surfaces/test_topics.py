"""Topics, their history and the way back from a correction."""

import pytest

from memoturnd.errors import ConflictError, InvalidRequestError, NotFoundError
from memoturnd.surfaces import memories, memory_edits, memory_list, topics
from memoturnd.surfaces.topics import Page


def says(word, type_="fact", topic_key="t", **more):
    return {"type": type_, "topic_key": topic_key, "summary": word, "content": word, **more}


async def ingest(profile, *items):
    results = (await memories.ingest(profile, memories.parse_items({"memories": list(items)}))).value
    return [result["id"] for result in results]


async def chain(profile, id_, **page):
    return (await topics.history(profile, id_, Page(**page))).value


async def words(profile, id_):
    return [version["summary"] for version in (await chain(profile, id_))["versions"]]


async def undo(profile, id_, reason=None):
    return (await topics.undo(profile, id_, reason=reason)).value


async def active(profile, topic_key="t"):
    page = await memory_list.page(profile, memory_list.parse_listing({"topic_key": topic_key}))
    return [memory["summary"] for memory in page.value["memories"]]


# ---- history


async def test_a_chain_is_shown_whole_the_newest_first(profile, plain):
    (a,) = await ingest(profile, says("a", pinned=True))
    profile.now_ms += 10
    (b,) = await ingest(profile, says("b", reason="typo"))
    profile.now_ms += 10
    (c,) = await ingest(profile, says("c", reason="moved", importance=0.7))

    got = plain(await chain(profile, b))

    versions = got.pop("versions")
    assert got == {
        "topic_key": "t", "type": "fact", "active": c, "version": 3, "count": 3, "last_updated": 1_000_020,
        "pinned": False, "next_cursor": None,
    }  # fmt: skip
    assert [(v["id"], v["version"], v["active"], v["reason"], v["pinned"]) for v in versions] == [
        (c, 3, True, "moved", False),
        (b, 2, False, "typo", False),
        (a, 1, False, None, True),
    ]
    assert [(v["superseded_by"], v["superseded_at"], v["last_updated"]) for v in versions] == [
        (None, None, 1_000_020),
        (c, 1_000_020, 1_000_020),
        (b, 1_000_010, 1_000_010),
    ]
    for id_ in (a, c):
        assert plain(await chain(profile, id_))["versions"] == versions


async def test_what_is_stored_again_becomes_the_newest_version(profile):
    (a,) = await ingest(profile, says("a"))
    await ingest(profile, says("b"))
    again = (
        await memories.ingest(profile, memories.parse_items({"memories": [says("a", reason="right")]}))
    ).value

    got = await chain(profile, a)

    assert again[0]["status"] == "revived"
    assert [(v["summary"], v["version"], v["reason"]) for v in got["versions"]] == [
        ("a", 3, "right"),
        ("b", 2, None),
    ]
    assert got["versions"][1]["superseded_by"] == a


async def test_turning_back_and_forth_has_an_end(profile):
    for _ in range(20):
        (a,) = await ingest(profile, says("a"))
        (b,) = await ingest(profile, says("b"))

    got = await chain(profile, a)

    assert [(v["id"], v["version"]) for v in got["versions"]] == [(b, 40), (a, 39)]
    assert (got["count"], got["version"], got["active"]) == (2, 40, b)


async def test_links_in_a_circle_cannot_hang_a_history(profile):
    a, b = await ingest(profile, says("a"), says("b"))
    profile.conn.execute(
        "UPDATE __memoturn_memories SET superseded_by = ?, superseded_at = 1 WHERE id = ?", (a, b)
    )

    assert await words(profile, a) == ["b", "a"]
    with pytest.raises(ConflictError):
        await undo(profile, b)


async def test_a_batch_in_one_instant_keeps_its_order(profile):
    ids = await ingest(profile, *(says(str(n)) for n in range(10)))

    assert await words(profile, ids[3]) == [str(n) for n in reversed(range(10))]


async def test_what_was_forgotten_leaves_the_chain_whole(profile):
    a, b, c, d = await ingest(profile, *(says(word) for word in "abcd"))
    await memories.forget(profile, b)
    assert [(v["id"], v["version"], v["superseded_by"]) for v in (await chain(profile, a))["versions"]] == [
        (d, 4, None),
        (c, 3, d),
        (a, 1, c),
    ]

    await memories.forget(profile, d)
    got = await chain(profile, a)
    assert (got["active"], got["version"], [v["active"] for v in got["versions"]]) == (
        None,
        3,
        [False, False],
    )
    (e,) = await ingest(profile, says("e"))
    assert [(v["id"], v["version"]) for v in (await chain(profile, e))["versions"]] == [
        (e, 4),
        (c, 3),
        (a, 1),
    ]


async def test_a_memory_without_a_topic_is_its_own_history(profile, plain):
    (a,) = await ingest(profile, {"type": "event", "summary": "x"})

    got = plain(await chain(profile, a))

    assert (got["topic_key"], got["count"], got["active"], len(got["versions"])) == (None, 1, a, 1)
    with pytest.raises(NotFoundError):
        await chain(profile, "mem_0")


async def test_a_topic_of_two_types_is_two_chains(profile, plain):
    await ingest(profile, says("a"), says("b", "instruction"), says("c"))

    got = plain((await topics.topic(profile, "t", Page())).value)
    one = plain((await topics.topic(profile, "t", Page(), type_="instruction")).value)

    assert got["topic_key"] == "t"
    assert [(c["type"], [v["summary"] for v in c["versions"]]) for c in got["chains"]] == [
        ("fact", ["c", "a"]),
        ("instruction", ["b"]),
    ]
    assert one["chains"] == got["chains"][1:]
    with pytest.raises(NotFoundError, match="no memory has the topic 'u'"):
        await topics.topic(profile, "u", Page())


async def test_a_long_chain_comes_in_pages(profile):
    ids = await ingest(profile, *(says(str(n)) for n in range(25)))
    found, cursor = [], None
    while True:
        got = await chain(profile, ids[0], limit=10, cursor=cursor)
        found += [v["summary"] for v in got["versions"]]
        assert (got["count"], got["version"]) == (25, 25)
        cursor = got["next_cursor"]
        if cursor is None:
            break
        await ingest(profile, says("25"))  # a newer version is above the page, and moves nothing
        await memories.forget(profile, (await chain(profile, ids[0]))["active"])

    assert found == [str(n) for n in reversed(range(25))]
    first = await chain(profile, ids[0], limit=10)
    with pytest.raises(InvalidRequestError, match="cursor takes a type"):
        await topics.topic(profile, "t", Page(cursor=first["next_cursor"]))
    for of in ({"type_": "instruction"}, {}):
        other = "t" if of else "other"
        await ingest(profile, says("x", "instruction"), says("x", topic_key="other"))
        with pytest.raises(InvalidRequestError, match="cursor"):
            await topics.topic(
                profile, other, Page(cursor=first["next_cursor"]), type_=of.get("type_", "fact")
            )


# ---- undo


async def test_an_undone_correction_stays_in_the_history(profile, plain):
    a, b = await ingest(profile, says("a"), says("b", reason="guess"))
    profile.now_ms += 5

    assert await undo(profile, b, "it was right") == {"undone": b, "active": a, "version": 3}

    assert await active(profile) == ["a"]
    versions = plain(await chain(profile, a))["versions"]
    assert [(v["id"], v["version"], v["reason"], v["undone_at"], v["superseded_by"]) for v in versions] == [
        (a, 3, "it was right", None, None),
        (b, 2, "guess", 1_000_005, a),
    ]


async def test_an_undo_can_be_undone(profile):
    a, b = await ingest(profile, says("a"), says("b", reason="guess"))
    await undo(profile, b)

    assert await undo(profile, a) == {"undone": a, "active": b, "version": 4}

    got = await chain(profile, a)
    assert [(v["id"], v["reason"], v["undone_at"]) for v in got["versions"]] == [
        (b, "guess", None),
        (a, None, 1_000_000),
    ]
    assert await active(profile) == ["b"]


async def test_undo_brings_back_what_was_superseded_last(profile):
    _, b, c = await ingest(profile, *(says(word) for word in "abc"))
    await undo(profile, c)
    assert await active(profile) == ["b"]
    await undo(profile, b)
    assert await active(profile) == ["c"]
    await ingest(profile, says("a"))
    (a,) = await ingest(profile, says("a"))
    assert (await undo(profile, a))["active"] == c


async def test_what_cannot_be_undone_is_a_conflict(profile):
    a, b = await ingest(profile, says("a"), says("b"))
    (lone,) = await ingest(profile, {"type": "event", "summary": "x"})

    with pytest.raises(ConflictError, match="is superseded already"):
        await undo(profile, a)
    with pytest.raises(ConflictError, match="supersedes nothing"):
        await undo(profile, lone)
    with pytest.raises(NotFoundError):
        await undo(profile, "mem_0")
    await memories.forget(profile, a)
    with pytest.raises(ConflictError, match="supersedes nothing that is still there"):
        await undo(profile, b)
    assert await active(profile) == ["b"]


async def test_undo_of_an_undone_topic_of_another_type_is_not_touched(profile):
    _, b = await ingest(profile, says("a"), says("b"))
    await ingest(profile, says("a", "instruction"), says("b", "instruction"))
    await undo(profile, b)

    assert sorted(await active(profile)) == ["a", "b"]


async def test_what_expired_is_neither_brought_back_nor_shown(profile):
    a, b, c = await ingest(profile, *(says(word) for word in "abc"))
    await memory_edits.patch(profile, b, memory_edits.parse_patch({"ttl": 10}))
    profile.now_ms += 10_000

    assert await words(profile, a) == ["c", "a"]
    with pytest.raises(ConflictError):
        await undo(profile, c)
    memories.sweep_expired(profile.conn, profile.now_ms, 10)
    assert await words(profile, a) == ["c", "a"]
    assert await undo(profile, c) == {"undone": c, "active": a, "version": 4}


async def test_a_reason_is_for_what_has_a_topic(profile):
    for item in ({"type": "event", "summary": "x"}, {"type": "fact", "summary": "x"}):
        with pytest.raises(InvalidRequestError, match=r"memories\[0\].reason"):
            memories.parse_items({"memories": [{**item, "reason": "r"}]})
    for reason in (1, "x" * 1025, "a\0"):
        with pytest.raises(InvalidRequestError, match="reason"):
            memories.parse_items({"memories": [says("a", reason=reason)]})
        with pytest.raises(InvalidRequestError, match="reason"):
            topics.parse_reason({"reason": reason})


# ---- topics


async def test_topics_are_listed_by_key_and_type(profile, plain):
    _, b = await ingest(profile, says("a", topic_key="z"), says("b", topic_key="z", pinned=True))
    await ingest(profile, says("c", topic_key="a/é"), says("d", "instruction", topic_key="a/é"))
    await ingest(profile, says("e", topic_key="gone"), {"type": "fact", "summary": "without a topic"})

    got = plain((await topics.topics(profile, Page())).value)

    assert [(t["topic_key"], t["type"], t["count"], t["version"], t["pinned"]) for t in got["topics"]] == [
        ("a/é", "fact", 1, 1, False),
        ("a/é", "instruction", 1, 1, False),
        ("gone", "fact", 1, 1, False),
        ("z", "fact", 2, 2, True),
    ]
    assert got["topics"][-1]["active"] == b
    assert got["topics"][-1]["last_updated"] == 1_000_000


async def test_topics_come_in_pages_under_a_prefix_and_of_a_type(profile):
    keys = [f"a{n:02}" for n in range(30)] + ["b", "", "A"]
    await ingest(
        profile, *(says("x", topic_key=key or None) for key in keys), says("x", "instruction", "a05")
    )

    async def pages(**asked):
        found, cursor = [], None
        while True:
            got = (await topics.topics(profile, Page(7, cursor), **asked)).value
            found += [(topic["topic_key"], topic["type"]) for topic in got["topics"]]
            cursor = got["next_cursor"]
            if cursor is None:
                return found

    facts = [(f"a{n:02}", "fact") for n in range(30)]
    assert await pages(prefix="a", type_="fact") == facts
    assert await pages(prefix="a") == sorted([*facts, ("a05", "instruction")])
    assert await pages() == [("A", "fact"), *sorted([*facts, ("a05", "instruction")]), ("b", "fact")]
    assert await pages(type_="instruction") == [("a05", "instruction")]
    assert await pages(prefix="c") == []
    cursor = (await topics.topics(profile, Page(7), prefix="a")).value["next_cursor"]
    with pytest.raises(InvalidRequestError, match="cursor"):
        await topics.topics(profile, Page(7, cursor), prefix="b")


@pytest.mark.parametrize(
    ("statement", "bindings"),
    [
        (topics._VERSIONS, ("t", "fact", 9, 0, 5)),
        (topics._SUMMED, ("t", "fact", 0)),
        (topics._TOPICS, ("a", "", 0)),
        (topics._PREDECESSOR, ("t", "fact", "mem_0", 0)),
        (memories._NEWEST_OF_TOPIC, ("t", "fact")),
    ],
)
def test_nothing_about_topics_is_sorted_or_looked_for_without_an_index(profile, statement, bindings):
    steps = [row[3] for row in profile.conn.execute(f"EXPLAIN QUERY PLAN {statement}", bindings)]

    assert len(steps) == 1
    assert steps[0].startswith("SEARCH __memoturn_memories USING INDEX __memoturn_memories_versions")
