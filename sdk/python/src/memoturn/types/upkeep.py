"""What looks after memories: patches, histories, topics, forgetting many, embedding models."""

from typing import Literal, TypedDict

from memoturn.types.memories import MemoryRecord, MemoryType
from memoturn.types.stamps import Seen, Written

TopicalType = Literal["fact", "instruction"]
"""The types of memories that have topics."""

MemoryOrder = Literal["newest", "oldest", "most_important", "least_important"]
"""How memories are listed; those that are not rated come last in the latter two."""

ReembedScope = Literal["memories", "turns", "all"]
"""What is embedded again."""


class _Patched(Written):
    id: str
    pinned: bool
    importance: float | None
    keywords: str
    expires_at: int | None
    updated_at: int


class MemoryPatched(_Patched, total=False):
    """A memory's fields after a patch; `degraded` says that its vector could not be made anew."""

    degraded: list[str]


class MemoryVersion(MemoryRecord):
    """One version of what a memory says; `active` is the one that holds."""

    active: bool
    last_updated: int


class MemoryHistory(Seen):
    """Every version of what a memory says, newest first.

    `active` is the id of the one that holds, `version` the newest, `count` how many there are, `pinned` whether
    the active one is.
    """

    topic_key: str | None
    type: MemoryType
    active: str | None
    version: int
    count: int
    last_updated: int
    pinned: bool
    versions: list[MemoryVersion]
    next_cursor: str | None


class MemoryUndone(Written):
    """A correction that was undone: `active` is the memory that holds again, as the newest `version`."""

    undone: str
    active: str
    version: int


class TopicInfo(TypedDict):
    """A topic of one type; `active` is None where its active memory was forgotten."""

    topic_key: str
    type: TopicalType
    active: str | None
    version: int
    count: int
    last_updated: int
    pinned: bool


class TopicChain(TopicInfo):
    """What a topic says and has said, newest version first."""

    versions: list[MemoryVersion]
    next_cursor: str | None


class TopicHistory(Seen):
    """A topic's chains, one for each type that has it."""

    topic_key: str
    chains: list[TopicChain]


class ForgetOutcome(TypedDict):
    """What became of one memory; `would_forget` is the answer of a dry run."""

    id: str
    status: Literal["forgotten", "would_forget", "not_found"]


class _Forgotten(Written):
    dry_run: bool
    forgotten: int
    results: list[ForgetOutcome]
    more: bool


class ForgetResult(_Forgotten, total=False):
    """What was forgotten. `more` is True while the filter means others still: call again.

    A dry run also has `matched`, how many are meant in all.
    """

    matched: int


class EmbeddingModel(TypedDict):
    """A model that vectors of the profile are of, and how many; `name` is None for the unnamed one.

    `active` marks the one that the node embeds with.
    """

    name: str | None
    dimensions: int | None
    memories: int
    turns: int
    active: bool
    created_at: int | None


class Embeddable(TypedDict):
    """How many memories and turns may have a vector."""

    memories: int
    turns: int


class EmbeddingModels(Seen):
    """The models of a profile, oldest first; `embedder` is the one that the node embeds with, None without one."""

    models: list[EmbeddingModel]
    embeddable: Embeddable
    embedder: str | None


class ReembedJob(Seen):
    """A job that embeds a branch again; `failed` counts texts that the embedder refuses."""

    state: Literal["none", "running", "waiting", "done", "failed", "cancelled"]
    model: str | None
    scope: ReembedScope | None
    only_missing: bool | None
    total: int
    done: int
    failed: int
    started_at: int | None
    updated_at: int | None
    finished_at: int | None
    error: str | None


class MemoryCounts(TypedDict):
    """How much of each kind was imported."""

    model: int
    session: int
    transcript: int
    memory: int
    turn: int


class MemoryImported(Written):
    """What an import of memory brought in."""

    imported: MemoryCounts
