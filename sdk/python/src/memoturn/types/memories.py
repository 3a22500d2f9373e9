"""What a profile remembers: items to ingest, memories, recalls, sessions."""

from typing import Any, Literal, TypedDict

MemoryType = Literal["fact", "event", "instruction", "task"]
"""Facts and instructions with a topic key replace each other; events never do; tasks expire."""


class _ItemRequired(TypedDict):
    type: MemoryType
    summary: str


class IngestItem(_ItemRequired, total=False):
    """One memory to ingest. `ttl` is seconds and only for tasks; `content` is any JSON value."""

    topic_key: str | None
    content: Any
    keywords: str | None
    embedding: list[float] | None
    session_id: str | None
    source: str | None
    ttl: int


class IngestOutcome(TypedDict):
    """What became of one item; `superseded` holds the ids that it replaced."""

    id: str
    status: Literal["created", "revived", "duplicate"]
    superseded: list[str]


class IngestResult(TypedDict):
    """Outcomes in the order of the items."""

    results: list[IngestOutcome]
    txid: int
    durable_txid: int


class Memory(TypedDict):
    """A stored memory with its neighbours in the chain of its topic."""

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
    supersedes: list[str]


class _HitRequired(TypedDict):
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
    score: float
    channels: list[str]


class RecallHit(_HitRequired, total=False):
    """A recalled memory, best first.

    When it was asked for, `explain` has for each channel that found it its `rank` there, and the measure
    that ranked it where the channel has one.
    """

    explain: dict[str, dict[str, float]]


class _RecallRequired(TypedDict):
    memories: list[RecallHit]
    txid: int
    durable_txid: int


class RecallResult(_RecallRequired, total=False):
    """The hits, and turns of transcripts when they were asked for."""

    turns: list[dict[str, Any]]


class Session(TypedDict):
    """A session that memories were ingested under."""

    id: str
    created_at: int
    last_active_at: int


class ProfileInfo(TypedDict):
    """A profile of a namespace."""

    profile: str
    created_at: int
