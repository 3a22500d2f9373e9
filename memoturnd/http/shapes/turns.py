"""Bodies of transcripts."""

from typing import Any, Literal

from memoturnd.http.shapes import UNSET, Count, Maybe, Struct, Time, Txid, Vector


class Append(Struct):
    """A turn, or in `turns` up to 1000 as one commit. `content` is any JSON."""

    role: Maybe[str] = UNSET
    content: Any = UNSET
    embedding: Vector | None = None
    embedding_model: str | None = None
    at: Time | None = None
    turns: Maybe[list["NewTurn"]] = UNSET


class NewTurn(Struct):
    """A turn of a batch; `at` is when it was made, now unless given."""

    role: str
    content: Any
    embedding: Vector | None = None
    embedding_model: str | None = None
    at: Time | None = None


class Appended(Struct):
    """The number of the turn in its session, from 1; `embedded` counts the vectors that the node made."""

    seq: Count
    txid: Txid
    embedded: Maybe[Count] = UNSET
    degraded: Maybe[list[str]] = UNSET


class AppendedAll(Struct):
    """The numbers of the turns, in order."""

    seqs: list[Count]
    txid: Txid
    embedded: Maybe[Count] = UNSET
    degraded: Maybe[list[str]] = UNSET


class Turn(Struct):
    """A turn of a session."""

    seq: Count
    role: str
    content: Any
    created_at: Time


class TurnPage(Struct):
    """Turns, oldest first; `older` is what to read `before`, `newer` what to read `after`, null where there are none."""

    turns: list[Turn]
    older: int | None
    newer: int | None


class DeletedTurns(Struct):
    """How many turns went, and whether there are `more` that the same request would remove."""

    deleted: Count
    more: bool
    txid: Txid


class SearchTurns(Struct):
    """What to search by; at least one of query and vector. `since` and `until` are both included."""

    query: str | None = None
    vector: Vector | None = None
    embedding_model: str | None = None
    mode: Literal["keyword", "vector", "hybrid"] | None = None
    k: Count | None = None
    role: str | None = None
    since: Time | None = None
    until: Time | None = None


class FoundTurn(Struct):
    """A turn found; `score` and `channels` where words were searched."""

    session_id: str
    seq: Count
    role: str
    content: Any
    distance: float | None
    created_at: Maybe[Time] = UNSET
    score: Maybe[float] = UNSET
    channels: Maybe[list[str]] = UNSET


class FoundTurns(Struct):
    """Turns found, best first; `degraded` names channels that could not be searched."""

    turns: list[FoundTurn]
    degraded: Maybe[list[str]] = UNSET
