"""What a profile remembers: items to ingest, memories, recalls, sessions."""

from typing import Any, Literal, TypedDict

from memoturn.types.stamps import Seen, Written
from memoturn.types.turns import NearTurn, Turn

MemoryType = Literal["fact", "event", "instruction", "task"]
"""Facts and instructions with a topic key replace each other; events never do; tasks expire."""

Fusion = Literal["relevance", "reference"]
"""How the channels of a recall are joined: by what they measure, or by ranks as the original did."""


class _SourceTurns(TypedDict):
    session_id: str
    from_seq: int


class SourceTurns(_SourceTurns, total=False):
    """The turns of a session that a memory was drawn from; `to_seq` is included."""

    to_seq: int | None


class _Item(TypedDict):
    type: MemoryType
    summary: str


class IngestItem(_Item, total=False):
    """One memory to ingest; only `type` and `summary` are required.

    `content` is any JSON value, `{"summary": summary}` unless given: what has the same type, topic and content is the
    same memory. `ttl` is seconds, and only for tasks. `reason` says why it supersedes what its
    topic held. `importance` is 0 to 1. `embedding` is of `embedding_model`, the profile's unnamed one without it.
    """

    topic_key: str | None
    content: Any
    keywords: str | None
    embedding: list[float] | None
    embedding_model: str | None
    session_id: str | None
    source: str | None
    ttl: int | None
    source_turns: SourceTurns | None
    pinned: bool | None
    importance: float | None
    reason: str | None


class _Outcome(TypedDict):
    id: str | None
    status: Literal["created", "revived", "duplicate", "error"]
    superseded: list[str]


class IngestOutcome(_Outcome, total=False):
    """What became of one item; `superseded` holds the ids that it replaced.

    With the status `error` (of `on_error="skip"` alone) `id` is None, and `error` says what is wrong with it.
    """

    error: str


class _Ingested(Written):
    results: list[IngestOutcome]


class IngestResult(_Ingested, total=False):
    """Outcomes in the order of the items.

    A node with an embedder says how many vectors it made (`embedded`), and that some failed (`degraded`).
    """

    embedded: int
    degraded: list[str]


class MemoryRecord(TypedDict):
    """A stored memory.

    `version` counts how often a memory of this type and topic became the active one; `reason` says why this one did.
    `updated_at` is when it was last stored, patched, superseded or brought back, `undone_at` when it was undone.
    """

    id: str
    type: MemoryType
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    created_at: int
    expires_at: int | None
    superseded_by: str | None
    superseded_at: int | None
    pinned: bool
    importance: float | None
    version: int
    reason: str | None
    updated_at: int
    undone_at: int | None
    source_turns: SourceTurns | None


class Memory(MemoryRecord):
    """A stored memory with the ids that it superseded itself."""

    supersedes: list[str]


class MemoryPage(Seen):
    """A page of memories; pass `next_cursor` for the next one, which is None at the end."""

    memories: list[MemoryRecord]
    next_cursor: str | None


class Weights(TypedDict, total=False):
    """What each channel of a recall weighs, 0 to 1000; one that weighs 0 is not searched."""

    topic: float | None
    keyword: float | None
    vector: float | None
    recency: float | None


class Decay(TypedDict):
    """How fast a memory loses what recency adds to its score: to the half in so many seconds."""

    half_life_s: float


class NearMemory(TypedDict):
    """An active memory beside a recalled one in its session."""

    id: str
    type: MemoryType
    summary: str
    created_at: int


class HitContext(TypedDict):
    """What surrounds a recalled memory: turns that it was drawn from or that were near, and its neighbours."""

    turns: list[Turn]
    memories: list[NearMemory]


class _Hit(TypedDict):
    id: str
    type: MemoryType
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    created_at: int
    superseded_by: str | None
    source_turns: SourceTurns | None
    pinned: bool
    score: float
    channels: list[str]


class RecallHit(_Hit, total=False):
    """A recalled memory. `channels` found it; `score` is what they add up to.

    When they were asked for, `explain` has what each channel adds, with its rank and measures, and `context`
    what surrounds the memory.
    """

    explain: dict[str, dict[str, Any]]
    context: HitContext


class _Recalled(Seen):
    memories: list[RecallHit]


class RecallResult(_Recalled, total=False):
    """The hits, best first, and turns of transcripts when they were asked for.

    `degraded` names channels that could not be used: `vector`, where the node's embedder failed.
    """

    turns: list[NearTurn]
    degraded: list[str]


class Session(TypedDict):
    """A session that memories were ingested under."""

    id: str
    created_at: int
    last_active_at: int


class ProfileInfo(TypedDict):
    """A profile of a namespace."""

    profile: str
    created_at: int
