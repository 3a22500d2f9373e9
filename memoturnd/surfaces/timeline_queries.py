"""Reads of timelines: rows of a time window, and the list of timelines.

Rows of some keys are merged from one ordered stream for each key and part of its index, as far as they are
needed; rows of all keys are read as they lie. Nothing that is past retention is seen.
"""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any, Final

import apsw
import msgspec

from memoturnd.core import names
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import NotFoundError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces.timeline_store import Timeline, find, has_tables, listed
from memoturnd.surfaces.timeline_terms import END, PARTS, WINDOW, Place, Query, Scope
from memoturnd.surfaces.timeline_windows import read_windows

ANSWER_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""Bytes of `data` after which a page ends early; it has one row at least."""

_FIND_KEY = """SELECT id, coalesce(floor_at, 0), coalesce(floor_seq, 0) FROM __memoturn_timeline_keys
 WHERE timeline_id = ? AND key = ?"""
_OF_KEY = f"""SELECT i.at, i.seq, k.key, r.data FROM __memoturn_timeline_keys AS k
 CROSS JOIN {{part}} AS i ON i.key_id = k.id
 CROSS JOIN __memoturn_timeline_rows AS r ON r.timeline_id = ? AND r.at = i.at AND r.seq = i.seq
 WHERE k.id = ? AND {WINDOW.format(x="i")} AND ({{filter}}) ORDER BY i.at {{order}}, i.seq {{order}}"""
_OF_ALL = f"""SELECT r.at, r.seq, k.key, r.data FROM __memoturn_timeline_rows AS r
 CROSS JOIN __memoturn_timeline_keys AS k ON k.id = r.key_id
 WHERE r.timeline_id = ? AND {WINDOW.format(x="r")}
 AND (k.hidden = 0 OR (r.at, r.seq) >= (k.floor_at, k.floor_seq)) AND ({{filter}})
 ORDER BY r.at {{order}}, r.seq {{order}}"""
_UNSEEN_BY_AGE = """SELECT key_id, count(*) FROM __memoturn_timeline_rows
 WHERE timeline_id = ? AND at < ? GROUP BY key_id"""
_HIDDEN = "SELECT id, hidden FROM __memoturn_timeline_keys WHERE timeline_id = ? AND hidden > 0"
_ROWS_OF_KEY = "SELECT rows FROM __memoturn_timeline_keys WHERE id = ?"

# ---- rows


def read_query(conn: ProfileConnection, now_ms: int, name: str, query: Query) -> dict[str, Any]:
    """Return a page, `{rows, next_cursor}` or `{windows, next_cursor}`; a timeline that is not there has none."""
    timeline = find(conn, name)
    low: Place = (query.since, 0)
    high: Place = min((query.until, 0), END)
    if timeline is not None:
        low = max(low, (timeline.shown_from(now_ms), 0))
    scope = None if timeline is None else _scope(conn, timeline, query.keys)
    if query.aggregate is not None:
        return read_windows(conn, scope, query, query.aggregate, low, high)
    if scope is None:
        return {"rows": [], "next_cursor": None}
    if query.cursor is not None:
        at, seq = query.cursor
        low, high = (low, min(high, (at, seq))) if query.descending else (max(low, (at, seq + 1)), high)
    return _read_rows(conn, scope, query, low, high)


def _scope(conn: ProfileConnection, timeline: Timeline, keys: Sequence[str] | None) -> Scope | None:
    if keys is None:
        return Scope(timeline, None)
    found = [conn.execute(_FIND_KEY, (timeline.id, key)).fetchone() for key in keys]
    known = [(row[0], (row[1], row[2])) for row in found if row is not None]
    return Scope(timeline, known) if known else None


def _read_rows(
    conn: ProfileConnection, scope: Scope, query: Query, low: Place, high: Place
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
    conn: ProfileConnection, scope: Scope, query: Query, low: Place, high: Place
) -> Iterator[apsw.Cursor]:
    """Yield cursors over (at, seq, key, data), each in the query's order, that have every row once together."""
    condition, bindings = query.condition
    cached = query.filter is None
    timeline_id = scope.timeline.id
    if scope.keys is None:
        sql = _OF_ALL.format(order=query.order, filter=condition)
        yield conn.cursor().execute(sql, (timeline_id, *low, *high, *bindings), can_cache=cached)
        return
    for key_id, floor in scope.keys:
        for part in PARTS:
            sql = _OF_KEY.format(part=part, order=query.order, filter=condition)
            of_key = (timeline_id, key_id, *max(low, floor), *high, *bindings)
            yield conn.cursor().execute(sql, of_key, can_cache=cached)


def _merged(streams: Sequence[apsw.Cursor], *, descending: bool) -> Iterator[tuple[int, int, str, str]]:
    rows: Any = streams[0] if len(streams) == 1 else heapq.merge(*streams, reverse=descending)
    return iter(rows)


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
    bounds = (timeline.id, shown_from, 0, *END)
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
