"""What language models make of memory: answers to questions, and memories out of transcripts."""

from typing import Any, Literal, TypedDict

from memoturn.types.memories import IngestOutcome, MemoryType, RecallHit, SourceTurns
from memoturn.types.stamps import Seen, Written


class _Answered(Seen):
    answer: str | None
    sources: list[str]
    unknown_sources: list[str]
    memories: list[RecallHit]


class AskResult(_Answered, total=False):
    """An answer from memories; `answer` is None where nothing was recalled, and then no model was asked.

    `sources` are the ids that the model drew it from, `unknown_sources` ids that it named and that were not
    among `memories`. `degraded` is that of a recall.
    """

    degraded: list[str]


class _AskedMemories(TypedDict):
    event: Literal["memories"]
    memories: list[RecallHit]
    txid: int


class AskMemories(_AskedMemories, total=False):
    """What was recalled; the first event of a streamed answer."""

    degraded: list[str]


class AskDelta(TypedDict):
    """What a streamed answer goes on with."""

    event: Literal["delta"]
    text: str


class AskDone(TypedDict):
    """The end of a streamed answer: the whole of it, which counts."""

    event: Literal["done"]
    answer: str | None
    sources: list[str]
    unknown_sources: list[str]
    txid: int


AskEvent = AskMemories | AskDelta | AskDone
"""An event of a streamed answer; `event` says which."""


class _SaidTurn(TypedDict):
    role: str
    content: Any


class SaidTurn(_SaidTurn, total=False):
    """A turn to extract from; `seq` is its number in the stored session."""

    seq: int | None


class DroppedProposal(TypedDict):
    """A proposal of the model that breaks a rule of ingest."""

    summary: str
    reason: str


class _Proposed(TypedDict):
    type: MemoryType
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None


class ProposedMemory(_Proposed, total=False):
    """A memory that the model proposes, as `ingest` takes it."""

    source_turns: SourceTurns


class ProposeResult(TypedDict):
    """What a dry run would store."""

    proposed: list[ProposedMemory]
    dropped: list[DroppedProposal]


class _Extracted(Written):
    results: list[IngestOutcome]
    dropped: list[DroppedProposal]


class ExtractResult(_Extracted, total=False):
    """What was extracted and stored; where nothing was proposed, `results` is empty and nothing was written."""

    embedded: int
    degraded: list[str]
