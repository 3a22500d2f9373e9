"""Reads of timelines: rows of a time window, aggregates per window, and the list of timelines.

A place is (`at`, `seq`); a window is the places from `low` to below `high`. Rows of some keys are merged from one
ordered stream for each key and part of its index, as far as they are needed; rows of all keys are read as
they lie. Aggregates are SQLite's, over a chunk of windows at a time. Nothing that is past retention is seen.
"""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, NamedTuple

import apsw
import msgspec

from memoturnd.core import filters, names, paths
from memoturnd.core.filters import Filter
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import fields
from memoturnd.surfaces.timelines import LAST_MS, MAX_SEQ, Timeline, find, has_tables, listed, parse_key

KEYS_LIMIT: Final = 100
LIMIT: Final = 1000
LIMIT_DEFAULT: Final = 100
ANSWER_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Bytes of `data` after which a page ends early; it has one row at least."""
_INLINE_LIMIT = 200
_INLINE_KEYS = 8
"""Queries without filter up to this size run on the event loop."""
_SPAN_MAX = 1 << 20
"""Windows of a chunk, at most."""
_INTEGERS: Final = range(-(2**63), 2**64)
"""Integers that an answer may hold; sums beyond them are doubles."""
_PLACE_DIGITS = 31
_SEQ_DIGITS = 16

_PARTS: Final = ("__memoturn_timeline_young", "__memoturn_timeline_index")
_WINDOW = "({x}.at, {x}.seq) >= (?, ?) AND ({x}.at, {x}.seq) < (?, ?)"
_FIND_KEY = """SELECT id, coalesce(floor_at, 0), coalesce(floor_seq, 0) FROM __memoturn_timeline_keys
 WHERE timeline_id = ? AND key = ?"""
_OF_KEY = f"""SELECT i.at, i.seq, k.key, r.data FROM __memoturn_timeline_keys AS k
 CROSS JOIN {{part}} AS i ON i.key_id = k.id
 CROSS JOIN __memoturn_timeline_rows AS r ON r.timeline_id = ? AND r.at = i.at AND r.seq = i.seq
 WHERE k.id = ? AND {_WINDOW.format(x="i")} AND ({{filter}}) ORDER BY i.at {{order}}, i.seq {{order}}"""
_OF_ALL = f"""SELECT r.at, r.seq, k.key, r.data FROM __memoturn_timeline_rows AS r
 CROSS JOIN __memoturn_timeline_keys AS k ON k.id = r.key_id
 WHERE r.timeline_id = ? AND {_WINDOW.format(x="r")}
 AND (k.hidden = 0 OR (r.at, r.seq) >= (k.floor_at, k.floor_seq)) AND ({{filter}})
 ORDER BY r.at {{order}}, r.seq {{order}}"""
_NEXT_OF_KEY = f"""SELECT at FROM {{part}} AS i WHERE key_id = ? AND {_WINDOW.format(x="i")}
 ORDER BY at {{order}} LIMIT 1"""
_NEXT_OF_ALL = f"""SELECT at FROM __memoturn_timeline_rows AS r WHERE timeline_id = ? AND {_WINDOW.format(x="r")}
 ORDER BY at {{order}} LIMIT 1"""
# The rows that an aggregate is over; those of some keys are looked up in both parts of the index.
_ALL = f"""SELECT r.at, r.seq, k.key, r.data FROM __memoturn_timeline_rows AS r
 CROSS JOIN __memoturn_timeline_keys AS k ON k.id = r.key_id
 WHERE r.timeline_id = ? AND {_WINDOW.format(x="r")}
 AND (k.hidden = 0 OR (r.at, r.seq) >= (k.floor_at, k.floor_seq)) AND ({{filter}})"""
_SOME = f"""SELECT i.at, i.seq, k.key, r.data FROM __memoturn_timeline_keys AS k
 CROSS JOIN {{part}} AS i ON i.key_id = k.id
 CROSS JOIN __memoturn_timeline_rows AS r ON r.timeline_id = ? AND r.at = i.at AND r.seq = i.seq
 WHERE k.id IN (SELECT value FROM json_each(?)) AND {_WINDOW.format(x="i")}
 AND (k.hidden = 0 OR (i.at, i.seq) >= (k.floor_at, k.floor_seq)) AND ({{filter}})"""
_GROUPED = """SELECT start, {key}, count(*), {numbers} FROM (
 SELECT {start} AS start, key, at, seq, {columns} FROM ({rows}))
 WHERE start <> ? OR key > ? GROUP BY start{by_key} ORDER BY start {order}{by_key} LIMIT ?"""
# Integers are added in halves of 32 bits, so that no sum overflows and each is exact. The last number comes with
# its place in front, as text of which the greatest is the newest.
_NUMBERS = """count(v), count(v) FILTER (WHERE typeof(v) = 'real'), sum(v) FILTER (WHERE typeof(v) = 'real'),
 sum(v >> 32) FILTER (WHERE typeof(v) = 'integer'), sum(v & 4294967295) FILTER (WHERE typeof(v) = 'integer'),
 min(v), max(v), max(printf('%015d%016d', at, seq) || text) FILTER (WHERE v IS NOT NULL)"""
_NUMBER_COLUMNS = """CASE WHEN json_type(data, {path}) IN ('integer', 'real') THEN data ->> {path} END AS v,
 data -> {path} AS text"""

_UNSEEN_BY_AGE = """SELECT key_id, count(*) FROM __memoturn_timeline_rows
 WHERE timeline_id = ? AND at < ? GROUP BY key_id"""
_HIDDEN = "SELECT id, hidden FROM __memoturn_timeline_keys WHERE timeline_id = ? AND hidden > 0"
_ROWS_OF_KEY = "SELECT rows FROM __memoturn_timeline_keys WHERE id = ?"

Place = tuple[int, int]
_END: Final[Place] = (LAST_MS + 1, 0)


class Aggregate(NamedTuple):
    """What is computed: of the numbers at `path` (SQL of a JSON path, None for counts only), per window and key."""

    path: str | None
    window_ms: int | None
    by_key: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A query, checked. `keys` is None for all; `since` is inclusive and `until` exclusive, both unix ms.

    Of rows, `cursor` is the place of the last one that was shown; of aggregates, `windows_cursor` is the start
    of the last window that was shown, and its key.
    """

    keys: tuple[str, ...] | None
    since: int
    until: int
    filter: Filter | None
    descending: bool
    limit: int
    cursor: Place | None
    windows_cursor: tuple[int, str] | None
    aggregate: Aggregate | None

    @property
    def work(self) -> Work:
        """Return what the query may cost: a handful of look-ups, or more."""
        if self.filter is not None and self.filter.slow:
            return Work.HEAVY
        few_keys = self.keys is None or len(self.keys) <= _INLINE_KEYS
        small = self.filter is None and self.aggregate is None and self.limit <= _INLINE_LIMIT and few_keys
        return Work.POINT if small else Work.SCAN

    @property
    def order(self) -> str:
        """Return the order by time as SQL has it."""
        return "DESC" if self.descending else "ASC"


