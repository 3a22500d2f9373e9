"""What stands around the memories that a recall found: turns of the transcript, and memories of the session.

turns       those that a memory was drawn from, with TURNS more on each side; where it was not drawn from any,
            the turns of its session next to the time at which it was stored
memories    the MEMORIES before and after it in its session, in the order in which they came
"""

from collections.abc import Mapping
from typing import Any, Final

from memoturnd.engine.connection import ProfileConnection
from memoturnd.surfaces import transcripts

TURNS: Final = 2
MEMORIES: Final = 2
DRAWN_FROM_LIMIT: Final = 8
"""Most turns of those that a memory was drawn from that are shown: its first."""

_BESIDE: Final = """SELECT id, type, summary, created_at FROM __memoturn_memories
 WHERE session_id = ?1 AND (created_at, rid) {side} (?2, ?3) AND superseded_at IS NULL
 AND (expires_at IS NULL OR expires_at > ?4) ORDER BY created_at {order}, rid {order} LIMIT ?5"""
_BEFORE: Final = _BESIDE.format(side="<", order="DESC")
_AFTER: Final = _BESIDE.format(side=">", order="ASC")
_LAST_SEQ: Final = "SELECT max(seq) FROM __memoturn_messages WHERE session_id = ?"
_FIRST_FROM: Final = """SELECT seq, created_at FROM __memoturn_messages WHERE session_id = ? AND seq >= ?
 ORDER BY seq LIMIT 1"""


def add(conn: ProfileConnection, now_ms: int, shown: Mapping[int, dict[str, Any]]) -> None:
    """Give each memory, by row, its `context`: `{turns, memories}`."""
    for rid, memory in shown.items():
        memory["context"] = {"turns": _turns(conn, memory), "memories": _beside(conn, now_ms, rid, memory)}


def _beside(conn: ProfileConnection, now_ms: int, rid: int, memory: dict[str, Any]) -> list[dict[str, Any]]:
    session_id = memory["session_id"]
    if session_id is None:
        return []
    place = (session_id, memory["created_at"], rid, now_ms, MEMORIES)
    before: list[Any] = conn.execute(_BEFORE, place).fetchall()
    after: list[Any] = conn.execute(_AFTER, place).fetchall()
    names = ("id", "type", "summary", "created_at")
    return [dict(zip(names, row, strict=True)) for row in (*reversed(before), *after)]


def _turns(conn: ProfileConnection, memory: dict[str, Any]) -> list[dict[str, Any]]:
    origin = memory["source_turns"]
    if origin is not None:
        session_id, first = origin["session_id"], origin["from_seq"]
        drawn_from = min(origin["to_seq"] - first + 1, DRAWN_FROM_LIMIT)
        return [
            *transcripts.read_before(conn, session_id, first, TURNS),
            *transcripts.read_after(conn, session_id, first - 1, drawn_from + TURNS),
        ]
    session_id = memory["session_id"]
    if session_id is None:
        return []
    seq = _seq_after(conn, session_id, memory["created_at"])
    return [
        *transcripts.read_before(conn, session_id, seq, TURNS),
        *transcripts.read_after(conn, session_id, seq - 1, TURNS),
    ]


def _seq_after(conn: ProfileConnection, session_id: str, at_ms: int) -> int:
    """Return from which number on the turns of a session are newer than a time.

    Times grow with numbers, unless clients gave other times; then this is one of the places where they pass it.
    """
    low, high = 1, (conn.execute(_LAST_SEQ, (session_id,)).get or 0) + 1
    while low < high:
        middle = (low + high) // 2
        row: Any = conn.execute(_FIRST_FROM, (session_id, middle)).fetchone()
        if row is None or row[1] > at_ms:
            high = middle
        else:
            low = row[0] + 1
    return low
