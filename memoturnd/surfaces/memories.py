"""Typed memories: ingest with topic supersession, get with its chain, forget, sessions, expiry.

Everything that a write depends on is read inside its transaction, so that concurrent ingests on one topic
report exactly what they superseded. A memory is active while `superseded_at` is null.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from memoturnd.core import canonical, names
from memoturnd.engine import idempotency
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields, models, origins, transcripts
from memoturnd.surfaces.models import Model
from memoturnd.surfaces.origins import Origin

TYPES: Final = ("fact", "event", "instruction", "task")
BATCH_LIMIT: Final = 1000
TASK_TTL_S: Final = 86_400
TOPIC_LENGTH_LIMIT: Final = 1024
SOURCE_LENGTH_LIMIT: Final = 1024
CHANGES_KEPT: Final = 512
_TOPICAL = frozenset({"fact", "instruction"})
_INLINE_ITEMS = 8
_INLINE_TEXT = 64 * 1024
"""Batches up to this size are written on the event loop."""

_COLUMNS = (
    "id, type, topic_key, summary, content, keywords, session_id, source, created_at,"
    " expires_at, superseded_by, superseded_at"
)
_FIND = """SELECT rid, id, summary, keywords, superseded_at, expires_at
 FROM __memoturn_memories WHERE id IN (?, ?)"""
_INSERT = """INSERT INTO __memoturn_memories
 (id, type, topic_key, summary, content, keywords, session_id, source, created_at, expires_at)
 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_INSERT_TEXT = "INSERT INTO __memoturn_memories_fts(rowid, summary, keywords) VALUES (?, ?, ?)"
_DELETE_TEXT = """INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts, rowid, summary, keywords)
 VALUES ('delete', ?, ?, ?)"""
_ACTIVE_OF_TOPIC = """SELECT rid, id FROM __memoturn_memories
 WHERE topic_key = ? AND type = ? AND superseded_at IS NULL AND id <> ? ORDER BY created_at, rid"""
_SUPERSEDE = "UPDATE __memoturn_memories SET superseded_by = ?, superseded_at = ? WHERE rid = ?"
_TOUCH_SESSION = """INSERT INTO __memoturn_memory_sessions(id, created_at, last_active_at) VALUES (?1, ?2, ?2)
 ON CONFLICT(id) DO UPDATE SET last_active_at = max(last_active_at, excluded.last_active_at)"""


