"""Hybrid recall: three channels, each exact under the filters, fused by rank.

Filters are part of each channel's statement, in the channel's own order, so that a channel never runs dry
because its best candidates were filtered away afterwards.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from memoturnd.core import text
from memoturnd.core.fusion import Candidate, Fused, fuse
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import fields, memories, models, origins, turns
from memoturnd.surfaces.models import Model

K_DEFAULT: Final = 8
K_LIMIT: Final = 1000
WINDOW_FACTOR: Final = 5
"""Candidates per channel for each memory asked for."""

_TOPIC = """SELECT m.rid, m.id, m.created_at, NULL FROM __memoturn_memories AS m
 WHERE m.topic_key = ? {filters} ORDER BY m.created_at DESC, m.rid DESC LIMIT ?"""
# FTS5 yields rows in order of rank; the cross join keeps it outermost, so that the scan ends at the limit.
_KEYWORD = """SELECT m.rid, m.id, m.created_at, f.rank
 FROM __memoturn_memories_fts AS f CROSS JOIN __memoturn_memories AS m ON m.rid = f.rowid
 WHERE f.__memoturn_memories_fts MATCH ? {filters} ORDER BY f.rank LIMIT ?"""
# A null vector has no direction: it is taken to be at right angles to everything.
_VECTOR = """SELECT m.rid, m.id, m.created_at, coalesce(vec_distance_cosine(v.e, ?), 1.0) AS distance
 FROM {table} AS v CROSS JOIN __memoturn_memories AS m ON m.rid = v.rid
 WHERE 1 {filters} ORDER BY distance, m.rid LIMIT ?"""
_COLUMNS = "id, type, topic_key, summary, content, keywords, session_id, source, created_at, superseded_by"
_FIELDS = tuple(_COLUMNS.split(", "))
_LOAD = f"SELECT {_COLUMNS} FROM __memoturn_memories WHERE rid = ?"
_COUNT = "SELECT count(*) FROM __memoturn_memories_fts WHERE __memoturn_memories_fts MATCH ?"
_MANY_MEMORIES = 500
_MEASURES = {"keyword": "bm25", "vector": "distance"}


@dataclass(frozen=True, slots=True)
class Query:
    """A recall, checked. `types` of None means every type, an empty tuple none; `embedding` is float32, of the
    model `embedding_model`.

    `computed` is whether the node made the embedding, `degraded` whether it should have and could not.
    """

    query: str | None
    embedding: bytes | None
    topic_key: str | None
    types: tuple[str, ...] | None
    session_id: str | None
    source: str | None
    k: int
    include_superseded: bool
    include_turns: bool
    explain: bool
    embedding_model: str = models.UNNAMED
    computed: bool = False
    degraded: bool = False


def parse_query(payload: Any) -> Query:
    """Return the recall that a body asks for; unknown fields are ignored. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    query = Query(
        query=fields.optional_text(body.get("query"), "query"),
        embedding=fields.optional_vector(body.get("embedding"), "embedding"),
        topic_key=fields.optional_text(
            body.get("topic_key"), "topic_key", length_limit=memories.TOPIC_LENGTH_LIMIT
        ),
        types=_parse_types(body.get("types")),
        session_id=fields.optional_text(body.get("session_id"), "session_id"),
        source=fields.optional_text(body.get("source"), "source"),
        k=max(fields.clamped(body.get("k"), "k", default=K_DEFAULT, limit=K_LIMIT), 1),
        include_superseded=fields.boolean(body, "include_superseded"),
        include_turns=fields.boolean(body, "include_turns"),
        explain=fields.boolean(body, "explain"),
        embedding_model=models.parse_name(body.get("embedding_model"), "embedding_model"),
    )
    if query.query is None and query.embedding is None and query.topic_key is None:
        raise InvalidRequestError("a recall takes at least one of query, embedding and topic_key")
    return query


