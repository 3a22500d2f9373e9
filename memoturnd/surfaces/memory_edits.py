"""Changes to memories that are there: what is said about one by hand, and forgetting many at once.

What a memory says is not changed here: a correction is a new memory, which supersedes it.
"""

from dataclasses import dataclass
from typing import Any, Final

from memoturnd.core.durability import Durability
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields, memories
from memoturnd.surfaces.memories import Found
from memoturnd.surfaces.memory_list import Filter, parse_filter

FORGET_LIMIT: Final = 1000
_FORGET_FIELDS: Final = frozenset(
    {
        "all",
        "dry_run",
        "ids",
        "include_superseded",
        "limit",
        "pinned",
        "session_id",
        "since",
        "source",
        "topic_key",
        "topic_prefix",
        "types",
        "until",
    }
)
_SAID: Final = ("type", "topic_key", "summary", "content", "session_id", "source", "embedding")
_INLINE_IDS = 8
_INLINE_TEXT = 64 * 1024
_FIND = """SELECT rid, summary, type, pinned, importance, keywords, expires_at,
 max(created_at, coalesce(updated_at, 0), coalesce(superseded_at, 0))
 FROM __memoturn_memories WHERE id = ? AND (expires_at IS NULL OR expires_at > ?)"""
_UPDATE = """UPDATE __memoturn_memories SET pinned = ?, importance = ?, keywords = ?, expires_at = ?, updated_at = ?
 WHERE rid = ?"""


@dataclass(frozen=True, slots=True)
class Patch:
    """What to say of a memory. `given` names the fields that the body has; an expiry is `ttl` or `expires_at`."""

    given: frozenset[str]
    pinned: bool = False
    importance: float | None = None
    keywords: str = ""
    ttl_s: int | None = None
    expires_at: int | None = None
    task_ttl_max_s: int | None = None
    """Longest that a task may live from now on, None without a bound: what a policy says, not the body."""


def parse_patch(payload: Any) -> Patch:
    """Return the patch of `{pinned?, importance?, keywords?, ttl? | expires_at?}`. Raises InvalidRequestError.

    A null clears: the rating, the keywords, the expiry.
    """
    body = fields.mapping(payload, "the body")
    said = [name for name in _SAID if name in body]
    if said:
        raise InvalidRequestError(
            f"{said[0]} cannot be patched: store a memory that says it right, which supersedes this one by its topic"
        )
    given = frozenset(body).intersection({"pinned", "importance", "keywords", "ttl", "expires_at"})
    if not given:
        raise InvalidRequestError(
            "a patch takes pinned, importance, keywords, and ttl or expires_at: send one"
        )
    if {"ttl", "expires_at"} <= given:
        raise InvalidRequestError("ttl and expires_at say the same: send one of them")
    ttl = body.get("ttl")
    return Patch(
        given=given,
        pinned=bool(fields.optional_boolean(body.get("pinned"), "pinned")),
        importance=fields.optional_share(body.get("importance"), "importance"),
        keywords=fields.optional_text(body.get("keywords"), "keywords") or "",
        ttl_s=None if ttl is None else fields.count(ttl, "ttl", limit=fields.SECONDS_LIMIT),
        expires_at=fields.optional_time_ms(body.get("expires_at"), "expires_at"),
    )


def apply_patch(
    conn: ProfileConnection, now_ms: int, memory_id: str, patch: Patch
) -> tuple[dict[str, Any], bool]:
    """Change what is said of a memory; return `{id, pinned, importance, keywords, expires_at, updated_at}`.

    Raises NotFoundError.
    """
    row: Any = conn.execute(_FIND, (memory_id, now_ms)).fetchone()
    if row is None:
        raise memories.no_memory(memory_id)
    rid, summary, type_, *before, updated_at = row
    pinned, importance, keywords, expires_at = before
    given = patch.given
    if "pinned" in given:
        pinned = int(patch.pinned)
    if "importance" in given:
        importance = patch.importance
    if "keywords" in given:
        keywords = patch.keywords
    if given & {"ttl", "expires_at"}:
        expires_at = patch.expires_at if patch.ttl_s is None else now_ms + 1000 * patch.ttl_s
        if patch.task_ttl_max_s is not None and type_ == "task":
            latest = now_ms + 1000 * patch.task_ttl_max_s
            expires_at = latest if expires_at is None else min(expires_at, latest)
    changed = [pinned, importance, keywords, expires_at] != before
    if changed:
        updated_at = now_ms
        conn.execute(_UPDATE, (pinned, importance, keywords, expires_at, updated_at, rid))
        conn.noted.put("memory", None, memory_id)
    if keywords != before[2]:
        memories.unindex(conn, rid, summary, before[2])
        memories.index(conn, rid, summary, keywords)
    if [keywords, expires_at] != before[2:]:
        memories.note_change(conn, rid)
    return {
        "id": memory_id,
        "pinned": bool(pinned),
        "importance": importance,
        "keywords": keywords,
        "expires_at": expires_at,
        "updated_at": updated_at,
    }, changed


# ---- forgetting many


@dataclass(frozen=True, slots=True)
class Forget:
    """Which memories to forget: those of `ids`, or where that is None up to `limit` that the filter means."""

    ids: tuple[str, ...] | None
    filter: Filter
    dry_run: bool
    limit: int


