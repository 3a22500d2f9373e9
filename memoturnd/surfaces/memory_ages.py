"""Memories that a policy lets grow no older, or no more in number: found by a read, and removed as `forget` removes.

Events have an age from their first ingest on, superseded memories from when they were superseded. Of the superseded
memories of one type and topic the newest stay. Pinned ones are no exception: a policy binds whoever pins.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from memoturnd.core.policy import Rules
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.surfaces import memories
from memoturnd.surfaces.memories import Found

_FOUND: Final = ", ".join(Found._fields)
_OLD_EVENTS: Final = f"""SELECT {_FOUND} FROM __memoturn_memories INDEXED BY __memoturn_memories_created
 WHERE created_at <= ? AND type = 'event' ORDER BY created_at LIMIT ?"""
_OLD_SUPERSEDED: Final = f"""SELECT {_FOUND} FROM __memoturn_memories
 WHERE superseded_at <= ? ORDER BY superseded_at LIMIT ?"""
_TOO_MANY: Final = f"""SELECT {_FOUND} FROM __memoturn_memories WHERE rid IN (SELECT rid FROM (
 SELECT rid, row_number() OVER (PARTITION BY topic_key, type ORDER BY version DESC) AS place
 FROM __memoturn_memories INDEXED BY __memoturn_memories_versions
 WHERE topic_key IS NOT NULL AND superseded_at IS NOT NULL) WHERE place > ?) ORDER BY superseded_at LIMIT ?"""
_FIRST_EVENT: Final = """SELECT created_at FROM __memoturn_memories INDEXED BY __memoturn_memories_created
 WHERE type = 'event' ORDER BY created_at LIMIT 1"""
_FIRST_SUPERSEDED: Final = (
    "SELECT min(superseded_at) FROM __memoturn_memories WHERE superseded_at IS NOT NULL"
)


class Due(NamedTuple):
    """Whether something is to be removed now, and when the next memory is too old (unix ms), None where none will be."""

    now: bool
    next_ms: int | None


def read_due(conn: ProfileConnection, now_ms: int, rules: Rules) -> Due:
    """Return what there is to do."""
    now = any(conn.execute(sql, (*bindings, 1)).fetchone() for sql, bindings in _selections(now_ms, rules))
    times = []
    for max_age_s, first in (
        (rules.event_max_age_secs, _FIRST_EVENT),
        (rules.superseded_max_age_secs, _FIRST_SUPERSEDED),
    ):
        first_ms = None if max_age_s is None else conn.execute(first).get
        if max_age_s is not None and first_ms is not None:
            times.append(first_ms + 1000 * max_age_s)
    return Due(now, min(times, default=None))


def apply_sweep(conn: ProfileConnection, now_ms: int, rules: Rules, limit: int) -> tuple[int, bool]:
    """Remove up to `limit` memories; return how many went, and whether any did."""
    gone = 0
    for sql, bindings in _selections(now_ms, rules):
        rows: list[Any] = conn.execute(sql, (*bindings, limit - gone)).fetchall()
        for row in rows:
            memories.remove(conn, Found(*row))
        gone += len(rows)
        if gone >= limit:
            break
    return gone, gone > 0


def _selections(now_ms: int, rules: Rules) -> Iterator[tuple[str, tuple[Binding, ...]]]:
    """Yield the queries for what has to go; each takes a limit besides."""
    if rules.event_max_age_secs is not None:
        yield _OLD_EVENTS, (now_ms - 1000 * rules.event_max_age_secs,)
    if rules.superseded_max_age_secs is not None:
        yield _OLD_SUPERSEDED, (now_ms - 1000 * rules.superseded_max_age_secs,)
    if rules.superseded_max_count is not None:
        yield _TOO_MANY, (rules.superseded_max_count,)
