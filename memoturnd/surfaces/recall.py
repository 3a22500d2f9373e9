"""Hybrid recall: three channels, each exact under the filters, fused by rank."""

from dataclasses import dataclass
from typing import Any, Final

import apsw
import msgspec
import numpy as np

from memoturnd.core import text
from memoturnd.core.fusion import Candidate, Fused, fuse
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import fields, memories, models, origins, turn_search, turns
from memoturnd.surfaces.channels import Scope, SqlChannels
from memoturnd.surfaces.kept_channels import KeptChannels
from memoturnd.surfaces.memory_index import ElsewhereError, open_state
from memoturnd.surfaces.models import Model

K_DEFAULT: Final = 8
K_LIMIT: Final = 1000
WINDOW_FACTOR: Final = 5
"""Candidates per channel for each memory asked for."""

_COLUMNS = "id, type, topic_key, summary, content, keywords, session_id, source, created_at, superseded_by"
_FIELDS = tuple(_COLUMNS.split(", "))
_LOAD = f"""SELECT {", ".join(f"m.{name}" for name in _FIELDS)}
 FROM carray(?) AS c CROSS JOIN __memoturn_memories AS m ON m.rid = c.value"""
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
        answer["turns"] = _turns(conn, query)
    if degraded:
        answer["degraded"] = ["vector"]
    return answer


def _turns(conn: ProfileConnection, query: Query) -> list[dict[str, Any]]:
    model_id = turn_search.model_of(conn, query.embedding_model)
    if query.embedding is None or model_id is None:
        return []
    return turns.read_nearest(conn, query.embedding, query.k, session_id=query.session_id, model_id=model_id)


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
    channels = _channels(conn, now_ms, query, model)
    return _hits(conn, fuse(channels, limit=query.k), explain=query.explain)


def _channels(
    conn: ProfileConnection, now_ms: int, query: Query, model: Model | None
) -> dict[str, list[Candidate]]:
    """Return the candidates of each channel: from the arrays in memory where there are any, else by SQL."""
    scope = Scope(query.types, query.session_id, query.source, query.include_superseded)
    window = WINDOW_FACTOR * query.k
    sql = SqlChannels(conn, scope, now_ms, window)
    channels = {}
    if query.topic_key:
        channels["topic"] = sql.topic(query.topic_key)
    words = text.tokens(query.query) if query.query is not None else []
    if not words and (query.embedding is None or model is None):
        return channels
    opened = open_state(conn)
    kept = None if opened is None else KeptChannels(conn, opened, scope, now_ms, window)
    rankings = {}
    if words:
        ranking = None if kept is None else kept.keyword(words)
        if ranking is None:
            channels["keyword"] = sql.keyword(words)
        else:
            rankings["keyword"] = ranking
    if query.embedding is not None and model is not None:
        ranking = None if kept is None else kept.vector(model, query.embedding)
        if ranking is None:
            channels["vector"] = sql.vector(model, query.embedding)
        else:
            rankings["vector"] = ranking
    if kept is not None and rankings:
        channels.update(kept.candidates(rankings))
    return channels


def _hits(conn: ProfileConnection, fused: list[Fused], *, explain: bool) -> list[dict[str, Any]]:
    if not fused:
        return []
    rids = apsw.carray(np.array([f.rid for f in fused], np.int64))
    hits = []
    for row, found in zip(conn.execute(_LOAD, (rids,)).fetchall(), fused, strict=True):
        hit: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
        hit["content"] = msgspec.Raw(hit["content"].encode())
        hit["source_turns"] = origins.read(conn, found.rid)
        hit["score"] = found.score
        hit["channels"] = list(found.found)
        if explain:
            hit["explain"] = {name: _explained(name, *place) for name, place in found.found.items()}
        hits.append(hit)
    return hits


def _explained(channel: str, rank: int, measure: float | None) -> dict[str, Any]:
    return {"rank": rank, _MEASURES[channel]: measure} if channel in _MEASURES else {"rank": rank}


async def recall(profile: Profile, query: Query, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Recall memories; see `read_recall`."""

    def op(conn: ProfileConnection, now_ms: int) -> dict[str, Any]:
        return read_recall(conn, now_ms, query)

    try:
        return await profile.read(op, min_txid=min_txid, work=Work.SCAN)
    except ElsewhereError:
        return await profile.read(op, min_txid=min_txid, work=Work.HEAVY)