class _Scope(NamedTuple):
    """Where a query looks: a timeline, and of some keys (None for all) the ids and the places they begin at."""

    timeline: Timeline
    keys: list[tuple[int, Place]] | None


# ---- what is sent


def parse_query(payload: Any) -> Query:
    """Return the query of `{key?, keys?, since?, until?, filter?, order?, limit?, cursor?, aggregate?}`.

    Raises InvalidRequestError.
    """
    body = fields.mapping(payload, "the body")
    order = fields.optional_text(body.get("order"), "order")
    if order not in (None, "asc", "desc"):
        raise InvalidRequestError(f"order is {order[:32]!a}: it takes `asc` or `desc`")
    aggregate = None if body.get("aggregate") is None else _parse_aggregate(body["aggregate"])
    cursor = fields.optional_text(body.get("cursor"), "cursor")
    found = body.get("filter")
    return Query(
        keys=_parse_keys(body),
        since=_time(body, "since", 0),
        until=_time(body, "until", LAST_MS + 1),
        filter=None if found is None else filters.compile_filter(found, doc="r.data", key="k.key"),
        descending=order != "asc",
        limit=max(1, fields.clamped(body.get("limit"), "limit", default=LIMIT_DEFAULT, limit=LIMIT)),
        cursor=_parse_place(cursor) if cursor is not None and aggregate is None else None,
        windows_cursor=None if cursor is None or aggregate is None else _parse_window(cursor, aggregate),
        aggregate=aggregate,
    )