def parse_forget(payload: Any) -> Forget:
    """Return the forgetting of `{ids | filter fields | all, dry_run?, limit?}`. Raises InvalidRequestError.

    History is forgotten along unless `include_superseded` is false. What means everything has to say `all`. A field
    that is not known is refused: a misspelt one would otherwise make a filter mean more, or a dry run a real one.
    """
    body = fields.mapping(payload, "the body")
    unknown = set(body).difference(_FORGET_FIELDS)
    if unknown:
        raise InvalidRequestError(
            f"{min(unknown)[:32]!a} is no field of forget: it takes {', '.join(sorted(_FORGET_FIELDS))}; nothing was forgotten"
        )
    ids = body.get("ids")
    wanted = parse_filter(body, include_superseded=True)
    everything = fields.boolean(body, "all")
    if (ids is not None) + (not wanted.is_empty) + everything != 1:
        raise InvalidRequestError(
            "say what to forget in one way: `ids`, fields of a filter, or `all`: true for every memory"
        )
    return Forget(
        ids=None if ids is None else _parse_ids(ids),
        filter=wanted,
        dry_run=fields.boolean(body, "dry_run"),
        limit=max(1, fields.clamped(body.get("limit"), "limit", default=FORGET_LIMIT, limit=FORGET_LIMIT)),
    )


def _parse_ids(value: Any) -> tuple[str, ...]:
    ids = fields.array(value, "ids")
    if len(ids) > FORGET_LIMIT:
        raise InvalidRequestError(f"ids holds {len(ids)}: send at most {FORGET_LIMIT} at once")
    return tuple(fields.text(id_, f"ids[{at}]") for at, id_ in enumerate(ids))


def apply_forget_many(conn: ProfileConnection, now_ms: int, forget: Forget) -> tuple[dict[str, Any], bool]:
    """Remove memories; return `{dry_run, forgotten, results: [{id, status}], more}`.

    `more` says that the filter means others still; `status` is `forgotten`, or `not_found` for an id that is not
    there.
    """
    found, more = _meant(conn, now_ms, forget)
    for one in found:
        memories.remove(conn, one)
    gone = [one.id for one in found]
    return {
        "dry_run": False,
        "forgotten": len(gone),
        "results": _results(forget, gone, "forgotten"),
        "more": more,
    }, bool(gone)


def read_forget_many(conn: ProfileConnection, now_ms: int, forget: Forget) -> dict[str, Any]:
    """Return what `apply_forget_many` would, with the status `would_forget`, and how many are `matched` in all."""
    found, more = _meant(conn, now_ms, forget)
    matched = len(found)
    if more:
        conditions, bindings = forget.filter.where(now_ms)
        matched = conn.execute(
            f"SELECT count(*) FROM __memoturn_memories INDEXED BY {forget.filter.index}"
            f" WHERE {' AND '.join(conditions)}",
            bindings,
        ).get
    results = _results(forget, [one.id for one in found], "would_forget")
    return {"dry_run": True, "forgotten": 0, "matched": matched, "results": results, "more": more}


def _meant(conn: ProfileConnection, now_ms: int, forget: Forget) -> tuple[list[Found], bool]:
    """Return the memories that are meant, of a filter the oldest, and whether it means more."""
    if forget.ids is not None:
        some = [memories.find(conn, now_ms, id_) for id_ in dict.fromkeys(forget.ids)]
        return [one for one in some if one is not None], False
    if forget.filter.types == ():
        return [], False
    conditions, bindings = forget.filter.where(now_ms)
    rows: list[Any] = conn.execute(
        f"SELECT {', '.join(Found._fields)} FROM __memoturn_memories INDEXED BY {forget.filter.index}"
        f" WHERE {' AND '.join(conditions)} ORDER BY created_at, rid LIMIT ?",
        (*bindings, forget.limit + 1),
    ).fetchall()
    return [Found(*row) for row in rows[: forget.limit]], len(rows) > forget.limit


def _results(forget: Forget, found: list[str], status: str) -> list[dict[str, str]]:
    if forget.ids is None:
        return [{"id": id_, "status": status} for id_ in found]
    left = set(found)
    results = []
    for id_ in forget.ids:
        results.append({"id": id_, "status": status if id_ in left else "not_found"})
        left.discard(id_)
    return results


# ---- what routes call


async def patch(
    profile: Profile, memory_id: str, change: Patch, *, durability: Durability = Durability.LOCAL
) -> Written[dict[str, Any]]:
    """Change what is said of a memory; see `apply_patch`."""
    return await profile.write(
        lambda conn, now_ms: apply_patch(conn, now_ms, memory_id, change),
        durability=durability,
        work=work_of(change),
    )


def work_of(change: Patch) -> Work:
    """Return how much work a patch is."""
    return Work.POINT if len(change.keywords) <= _INLINE_TEXT else Work.HEAVY


async def forget_many(
    profile: Profile, forget: Forget, *, durability: Durability = Durability.LOCAL
) -> Written[dict[str, Any]]:
    """Remove memories; see `apply_forget_many`."""
    small = forget.ids is not None and len(forget.ids) <= _INLINE_IDS
    return await profile.write(
        lambda conn, now_ms: apply_forget_many(conn, now_ms, forget),
        durability=durability,
        work=Work.POINT if small else Work.HEAVY,
    )


async def would_forget(profile: Profile, forget: Forget, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return what `forget_many` would remove; see `read_forget_many`."""
    return await profile.read(
        lambda conn, now_ms: read_forget_many(conn, now_ms, forget), min_txid=min_txid, work=Work.SCAN
    )
