"""Vectors under ids of your own, in collections of one dimension, with metadata."""

from typing import Any, Literal, TypedDict

from memoturn.types.stamps import Written

VectorStatus = Literal["created", "updated", "unchanged"]
"""What became of a vector that was upserted."""


class _NewVector(TypedDict):
    id: str
    embedding: list[float]


class NewVector(_NewVector, total=False):
    """A vector to store."""

    metadata: dict[str, Any] | None


class VectorStored(Written):
    """What became of a vector."""

    status: VectorStatus


class VectorOutcome(TypedDict):
    """What became of one of several vectors."""

    id: str
    status: VectorStatus


class VectorsStored(Written):
    """What became of several vectors, in their order."""

    results: list[VectorOutcome]


class _VectorHit(TypedDict):
    id: str
    distance: float


class VectorHit(_VectorHit, total=False):
    """A vector that a search found; `distance` is 1 - cosine. The rest is there where it was asked for."""

    metadata: dict[str, Any]
    embedding: list[float]


class StoredVector(TypedDict):
    """A vector as it is stored: 32-bit floats."""

    id: str
    embedding: list[float]
    metadata: dict[str, Any]


class VectorInfo(TypedDict):
    """A vector's id and metadata."""

    id: str
    metadata: dict[str, Any]


class VectorDeletion(TypedDict):
    """What became of one id."""

    id: str
    status: Literal["deleted", "absent"]


class _VectorsDeleted(Written):
    deleted: int


class VectorsDeleted(_VectorsDeleted, total=False):
    """How many vectors were deleted; where ids were given, what became of each."""

    results: list[VectorDeletion]


class VectorCollectionInfo(TypedDict):
    """A collection of vectors."""

    name: str
    dimensions: int
    count: int
    created_at: int
