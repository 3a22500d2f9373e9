"""Timelines by example; test_timelines_model.py holds them against a model."""

import json
import math

import apsw
import pytest

from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import ConflictError, InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import timeline_queries, timeline_store, timeline_terms, timelines
from memoturnd.surfaces.timelines import Retention, parse_retention, parse_rows

NOW_MS = 1_000_000


@pytest.fixture
def append(profile):
    async def append(*rows, name="t"):
        return (await timelines.append(profile, name, parse_rows({"rows": list(rows)}))).value

    return append


@pytest.fixture
def ask(profile, plain):
    async def ask(name="t", **body):
        seen = await timeline_queries.query(profile, name, timeline_terms.parse_query(body))
        return plain(seen.value)

    return ask


def row(data=None, key="k", at=NOW_MS):
    return {"key": key, "at": at, "data": data}


def datas(page):
    return [row["data"] for row in page["rows"]]


# ---- append and order


async def test_one_row_and_a_batch_are_appended_and_numbered_in_their_order(profile, ask):
    one = await timelines.append(profile, "t", parse_rows({"key": "k", "data": {"a": [1, None]}}))
    two = await timelines.append(profile, "t", parse_rows({"rows": [row("x"), row(at=None)]}))

    assert one.value == {"appended": 1, "expired": 0, "first_seq": 1, "last_seq": 1}
    assert two.value == {"appended": 2, "expired": 0, "first_seq": 2, "last_seq": 3}
    assert (await ask(order="asc"))["rows"] == [
        {"key": "k", "at": NOW_MS, "seq": 1, "data": {"a": [1, None]}},
        {"key": "k", "at": NOW_MS, "seq": 2, "data": "x"},
        {"key": "k", "at": NOW_MS, "seq": 3, "data": None},
    ]
    assert profile.txid == 2


async def test_late_rows_land_at_their_time_and_equal_times_keep_the_order_of_arrival(append, ask):
    await append(row("b", at=20), row("e", at=30))
    await append(row("c", at=20), row("a", at=10), row("d", at=20))

    assert datas(await ask(order="asc")) == ["a", "b", "c", "d", "e"]
    assert datas(await ask(order="desc", key="k")) == ["e", "d", "c", "b", "a"]


async def test_since_is_inclusive_and_until_exclusive(append, ask):
    await append(*(row(at, at=at) for at in (10, 20, 30)))

    assert datas(await ask(since=10, until=30)) == [20, 10]
    assert datas(await ask(since=20, until=20)) == []
    assert datas(await ask(since=30, until=10)) == []


async def test_keys_and_names_are_told_apart_whatever_they_are(append, ask):
    for key in ("a", "A", "a ", "é", "e\u0301", "'; DROP TABLE x; --", "😀" * 512):
        await append(row(key, key=key))
    for name in ("t", "T", "t-1", "t_1", "-", "x" * 64):
        await append(row(name, key="named"), name=name)

    for key in ("a", "A", "a ", "é", "e\u0301", "'; DROP TABLE x; --", "😀" * 512):
        assert datas(await ask(key=key)) == [key]
    for name in ("t", "T", "t-1", "t_1", "-", "x" * 64):
        assert datas(await ask(name, key="named")) == [name]


async def test_pages_do_not_shift_while_rows_are_appended(append, ask):
    await append(*(row(at, at=at) for at in (10, 20, 30, 40)))

    first = await ask(limit=2)
    await append(row("new", at=50), row("late", at=35), row("later", at=15))
    second = await ask(limit=2, cursor=first["next_cursor"])
    third = await ask(limit=2, cursor=second["next_cursor"])

    assert [*datas(first), *datas(second), *datas(third)] == [40, 30, 20, "later", 10]
    assert third["next_cursor"] is None


