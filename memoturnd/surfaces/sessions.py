"""Sessions of a profile: listed by their last activity, and ended with their tasks."""

from typing import Any

from memoturnd.core.durability import Durability
from memoturnd.engine.connection import ProfileConnection
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import memories, transcripts
from memoturnd.surfaces.memories import Found

_LIST = """SELECT id, created_at, last_active_at FROM __memoturn_memory_sessions
 ORDER BY last_active_at DESC, id LIMIT ?"""
_LIST_AFTER = """SELECT id, created_at, last_active_at FROM __memoturn_memory_sessions
 WHERE last_active_at <= ?1 AND (last_active_at < ?1 OR id > ?2) ORDER BY last_active_at DESC, id LIMIT ?3"""
_TASKS = f"""SELECT {", ".join(Found._fields)} FROM __memoturn_memories
 WHERE session_id = ? AND type = 'task'"""


def read_sessions(
    conn: ProfileConnection, limit: int, after: tuple[int, str] | None = None
) -> list[dict[str, Any]]:
    """Return up to `limit` sessions `{id, created_at, last_active_at}`, the most recently active first.

    Only those that come behind `after`, (last_active_at, id), where it is given.
    """
    rows = conn.execute(_LIST, (limit,)) if after is None else conn.execute(_LIST_AFTER, (*after, limit))
    return [{"id": id_, "created_at": created, "last_active_at": active} for id_, created, active in rows]


def apply_end_session(
    conn: ProfileConnection, now_ms: int, session_id: str, *, turns: bool = False
) -> tuple[None, bool]:
    """Remove a session and its tasks, with `turns` its transcript too; other memories stay."""
    del now_ms
    before = conn.total_changes()
    tasks: list[Any] = conn.execute(_TASKS, (session_id,)).fetchall()
    for task in tasks:
        memories.remove(conn, Found(*task))
    conn.execute("DELETE FROM __memoturn_memory_sessions WHERE id = ?", (session_id,))
    if conn.changes():
        conn.noted.deleted("memory", "sessions", session_id)
    if turns:
        transcripts.delete(conn, session_id)
    return None, conn.total_changes() > before


async def recent(
    profile: Profile, *, limit: int = 100, after: tuple[int, str] | None = None, min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """Return the sessions; see `read_sessions`."""
    return await profile.read(lambda conn, _: read_sessions(conn, limit, after), min_txid=min_txid)


async def end(
    profile: Profile, session_id: str, *, turns: bool = False, durability: Durability = Durability.LOCAL
) -> Written[None]:
    """End a session; see `apply_end_session`."""
    work = Work.HEAVY if turns else Work.POINT
    return await profile.write(
        lambda conn, now_ms: apply_end_session(conn, now_ms, session_id, turns=turns),
        durability=durability,
        work=work,
    )
