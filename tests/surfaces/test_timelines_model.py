"""Timelines against a plain Python model: whatever is appended, late or not, whatever retention takes away.

The bounds that only large timelines meet are set low, so that short histories meet them too.
"""

import json
import math
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from conftest import FakeProfile
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from memoturnd.surfaces import timeline_queries, timeline_store, timeline_terms, timeline_windows, timelines
from memoturnd.surfaces.timelines import Retention, parse_rows

LOW_BOUNDS = [
    (timelines, "YOUNG_LIMIT", 3),
    (timelines, "REMOVED_AT_LEAST", 1),
    (timelines, "REMOVED_BY_DELETE", 2),
    (timeline_store, "_PIECE", 2),
    (timeline_windows, "_SPAN_MAX", 4),
    (timeline_windows, "CHUNK_ROWS", 3),
]
FOREVER = Retention(None, None)
NAMES = ["t", "t", "t", "T"]
KEYS = ["a", "a", "é\n'\"", "a:b"]
LAST_SIGNED = 2**63 - 1

numbers = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([LAST_SIGNED, -(2**63), 2**62, 2**64 - 1, 2**53 + 1, -(2**32) - 1]),
    st.integers(-40, 40).map(lambda n: n / 4),
)
scalars = numbers | st.sampled_from([None, True, False, "", "7", "x"])
datas = (
    scalars | st.fixed_dictionaries({}, optional={"v": scalars, "w": scalars}) | st.lists(scalars, max_size=2)
)
# Times around now, so that equal ones and some past their age are common.
ages = st.sampled_from([None, 0, 0, 1, 1, 2, 999, 1000, 1001, 2500, 7000, -1, -3000, 10**9])
arrivals = st.lists(st.tuples(st.sampled_from(KEYS), ages, datas), min_size=1, max_size=12)
bounds = st.sampled_from([None, None, None, 1, 2, 4])
FILTERS: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda key, data: True),
    ({"_id": "a"}, lambda key, data: key == "a"),
    ({"v": {"$gte": 1}}, lambda key, data: above(data, 1)),
    ({"v": {"$exists": True}}, lambda key, data: isinstance(data, dict) and "v" in data),
    ({"$not": {"v": None}}, lambda key, data: isinstance(data, dict) and data.get("v") is not None),
]


def above(data: Any, least: int) -> bool:
    """What `$gte` is true for: numbers and booleans by value, and every string."""
    value = data.get("v") if isinstance(data, dict) else None
    return isinstance(value, str) or (value is not None and value >= least)


@dataclass
class Model:
    created_at: int
    next_seq: int = 1
    retention: Retention = FOREVER
    rows: list[tuple[int, int, str, Any]] = field(default_factory=list)

    def hold(self, now_ms: int) -> None:
        """Let everything go that is past retention."""
        seconds, most = self.retention
        rows = sorted(self.rows, key=lambda row: row[:2])
        if seconds is not None:
            rows = [row for row in rows if row[0] >= now_ms - 1000 * seconds]
        if most is not None:
            of_key = {key: [row[1] for row in rows if row[2] == key][-most:] for key in set(KEYS)}
            rows = [row for row in rows if row[1] in of_key[row[2]]]
        self.rows = rows


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


class TimelineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.bounds = pytest.MonkeyPatch()
        for module, name, value in LOW_BOUNDS:
            self.bounds.setattr(module, name, value)
        self.profile = FakeProfile()
        self.models: dict[str, Model] = {}

    def teardown(self) -> None:
        self.bounds.undo()
        self.profile.conn.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine that waits for nothing, as everything does here, and return what it was told."""
        try:
            work.send(None)
        except StopIteration as end:
            return end.value.value
        raise AssertionError("it waited")

    @property
    def now_ms(self) -> int:
        return self.profile.now_ms

    def model(self, name: str) -> Model:
        return self.models.setdefault(name, Model(self.now_ms))

    # ---- what changes

    @initialize(arrived=arrivals, later=arrivals)
    def begin(self, arrived: list[Any], later: list[Any]) -> None:
        for batch in (arrived, later):
            self.append("t", batch)
            self.profile.now_ms += 1

    @rule(name=st.sampled_from(NAMES), arrived=arrivals)
    def append(self, name: str, arrived: list[tuple[str, int | None, Any]]) -> None:
        sent = [
            {"key": key, "at": None if age is None else max(0, self.now_ms - age), "data": data}
            for key, age, data in arrived
        ]
        model = self.model(name)
        first = model.next_seq
        for row in sent:
            at = self.now_ms if row["at"] is None else row["at"]
            model.rows.append((at, model.next_seq, row["key"], row["data"]))
            model.next_seq += 1
        model.hold(self.now_ms)
        kept = sum(seq >= first for _, seq, _, _ in model.rows)

        told = self.run(timelines.append(self.profile, name, parse_rows({"rows": sent})))

        assert told == {
            "appended": kept,
            "expired": len(sent) - kept,
            "first_seq": first,
            "last_seq": model.next_seq - 1,
        }

    @rule(name=st.sampled_from(NAMES), settings=st.lists(st.tuples(bounds, bounds), min_size=1, max_size=3))
    def set_retention(self, name: str, settings: list[tuple[int | None, int | None]]) -> None:
        for seconds, most in settings:
            self.set_one_retention(name, seconds, most)

    def set_one_retention(self, name: str, seconds: int | None, most: int | None) -> None:
        model = self.model(name)
        model.hold(self.now_ms)
        model.retention = Retention(seconds, most)
        model.hold(self.now_ms)

        told = self.run(timelines.set_retention(self.profile, name, model.retention))

        assert told == {
            "name": name,
            "created_at": model.created_at,
            "retention_s": seconds,
            "retention_rows": most,
        }

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        before = self.profile.txid
        self.run(timelines.delete(self.profile, name))
        assert (self.profile.txid > before) == (self.models.pop(name, None) is not None)

    @rule(limit=st.integers(1, 6))
    def sweep(self, limit: int) -> None:
        removed = self.run(self.profile.write(lambda conn, now_ms: timelines.sweep(conn, now_ms, limit)))
        assert 0 <= removed <= limit

    @rule()
    def sweep_to_the_end(self) -> None:
        while self.run(self.profile.write(lambda conn, now_ms: timelines.sweep(conn, now_ms, 1000))):
            pass
        for model in self.models.values():
            model.hold(self.now_ms)
        has_tables = timelines.has_tables(self.profile.conn)
        stored = self.profile.count("__memoturn_timeline_rows") if has_tables else 0
        assert stored == sum(len(model.rows) for model in self.models.values())

    @rule(ms=st.sampled_from([1, 999, 1000, 2000]))
    def time_passes(self, ms: int) -> None:
        self.profile.now_ms += ms
        for model in self.models.values():
            model.hold(self.now_ms)

    # ---- what is seen

    def pages(self, name: str, what: str, **body: Any) -> list[dict[str, Any]]:
        """Everything that a query answers, page by page."""
        found: list[dict[str, Any]] = []
        for _ in range(1000):
            query = timeline_terms.parse_query(body)
            page = plain(self.run(timeline_queries.query(self.profile, name, query)))
            assert len(page[what]) <= body["limit"]
            found += page[what]
            if page["next_cursor"] is None:
                return found
            assert len(page[what]) == body["limit"]
            body["cursor"] = page["next_cursor"]
        raise AssertionError("the pages do not end")

    def selected(
        self, name: str, keys: list[str] | None, since: int | None, until: int | None, chosen: int
    ) -> Any:
        rows = self.models[name].rows if name in self.models else []
        return [
            row
            for row in rows
            if (keys is None or row[2] in keys)
            and (since is None or row[0] >= since)
            and (until is None or row[0] < until)
            and FILTERS[chosen][1](row[2], row[3])
        ]

    def selection(
        self, keys: list[str] | None, since: int | None, until: int | None, chosen: int
    ) -> dict[str, Any]:
        body: dict[str, Any] = {"since": since, "until": until, "filter": FILTERS[chosen][0]}
        if keys is not None:
            body["keys"] = keys
        return body

    edges = st.sampled_from([None] * 6 + [1_001_000 - age for age in (0, 1, 2, 1000, 5000, -1)])
    choices = st.sampled_from([0] * 5 + list(range(1, len(FILTERS))))
    limits = st.integers(1, 3)
    keys = st.none() | st.lists(st.sampled_from([*KEYS, "nobody"]), min_size=1, max_size=4)

    @rule(
        name=st.sampled_from(NAMES),
        keys=keys,
        since=edges,
        until=edges,
        chosen=choices,
        order=st.sampled_from(["asc", "desc"]),
        limit=limits,
    )
    def read_rows(
        self,
        name: str,
        keys: list[str] | None,
        since: int | None,
        until: int | None,
        chosen: int,
        order: str,
        limit: int,
    ) -> None:
        expected = [
            {"key": key, "at": at, "seq": seq, "data": data}
            for at, seq, key, data in self.selected(name, keys, since, until, chosen)
        ]
        if order == "desc":
            expected.reverse()

        found = self.pages(
            name, "rows", **self.selection(keys, since, until, chosen), order=order, limit=limit
        )

        assert found == expected

    @rule(
        name=st.sampled_from(NAMES),
        keys=keys,
        since=edges,
        until=edges,
        chosen=choices,
        order=st.sampled_from(["asc", "desc"]),
        limit=limits,
        window_ms=st.none() | st.sampled_from([1, 1, 2, 7, 1000]),
        by_key=st.booleans(),
        path=st.sampled_from(["", "v", None]),
    )
    def read_windows(
        self,
        name: str,
        keys: list[str] | None,
        since: int | None,
        until: int | None,
        chosen: int,
        order: str,
        limit: int,
        window_ms: int | None,
        by_key: bool,
        path: str | None,
    ) -> None:
        groups: dict[tuple[int, str], list[Any]] = {}
        if window_ms is None and not by_key:
            groups[0, ""] = []
        for at, _, key, data in self.selected(name, keys, since, until, chosen):
            start = 0 if window_ms is None else at - at % window_ms
            groups.setdefault((start, key if by_key else ""), []).append(data)
        ordered = sorted(groups, key=lambda group: group[1].encode())
        ordered.sort(key=lambda group: group[0], reverse=order == "desc")

        found = self.pages(
            name,
            "windows",
            **self.selection(keys, since, until, chosen),
            order=order,
            limit=limit,
            aggregate={"path": path, "window_ms": window_ms, "by_key": by_key},
        )

        assert [(w["at"] or 0, w.get("key", "")) for w in found] == ordered
        for group, window in zip(ordered, found, strict=True):
            assert window["count"] == len(groups[group])
            assert ("numbers" in window) == (path is not None)
            if path is not None:
                check_numbers(groups[group], path, window)

    @rule(limit=st.integers(1, 3))
    def list_timelines(self, limit: int) -> None:
        found, after = [], ""
        while page := plain(self.run(timeline_queries.timelines(self.profile, limit=limit, after=after))):
            found += page
            after = page[-1]["name"]
        assert found == [
            {
                "name": name,
                "created_at": model.created_at,
                "rows": len(model.rows),
                "keys": len({row[2] for row in model.rows}),
                "oldest": model.rows[0][0] if model.rows else None,
                "newest": model.rows[-1][0] if model.rows else None,
                "retention_s": model.retention.seconds,
                "retention_rows": model.retention.rows,
            }
            for name, model in sorted(self.models.items())
        ]

    # ---- what is stored

    @invariant()
    def what_is_shown_is_the_models(self) -> None:
        query = timeline_terms.parse_query({"order": "asc", "limit": 1000})
        for name in self.models:
            page = self.run(timeline_queries.query(self.profile, name, query))
            shown = [(row["at"], row["seq"], row["key"]) for row in page["rows"]]
            assert shown == [row[:3] for row in self.models[name].rows]

    @invariant()
    def index_and_counts_fit_the_rows(self) -> None:
        if self.profile.conn.table_exists("main", "__memoturn_timelines"):
            check_stored(self.profile.conn)


def check_numbers(datas: list[Any], path: str, window: dict[str, Any]) -> None:
    values = [data if path == "" else data.get(path) if isinstance(data, dict) else None for data in datas]
    found = [value for value in values if type(value) in (int, float)]
    assert window["numbers"] == len(found)
    if not found:
        assert [window[name] for name in ("sum", "min", "max", "average", "last")] == [None] * 5
        return
    seen = [float(value) if value > LAST_SIGNED else value for value in found]
    assert (window["min"], window["max"]) == (min(seen), max(seen))
    assert (window["last"], type(window["last"])) == (found[-1], type(found[-1]))
    if all(type(value) is int for value in seen):
        assert window["average"] == sum(seen) / len(seen)
        total = sum(seen)
        assert window["sum"] == (total if -(2**63) <= total < 2**64 else float(total))
        assert type(window["sum"]) is (int if -(2**63) <= total < 2**64 else float)
    else:
        largest = max(map(abs, seen))
        assert math.isclose(window["sum"], math.fsum(seen), abs_tol=largest * 1e-12)
        assert math.isclose(window["average"], math.fsum(seen) / len(seen), abs_tol=largest * 1e-12)


def check_stored(conn: Any) -> None:
    def rows(sql: str) -> list[Any]:
        return conn.execute(sql, can_cache=False).fetchall()

    by_row = rows("SELECT key_id, at, seq FROM __memoturn_timeline_rows ORDER BY 1, 2, 3")
    young = rows("SELECT key_id, at, seq FROM __memoturn_timeline_young")
    large = rows("SELECT key_id, at, seq FROM __memoturn_timeline_index")
    assert sorted(young + large) == by_row
    for key_id, count, of_young, hidden, floor_at, floor_seq in rows(
        "SELECT id, rows, young, hidden, floor_at, floor_seq FROM __memoturn_timeline_keys"
    ):
        places = [row[1:] for row in by_row if row[0] == key_id]
        assert count == len(places) > 0
        assert of_young == sum(row[0] == key_id for row in young)
        assert hidden == sum(place < (floor_at or 0, floor_seq or 0) for place in places)
        assert (floor_at is None) == (floor_seq is None) == (hidden == 0)
    assert {row[0] for row in by_row} == {row[0] for row in rows("SELECT id FROM __memoturn_timeline_keys")}
    for timeline_id, count, keys in rows("SELECT id, rows, keys FROM __memoturn_timelines"):
        of_timeline = rows(f"SELECT key_id FROM __memoturn_timeline_rows WHERE timeline_id = {timeline_id}")
        assert (count, keys) == (len(of_timeline), len(set(of_timeline)))


# A failure is not made smaller, which took minutes.
TimelineMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None, phases=(Phase.explicit, Phase.generate)
)
TestTimelinesAgainstTheModel = TimelineMachine.TestCase
