"""Topics: what a profile holds under a topic key, every version of it, and the way back from a correction.

The memories of one type under one topic key are its versions. `version` counts how often one of them became the
active one, so a memory that was brought back has a new number, and the active one the highest. History is read
by that number and never by following links, so it has an end whatever the links say.
"""

from dataclasses import dataclass
from typing import Any, Final, cast

from memoturnd.core import cursors
from memoturnd.core.durability import Durability
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import ConflictError, InvalidRequestError, NotFoundError, invariant
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields, memories, records
from memoturnd.surfaces.memory_list import LIST_LIMIT, PAGE_LIMIT_BYTES

_TOPICAL: Final = ("fact", "instruction")
_LIVE = "(expires_at IS NULL OR expires_at > ?)"
_VERSIONS = f"""SELECT {records.COLUMNS} FROM __memoturn_memories INDEXED BY __memoturn_memories_versions
 WHERE topic_key = ? AND type = ? AND version < ? AND {_LIVE} ORDER BY version DESC LIMIT ?"""
_SUMS = """count(*), max(version), max(max(created_at, coalesce(updated_at, 0), coalesce(superseded_at, 0))),
 max(CASE WHEN superseded_at IS NULL THEN id END), max(superseded_at IS NULL AND pinned)"""
_SUMMED = f"""SELECT {_SUMS} FROM __memoturn_memories INDEXED BY __memoturn_memories_versions
 WHERE topic_key = ? AND type = ? AND {_LIVE}"""
_TOPICS = f"""SELECT topic_key, type, {_SUMS} FROM __memoturn_memories INDEXED BY __memoturn_memories_versions
 WHERE topic_key IS NOT NULL AND (topic_key, type) > (?, ?) AND {_LIVE}
 GROUP BY topic_key, type ORDER BY topic_key, type"""
_PREDECESSOR = """SELECT rid, id FROM __memoturn_memories INDEXED BY __memoturn_memories_versions
 WHERE topic_key = ? AND type = ? AND superseded_by = ? AND (expires_at IS NULL OR expires_at > ?)
 ORDER BY version DESC LIMIT 1"""
_BRING_BACK = """UPDATE __memoturn_memories SET superseded_by = NULL, superseded_at = NULL, undone_at = NULL,
 updated_at = ?, version = ?, reason = coalesce(?, reason) WHERE rid = ?"""
