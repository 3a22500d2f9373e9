"""Bodies of extraction and answers."""

from typing import Any

from memoturnd.http.shapes import UNSET, Count, Maybe, Struct, Txid
from memoturnd.http.shapes.memories import Hit, SourceTurns, Stored, Type


class Said(Struct):
    """A turn to extract from; `seq` is its number where it is stored."""

    role: str
    content: Any
    seq: Count | None = None


class Extract(Struct):
    """Turns to extract memories from, or without them a session whose turns are stored."""

    turns: list[Said] | None = None
    session_id: str | None = None
    source: str | None = None
    dry_run: bool | None = None
    from_seq: Count | None = None
    to_seq: Count | None = None


class Dropped(Struct):
    """A proposal that was not stored, and why."""

    summary: str
    reason: str


class Extracted(Struct):
    """One result per memory; `txid` is null where nothing was written."""

    results: list[Stored]
    dropped: list[Dropped]
    txid: Txid | None
    embedded: Maybe[Count] = UNSET
    degraded: Maybe[list[str]] = UNSET


class ProposedItem(Struct):
    """A memory as an ingest takes it."""

    type: Type
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    source_turns: Maybe[SourceTurns] = UNSET


class Proposed(Struct):
    """What a dry run would have stored."""

    proposed: list[ProposedItem]
    dropped: list[Dropped]


class Ask(Struct):
    """A question, and the filters of the recall that goes with it; with `stream` the answer is events."""

    question: str
    types: list[Type] | None = None
    session_id: str | None = None
    source: str | None = None
    k: Count | None = None
    include_superseded: bool | None = None
    stream: bool | None = None


class Answered(Struct):
    """An answer with the memories that were recalled; null where there were none."""

    answer: str | None
    sources: list[str]
    unknown_sources: list[str]
    memories: list[Hit]
    txid: Txid
    degraded: Maybe[list[str]] = UNSET
