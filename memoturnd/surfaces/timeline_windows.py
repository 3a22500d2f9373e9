"""Aggregates of a timeline's rows per window: count, sum, least, greatest, average and last number.

They are SQLite's. A chunk of windows is aggregated at a time, of so few rows that sorting them takes little memory;
a single window of more rows is not sorted, nor is a key. So a page costs about the rows of its windows.
"""

from collections.abc import Iterator
from contextlib import closing
from math import isfinite
from typing import Any, Final, NamedTuple

import msgspec

from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.surfaces.timeline_terms import PARTS, WINDOW, Aggregate, Place, Query, Scope

CHUNK_ROWS: Final = 20_000
_SPAN_MAX = 1 << 20
"""Windows of a chunk, at most."""
_INTEGERS: Final = range(-(2**63), 2**64)
"""Integers that an answer may hold; sums beyond them are doubles."""
_PLACE_DIGITS = 31

_NEXT_OF_KEY = f"""SELECT at FROM {{part}} AS i WHERE key_id = ? AND {WINDOW.format(x="i")}
 ORDER BY at {{order}} LIMIT 1"""
_NEXT_OF_ALL = f"""SELECT at FROM __memoturn_timeline_rows AS r WHERE timeline_id = ? AND {WINDOW.format(x="r")}
 ORDER BY at {{order}} LIMIT 1"""
_COUNT_OF_KEY = f"""SELECT count(*) FROM
 (SELECT 1 FROM {{part}} AS i WHERE key_id = ? AND {WINDOW.format(x="i")} LIMIT ?)"""
_COUNT_OF_ALL = f"""SELECT count(*) FROM
 (SELECT 1 FROM __memoturn_timeline_rows AS r WHERE timeline_id = ? AND {WINDOW.format(x="r")} LIMIT ?)"""
_KEYS = """SELECT key, id, coalesce(floor_at, 0), coalesce(floor_seq, 0) FROM __memoturn_timeline_keys
 WHERE timeline_id = ? AND key > ? ORDER BY key"""
_SOME_KEYS = """SELECT key, id, coalesce(floor_at, 0), coalesce(floor_seq, 0) FROM __memoturn_timeline_keys
 WHERE id IN (SELECT value FROM json_each(?)) AND key > ? ORDER BY key"""
# The rows that an aggregate is over; those of some keys are looked up in both parts of the index.
_ALL = f"""SELECT r.at, r.seq, k.key, r.data FROM __memoturn_timeline_rows AS r
 CROSS JOIN __memoturn_timeline_keys AS k ON k.id = r.key_id
 WHERE r.timeline_id = ? AND {WINDOW.format(x="r")}
 AND (k.hidden = 0 OR (r.at, r.seq) >= (k.floor_at, k.floor_seq)) AND ({{filter}})"""
_SOME = f"""SELECT i.at, i.seq, k.key, r.data FROM __memoturn_timeline_keys AS k
 CROSS JOIN {{part}} AS i ON i.key_id = k.id
 CROSS JOIN __memoturn_timeline_rows AS r ON r.timeline_id = ? AND r.at = i.at AND r.seq = i.seq
 WHERE k.id IN (SELECT value FROM json_each(?)) AND {WINDOW.format(x="i")}
 AND (k.hidden = 0 OR (i.at, i.seq) >= (k.floor_at, k.floor_seq)) AND ({{filter}})"""
# With a limit, each number is extracted once and not anew for each aggregate of it.
_ALONE = "SELECT count(*), {numbers} FROM (SELECT at, seq, {columns} FROM ({rows}) LIMIT -1)"
_GROUPED = """SELECT start, {key}, count(*), {numbers} FROM (
 SELECT at - at % ? AS start, key, at, seq, {columns} FROM ({rows}) LIMIT -1)
 WHERE start <> ? OR key > ? GROUP BY start{by_key} ORDER BY start {order}{by_key} LIMIT ?"""
# Integers are added in halves of 32 bits, so that no sum overflows and each is exact. The last number comes with
# its place in front, as text of which the greatest is the newest.
_NUMBERS = """count(v), count(v) FILTER (WHERE typeof(v) = 'real'), sum(v) FILTER (WHERE typeof(v) = 'real'),
 sum(v >> 32) FILTER (WHERE typeof(v) = 'integer'), sum(v & 4294967295) FILTER (WHERE typeof(v) = 'integer'),
 min(v), max(v), max(printf('%015d%016d', at, seq) || text) FILTER (WHERE v IS NOT NULL)"""