_SET_ASIDE = (
    "UPDATE __memoturn_memories SET superseded_by = ?1, superseded_at = ?2, undone_at = ?2 WHERE rid = ?3"
)


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a listing to read: up to `limit` rows behind `cursor`."""

    limit: int = LIST_LIMIT
    cursor: str | None = None


# ---- history


def read_history(conn: ProfileConnection, now_ms: int, memory_id: str, page: Page) -> dict[str, Any]:
    """Return every version of what a memory says; one without a topic has itself alone. Raises NotFoundError."""
    row = conn.execute(
        f"SELECT {records.COLUMNS} FROM __memoturn_memories WHERE id = ? AND {_LIVE}", (memory_id, now_ms)
    ).fetchone()
    if row is None:
        raise memories.no_memory(memory_id)
    memory = records.shown(conn, row)
    if memory["topic_key"] is not None:
        chain = _chain(conn, now_ms, memory["topic_key"], memory["type"], page)
        invariant(chain is not None, "a memory is among the versions of its topic", id=memory_id)
        return cast("dict[str, Any]", chain)
    return {
        **_head(
            None, memory["type"], (1, memory["version"], memory["updated_at"], memory_id, memory["pinned"])
        ),
        "versions": [_version(memory)],
        "next_cursor": None,
    }


def read_topic(
    conn: ProfileConnection, now_ms: int, topic_key: str, type_: str | None, page: Page
) -> dict[str, Any]:
    """Return `{topic_key, chains}`: every version under the key, of one type or of each. Raises NotFoundError."""
    if page.cursor is not None and type_ is None:
        raise InvalidRequestError(
            "cursor takes a type with it: each type's versions are listed by themselves"
        )
    types = _TOPICAL if type_ is None else (type_,)
    chains = [chain for name in types if (chain := _chain(conn, now_ms, topic_key, name, page)) is not None]
    if not chains:
        raise NotFoundError(
            f"no memory has the topic {topic_key[:64]!a}: none was stored under it, or all were forgotten"
        )
    return {"topic_key": topic_key, "chains": chains}


def _chain(
    conn: ProfileConnection, now_ms: int, topic_key: str, type_: str, page: Page
) -> dict[str, Any] | None:
    """Return the versions of a topic, the newest first, None when there are none."""
    sums: Any = conn.execute(_SUMMED, (topic_key, type_, now_ms)).fetchone()
    if not sums[0]:
        return None
    listing = ["versions", topic_key, type_]
    below: int = sums[1] + 1 if page.cursor is None else cursors.read(page.cursor, listing, cursors.Integer)
    versions: list[dict[str, Any]] = []
    size_bytes = 0
    cursor = None
    for row in conn.execute(_VERSIONS, (topic_key, type_, below, now_ms, page.limit + 1)):
        if versions and (len(versions) == page.limit or size_bytes >= PAGE_LIMIT_BYTES):
            cursor = cursors.make(listing, versions[-1]["version"])
            break
        memory = records.shown(conn, row)
        versions.append(_version(memory))
        size_bytes += records.size_bytes(memory)
    return {**_head(topic_key, type_, sums), "versions": versions, "next_cursor": cursor}


def _head(topic_key: str | None, type_: str, sums: tuple[int, int, int, str | None, int]) -> dict[str, Any]:
    count, version, last_updated, active, pinned = sums
    return {
        "topic_key": topic_key,
        "type": type_,
        "active": active,
        "version": version,
        "count": count,
        "last_updated": last_updated,
        "pinned": bool(pinned),
    }


def _version(memory: dict[str, Any]) -> dict[str, Any]:
    return {
        **memory,
        "active": memory["superseded_at"] is None,
        "last_updated": memory["updated_at"],
    }


# ---- topics


def read_topics(
    conn: ProfileConnection, now_ms: int, *, prefix: str, type_: str | None, page: Page
) -> dict[str, Any]:
    """Return `{topics, next_cursor}` by key and type: what each holds, without its memories."""
    listing = ["topics", prefix, type_]
    start = (prefix, "") if page.cursor is None else cursors.read(page.cursor, listing, tuple[str, str])
    topics: list[dict[str, Any]] = []
    for topic_key, name, *sums in conn.execute(_TOPICS, (*max(start, (prefix, "")), now_ms)):
        if not topic_key.startswith(prefix):
            break
        if type_ is not None and name != type_:
            continue
        if len(topics) == page.limit:
            last = topics[-1]
            return {"topics": topics, "next_cursor": cursors.make(listing, [last["topic_key"], last["type"]])}
        topics.append(_head(topic_key, name, tuple(sums)))
    return {"topics": topics, "next_cursor": None}


# ---- the way back


def apply_undo(
    conn: ProfileConnection, now_ms: int, memory_id: str, reason: str | None
) -> tuple[dict[str, Any], bool]:
    """Make active again what `memory_id` superseded last, and keep `memory_id` as history.

    The memory that comes back is the newest version and supersedes what is undone, so undoing that in turn brings
    the correction back. Returns `{undone, active, version}`. Raises NotFoundError, and ConflictError when the
    memory is not the active one, or superseded nothing that is still there.
    """
    row: Any = conn.execute(
        f"SELECT rid, topic_key, type, version, superseded_at FROM __memoturn_memories WHERE id = ? AND {_LIVE}",
        (memory_id, now_ms),
    ).fetchone()
    if row is None:
        raise memories.no_memory(memory_id)
    rid, topic_key, type_, version, superseded_at = row
    if superseded_at is not None:
        raise ConflictError(
            f"{memory_id[:64]!a} is superseded already: undo the active memory of its topic, or store it again"
        )
    found: Any = conn.execute(_PREDECESSOR, (topic_key, type_, memory_id, now_ms)).fetchone()
    if found is None:
        raise ConflictError(
            f"{memory_id[:64]!a} supersedes nothing that is still there: there is nothing to undo"
        )
    back_rid, back_id = found
    conn.execute(_SET_ASIDE, (back_id, now_ms, rid))
    conn.execute(_BRING_BACK, (now_ms, version + 1, reason, back_rid))
    memories.note_change(conn, rid)
    memories.note_change(conn, back_rid)
    conn.noted.put_all("memory", None, (memory_id, back_id))
    return {"undone": memory_id, "active": back_id, "version": version + 1}, True


def parse_reason(payload: Any) -> str | None:
    """Return the reason of a body `{reason?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    return fields.optional_text(body.get("reason"), "reason", length_limit=memories.REASON_LENGTH_LIMIT)


def parse_type(value: str | None) -> str | None:
    """Return a type that has topics, None without one. Raises InvalidRequestError."""
    if value is not None and value not in _TOPICAL:
        raise InvalidRequestError(f"type is {value[:32]!a}: it takes {', '.join(_TOPICAL)}")
    return value


def parse_page(*, limit: int | None, cursor: str | None, default: int = LIST_LIMIT) -> Page:
    """Return the part of a listing that is asked for."""
    return Page(max(1, min(default if limit is None else limit, LIST_LIMIT)), cursor)


# ---- what routes call


async def history(profile: Profile, memory_id: str, page: Page, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return a memory's versions; see `read_history`."""
    return await profile.read(
        lambda conn, now_ms: read_history(conn, now_ms, memory_id, page), min_txid=min_txid, work=Work.SCAN
    )


async def topic(
    profile: Profile, topic_key: str, page: Page, *, type_: str | None = None, min_txid: int = 0
) -> Seen[dict[str, Any]]:
    """Return a topic's versions; see `read_topic`."""
    return await profile.read(
        lambda conn, now_ms: read_topic(conn, now_ms, topic_key, type_, page),
        min_txid=min_txid,
        work=Work.SCAN,
    )


async def topics(
    profile: Profile, page: Page, *, prefix: str = "", type_: str | None = None, min_txid: int = 0
) -> Seen[dict[str, Any]]:
    """Return the topics; see `read_topics`."""
    return await profile.read(
        lambda conn, now_ms: read_topics(conn, now_ms, prefix=prefix, type_=type_, page=page),
        min_txid=min_txid,
        work=Work.SCAN,
    )


async def undo(
    profile: Profile, memory_id: str, *, reason: str | None = None, durability: Durability = Durability.LOCAL
) -> Written[dict[str, Any]]:
    """Undo a correction; see `apply_undo`."""
    return await profile.write(
        lambda conn, now_ms: apply_undo(conn, now_ms, memory_id, reason), durability=durability
    )
