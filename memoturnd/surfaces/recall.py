"""Hybrid recall: by words, embedding and topic, exact under the filters, ranked on absolute scales.

With `fusion: "reference"` by ranks, as the reference has it (memoturnd.core.fusion).
"""

from dataclasses import dataclass, field, replace
from typing import Any, Final

import apsw
import msgspec
import numpy as np

from memoturnd.core import fusion, relevance, text
from memoturnd.core.fusion import Candidate
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import ElsewhereError, Profile, Seen, Work
from memoturnd.surfaces import (
    fields,
    memories,
    memory_index,
    models,
    origins,
    scoring,
    surroundings,
    turn_search,
    turns,
)
from memoturnd.surfaces.channels import ArrayChannels, SqlChannels
from memoturnd.surfaces.models import Model
from memoturnd.surfaces.scope import Scope
from memoturnd.surfaces.scoring import Hit, Timed, Wanted, untimed

K_DEFAULT: Final = 8
K_LIMIT: Final = 1000
WINDOW_FACTOR: Final = 5
"""Candidates per channel for each memory asked for."""
CONTEXT_K_LIMIT: Final = 100
"""Most memories of a recall that shows what stands around them."""
WEIGHT_LIMIT: Final = 1000
FUSIONS: Final = ("relevance", "reference")

_COLUMNS = (
    "id, type, topic_key, summary, content, keywords, session_id, source, created_at, superseded_by, pinned"
)
_FIELDS = tuple(_COLUMNS.split(", "))
_LOAD = f"""SELECT m.rid, {", ".join(f"m.{name}" for name in _FIELDS)}
 FROM carray(?) AS c CROSS JOIN __memoturn_memories AS m ON m.rid = c.value WHERE 1 {{filters}}"""
_PINNED = "SELECT m.rid FROM __memoturn_memories AS m WHERE m.pinned = 1 {filters}"
_MEASURES = {"keyword": "bm25", "vector": "distance"}


