"""Bodies that look after memories: lists, history, topics, patches, forgetting many, lines of JSON."""

from typing import Annotated, Literal

from msgspec import Meta

from memoturnd.http.shapes import UNSET, Count, Maybe, Struct, Time, Txid
from memoturnd.http.shapes.memories import Record, Share, Type

Topical = Literal["fact", "instruction"]
Moment = Annotated[str, Meta(description="Unix milliseconds or RFC 3339.")]


class Memories(Struct):
    """A page of memories; null ends the list."""

    memories: list[Record]
    next_cursor: str | None
    txid: Txid


class Patch(Struct):
    """What to say of a memory: at least one field, and of `ttl` and `expires_at` at most one. Null clears."""

    pinned: bool | None = None
    importance: Share | None = None
    keywords: str | None = None
    ttl: Count | None = None
    expires_at: Time | str | None = None


class Patched(Struct):
    """What is said of a memory now."""

    id: str
    pinned: bool
    importance: float | None
    keywords: str
    expires_at: Time | None
    updated_at: Time
    txid: Txid
    degraded: Maybe[list[str]] = UNSET


class Version(Record):
    """A version of what a topic says."""

    active: bool
    last_updated: Time


class Topic(Struct):
    """What a profile holds of one type under a key: how many versions, the newest, and which is active."""

    topic_key: str
    type: Topical
    active: str | None
    version: Count
    count: Count
    last_updated: Time
    pinned: bool


class Chain(Topic):
    """The versions of a topic, the newest first."""

    versions: list[Version]
    next_cursor: str | None


class History(Struct):
    """The versions of what a memory says, the newest first; without a topic the memory itself."""

    topic_key: str | None
    type: Type
    active: str | None
    version: Count
    count: Count
    last_updated: Time
    pinned: bool
    versions: list[Version]
    next_cursor: str | None
    txid: Txid


class Chains(Struct):
    """The versions of a topic, of each type that has it."""

    topic_key: str
    chains: list[Chain]
    txid: Txid


class Topics(Struct):
    """A page of topics; null ends the list."""

    topics: list[Topic]
    next_cursor: str | None
    txid: Txid


class Undo(Struct):
    """Why a correction is undone."""

    reason: str | None = None


class Undone(Struct):
    """The memory that is history now, and the one that is active again."""

    undone: str
    active: str
    version: Count
    txid: Txid


class Forget(Struct):
    """Which memories to forget: `ids`, or those of a filter, or with `all` every one."""

    ids: list[str] | None = None
    all: bool | None = None
    types: list[Type] | None = None
    topic_key: str | None = None
    topic_prefix: str | None = None
    session_id: str | None = None
    source: str | None = None
    pinned: bool | None = None
    since: Time | str | None = None
    until: Time | str | None = None
    include_superseded: bool | None = None
    dry_run: bool | None = None
    limit: Count | None = None


class Forgotten(Struct):
    """What became of one memory."""

    id: str
    status: Literal["forgotten", "would_forget", "not_found"]


class ForgottenMany(Struct):
    """What became of each; `more` tells that the filter means others still, `matched` how many in all (of a dry run)."""

    dry_run: bool
    forgotten: Count
    results: list[Forgotten]
    more: bool
    txid: Txid
    matched: Maybe[Count] = UNSET


class Counts(Struct):
    """How many lines of each kind came in."""

    model: Count
    session: Count
    transcript: Count
    memory: Count
    turn: Count


class Imported(Struct):
    """What an import stored."""

    imported: Counts
    txid: Txid