def _parse_types(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = {fields.text(name, f"types[{at}]") for at, name in enumerate(fields.array(value, "types"))}
    unknown = names.difference(memories.TYPES)
    if unknown:
        raise InvalidRequestError(f"types holds {min(unknown)[:32]!a}: it takes {', '.join(memories.TYPES)}")
    return tuple(sorted(names))


def read_recall(conn: ProfileConnection, now_ms: int, query: Query) -> dict[str, Any]:
    """Return `{memories: [hit]}`, with `turns` where asked for, and `degraded` where vectors were not searched.

    Raises InvalidRequestError when the embedding's dimension is not that of the profile's embeddings.
    """
    model = models.find(conn, query.embedding_model)
    degraded = query.degraded
    if query.embedding is not None:
        if query.computed:
            degraded = not _can_search(conn, model, query.embedding)
            model = None if degraded else model
        elif model is not None:
            models.check(conn, model, fields.dimensions(query.embedding), "embedding")
    answer: dict[str, Any] = {"memories": _recall(conn, now_ms, query, model)}
    if query.include_turns:
        embedding, session_id = query.embedding, query.session_id
        answer["turns"] = (
            [] if embedding is None else turns.read_nearest(conn, embedding, query.k, session_id=session_id)
        )
    if degraded:
        answer["degraded"] = ["vector"]
    return answer


def _can_search(conn: ProfileConnection, model: Model | None, embedding: bytes) -> bool:
    """Return whether a vector that the node made finds what there is to find: memories may be of other models alone."""
    if (
        model is not None
        and model.dimensions == fields.dimensions(embedding)
        and conn.execute(f"SELECT 1 FROM {model.table} LIMIT 1").get is not None
    ):
        return True
    return conn.execute("SELECT 1 FROM __memoturn_memories WHERE type <> 'task' LIMIT 1").get is None


def _recall(conn: ProfileConnection, now_ms: int, query: Query, model: Model | None) -> list[dict[str, Any]]:
    if query.types == ():
        return []
    filters, bindings = _filters(query, now_ms)
    window = WINDOW_FACTOR * query.k

    def channel(statement: str, wanted: Binding) -> list[Candidate]:
        rows = conn.execute(statement.format(filters=filters), (wanted, *bindings, window))
        return [Candidate(*row) for row in rows]

    channels = {}
    if query.topic_key:
        channels["topic"] = channel(_TOPIC, query.topic_key)
    words = text.tokens(query.query) if query.query is not None else []
    if words:
        telling = _telling_words(conn, words)
        channels["keyword"] = channel(_KEYWORD, text.match_expression(telling))
        if len(telling) < len(words) and len(channels["keyword"]) < window:
            channels["keyword"] = channel(_KEYWORD, text.match_expression(words))
    if query.embedding is not None and model is not None:
        channels["vector"] = channel(_VECTOR.replace("{table}", model.table), query.embedding)
    return [_hit(conn, fused, explain=query.explain) for fused in fuse(channels, limit=query.k)]


def _telling_words(conn: ProfileConnection, words: list[str]) -> list[str]:
    """Return the words that at most half of the memories have, all of them where none is so rare.

    bm25 gives the others the weight 1e-6 whatever they are, so they only matter where the telling words do
    not fill the window; scoring every memory that has one is what a query over many memories would cost.
    """
    if len(words) == 1:
        return words
    total: int = conn.execute("SELECT count(*) FROM __memoturn_memories").get
    if total < _MANY_MEMORIES:
        return words
    telling = [
        word for word in words if conn.execute(_COUNT, (text.match_expression([word]),)).get <= total // 2
    ]
    return telling or words


def _filters(query: Query, now_ms: int) -> tuple[str, tuple[Binding, ...]]:
    """Return the conditions on a memory `m`, from few enough spellings for the statement cache."""
    conditions = ["AND (m.expires_at IS NULL OR m.expires_at > ?)"]
    bindings: list[Binding] = [now_ms]
    if not query.include_superseded:
        conditions.append("AND m.superseded_at IS NULL")
    if query.types is not None:
        conditions.append(f"AND m.type IN ({', '.join('?' * len(query.types))})")
        bindings.extend(query.types)
    if query.session_id is not None:
        conditions.append("AND m.session_id = ?")
        bindings.append(query.session_id)
    if query.source is not None:
        conditions.append("AND m.source = ?")
        bindings.append(query.source)
    return " ".join(conditions), tuple(bindings)


def _hit(conn: ProfileConnection, fused: Fused, *, explain: bool) -> dict[str, Any]:
    row: Any = conn.execute(_LOAD, (fused.rid,)).fetchone()
    hit: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    hit["content"] = msgspec.Raw(hit["content"].encode())
    hit["source_turns"] = origins.read(conn, fused.rid)
    hit["score"] = fused.score
    hit["channels"] = list(fused.found)
    if explain:
        hit["explain"] = {name: _explained(name, *found) for name, found in fused.found.items()}
    return hit


def _explained(channel: str, rank: int, measure: float | None) -> dict[str, Any]:
    return {"rank": rank, _MEASURES[channel]: measure} if channel in _MEASURES else {"rank": rank}


async def recall(profile: Profile, query: Query, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Recall memories; see `read_recall`."""
    return await profile.read(
        lambda conn, now_ms: read_recall(conn, now_ms, query), min_txid=min_txid, work=Work.SCAN
    )
