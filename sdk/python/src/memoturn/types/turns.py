"""Transcripts: turns of sessions, and what a search of them finds. `content` is any JSON value."""

from typing import Any, Literal, TypedDict

from memoturn.types.stamps import Seen, Written

TurnSearchMode = Literal["keyword", "vector", "hybrid"]
"""By words, by meaning, or by both."""


class Turn(TypedDict):
    """A turn; `seq` counts from 1 in its session."""

    seq: int
    role: str
    content: Any
    created_at: int


class _NewTurn(TypedDict):
    role: str
    content: Any


class NewTurn(_NewTurn, total=False):
    """A turn to append. `at` is the unix milliseconds of one that is older than now."""

    embedding: list[float] | None
    embedding_model: str | None
    at: int | None


class _Appended(Written):
    seq: int


class TurnAppendResult(_Appended, total=False):
    """The number of a turn that was appended, and what a node with an embedder made of it."""

    embedded: int
    degraded: list[str]


class _AppendedAll(Written):
    seqs: list[int]


class TurnsAppendResult(_AppendedAll, total=False):
    """The numbers of turns that were appended, in their order, and what a node with an embedder made of them."""

    embedded: int
    degraded: list[str]


class TurnPage(Seen):
    """Turns, oldest first.

    Pass `older` as `before` for the page in front of this one, `newer` as `after` for the one behind it; they are
    None where there is nothing more.
    """

    turns: list[Turn]
    older: int | None
    newer: int | None


class NearTurn(TypedDict):
    """A turn that a recall found by its vector; `distance` is 1 - cosine."""

    session_id: str
    seq: int
    role: str
    content: Any
    distance: float


class _FoundTurn(TypedDict):
    session_id: str
    seq: int
    role: str
    content: Any
    distance: float | None


class FoundTurn(_FoundTurn, total=False):
    """A turn that a search found; `distance` is None where its vector did not find it.

    A search with words also says its `score`, and which `channels` found it.
    """

    created_at: int
    score: float
    channels: list[str]


class _FoundTurns(Seen):
    turns: list[FoundTurn]


class TurnSearchResult(_FoundTurns, total=False):
    """Turns, best first; `degraded` says that the vector of the words could not be made."""

    degraded: list[str]


class TurnsDeleted(Written):
    """How many turns were deleted, the oldest first; `more` says that the same call would delete others."""

    deleted: int
    more: bool