@dataclass(frozen=True, slots=True)
class Query:
    """A recall, checked. `types` of None means every type, an empty tuple none; `embedding` is float32, of the
    model `embedding_model`. `weights` are those given; `half_life_s` is of the decay asked for.

    `timed` measures what each channel takes. `computed` is whether the node made the embedding, `degraded` whether it should have and could not.
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
    since: int | None = None
    until: int | None = None
    fusion: str = "relevance"
    weights: tuple[tuple[str, float], ...] = ()
    half_life_s: float | None = None
    min_score: float | None = None
    pinned_first: bool = False
    include_context: bool = False
    timed: Timed = field(default=untimed, compare=False)

    @property
    def scope(self) -> Scope:
        """Return which memories may be found."""
        return Scope(
            self.types, self.session_id, self.source, self.include_superseded, self.since, self.until
        )


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
        since=fields.optional_time_ms(body.get("since"), "since"),
        until=fields.optional_time_ms(body.get("until"), "until"),
        fusion=_parse_fusion(body.get("fusion")),
        weights=_parse_weights(body.get("weights")),
        half_life_s=_parse_decay(body.get("decay")),
        min_score=fields.optional_number(body.get("min_score"), "min_score", least=0, most=1e9),
        pinned_first=fields.boolean(body, "pinned_first"),
        include_context=fields.boolean(body, "include_context"),
    )
    if query.query is None and query.embedding is None and query.topic_key is None:
        raise InvalidRequestError("a recall takes at least one of query, embedding and topic_key")
    _check_together(query)
    return query


def _check_together(query: Query) -> None:
    if query.include_context and query.k > CONTEXT_K_LIMIT:
        raise InvalidRequestError(
            f"include_context is for a k of at most {CONTEXT_K_LIMIT}, not {query.k}: ask for fewer memories"
        )
    if query.fusion == "reference" and (query.weights or query.half_life_s is not None):
        raise InvalidRequestError(
            "fusion is reference, whose weights are fixed: leave weights and decay out, or fusion"
        )
    if query.half_life_s is None and "recency" in dict(query.weights):
        raise InvalidRequestError("weights.recency takes a decay: say how fast memories age")


def _parse_fusion(value: Any) -> str:
    if value is None:
        return FUSIONS[0]
    name = fields.text(value, "fusion")
    if name not in FUSIONS:
        raise InvalidRequestError(f"fusion is {name[:32]!a}: it takes {' or '.join(FUSIONS)}")
    return name


def _parse_weights(value: Any) -> tuple[tuple[str, float], ...]:
    if value is None:
        return ()
    body = fields.mapping(value, "weights")
    unknown = set(body).difference(relevance.WEIGHTS)
    if unknown:
        raise InvalidRequestError(
            f"weights holds {min(unknown)[:32]!a}: it takes {', '.join(relevance.WEIGHTS)}"
        )
    parsed = [
        (name, fields.optional_number(body.get(name), f"weights.{name}", least=0, most=WEIGHT_LIMIT))
        for name in relevance.WEIGHTS
    ]
    return tuple((name, weight) for name, weight in parsed if weight is not None)


def _parse_decay(value: Any) -> float | None:
    if value is None:
        return None
    body = fields.mapping(value, "decay")
    half_life_s = fields.optional_number(
        body.get("half_life_s"), "decay.half_life_s", least=0, most=fields.SECONDS_LIMIT
    )
    if not half_life_s:
        raise InvalidRequestError(
            "decay takes half_life_s: the age in seconds, above 0, at which recency counts half"
        )
    return half_life_s


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
    hits = (_by_ranks if query.fusion == "reference" else _by_relevance)(conn, now_ms, query, model)
    shown = _shown(conn, now_ms, query, hits)
    if query.include_context:
        surroundings.add(conn, now_ms, shown)
    return list(shown.values())


def _by_relevance(conn: ProfileConnection, now_ms: int, query: Query, model: Model | None) -> list[Hit]:
    window = WINDOW_FACTOR * query.k
    weights = relevance.WEIGHTS | dict(query.weights)
    if query.half_life_s is not None and "recency" not in dict(query.weights):
        weights["recency"] = relevance.RECENCY_WEIGHT
    topic: list[int] = []
    if query.topic_key:
        with query.timed("topic"):
            topic = [c.rid for c in SqlChannels(conn, query.scope, now_ms, window).topic(query.topic_key)]
    state = memory_index.open_state(conn) or memory_index.build(conn)
    wanted = Wanted(
        words=None if query.query is None else text.tokens(query.query),
        embedding=query.embedding,
        model=model,
        topic=topic,
        weights=weights,
        half_life_s=query.half_life_s,
        min_score=query.min_score,
        first=_pinned(conn, now_ms, query),
        window=window,
        limit=query.k,
        explain=query.explain,
        timed=query.timed,
    )
    hits = scoring.rank(conn, state, query.scope.mask(state, now_ms), now_ms, wanted)
    memory_index.note_use(conn, state)
    return hits


def _pinned(conn: ProfileConnection, now_ms: int, query: Query) -> list[int]:
    """Return the rows that come first."""
    if not query.pinned_first:
        return []
    filters, bindings = query.scope.conditions(now_ms)
    rows: Any = conn.execute(_PINNED.format(filters=filters), bindings).fetchall()
    return [rid for (rid,) in rows]


def _by_ranks(conn: ProfileConnection, now_ms: int, query: Query, model: Model | None) -> list[Hit]:
    window = WINDOW_FACTOR * query.k
    state = memory_index.open_state(conn)
    channels = SqlChannels(conn, query.scope, now_ms, window)
    if state is not None:
        channels = ArrayChannels(conn, query.scope, now_ms, window, state=state)
    found: dict[str, list[Candidate]] = {}
    if query.topic_key:
        with query.timed("topic"):
            found["topic"] = channels.topic(query.topic_key)
    words = text.tokens(query.query) if query.query is not None else []
    if words:
        with query.timed("keyword"):
            found["keyword"] = channels.keyword(words)
    if query.embedding is not None and model is not None:
        with query.timed("vector"):
            found["vector"] = channels.vector(model, query.embedding)
    if state is not None:
        memory_index.note_use(conn, state)
    pinned = set(_pinned(conn, now_ms, query))
    fused = fusion.fuse(found, limit=len(fusion.WEIGHTS) * window)
    fused = [f for f in fused if query.min_score is None or f.score >= query.min_score]
    fused.sort(key=lambda f: f.rid not in pinned)
    return [
        Hit(
            f.rid, f.score, list(f.found), {name: _explained(name, *place) for name, place in f.found.items()}
        )
        for f in fused[: query.k]
    ]


def _explained(channel: str, rank: int, measure: float | None) -> dict[str, Any]:
    weight = fusion.WEIGHTS[channel]
    own = {_MEASURES[channel]: measure} if channel in _MEASURES else {}
    return {"rank": rank, **own, "weight": weight, "contribution": weight / (fusion.RANK_OFFSET + rank)}


def _shown(conn: ProfileConnection, now_ms: int, query: Query, hits: list[Hit]) -> dict[int, dict[str, Any]]:
    """Return hits as answers have them, by row. What the file does not have in scope is left out."""
    if not hits:
        return {}
    filters, bindings = query.scope.conditions(now_ms)
    rids = apsw.carray(np.array([hit.rid for hit in hits], np.int64))
    rows = {row[0]: row[1:] for row in conn.execute(_LOAD.format(filters=filters), (rids, *bindings))}
    of_rows = origins.read_all(conn, rows)
    shown = {}
    for hit in hits:
        if hit.rid not in rows:
            continue
        memory: dict[str, Any] = dict(zip(_FIELDS, rows[hit.rid], strict=True))
        memory["content"] = msgspec.Raw(memory["content"].encode())
        memory["pinned"] = bool(memory["pinned"])
        memory["source_turns"] = of_rows.get(hit.rid)
        memory["score"] = hit.score
        memory["channels"] = hit.channels
        if query.explain:
            memory["explain"] = hit.explain
        shown[hit.rid] = memory
    return shown


async def recall(
    profile: Profile, query: Query, *, min_txid: int = 0, timed: Timed = untimed
) -> Seen[dict[str, Any]]:
    """Recall memories, `timed` by channel; see `read_recall`."""
    query = replace(query, timed=timed)

    def op(conn: ProfileConnection, now_ms: int) -> dict[str, Any]:
        return read_recall(conn, now_ms, query)

    try:
        return await profile.read(op, min_txid=min_txid, work=Work.SCAN)
    except ElsewhereError:
        return await profile.read(op, min_txid=min_txid, work=Work.HEAVY)
