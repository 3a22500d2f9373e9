"""Bodies of typed memory: ingest, recall, get, sessions."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from memoturnd.http.shapes import UNSET, Count, Maybe, Struct, Time, Txid, Vector
from memoturnd.http.shapes.turns import Turn

Type = Literal["fact", "event", "instruction", "task"]
Share = Annotated[float, Meta(ge=0, le=1)]


class SourceTurns(Struct):
    """Turns that a memory was drawn from, both ends included."""

    session_id: str
    from_seq: Count
    to_seq: Count | None = None


class Item(Struct):
    """A memory to store. `ttl` is seconds, on tasks alone; `topic_key` is for facts and instructions."""

    type: Type
    summary: str
    topic_key: str | None = None
    content: Any = None
    keywords: str | None = None
    embedding: Vector | None = None
    embedding_model: str | None = None
    session_id: str | None = None
    source: str | None = None
    ttl: Count | None = None
    source_turns: SourceTurns | None = None
    pinned: bool | None = None
    importance: Share | None = None
    reason: str | None = None


class Ingest(Struct):
    """Up to 1000 memories, stored as one commit; with `on_error` skip those that can be."""

    memories: list[Item]
    on_error: Literal["fail", "skip"] | None = None


class Stored(Struct):
    """What became of one memory; where it was skipped, `error` says why."""

    id: str | None
    status: Literal["created", "revived", "duplicate", "error"]
    superseded: list[str]
    error: Maybe[str] = UNSET


class Ingested(Struct):
    """One result per memory, in order; `embedded` counts the vectors that the node made."""

    results: list[Stored]
    txid: Txid
    embedded: Maybe[Count] = UNSET
    degraded: Maybe[list[str]] = UNSET


Weight = Annotated[float, Meta(ge=0, le=1000)]


class Weights(Struct):
    """What each channel counts; one that weighs 0 is not searched, and recency takes a decay."""

    topic: Weight | None = None
    keyword: Weight | None = None
    vector: Weight | None = None
    recency: Weight | None = None


class Decay(Struct):
    """How fast memories age."""

    half_life_s: Annotated[float, Meta(gt=0)]


class Recall(Struct):
    """What to recall by; at least one of query, embedding and topic_key."""

    query: str | None = None
    embedding: Vector | None = None
    embedding_model: str | None = None
    topic_key: str | None = None
    types: list[Type] | None = None
    session_id: str | None = None
    source: str | None = None
    k: Count | None = None
    include_superseded: bool | None = None
    include_turns: bool | None = None
    explain: bool | None = None
    since: Time | str | None = None
    until: Time | str | None = None
    weights: Weights | None = None
    decay: Decay | None = None
    min_score: Annotated[float, Meta(ge=0)] | None = None
    pinned_first: bool | None = None
    include_context: bool | None = None
    fusion: Literal["relevance", "reference"] | None = None


class ContextMemory(Struct):
    """A memory that stands beside another in its session."""

    id: str
    type: Type
    summary: str
    created_at: Time


class Context(Struct):
    """What stands around a memory."""

    turns: list[Turn]
    memories: list[ContextMemory]


class Hit(Struct):
    """A memory found."""

    id: str
    type: Type
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    created_at: Time
    superseded_by: str | None
    source_turns: SourceTurns | None
    pinned: bool
    score: float
    channels: list[str]
    explain: Maybe[dict[str, Any]] = UNSET
    context: Maybe[Context] = UNSET


class NearTurn(Struct):
    """A turn found by vector."""

    session_id: str
    seq: Count
    role: str
    content: Any
    distance: float


class Recalled(Struct):
    """Memories found, best first; `degraded` names channels that could not be searched."""

    memories: list[Hit]
    txid: Txid
    turns: Maybe[list[NearTurn]] = UNSET
    degraded: Maybe[list[str]] = UNSET


class Record(Struct):
    """A memory with all that is known of it; `updated_at` is when it last changed."""

    id: str
    type: Type
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    created_at: Time
    expires_at: Time | None
    superseded_by: str | None
    superseded_at: Time | None
    pinned: bool
    importance: float | None
    version: Count
    reason: str | None
    updated_at: Time
    undone_at: Time | None
    source_turns: SourceTurns | None


class Memory(Record):
    """One memory, with the ids that it superseded."""

    supersedes: list[str]


class Session(Struct):
    """A session of a profile."""

    id: str
    created_at: Time
    last_active_at: Time


class Sessions(Struct):
    """Sessions, the most recently active first."""

    sessions: list[Session]
    next_cursor: str | None
    txid: Txid