_NUMBER_COLUMNS = """CASE WHEN json_type(data, {path}) IN ('integer', 'real') THEN data ->> {path} END AS v,
 data -> {path} AS text"""


class Group(NamedTuple):
    """A window's start, its key (None for all), and the aggregates as SQL gives them: count, then those of numbers."""

    start: int
    key: str | None
    values: tuple[Any, ...]


def read_windows(
    conn: ProfileConnection, scope: Scope | None, query: Query, aggregate: Aggregate, low: Place, high: Place
) -> dict[str, Any]:
    """Return a page of windows, `{windows, next_cursor}`; those without rows are left out."""
    groups = [] if scope is None else _Reader(conn, scope, query, aggregate).groups(low, high)
    if aggregate.window_ms is None and not aggregate.by_key and not groups:
        groups = [Group(0, None, (0, 0, 0, *[None] * 6))]
    windows = [_window(group, aggregate) for group in groups[: query.limit]]
    cursor = None
    if len(groups) > query.limit:
        last = groups[query.limit - 1]
        cursor = f"{last.start}:{last.key}" if aggregate.by_key else f"{last.start}"
    return {"windows": windows, "next_cursor": cursor}


class _Reader:
    """Collects the groups of a page, and one more where there are more."""

    def __init__(self, conn: ProfileConnection, scope: Scope, query: Query, aggregate: Aggregate) -> None:
        self._conn = conn
        self._scope = scope
        self._query = query
        self._by_key = aggregate.by_key
        self._window_ms = aggregate.window_ms
        self._numbers = "0" if aggregate.path is None else _NUMBERS
        self._columns = "0" if aggregate.path is None else _NUMBER_COLUMNS.format(path=aggregate.path)
        self._most = query.limit + 1
        self._after = query.windows_cursor if query.windows_cursor is not None and self._by_key else (-1, "")

    def groups(self, low: Place, high: Place) -> list[Group]:
        """Return the groups behind the query's cursor."""
        if self._window_ms is None:
            return self._whole(0, low, high, self._most)
        if self._query.windows_cursor is not None:
            start = self._query.windows_cursor[0]
            # By key, the cursor's own window may have more keys.
            if self._query.descending:
                high = min(high, (start + self._window_ms if self._by_key else start, 0))
            else:
                low = max(low, (start if self._by_key else start + self._window_ms, 0))
        return self._by_chunks(self._window_ms, low, high)

    def _by_chunks(self, window_ms: int, low: Place, high: Place) -> list[Group]:
        """Aggregate chunks of windows until there are enough, skipping times in which there is nothing."""
        groups: list[Group] = []
        descending, span = self._query.descending, self._most
        while len(groups) < self._most and low < high:
            self._conn.between_statements()
            at = self._next_at(low, high)
            if at is None:
                break
            start = at - at % window_ms
            while True:
                if descending:
                    chunk = max(low, (start - (span - 1) * window_ms, 0)), high
                else:
                    chunk = low, min(high, (start + span * window_ms, 0))
                is_small = self._has_at_most(CHUNK_ROWS, *chunk)
                if is_small or span == 1:
                    break
                span //= 2
            wanted = self._most - len(groups)
            if is_small:
                groups += self._grouped(window_ms, *chunk, wanted)
            else:
                groups += self._whole(start, *chunk, wanted)
            low, high = (low, chunk[0]) if descending else (chunk[1], high)
            span = min(2 * span, _SPAN_MAX)
        return groups

    def _next_at(self, low: Place, high: Place) -> int | None:
        """Return the time of the first row in a window, one that the filter leaves out included."""
        order = self._query.order
        times = [
            self._conn.execute(sql.format(order=order), bindings).get
            for sql, bindings in self._parts(_NEXT_OF_ALL, _NEXT_OF_KEY, low, high)
        ]
        there: list[int] = [at for at in times if at is not None]
        return (max if self._query.descending else min)(there, default=None)

    def _has_at_most(self, count: int, low: Place, high: Place) -> bool:
        """Return whether a window has so few rows, those that the filter leaves out included."""
        left = count
        for sql, bindings in self._parts(_COUNT_OF_ALL, _COUNT_OF_KEY, low, high):
            found: int = self._conn.execute(sql, (*bindings, left + 1)).get
            left -= found
            if left < 0:
                return False
        return True

    def _parts(
        self, of_all: str, of_key: str, low: Place, high: Place
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the statements, with bindings, that look at a window of everything in scope."""
        if self._scope.keys is None:
            yield of_all, (self._scope.timeline.id, *low, *high)
            return
        for key_id, floor in self._scope.keys:
            for part in PARTS:
                yield of_key.replace("{part}", part), (key_id, *max(low, floor), *high)

    # ---- one window

    def _whole(self, start: int, low: Place, high: Place, wanted: int) -> list[Group]:
        """Aggregate one window; by key, one key after the other."""
        if not self._by_key:
            values = self._alone(self._scope, low, high)
            return [Group(start, None, values)] if values[0] else []
        groups: list[Group] = []
        after = self._after[1] if self._after[0] == start else ""
        for key, scope in self._keys(after):
            self._conn.between_statements()
            values = self._alone(scope, low, high)
            if values[0]:
                groups.append(Group(start, key, values))
                if len(groups) == wanted:
                    break
        return groups

    def _keys(self, after: str) -> Iterator[tuple[str, Scope]]:
        """Yield the keys in scope behind `after`, each with the scope of it alone."""
        timeline = self._scope.timeline
        if self._scope.keys is None:
            cursor = self._conn.cursor().execute(_KEYS, (timeline.id, after))
        else:
            cursor = self._conn.cursor().execute(_SOME_KEYS, (self._ids(self._scope), after))
        with closing(cursor):
            rows: Iterator[Any] = cursor
            for key, key_id, floor_at, floor_seq in rows:
                yield key, Scope(timeline, [(key_id, (floor_at, floor_seq))])

    def _alone(self, scope: Scope, low: Place, high: Place) -> tuple[Any, ...]:
        rows, bindings = self._rows(scope, low, high)
        sql = _ALONE.format(numbers=self._numbers, columns=self._columns, rows=rows)
        values: Any = self._conn.execute(sql, bindings).fetchone()
        return tuple(values)

    # ---- windows together

    def _grouped(self, window_ms: int, low: Place, high: Place, wanted: int) -> list[Group]:
        rows, bindings = self._rows(self._scope, low, high)
        sql = _GROUPED.format(
            key="key" if self._by_key else "NULL",
            by_key=", key" if self._by_key else "",
            numbers=self._numbers,
            columns=self._columns,
            rows=rows,
            order=self._query.order,
        )
        found: list[Any] = self._conn.execute(sql, (window_ms, *bindings, *self._after, wanted)).fetchall()
        return [Group(start, key, tuple(values)) for start, key, *values in found]

    def _rows(self, scope: Scope, low: Place, high: Place) -> tuple[str, tuple[Binding, ...]]:
        """Return the SQL of the rows in a window, and its bindings."""
        condition, of_filter = self._query.condition
        timeline_id = scope.timeline.id
        if scope.keys is None:
            return _ALL.format(filter=condition), (timeline_id, *low, *high, *of_filter)
        sql = " UNION ALL ".join(_SOME.format(part=part, filter=condition) for part in PARTS)
        return sql, len(PARTS) * (timeline_id, self._ids(scope), *low, *high, *of_filter)

    @staticmethod
    def _ids(scope: Scope) -> str:
        return msgspec.json.encode([key_id for key_id, _ in scope.keys or ()]).decode()


def _window(group: Group, aggregate: Aggregate) -> dict[str, Any]:
    count, numbers, *of_numbers = group.values
    window: dict[str, Any] = {"at": None if aggregate.window_ms is None else group.start}
    if aggregate.by_key:
        window["key"] = group.key
    window["count"] = count
    if aggregate.path is not None:
        window["numbers"] = numbers
        window |= _of_numbers(numbers, *of_numbers)
    return window


def _of_numbers(
    count: int,
    reals: int,
    sum_of_reals: float | None,
    high: int | None,
    low: int | None,
    least: float | None,
    greatest: float | None,
    last: str | None,
) -> dict[str, Any]:
    integers = ((high or 0) << 32) + (low or 0)
    total: int | float | None = None
    average: float | None = None
    if reals:
        # SQLite has null for a sum of doubles that is not finite on the way.
        total = None if sum_of_reals is None else _finite(integers + sum_of_reals)
        average = None if total is None else total / count
    elif count:
        total = integers if integers in _INTEGERS else float(integers)
        average = integers / count
    return {
        "sum": total,
        "min": least,
        "max": greatest,
        "average": average,
        "last": None if last is None else msgspec.Raw(last[_PLACE_DIGITS:].encode()),
    }


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None
