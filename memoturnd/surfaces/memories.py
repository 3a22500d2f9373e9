"""Typed memories: ingest with topic supersession, get with its chain, forget, sessions, expiry.

Everything that a write depends on is read inside its transaction, so that concurrent ingests on one topic
report exactly what they superseded. A memory is active while `superseded_at` is null, and of the memories of
one type and topic only the newest `version` may be. A memory that expired counts as forgotten, whether or not
the sweep has come by.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from memoturnd.core import canonical, names
from memoturnd.core.durability import Durability
from memoturnd.engine import idempotency
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields, models, origins, records
from memoturnd.surfaces.models import Model
from memoturnd.surfaces.origins import Origin

TYPES: Final = ("fact", "event", "instruction", "task")
BATCH_LIMIT: Final = 1000
TASK_TTL_S: Final = 86_400
TOPIC_LENGTH_LIMIT: Final = 1024
SOURCE_LENGTH_LIMIT: Final = 1024
REASON_LENGTH_LIMIT: Final = 1024
CHANGES_KEPT: Final = 512
TOPICAL = frozenset({"fact", "instruction"})
_INLINE_ITEMS = 8
_INLINE_TEXT = 64 * 1024
"""Batches up to this size are written on the event loop."""

_FOUND = "rid, id, summary, keywords, superseded_by, superseded_at, expires_at, version"
_FIND = f"""SELECT {_FOUND}
 FROM __memoturn_memories WHERE id IN (?, ?)"""
_NEWEST_OF_TOPIC = f"""SELECT {_FOUND}
 FROM __memoturn_memories INDEXED BY __memoturn_memories_versions
 WHERE topic_key = ? AND type = ? ORDER BY version DESC LIMIT 1"""
_INSERT = """INSERT INTO __memoturn_memories
 (id, type, topic_key, summary, content, keywords, session_id, source, created_at, expires_at, pinned, importance,
 version, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_INSERT_TEXT = "INSERT INTO __memoturn_memories_fts(rowid, summary, keywords) VALUES (?, ?, ?)"
_DELETE_TEXT = """INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts, rowid, summary, keywords)
 VALUES ('delete', ?, ?, ?)"""
_REVIVE = """UPDATE __memoturn_memories SET superseded_by = NULL, superseded_at = NULL, undone_at = NULL,
 updated_at = ?, version = ?, reason = ?, pinned = coalesce(?, pinned), importance = coalesce(?, importance)
 WHERE rid = ?"""
_SUPERSEDE = "UPDATE __memoturn_memories SET superseded_by = ?, superseded_at = ? WHERE rid = ?"
_RELINK = """UPDATE __memoturn_memories
 SET superseded_by = (SELECT superseded_by FROM __memoturn_memories WHERE rid = ?) WHERE superseded_by = ?
 RETURNING id"""
_TOUCH_SESSION = """INSERT INTO __memoturn_memory_sessions(id, created_at, last_active_at) VALUES (?1, ?2, ?2)
 ON CONFLICT(id) DO UPDATE SET last_active_at = max(last_active_at, excluded.last_active_at)"""


@dataclass(frozen=True, slots=True)
class Item:
    """A memory to ingest, checked. `content` is canonical JSON, `embedding` float32 (None on tasks) of the model
    `embedding_model`, `ttl_s` the lifetime of a task (None on others), `reason` why it supersedes what its topic
    held.
    """

    type: str
    topic_key: str | None
    summary: str
    content: bytes
    keywords: str
    embedding: bytes | None
    session_id: str | None
    source: str | None
    ttl_s: int | None
    origin: Origin | None = None
    embedding_model: str = models.UNNAMED
    pinned: bool | None = None
    importance: float | None = None
    reason: str | None = None


class Found(NamedTuple):
    """A memory as a write meets it."""

    rid: int
    id: str
    summary: str
    keywords: str
    superseded_by: str | None
    superseded_at: int | None
    expires_at: int | None
    version: int

    def is_expired(self, now_ms: int) -> bool:
        """Return whether the memory counts as forgotten."""
        return self.expires_at is not None and self.expires_at <= now_ms


def parse_items(payload: Any) -> list[Item]:
    """Return the memories of `{"memories": [...]}`; unknown fields are ignored. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    items = [parse_item(item, f"memories[{index}]") for index, item in enumerate(batch_of(body))]
    sizes: dict[str, tuple[int, int]] = {}
    for index, item in enumerate(items):
        check_size(sizes, item, index)
    return items


def batch_of(body: dict[str, Any]) -> list[Any]:
    """Return the items of a body, unchecked. Raises InvalidRequestError when there are too many."""
    batch = fields.array(body.get("memories"), "memories")
    if len(batch) > BATCH_LIMIT:
        raise InvalidRequestError(f"memories holds {len(batch)} items: send at most {BATCH_LIMIT} at once")
    return batch


def check_size(sizes: dict[str, tuple[int, int]], item: Item, index: int) -> None:
    """Hold an item's embedding to `sizes`, those of the models of items before it and where they were first met.

    Raises InvalidRequestError.
    """
    if item.embedding is None:
        return
    size = fields.dimensions(item.embedding)
    first, first_at = sizes.setdefault(item.embedding_model, (size, index))
    if size != first:
        raise InvalidRequestError(
            f"memories[{index}].embedding has {size} dimensions and memories[{first_at}].embedding {first}:"
            f" a model's embeddings share one dimension"
        )


def parse_item(value: Any, where: str) -> Item:
    """Return one memory of a batch. Raises InvalidRequestError."""
    item = fields.mapping(value, where)
    type_ = fields.text(item.get("type"), f"{where}.type")
    if type_ not in TYPES:
        raise InvalidRequestError(f"{where}.type is {type_[:32]!a}: it takes {', '.join(TYPES)}")
    topic_key = fields.optional_text(
        item.get("topic_key"), f"{where}.topic_key", length_limit=TOPIC_LENGTH_LIMIT
    )
    if topic_key and type_ not in TOPICAL:
        raise InvalidRequestError(
            f"{where}.topic_key is for facts and instructions: leave it out of a {type_}"
        )
    summary = fields.text(item.get("summary"), f"{where}.summary")
    if not summary.strip():
        raise InvalidRequestError(f"{where}.summary is blank: say in a few words what is remembered")
    session_id = fields.optional_text(item.get("session_id"), f"{where}.session_id")
    if session_id is not None:
        session_id = _named(where, session_id)
    embedding = fields.optional_vector(item.get("embedding"), f"{where}.embedding")
    model = models.parse_name(item.get("embedding_model"), f"{where}.embedding_model")
    if model != models.UNNAMED and embedding is None:
        raise InvalidRequestError(
            f"{where}.embedding_model goes with an embedding: leave it out, or send both"
        )
    return Item(
        type=type_,
        topic_key=topic_key or None,
        summary=summary,
        content=canonical.canonical_json(item.get("content"), where=f"{where}.content"),
        keywords=fields.optional_text(item.get("keywords"), f"{where}.keywords") or "",
        embedding=None if type_ == "task" else embedding,
        session_id=session_id,
        source=fields.optional_text(item.get("source"), f"{where}.source", length_limit=SOURCE_LENGTH_LIMIT),
        ttl_s=_parse_ttl(item.get("ttl"), type_, f"{where}.ttl"),
        origin=origins.parse(item.get("source_turns"), f"{where}.source_turns"),
        embedding_model=model,
        pinned=fields.optional_boolean(item.get("pinned"), f"{where}.pinned"),
        importance=fields.optional_share(item.get("importance"), f"{where}.importance"),
        reason=_parse_reason(item.get("reason"), topic_key, f"{where}.reason"),
    )


def _named(where: str, session_id: str) -> str:
    try:
        return names.session_id(session_id)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}.{error}") from error


def _parse_ttl(value: Any, type_: str, where: str) -> int | None:
    if type_ == "task":
        return TASK_TTL_S if value is None else fields.count(value, where, limit=fields.SECONDS_LIMIT)
    if value is not None:
        raise InvalidRequestError(f"{where} is for tasks: leave it out of a {type_}")
    return None


def _parse_reason(value: Any, topic_key: str | None, where: str) -> str | None:
    reason = fields.optional_text(value, where, length_limit=REASON_LENGTH_LIMIT)
    if reason is not None and not topic_key:
        raise InvalidRequestError(
            f"{where} is for what supersedes a topic's memory: send it with a topic_key"
        )
    return reason


def _rows(conn: ProfileConnection, sql: str, bindings: tuple[Binding, ...]) -> list[Any]:
    return conn.execute(sql, bindings).fetchall()


def capped(items: list[Item], ttl_max_s: int | None) -> list[Item]:
    """Return the items with no task that lives longer than `ttl_max_s`."""
    if ttl_max_s is None or not any(item.ttl_s is not None and item.ttl_s > ttl_max_s for item in items):
        return items
    return [item if item.ttl_s is None else replace(item, ttl_s=min(item.ttl_s, ttl_max_s)) for item in items]


# ---- ingest


def apply_ingest(
    conn: ProfileConnection, now_ms: int, items: list[Item], *, places: Sequence[int] | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """Store a batch; return `{id, status, superseded}` per item, in order, and whether anything changed.

    When an embedding's dimension is not the one that the profile's embeddings of the same model have, it raises
    InvalidRequestError before anything is written; or, with the items' `places` in the request, refuses that item.
    """
    of_name, wrong = _models(conn, now_ms, items, places)
    seen: set[str] = set()
    changed = False
    results = []
    for item in items:
        if item.embedding is not None and item.embedding_model in wrong:
            results.append(refused(wrong[item.embedding_model]))
            continue
        id_, found, removed = _resolve(conn, now_ms, item)
        changed = changed or removed
        status = "created"
        if id_ in seen or (found is not None and found.superseded_at is None):
            status = "duplicate"
        elif found is not None:
            status = "revived"
        seen.add(id_)
        replaced = [] if status == "duplicate" else _store(conn, now_ms, item, id_, found, of_name)
        changed = changed or status != "duplicate"
        results.append({"id": id_, "status": status, "superseded": replaced})
    return results, changed


def refused(error: str) -> dict[str, Any]:
    """Return the result of an item that was not stored."""
    return {"id": None, "status": "error", "superseded": [], "error": error}


def _models(
    conn: ProfileConnection, now_ms: int, items: list[Item], places: Sequence[int] | None
) -> tuple[dict[str, Model], dict[str, str]]:
    """Return the models of the items' embeddings by name, and with `places` what is wrong with others."""
    of_name: dict[str, Model] = {}
    wrong: dict[str, str] = {}
    for index, item in enumerate(items):
        name = item.embedding_model
        if item.embedding is None or name in of_name or name in wrong:
            continue
        where = f"memories[{index if places is None else places[index]}].embedding"
        try:
            of_name[name] = models.ensure(conn, now_ms, name, fields.dimensions(item.embedding), where)
        except InvalidRequestError as error:
            if places is None:
                raise
            wrong[name] = str(error)
    return of_name, wrong


def told_by_summary(type_: str, content: bytes) -> bool:
    """Return whether memories of equal content are different ones by their summaries.

    Events and tasks are, and facts and instructions without content: their summary is all that they say.
    """
    return type_ not in TOPICAL or content == canonical.NULL


def _resolve(conn: ProfileConnection, now_ms: int, item: Item) -> tuple[str, Found | None, bool]:
    """Return the item's id, the memory that has it if there is one, and whether an expired one was removed.

    Where summaries tell memories of equal content apart, the first keeps the plain id.
    """
    plain = mixed = canonical.memory_id(item.type, item.topic_key, item.content)
    if told_by_summary(item.type, item.content):
        mixed = canonical.memory_id_with_summary(item.type, item.topic_key, item.content, item.summary)
    taken = removed = False
    for row in _rows(conn, _FIND, (plain, mixed)):
        found = Found(*row)
        if found.is_expired(now_ms):
            remove(conn, found)
            removed = True
        elif plain == mixed or found.summary == item.summary:
            return found.id, found, removed
        else:
            taken = taken or found.id == plain
    return (mixed if taken else plain), None, removed


def _store(
    conn: ProfileConnection, now_ms: int, item: Item, id_: str, found: Found | None, of_name: dict[str, Model]
) -> list[str]:
    """Insert or revive one memory; return the ids that it superseded."""
    newest = None if item.topic_key is None else newest_of_topic(conn, item.topic_key, item.type)
    version = 1 if newest is None else newest.version + 1
    if found is None:
        rid = _insert(conn, now_ms, item, id_, version)
    else:
        rid = found.rid
        conn.execute(_REVIVE, (now_ms, version, item.reason, item.pinned, item.importance, rid))
        note_change(conn, rid)  # it is active again, and may get its first embedding
    replaced = []
    if newest is not None and newest.superseded_at is None and newest.id != id_:
        if newest.is_expired(now_ms):
            remove(conn, newest)
        else:
            conn.execute(_SUPERSEDE, (id_, now_ms, newest.rid))
            note_change(conn, newest.rid)
            conn.noted.put("memory", None, newest.id)
            replaced.append(newest.id)
    if item.embedding is not None:
        table = of_name[item.embedding_model].table
        conn.execute(f"INSERT OR IGNORE INTO {table}(rid, e) VALUES (?, ?)", (rid, item.embedding))
    if item.origin is not None:
        origins.store(conn, rid, item.origin)
    if item.session_id is not None:
        touch_session(conn, now_ms, item.session_id)
    conn.noted.put("memory", None, id_)
    return replaced


def _insert(conn: ProfileConnection, now_ms: int, item: Item, id_: str, version: int) -> int:
    row: tuple[Binding, ...] = (
        id_,
        item.type,
        item.topic_key,
        item.summary,
        item.content.decode(),
        item.keywords,
        item.session_id,
        item.source,
        now_ms,
        None if item.ttl_s is None else now_ms + 1000 * item.ttl_s,
        bool(item.pinned),
        item.importance,
        version,
        item.reason,
    )
    conn.execute(_INSERT, row)
    rid = conn.last_insert_rowid()
    index(conn, rid, item.summary, item.keywords)
    return rid


def newest_of_topic(conn: ProfileConnection, topic_key: str, type_: str) -> Found | None:
    """Return the memory of a topic that was made active last, which is the only one that may be active."""
    row = conn.execute(_NEWEST_OF_TOPIC, (topic_key, type_)).fetchone()
    return None if row is None else Found(*row)


def touch_session(conn: ProfileConnection, now_ms: int, session_id: str) -> None:
    """Register the session, or note that it is active now."""
    conn.execute(_TOUCH_SESSION, (session_id, now_ms))


def remove(conn: ProfileConnection, found: Found) -> None:
    """Remove a memory with its text and vectors; what it had superseded now points to its own successor."""
    unindex(conn, found.rid, found.summary, found.keywords)
    for model in models.all_models(conn):
        conn.execute(f"DELETE FROM {model.table} WHERE rid = ?", (found.rid,))
    origins.remove(conn, found.rid)
    # Its successor as it is now: another removal of the same round may have moved it since it was found.
    relinked: Any = conn.execute(_RELINK, (found.rid, found.id))
    conn.noted.put_all("memory", None, [id_ for (id_,) in relinked])
    conn.execute("DELETE FROM __memoturn_memories WHERE rid = ?", (found.rid,))
    note_change(conn, found.rid)
    conn.noted.deleted("memory", None, found.id)


def unindex(conn: ProfileConnection, rid: int, summary: str, keywords: str) -> None:
    """Take a memory's text, which must be what the index holds of it, out of the full-text index."""
    conn.execute(_DELETE_TEXT, (rid, summary, keywords))


def index(conn: ProfileConnection, rid: int, summary: str, keywords: str) -> None:
    """Put a memory's text into the full-text index."""
    conn.execute(_INSERT_TEXT, (rid, summary, keywords))


def note_change(conn: ProfileConnection, rid: int) -> None:
    """Note that a memory changed in what it is found by: its text, a vector, whether it is superseded, when it expires,
    or that it went.

    Who keeps memories in memory takes rows above the highest that it knows, and looks at those that are noted
    here. The last CHANGES_KEPT are.
    """
    conn.execute("INSERT INTO __memoturn_memory_changes(rid) VALUES (?)", (rid,))
    conn.execute(
        "DELETE FROM __memoturn_memory_changes WHERE seq <= ?", (conn.last_insert_rowid() - CHANGES_KEPT,)
    )


# ---- get and forget


def read_memory(conn: ProfileConnection, now_ms: int, memory_id: str) -> dict[str, Any]:
    """Return one memory with the ids that it superseded. Raises NotFoundError, for an expired one too."""
    row = conn.execute(
        f"SELECT {records.COLUMNS} FROM __memoturn_memories WHERE id = ?", (memory_id,)
    ).fetchone()
    memory = None if row is None else records.shown(conn, row)
    if memory is None or (memory["expires_at"] is not None and memory["expires_at"] <= now_ms):
        raise no_memory(memory_id)
    superseded = conn.execute(
        "SELECT id FROM __memoturn_memories WHERE superseded_by = ? ORDER BY created_at, rid", (memory_id,)
    )
    memory["supersedes"] = [id_ for (id_,) in superseded]
    return memory


def find(conn: ProfileConnection, now_ms: int, memory_id: str) -> Found | None:
    """Return a memory as a write meets it, None when there is none or it expired."""
    row = conn.execute(_FIND, (memory_id, memory_id)).fetchone()
    found = None if row is None else Found(*row)
    return None if found is None or found.is_expired(now_ms) else found


def apply_forget(conn: ProfileConnection, now_ms: int, memory_id: str) -> tuple[None, bool]:
    """Remove a memory; see `remove`. Forgetting the active memory of a topic leaves the topic without one.

    Raises NotFoundError.
    """
    found = find(conn, now_ms, memory_id)
    if found is None:
        raise no_memory(memory_id)
    remove(conn, found)
    return None, True


def no_memory(memory_id: str) -> NotFoundError:
    """Return the error for a memory that is not there."""
    return NotFoundError(
        f"no memory {memory_id[:64]!a} is here: it was never stored, was forgotten or expired"
    )


# ---- expiry


def sweep_expired(conn: ProfileConnection, now_ms: int, limit: int) -> tuple[int, bool]:
    """Remove up to `limit` expired memories, keys and kept answers each; return how many went, and whether any did."""
    expired = _rows(
        conn,
        f"SELECT {_FOUND} FROM __memoturn_memories WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
        (now_ms, limit),
    )
    for row in expired:
        remove(conn, Found(*row))
    keys = _rows(
        conn,
        "DELETE FROM __memoturn_kv WHERE (ns, k) IN"
        " (SELECT ns, k FROM __memoturn_kv WHERE expires_at <= ? ORDER BY expires_at LIMIT ?) RETURNING ns, k",
        (now_ms, limit),
    )
    for ns, key in keys:
        conn.noted.deleted("kv", ns, key)
    swept = len(expired) + len(keys) + idempotency.sweep(conn, now_ms, limit)
    return swept, swept > 0


# ---- what routes call


async def ingest(
    profile: Profile,
    items: list[Item],
    *,
    places: Sequence[int] | None = None,
    durability: Durability = Durability.LOCAL,
) -> Written[list[dict[str, Any]]]:
    """Store a batch; see `apply_ingest`."""
    return await profile.write(
        lambda conn, now_ms: apply_ingest(conn, now_ms, items, places=places),
        durability=durability,
        work=work_of(items),
    )


def work_of(items: list[Item]) -> Work:
    """Return how much work it is to store a batch."""
    size = sum(len(i.summary) + len(i.keywords) + len(i.content) for i in items)
    return Work.POINT if len(items) <= _INLINE_ITEMS and size <= _INLINE_TEXT else Work.HEAVY


async def get(profile: Profile, memory_id: str, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return one memory; see `read_memory`."""
    return await profile.read(lambda conn, now_ms: read_memory(conn, now_ms, memory_id), min_txid=min_txid)


async def forget(
    profile: Profile, memory_id: str, *, durability: Durability = Durability.LOCAL
) -> Written[None]:
    """Remove one memory; see `apply_forget`."""
    return await profile.write(
        lambda conn, now_ms: apply_forget(conn, now_ms, memory_id), durability=durability
    )