@dataclass(frozen=True, slots=True)
class Item:
    """A memory to ingest, checked. `content` is canonical JSON, `embedding` float32 (None on tasks) of the model
    `embedding_model`, `ttl_s` the lifetime of a task (None on others).
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


def parse_items(payload: Any) -> list[Item]:
    """Return the memories of `{"memories": [...]}`; unknown fields are ignored. Raises InvalidRequestError."""
    batch = fields.array(fields.mapping(payload, "the body").get("memories"), "memories")
    if len(batch) > BATCH_LIMIT:
        raise InvalidRequestError(f"memories holds {len(batch)} items: send at most {BATCH_LIMIT} at once")
    items = [_parse_item(item, f"memories[{index}]") for index, item in enumerate(batch)]
    sizes: dict[str, tuple[int, int]] = {}
    for index, item in enumerate(items):
        if item.embedding is None:
            continue
        size = fields.dimensions(item.embedding)
        first, first_at = sizes.setdefault(item.embedding_model, (size, index))
        if size != first:
            raise InvalidRequestError(
                f"memories[{index}].embedding has {size} dimensions and memories[{first_at}].embedding {first}:"
                f" a model's embeddings share one dimension"
            )
    return items


def _parse_item(value: Any, where: str) -> Item:
    item = fields.mapping(value, where)
    type_ = fields.text(item.get("type"), f"{where}.type")
    if type_ not in TYPES:
        raise InvalidRequestError(f"{where}.type is {type_[:32]!a}: it takes {', '.join(TYPES)}")
    topic_key = fields.optional_text(
        item.get("topic_key"), f"{where}.topic_key", length_limit=TOPIC_LENGTH_LIMIT
    )
    if topic_key and type_ not in _TOPICAL:
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


def _rows(conn: ProfileConnection, sql: str, bindings: tuple[Binding, ...]) -> list[Any]:
    return conn.execute(sql, bindings).fetchall()


# ---- ingest


def apply_ingest(
    conn: ProfileConnection, now_ms: int, items: list[Item]
) -> tuple[list[dict[str, Any]], bool]:
    """Store a batch; return `{id, status, superseded}` per item, in order, and whether anything changed.

    Raises InvalidRequestError, before anything is written, when the embeddings' dimension is not the one
    that the profile's embeddings of the same model have.
    """
    of_name = _models(conn, now_ms, items)
    seen: set[str] = set()
    changed = False
    results = []
    for item in items:
        id_, rid, superseded, removed = _resolve(conn, now_ms, item)
        changed = changed or removed
        status = "created"
        if id_ in seen or (rid is not None and not superseded):
            status = "duplicate"
        elif rid is not None:
            status = "revived"
        seen.add(id_)
        replaced = [] if status == "duplicate" else _store(conn, now_ms, item, id_, rid, of_name)
        changed = changed or status != "duplicate"
        results.append({"id": id_, "status": status, "superseded": replaced})
    return results, changed


def _models(conn: ProfileConnection, now_ms: int, items: list[Item]) -> dict[str, Model]:
    """Return the models that the embeddings of the items belong to, by name."""
    of_name: dict[str, Model] = {}
    for index, item in enumerate(items):
        if item.embedding is not None and item.embedding_model not in of_name:
            where = f"memories[{index}].embedding"
            size = fields.dimensions(item.embedding)
            of_name[item.embedding_model] = models.ensure(conn, now_ms, item.embedding_model, size, where)
    return of_name


def _resolve(conn: ProfileConnection, now_ms: int, item: Item) -> tuple[str, int | None, bool, bool]:
    """Return (id, row of the memory if it exists, whether that is superseded, whether a row was removed).

    Events and tasks of equal content are told apart by their summaries: the first keeps the plain id.
    """
    plain = canonical.memory_id(item.type, item.topic_key, item.content)
    if item.type in _TOPICAL:
        found = _rows(conn, _FIND, (plain, plain))
        return (plain, found[0][0], found[0][4] is not None, False) if found else (plain, None, False, False)
    mixed = canonical.memory_id_with_summary(item.type, item.topic_key, item.content, item.summary)
    taken = removed = False
    for rid, id_, summary, keywords, superseded_at, expires_at in _rows(conn, _FIND, (plain, mixed)):
        if expires_at is not None and expires_at <= now_ms:
            _remove(conn, rid, summary, keywords)  # expired, and only not swept yet
            removed = True
        elif summary == item.summary:
            return id_, rid, superseded_at is not None, removed
        else:
            taken = taken or id_ == plain
    return (mixed if taken else plain), None, False, removed


def _store(
    conn: ProfileConnection, now_ms: int, item: Item, id_: str, rid: int | None, of_name: dict[str, Model]
) -> list[str]:
    """Insert or revive one memory; return the ids that it superseded."""
    revives = rid is not None
    if rid is None:
        expires_at = None if item.ttl_s is None else now_ms + 1000 * item.ttl_s
        conn.execute(
            _INSERT,
            (
                id_,
                item.type,
                item.topic_key,
                item.summary,
                item.content.decode(),
                item.keywords,
                item.session_id,
                item.source,
                now_ms,
                expires_at,
            ),
        )
        rid = conn.last_insert_rowid()
        conn.execute(_INSERT_TEXT, (rid, item.summary, item.keywords))
    else:
        conn.execute(_SUPERSEDE, (None, None, rid))
    replaced = []
    if item.topic_key is not None:
        for other, other_id in _rows(conn, _ACTIVE_OF_TOPIC, (item.topic_key, item.type, id_)):
            conn.execute(_SUPERSEDE, (id_, now_ms, other))
            replaced.append(other_id)
    if item.embedding is not None:
        table = of_name[item.embedding_model].table
        conn.execute(f"INSERT OR IGNORE INTO {table}(rid, e) VALUES (?, ?)", (rid, item.embedding))
        if revives:
            note_change(conn, rid)  # it may have had none
    if item.origin is not None:
        origins.store(conn, rid, item.origin)
    if item.session_id is not None:
        touch_session(conn, now_ms, item.session_id)
    return replaced


def touch_session(conn: ProfileConnection, now_ms: int, session_id: str) -> None:
    """Register the session, or note that it is active now."""
    conn.execute(_TOUCH_SESSION, (session_id, now_ms))


def _remove(conn: ProfileConnection, rid: int, summary: str, keywords: str) -> None:
    conn.execute(_DELETE_TEXT, (rid, summary, keywords))
    for model in models.all_models(conn):
        conn.execute(f"DELETE FROM {model.table} WHERE rid = ?", (rid,))
    origins.remove(conn, rid)
    conn.execute("DELETE FROM __memoturn_memories WHERE rid = ?", (rid,))
    note_change(conn, rid)


def note_change(conn: ProfileConnection, rid: int) -> None:
    """Note that what is searched of a memory changed or went: its text or a vector.

    Who keeps a copy of what is searched takes rows above the highest that it knows, and looks at those that
    are noted here. The last CHANGES_KEPT are.
    """
    conn.execute("INSERT INTO __memoturn_memory_changes(rid) VALUES (?)", (rid,))
    conn.execute(
        "DELETE FROM __memoturn_memory_changes WHERE seq <= ?", (conn.last_insert_rowid() - CHANGES_KEPT,)
    )


# ---- get and forget


def read_memory(conn: ProfileConnection, now_ms: int, memory_id: str) -> dict[str, Any]:
    """Return one memory with the ids that it superseded. Raises NotFoundError, for an expired task too."""
    row: Any = conn.execute(
        f"SELECT {_COLUMNS}, rid FROM __memoturn_memories WHERE id = ?", (memory_id,)
    ).fetchone()
    if row is None or (row[9] is not None and row[9] <= now_ms):
        raise _no_memory(memory_id)
    *values, rid = row
    memory: dict[str, Any] = dict(zip(_COLUMNS.split(", "), values, strict=True))
    memory["source_turns"] = origins.read(conn, rid)
    memory["content"] = msgspec.Raw(memory["content"].encode())
    superseded = conn.execute(
        "SELECT id FROM __memoturn_memories WHERE superseded_by = ? ORDER BY created_at, rid", (memory_id,)
    )
    memory["supersedes"] = [id_ for (id_,) in superseded]
    return memory


def apply_forget(conn: ProfileConnection, now_ms: int, memory_id: str) -> tuple[None, bool]:
    """Remove a memory with its text and vector; what it had superseded now points to its own successor.

    Forgetting the active memory of a topic leaves the topic without one. Raises NotFoundError.
    """
    row = conn.execute(
        "SELECT rid, summary, keywords, superseded_by, expires_at FROM __memoturn_memories WHERE id = ?",
        (memory_id,),
    ).fetchone()
    if row is None or (row[4] is not None and row[4] <= now_ms):
        raise _no_memory(memory_id)
    rid, summary, keywords, successor, _ = row
    _remove(conn, rid, summary, keywords)
    conn.execute(
        "UPDATE __memoturn_memories SET superseded_by = ? WHERE superseded_by = ?", (successor, memory_id)
    )
    return None, True


def _no_memory(memory_id: str) -> NotFoundError:
    return NotFoundError(
        f"no memory {memory_id[:64]!a} is here: it was never stored, was forgotten or expired"
    )


# ---- sessions and expiry


def read_sessions(conn: ProfileConnection, limit: int) -> list[dict[str, Any]]:
    """Return up to `limit` sessions `{id, created_at, last_active_at}`, the most recently active first."""
    rows = conn.execute(
        "SELECT id, created_at, last_active_at FROM __memoturn_memory_sessions"
        " ORDER BY last_active_at DESC, id LIMIT ?",
        (limit,),
    )
    return [{"id": id_, "created_at": created, "last_active_at": active} for id_, created, active in rows]


def apply_end_session(
    conn: ProfileConnection, now_ms: int, session_id: str, *, turns: bool = False
) -> tuple[None, bool]:
    """Remove a session and its tasks, with `turns` its transcript too; other memories stay."""
    del now_ms
    before = conn.total_changes()
    tasks = _rows(
        conn,
        "SELECT rid, summary, keywords FROM __memoturn_memories WHERE session_id = ? AND type = 'task'",
        (session_id,),
    )
    for task in tasks:
        _remove(conn, *task)
    conn.execute("DELETE FROM __memoturn_memory_sessions WHERE id = ?", (session_id,))
    if turns:
        transcripts.delete(conn, session_id)
    return None, conn.total_changes() > before


def next_expiry(conn: ProfileConnection) -> int | None:
    """Return the unix ms at which the next task or key expires, None when none will."""
    expiry: int | None = conn.execute(
        "SELECT min(e) FROM (SELECT min(expires_at) AS e FROM __memoturn_memories WHERE expires_at IS NOT NULL"
        " UNION ALL SELECT min(expires_at) FROM __memoturn_kv WHERE expires_at IS NOT NULL)"
    ).get
    return expiry


def sweep_expired(conn: ProfileConnection, now_ms: int, limit: int) -> tuple[int, bool]:
    """Remove up to `limit` expired tasks, keys and kept answers each; return how many went, and whether any did."""
    tasks = _rows(
        conn,
        "SELECT rid, summary, keywords FROM __memoturn_memories WHERE expires_at <= ?"
        " ORDER BY expires_at LIMIT ?",
        (now_ms, limit),
    )
    for task in tasks:
        _remove(conn, *task)
    before = conn.total_changes()
    conn.execute(
        "DELETE FROM __memoturn_kv WHERE (ns, k) IN"
        " (SELECT ns, k FROM __memoturn_kv WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
        (now_ms, limit),
    )
    swept = len(tasks) + conn.total_changes() - before + idempotency.sweep(conn, now_ms, limit)
    return swept, swept > 0


# ---- what routes call


async def ingest(
    profile: Profile, items: list[Item], *, durable: bool = False
) -> Written[list[dict[str, Any]]]:
    """Store a batch; see `apply_ingest`."""
    return await profile.write(
        lambda conn, now_ms: apply_ingest(conn, now_ms, items), durable=durable, work=work_of(items)
    )


def work_of(items: list[Item]) -> Work:
    """Return how much work it is to store a batch."""
    size = sum(len(i.summary) + len(i.keywords) + len(i.content) for i in items)
    return Work.POINT if len(items) <= _INLINE_ITEMS and size <= _INLINE_TEXT else Work.HEAVY


async def get(profile: Profile, memory_id: str, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return one memory; see `read_memory`."""
    return await profile.read(lambda conn, now_ms: read_memory(conn, now_ms, memory_id), min_txid=min_txid)


async def forget(profile: Profile, memory_id: str, *, durable: bool = False) -> Written[None]:
    """Remove one memory; see `apply_forget`."""
    return await profile.write(lambda conn, now_ms: apply_forget(conn, now_ms, memory_id), durable=durable)


async def sessions(profile: Profile, *, limit: int = 100, min_txid: int = 0) -> Seen[list[dict[str, Any]]]:
    """Return the sessions; see `read_sessions`."""
    return await profile.read(lambda conn, _: read_sessions(conn, limit), min_txid=min_txid)


async def end_session(
    profile: Profile, session_id: str, *, turns: bool = False, durable: bool = False
) -> Written[None]:
    """End a session; see `apply_end_session`."""
    work = Work.HEAVY if turns else Work.POINT
    return await profile.write(
        lambda conn, now_ms: apply_end_session(conn, now_ms, session_id, turns=turns),
        durable=durable,
        work=work,
    )