async def test_a_page_ends_early_where_its_data_is_large(append, ask, monkeypatch):
    monkeypatch.setattr(timeline_queries, "ANSWER_LIMIT_BYTES", 1000)
    await append(*(row("x" * size, at=at) for at, size in enumerate((400, 400, 3000, 400))))

    sizes, cursor = [], None
    while True:
        page = await ask(order="asc", cursor=cursor)
        sizes.append([len(data) for data in datas(page)])
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert sizes == [[400, 400], [3000], [400]]


async def test_rows_of_many_keys_are_merged_by_time(append, ask):
    await append(*(row(n, key=f"k{n % 7}", at=n // 3) for n in range(100)))

    keys = [f"k{n}" for n in range(0, 7, 2)]
    expected = [n for n in range(100) if n % 7 % 2 == 0]
    assert datas(await ask(keys=[*keys, *keys, "nobody"], order="asc")) == expected
    assert datas(await ask(keys=keys, limit=5)) == expected[:-6:-1]


async def test_filters_look_into_data_and_at_the_key(append, ask):
    await append(
        row({"ms": 5, "ok": True}, key="a"), row({"ms": 50}, key="b"), row([1], key="a"), row(7, key="c")
    )

    assert datas(await ask(filter={"ms": {"$lt": 10}})) == [{"ms": 5, "ok": True}]
    assert datas(await ask(filter={"_id": {"$in": ["b", "c"]}})) == [7, {"ms": 50}]
    assert datas(await ask(keys=["a", "b"], filter={"ms": {"$exists": True}, "ok": None})) == [{"ms": 50}]
    counted = await ask(filter={"_id": "a"}, aggregate={})
    assert counted["windows"] == [{"at": None, "count": 2}]


# ---- aggregates


async def test_sums_of_integers_are_exact_and_beyond_64_bits_doubles(append, ask):
    big = 2**63 - 1
    await append(row(big, at=1), row(-big, at=2), row(3, at=3), *(row(big, at=1000 + n) for n in range(3)))

    windows = (await ask(aggregate={"path": "", "window_ms": 1000}, order="asc"))["windows"]

    assert [(w["sum"], w["average"]) for w in windows] == [(3, 1.0), (float(3 * big), float(big))]
    assert [(type(w["sum"]), w["last"]) for w in windows] == [(int, 3), (float, big)]


async def test_no_aggregate_is_beyond_a_double(append, ask):
    await append(row(1e308, at=1), row(1e308, at=2), row(-1e308, at=1001), row(1, at=1002))

    windows = (await ask(aggregate={"path": "", "window_ms": 1000}))["windows"]

    assert [w["sum"] for w in windows] == [-1e308, None]
    assert [w["average"] for w in windows] == [-5e307, None]
    assert [(w["min"], w["max"], w["last"]) for w in windows] == [(-1e308, 1, 1), (1e308, 1e308, 1e308)]


async def test_what_is_no_number_is_counted_and_not_added(append, ask):
    await append(*(row({"v": value}) for value in (True, "3", None, [1], {"w": 1})), row(5), row({"v": 2}))

    [window] = (await ask(aggregate={"path": "v"}))["windows"]

    assert window == {
        "at": None,
        "count": 7,
        "numbers": 1,
        "sum": 2,
        "min": 2,
        "max": 2,
        "average": 2.0,
        "last": 2,
    }


async def test_an_aggregate_over_nothing_is_one_window_with_nulls(ask, append):
    nothing = dict.fromkeys(("at", "sum", "min", "max", "average", "last")) | {"count": 0, "numbers": 0}
    assert (await ask(aggregate={"path": "v"}))["windows"] == [nothing]
    await append(row(1))
    assert (await ask(aggregate={"path": "v"}, key="nobody"))["windows"] == [nothing]
    assert (await ask(aggregate={"path": "v", "by_key": True}, key="nobody"))["windows"] == []
    assert (await ask(aggregate={"path": "v", "window_ms": 10}, since=NOW_MS + 1))["windows"] == []


async def test_windows_begin_at_multiples_and_those_at_the_ends_are_cut(append, ask):
    await append(*(row(1, at=at) for at in range(0, 100, 5)))

    windows = (await ask(aggregate={"window_ms": 30}, since=10, until=65, order="asc"))["windows"]

    assert windows == [{"at": 0, "count": 4}, {"at": 30, "count": 6}, {"at": 60, "count": 1}]


async def test_windows_are_paged_with_the_keys_of_one_time_in_order(append, ask):
    await append(*(row(1, key=key, at=at) for at in (5, 15, 1_000_000) for key in ("b:1", "a", "é")))

    found, cursor = [], None
    while True:
        page = await ask(aggregate={"window_ms": 10, "by_key": True}, limit=2, cursor=cursor)
        found += [(window["at"], window["key"]) for window in page["windows"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert found == [(at, key) for at in (1_000_000, 10, 0) for key in ("a", "b:1", "é")]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_windows_have_each_window_once(append, ask, order):
    await append(*(row(1, at=at) for at in range(0, 70, 5)))

    found, cursor = [], None
    while True:
        page = await ask(aggregate={"window_ms": 10}, limit=2, cursor=cursor, order=order)
        found += [(window["at"], window["count"]) for window in page["windows"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break

    assert sorted(found, reverse=order == "desc") == found
    assert sorted(found) == [(at, 2) for at in range(0, 70, 10)]


async def test_a_page_of_windows_reads_no_further_than_it_must(profile, append, ask):
    for start in range(0, 20_000, 5_000):
        await append(*(row(n, at=n * 10) for n in range(start, start + 5_000)))
    steps = 0

    def count():
        nonlocal steps
        steps += 1
        return False

    async def steps_of(**body):
        nonlocal steps
        steps = 0
        profile.conn.set_progress_handler(count, 10)
        try:
            await ask(aggregate={"path": "", "window_ms": 100}, **body)
        finally:
            profile.conn.set_progress_handler(None)
        return steps

    whole = await steps_of(limit=1000)
    for order in ("asc", "desc"):
        assert 1 < await steps_of(limit=2, order=order) < whole / 50
        assert 1 < await steps_of(limit=2, order=order, cursor="100000") < whole / 50
        assert 1 < await steps_of(limit=2, order=order, key="k") < whole / 20


# ---- retention and deletion


async def test_rows_past_retention_are_not_shown_before_they_are_removed(profile, append, ask):
    await append(*(row(n, at=NOW_MS - 1000 * n) for n in range(200)))
    await timelines.set_retention(profile, "t", Retention(seconds=10, rows=None))

    assert datas(await ask(limit=1000)) == list(range(11))
    assert (await ask(aggregate={}))["windows"] == [{"at": None, "count": 11}]
    assert profile.count("__memoturn_timeline_rows") == 200
    profile.now_ms += 1
    assert datas(await ask(limit=1000)) == list(range(10))


async def test_each_key_keeps_its_newest_rows(profile, append, ask):
    await append(*(row(n, key=key, at=n) for n in range(200) for key in ("a", "b")), row(0, key="c"))
    await timelines.set_retention(profile, "t", Retention(seconds=None, rows=2))

    assert datas(await ask(key="a")) == [199, 198]
    assert datas(await ask(limit=1000)) == [0, 199, 199, 198, 198]
    assert await append(row("late", key="a", at=3), row("new", key="a", at=500)) == {
        "appended": 1,
        "expired": 1,
        "first_seq": 402,
        "last_seq": 403,
    }
    assert datas(await ask(key="a")) == ["new", 199]


async def test_appends_alone_keep_a_timeline_at_its_bounds(profile, append):
    await timelines.set_retention(profile, "t", Retention(seconds=1, rows=None))
    await timelines.set_retention(profile, "u", Retention(seconds=None, rows=5))
    for _ in range(300):
        profile.now_ms += 100
        await append(row(at=None), row(at=None), name="t")
        await append(row(at=None), row(at=None), name="u")

    assert profile.count("__memoturn_timeline_rows") <= 2 * 11 + 5


async def test_what_retention_took_away_stays_away_when_it_is_raised(profile, append, ask):
    await append(*(row(n, at=NOW_MS - n) for n in range(3000)))
    await timelines.set_retention(profile, "t", Retention(seconds=1, rows=100))
    await timelines.set_retention(profile, "t", Retention(seconds=None, rows=None))

    assert datas(await ask(limit=1000)) == list(range(100))
    await append(row("late", at=NOW_MS - 2000))
    assert datas(await ask(limit=1000)) == [*range(100), "late"]


async def test_an_append_to_many_keys_removes_a_bounded_number_of_rows(profile, append):
    await append(*(row(key=f"k{n % 50}") for n in range(5000)))
    await timelines.set_retention(profile, "t", Retention(seconds=None, rows=1))
    await append(*(row(key=f"k{n}") for n in range(50)))

    assert profile.count("__memoturn_timeline_rows") == 5000 + 50 - 2 * 50 - timelines.REMOVED_AT_LEAST


async def test_sweeps_remove_a_bounded_number_of_rows_and_then_nothing(profile, append):
    await append(*(row(at=NOW_MS - 5000, key=f"k{n % 9}") for n in range(300)))
    await append(*(row(key=f"k{n % 9}") for n in range(90)))
    await append(*(row() for _ in range(1500)), name="deleted")
    await timelines.set_retention(profile, "t", Retention(seconds=1, rows=4))
    await timelines.delete(profile, "deleted")
    removed = []
    while True:
        swept, changed = timelines.sweep(profile.conn, NOW_MS, 120)
        removed.append(swept)
        if not changed:
            break

    assert sum(removed) == 300 + 9 * 6 + 500
    assert (max(removed), removed[-1]) == (120, 0)
    assert profile.count("__memoturn_timeline_rows") == 9 * 4
    assert profile.count("__memoturn_timelines") == 1


async def test_a_deleted_timeline_is_gone_at_once_and_its_name_is_free(profile, append, ask):
    await append(*(row(n) for n in range(2000)))
    await timelines.set_retention(profile, "t", Retention(seconds=60, rows=None))

    await timelines.delete(profile, "t")
    assert await ask() == {"rows": [], "next_cursor": None}
    with pytest.raises(NotFoundError, match="'t'"):
        await timeline_queries.timeline(profile, "t")
    assert (await append(row("new", at=5)))["first_seq"] == 1

    assert datas(await ask()) == ["new"]
    assert (await timelines.delete(profile, "none")).txid == profile.txid == 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Retention(seconds=1, rows=None), Retention(seconds=None, rows=None)),
        (Retention(seconds=None, rows=1), Retention(seconds=None, rows=3)),
    ],
)
async def test_a_late_row_that_many_others_have_to_go_for_is_appended_in_the_pool(
    profile, append, ask, before, after
):
    await append(*(row(n, at=NOW_MS - 5000) for n in range(2000)))
    await timelines.set_retention(profile, "t", before)
    await timelines.set_retention(profile, "t", after)
    profile.works.clear()

    assert (await append(row("late", at=5)))["first_seq"] == 2001

    assert profile.works == [("write", Work.POINT), ("write", Work.HEAVY)]
    assert "late" in datas(await ask())


# ---- a profile without timelines


async def test_a_profile_without_timelines_has_none_and_no_tables_for_them(profile, ask):
    assert await ask() == {"rows": [], "next_cursor": None}
    assert (await timeline_queries.timelines(profile)).value == []
    with pytest.raises(NotFoundError):
        await timeline_queries.timeline(profile, "t")
    assert timelines.sweep(profile.conn, NOW_MS, 10) == (0, False)
    await timelines.delete(profile, "t")

    assert not timelines.has_tables(profile.conn)
    assert profile.txid == 0


async def test_retention_makes_a_timeline_and_setting_it_again_changes_nothing(profile, plain):
    first = await timelines.set_retention(profile, "t", Retention(60, 10))
    again = await timelines.set_retention(profile, "t", Retention(60, 10))

    assert (first.value, again.txid) == (again.value, first.txid)
    assert plain((await timeline_queries.timelines(profile)).value) == [
        {
            "name": "t",
            "created_at": NOW_MS,
            "rows": 0,
            "keys": 0,
            "oldest": None,
            "newest": None,
            "retention_s": 60,
            "retention_rows": 10,
        }
    ]


# ---- what it costs


async def test_queries_follow_the_indexes_and_sort_nothing(profile, append, ask):
    await append(*(row({"v": n}, key=f"k{n % 5}", at=n) for n in range(500)))
    seen = []
    profile.conn.exec_trace = lambda _cursor, sql, bindings: seen.append((sql, bindings)) or True
    await ask(key="k1")
    await ask(key="k1", since=5, until=50, order="asc", filter={"v": 3})
    await ask(limit=5)
    await ask(limit=5, cursor="100-7", order="asc")
    profile.conn.exec_trace = None

    plans = []
    for sql, bindings in seen:
        details = [r[3] for r in profile.conn.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
        assert not any("SCAN" in detail or "TEMP B-TREE" in detail for detail in details), (sql, details)
        plans += details
    used = "\n".join(plans)
    for part in ("young", "index"):
        assert "SEARCH i USING PRIMARY KEY (key_id=? AND (at,seq)>(?,?) AND (at,seq)<(?,?))" in used, part
    assert "SEARCH r USING PRIMARY KEY (timeline_id=? AND at=? AND seq=?)" in used
    assert "SEARCH r USING PRIMARY KEY (timeline_id=? AND (at,seq)>(?,?) AND (at,seq)<(?,?))" in used


def pages_of_batches(path, young_limit, monkeypatch):
    """The pages that each of 40 batches for 200 keys writes into a timeline of 20,000 rows."""
    monkeypatch.setattr(timelines, "YOUNG_LIMIT", young_limit)
    conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=112)
    pages = []
    conn.set_wal_hook(lambda _conn, _name, frames: pages.append(frames) or apsw.SQLITE_OK)
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("COMMIT")

    def commit(rows):
        conn.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        conn.execute("BEGIN")
        timelines.apply_append(conn, NOW_MS, "t", rows)
        conn.execute("COMMIT")

    data = json.dumps({"ms": 10})
    for n in range(4):
        commit([timelines.Row(f"k{i % 200}", n * 5000 + i, data) for i in range(5000)])
    del pages[:]
    for n in range(40):
        commit([timelines.Row(f"k{i}", 100_000 + n * 200 + i, data) for i in range(200)])
    conn.close()
    return sum(pages) / len(pages)


def test_a_batch_for_many_keys_writes_few_pages(tmp_path, monkeypatch):
    with_small_part = pages_of_batches(tmp_path / "a", timelines.YOUNG_LIMIT, monkeypatch)
    without = pages_of_batches(tmp_path / "b", 0, monkeypatch)

    assert with_small_part < without / 3


async def test_small_work_runs_on_the_event_loop_and_other_within_a_budget(profile, append, ask):
    await append(row())
    await append(*(row() for _ in range(1000)))
    await ask(key="k")
    await ask(key="k", filter={"a": 1})
    await ask(aggregate={})
    await ask(filter={"a": {"$regex": "x+"}})

    assert profile.works == [
        ("write", Work.POINT),
        ("write", Work.HEAVY),
        ("read", Work.POINT),
        ("read", Work.USER),
        ("read", Work.USER),
        ("read", Work.OPAQUE),
    ]


# ---- bad input


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ([], "the body"),
        ({}, "key"),
        ({"key": ""}, "key is empty"),
        ({"key": "x" * 513}, "513"),
        ({"key": "a\0b"}, "NUL"),
        ({"key": "\ud800"}, "surrogate"),
        ({"key": "k", "at": -1}, "at"),
        ({"key": "k", "at": 1.5}, "at"),
        ({"key": "k", "at": True}, "at"),
        ({"key": "k", "at": timeline_store.LAST_MS + 1}, "at"),
        ({"key": "k", "data": math.nan}, "data"),
        ({"key": "k", "data": math.inf}, "data"),
        ({"key": "k", "data": "x" * 65536}, "65538 bytes"),
        ({"key": "k", "data": [{"a\0b": 1}]}, "NUL"),
        ({"rows": []}, "rows holds 0"),
        ({"rows": None}, "rows"),
        ({"rows": [{"key": "k"}, 7]}, r"rows\[1\]"),
        ({"rows": [{"key": "k"}, {"key": 7}]}, r"rows\[1\]\.key"),
        ({"rows": [{"key": "k"}] * 10_001}, "10001"),
    ],
)
def test_rows_that_are_not_taken_are_named(body, named):
    with pytest.raises(InvalidRequestError, match=named):
        parse_rows(body)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (7, "the body"),
        ({"key": "a", "keys": ["a"]}, "both"),
        ({"keys": []}, "0 keys"),
        ({"keys": ["k"] * 101}, "101"),
        ({"keys": ["a", ""]}, r"keys\[1\]"),
        ({"since": -1}, "since"),
        ({"until": 2**60}, "until"),
        ({"order": "newest"}, "order"),
        ({"limit": -1}, "limit"),
        ({"filter": {"$where": "1"}}, "where"),
        ({"filter": []}, "filter"),
        ({"aggregate": 1}, "aggregate"),
        ({"aggregate": {"path": "a..b"}}, "path"),
        ({"aggregate": {"path": "a'b"}}, "path"),
        ({"aggregate": {"window_ms": 0}}, "window_ms"),
        ({"aggregate": {"window_ms": "1"}}, "window_ms"),
        ({"aggregate": {"by_key": 1}}, "by_key"),
        *(
            ({"cursor": cursor}, "cursor")
            for cursor in ("", "-", "1", "1-", "-1-1", "1-1-1", "a-b", "1-1:k", "9" * 20 + "-1", "١-١")
        ),
        *(
            ({"aggregate": {"window_ms": 5}, "cursor": cursor}, "cursor")
            for cursor in ("", "1:", "1:k", "x", "1-1")
        ),
        *(({"aggregate": {"by_key": True}, "cursor": cursor}, "cursor") for cursor in ("", "1", ":k", "x:k")),
    ],
)
def test_queries_that_are_not_taken_are_named(body, named):
    with pytest.raises(InvalidRequestError, match=named):
        timeline_terms.parse_query(body)