def _time(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    return default if value is None else fields.count(value, name, limit=LAST_MS + 1)


def _parse_keys(body: dict[str, Any]) -> tuple[str, ...] | None:
    key, keys = body.get("key"), body.get("keys")
    if keys is None:
        return None if key is None else (parse_key(key, "key"),)
    if key is not None:
        raise InvalidRequestError("key and keys are both given: send one of them, or neither for all keys")
    listed = fields.array(keys, "keys")
    if not 1 <= len(listed) <= KEYS_LIMIT:
        raise InvalidRequestError(f"keys holds {len(listed)} keys: send 1 to {KEYS_LIMIT}, or none for all")
    return tuple(dict.fromkeys(parse_key(key, f"keys[{n}]") for n, key in enumerate(listed)))


def _parse_aggregate(value: Any) -> Aggregate:
    given = fields.mapping(value, "aggregate")
    path = fields.optional_text(given.get("path"), "aggregate.path")
    window_ms = given.get("window_ms")
    if window_ms is not None and fields.count(window_ms, "aggregate.window_ms", limit=LAST_MS) == 0:
        raise InvalidRequestError(
            f"aggregate.window_ms is 0: it takes 1 to {LAST_MS}, or null for one window"
        )
    if path is not None:
        path = paths.literal(paths.field_path(path, "aggregate")) if path else "'$'"
    return Aggregate(path, window_ms, fields.boolean(given, "by_key"))


def _parse_place(cursor: str) -> Place:
    at, _, seq = cursor.partition("-")
    return _digits(at, LAST_MS), _digits(seq, MAX_SEQ)


def _parse_window(cursor: str, aggregate: Aggregate) -> tuple[int, str]:
    start, colon, key = cursor.partition(":")
    if bool(colon) != aggregate.by_key:
        raise _bad_cursor()
    return _digits(start, LAST_MS), key


def _digits(text: str, limit: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _SEQ_DIGITS and int(text) <= limit:
        return int(text)
    raise _bad_cursor()


def _bad_cursor() -> InvalidRequestError:
    return InvalidRequestError(
        "cursor is none of this query: pass next_cursor on as it came, with the rest of the query as it was"
    )


# ---- rows


def read_query(conn: ProfileConnection, now_ms: int, name: str, query: Query) -> dict[str, Any]:
    """Return a page, `{rows, next_cursor}` or `{windows, next_cursor}`; a timeline that is not there has none."""
    timeline = find(conn, name)
    low: Place = (query.since, 0)
    high: Place = min((query.until, 0), _END)
    if timeline is not None:
        low = max(low, (timeline.shown_from(now_ms), 0))
    scope = None if timeline is None else _scope(conn, timeline, query.keys)
    if query.aggregate is not None:
        return _read_windows(conn, scope, query, query.aggregate, low, high)
    if scope is None:
        return {"rows": [], "next_cursor": None}
    if query.cursor is not None:
        at, seq = query.cursor
        low, high = (low, min(high, (at, seq))) if query.descending else (max(low, (at, seq + 1)), high)
    return _read_rows(conn, scope, query, low, high)


def _scope(conn: ProfileConnection, timeline: Timeline, keys: Sequence[str] | None) -> _Scope | None:
    if keys is None:
        return _Scope(timeline, None)
    found = [conn.execute(_FIND_KEY, (timeline.id, key)).fetchone() for key in keys]
    known = [(row[0], (row[1], row[2])) for row in found if row is not None]
    return _Scope(timeline, known) if known else None


def _read_rows(
    conn: ProfileConnection, scope: _Scope, query: Query, low: Place, high: Place
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    size_bytes = 0
    with ExitStack() as stack:
        streams = [stack.enter_context(closing(cursor)) for cursor in _streams(conn, scope, query, low, high)]
        for at, seq, key, data in _merged(streams, descending=query.descending):
            if len(rows) == query.limit or (rows and size_bytes + len(data) > ANSWER_LIMIT_BYTES):
                last = rows[-1]
                return {"rows": rows, "next_cursor": f"{last['at']}-{last['seq']}"}
            size_bytes += len(data)
            rows.append({"key": key, "at": at, "seq": seq, "data": msgspec.Raw(data.encode())})
    return {"rows": rows, "next_cursor": None}


def _streams(
    conn: ProfileConnection, scope: _Scope, query: Query, low: Place, high: Place
) -> Iterator[apsw.Cursor]:
    """Yield cursors over (at, seq, key, data), each in the query's order, that have every row once together."""
    condition, bindings = _condition(query.filter)
    cached = query.filter is None
    timeline_id = scope.timeline.id
    if scope.keys is None:
        sql = _OF_ALL.format(order=query.order, filter=condition)
        yield conn.cursor().execute(sql, (timeline_id, *low, *high, *bindings), can_cache=cached)
        return
    for key_id, floor in scope.keys:
        for part in _PARTS:
            sql = _OF_KEY.format(part=part, order=query.order, filter=condition)
            of_key = (timeline_id, key_id, *max(low, floor), *high, *bindings)
            yield conn.cursor().execute(sql, of_key, can_cache=cached)


def _merged(streams: Sequence[apsw.Cursor], *, descending: bool) -> Iterator[tuple[int, int, str, str]]:
    rows: Any = streams[0] if len(streams) == 1 else heapq.merge(*streams, reverse=descending)
    return iter(rows)


def _condition(found: Filter | None) -> tuple[str, tuple[Binding, ...]]:
    return ("TRUE", ()) if found is None else (found.sql, found.bindings)


# ---- aggregates


def _read_windows(
    conn: ProfileConnection, scope: _Scope | None, query: Query, aggregate: Aggregate, low: Place, high: Place
) -> dict[str, Any]:
    """Return a page of windows, a chunk of them at a time; windows without rows are left out."""
    whole = aggregate.window_ms is None and not aggregate.by_key
    if scope is None:
        groups = []
    elif aggregate.window_ms is None:
        groups = _grouped(conn, scope, query, aggregate, low, high, query.limit + 1)
    else:
        groups = _by_chunks(conn, scope, query, aggregate, aggregate.window_ms, low, high)
    if whole and not groups:
        groups = [(0, None, 0, 0, 0, None, None, None, None, None, None)]
    windows = [_window(group, aggregate) for group in groups[: query.limit]]
    cursor = None
    if len(groups) > query.limit:
        start, key = groups[query.limit - 1][:2]
        cursor = f"{start}:{key}" if aggregate.by_key else f"{start}"
    return {"windows": windows, "next_cursor": cursor}


def _by_chunks(
    conn: ProfileConnection,
    scope: _Scope,
    query: Query,
    aggregate: Aggregate,
    window_ms: int,
    low: Place,
    high: Place,
) -> list[Any]:
    """Aggregate as many windows as the page takes and one more, skipping times in which there is nothing.

    So a page costs about the rows that are in its windows, however many there are behind them.
    """
    if query.windows_cursor is not None:
        start = query.windows_cursor[0]
        # By key, the cursor's own window may have more keys.
        if query.descending:
            high = min(high, (start + window_ms if aggregate.by_key else start, 0))
        else:
            low = max(low, (start if aggregate.by_key else start + window_ms, 0))
    groups: list[Any] = []
    span = 1 if aggregate.by_key else query.limit + 1
    while len(groups) <= query.limit and low < high:
        at = _next_at(conn, scope, query.order, low, high)
        if at is None:
            break
        start = at - at % window_ms
        if query.descending:
            chunk = max(low, (start - (span - 1) * window_ms, 0)), high
            high = chunk[0]
        else:
            chunk = low, min(high, (start + span * window_ms, 0))
            low = chunk[1]
        groups += _grouped(conn, scope, query, aggregate, *chunk, query.limit + 1 - len(groups))
        span = min(2 * span, _SPAN_MAX)
    return groups


def _next_at(conn: ProfileConnection, scope: _Scope, order: str, low: Place, high: Place) -> int | None:
    """Return the time of the first row in a window, one that the filter leaves out included."""
    if scope.keys is None:
        times = [conn.execute(_NEXT_OF_ALL.format(order=order), (scope.timeline.id, *low, *high)).get]
    else:
        times = [
            conn.execute(_NEXT_OF_KEY.format(part=part, order=order), (key_id, *max(low, floor), *high)).get
            for key_id, floor in scope.keys
            for part in _PARTS
        ]
    there: list[int] = [at for at in times if at is not None]
    return (max if order == "DESC" else min)(there, default=None)


def _grouped(
    conn: ProfileConnection,
    scope: _Scope,
    query: Query,
    aggregate: Aggregate,
    low: Place,
    high: Place,
    limit: int,
) -> list[Any]:
    condition, of_filter = _condition(query.filter)
    bindings: list[Binding] = []
    if scope.keys is None:
        rows = _ALL.format(filter=condition)
        bindings += [scope.timeline.id, *low, *high, *of_filter]
    else:
        rows = " UNION ALL ".join(_SOME.format(part=part, filter=condition) for part in _PARTS)
        ids = msgspec.json.encode([key_id for key_id, _ in scope.keys]).decode()
        for _ in _PARTS:
            bindings += [scope.timeline.id, ids, *low, *high, *of_filter]
    cursor_start, cursor_key = -1, ""
    if aggregate.by_key and query.windows_cursor is not None:
        cursor_start, cursor_key = query.windows_cursor
    sql = _GROUPED.format(
        key="key" if aggregate.by_key else "NULL",
        by_key=", key" if aggregate.by_key else "",
        numbers="0" if aggregate.path is None else _NUMBERS,
        columns="0" if aggregate.path is None else _NUMBER_COLUMNS.format(path=aggregate.path),
        start="0" if aggregate.window_ms is None else "at - at % ?",
        rows=rows,
        order=query.order,
    )
    of_start = [] if aggregate.window_ms is None else [aggregate.window_ms]
    return conn.execute(
        sql, (*of_start, *bindings, cursor_start, cursor_key, limit), can_cache=False
    ).fetchall()


def _window(group: Any, aggregate: Aggregate) -> dict[str, Any]:
    start, key, count, numbers, *of_numbers = group
    window: dict[str, Any] = {"at": None if aggregate.window_ms is None else start}
    if aggregate.by_key:
        window["key"] = key
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


# ---- timelines


def read_timeline(conn: ProfileConnection, now_ms: int, name: str) -> dict[str, Any]:
    """Return what a timeline holds and keeps. Raises NotFoundError."""
    timeline = find(conn, name)
    if timeline is None:
        raise NotFoundError(f"no timeline {name!a} is here: it was never written, or was deleted")
    return _described(conn, now_ms, timeline)


def read_timelines(conn: ProfileConnection, now_ms: int, limit: int, after: str) -> list[dict[str, Any]]:
    """Return up to `limit` timelines behind the name `after`, by name."""
    if not has_tables(conn):
        return []
    return [_described(conn, now_ms, timeline) for timeline in listed(conn, after, limit)]


def _described(conn: ProfileConnection, now_ms: int, timeline: Timeline) -> dict[str, Any]:
    shown_from = timeline.shown_from(now_ms)
    aged: Any = conn.execute(_UNSEEN_BY_AGE, (timeline.id, shown_from)).fetchall() if shown_from else []
    unseen: dict[int, int] = dict(aged)
    for key_id, hidden in conn.execute(_HIDDEN, (timeline.id,)):
        unseen[key_id] = max(hidden, unseen.get(key_id, 0))
    keys_gone = sum(conn.execute(_ROWS_OF_KEY, (key_id,)).get == rows for key_id, rows in unseen.items())
    return {
        "name": timeline.name,
        "created_at": timeline.created_at,
        "rows": timeline.rows - sum(unseen.values()),
        "keys": timeline.keys - keys_gone,
        "oldest": _first_at(conn, timeline, shown_from, "ASC"),
        "newest": _first_at(conn, timeline, shown_from, "DESC"),
        "retention_s": timeline.retention_s,
        "retention_rows": timeline.retention_rows,
    }


def _first_at(conn: ProfileConnection, timeline: Timeline, shown_from: int, order: str) -> int | None:
    bounds = (timeline.id, shown_from, 0, *_END)
    with closing(conn.cursor().execute(_OF_ALL.format(order=order, filter="TRUE"), bounds)) as rows:
        row = rows.fetchone()
    return None if row is None else row[0]


# ---- what routes call


async def query(profile: Profile, name: str, asked: Query, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return a page of rows or windows; see `read_query`. Raises InvalidRequestError for a bad name."""
    names.timeline(name)
    return await profile.read(
        lambda conn, now_ms: read_query(conn, now_ms, name, asked), min_txid=min_txid, work=asked.work
    )


async def timeline(profile: Profile, name: str, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return what a timeline holds; see `read_timeline`. Raises InvalidRequestError for a bad name."""
    names.timeline(name)
    return await profile.read(
        lambda conn, now_ms: read_timeline(conn, now_ms, name), min_txid=min_txid, work=Work.SCAN
    )


async def timelines(
    profile: Profile, *, limit: int = 100, after: str = "", min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """Return timelines by name; see `read_timelines`."""
    return await profile.read(
        lambda conn, now_ms: read_timelines(conn, now_ms, limit, after), min_txid=min_txid, work=Work.SCAN
    )