@pytest.mark.parametrize("bound", [0, -1, 1.5, True, "1", 2**60])
@pytest.mark.parametrize("name", ["retention_s", "retention_rows"])
def test_retention_that_is_not_taken_is_named(name, bound):
    with pytest.raises(InvalidRequestError, match=name):
        parse_retention({name: bound})


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a.b", "é", "x" * 65, "a\n", "a\0"])
async def test_names_that_are_not_taken_are_refused_everywhere(profile, name):
    query = timeline_terms.parse_query({})
    for call in (
        timelines.append(profile, name, parse_rows({"key": "k"})),
        timelines.set_retention(profile, name, Retention(None, None)),
        timelines.delete(profile, name),
        timeline_queries.query(profile, name, query),
        timeline_queries.timeline(profile, name),
    ):
        with pytest.raises(InvalidRequestError, match="timeline"):
            await call
    assert profile.works == []


async def test_the_number_of_timelines_is_bounded(profile, append, monkeypatch):
    monkeypatch.setattr(timeline_store, "TIMELINES_LIMIT", 2)
    await append(row(), name="a")
    await append(row(), name="b")

    with pytest.raises(ConflictError, match="2 timelines"):
        await append(row(), name="c")
    await append(row(), name="a")
    await timelines.delete(profile, "b")
    await append(row(), name="c")


@pytest.mark.parametrize("body", [{}, {"retention": 5}])
def test_a_retention_that_names_no_bound_is_refused(body):
    with pytest.raises(InvalidRequestError, match="null keeps everything"):
        timelines.parse_retention(body)
