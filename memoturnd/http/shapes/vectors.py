"""Bodies of vector collections."""

from typing import Literal

from memoturnd.http.shapes import UNSET, Count, Maybe, Object, Struct, Time, Txid, Vector

Stored = Literal["created", "updated", "unchanged"]


class Collection(Struct):
    """A collection of vectors."""

    name: str
    dimensions: Count
    count: Count
    created_at: Time


class Collections(Struct):
    """The collections of a database by name; a page of them where one was asked for."""

    collections: list[Collection]
    next_cursor: Maybe[str | None] = UNSET


class NewVector(Struct):
    """A vector to store, in place of the one of the same id."""

    id: str
    embedding: Vector
    metadata: Object | None = None


class Upsert(Struct):
    """A vector to store, or in `vectors` up to 1000 as one commit."""

    id: Maybe[str] = UNSET
    embedding: Maybe[Vector] = UNSET
    metadata: Object | None = None
    vectors: Maybe[list[NewVector]] = UNSET


class StoredOne(Struct):
    """What became of one vector."""

    status: Stored
    txid: Txid


class StoredVector(Struct):
    """What became of a vector of a batch."""

    id: str
    status: Stored


class StoredMany(Struct):
    """What became of each vector, in order."""

    results: list[StoredVector]
    txid: Txid


class Described(Struct):
    """A vector without its numbers."""

    id: str
    metadata: Object


class Ids(Struct):
    """Ids of a collection, ascending; `vectors` where metadata was asked for."""

    ids: list[str]
    next_cursor: str | None
    vectors: Maybe[list[Described]] = UNSET


class OneVector(Struct):
    """A vector."""

    id: str
    embedding: Vector
    metadata: Object


class Search(Struct):
    """What to look for; a score is 1 - distance."""

    vector: Vector
    k: Count | None = None
    filter: Object | None = None
    max_distance: float | None = None
    min_score: float | None = None
    include_metadata: bool | None = None
    include_embedding: bool | None = None


class Hit(Struct):
    """A vector that was found, and what of it was asked for."""

    id: str
    distance: float
    metadata: Maybe[Object] = UNSET
    embedding: Maybe[Vector] = UNSET


class Hits(Struct):
    """The vectors that are nearest, the nearest first."""

    hits: list[Hit]


class Deletion(Struct):
    """Which vectors to remove: by id, or by a filter of their metadata."""

    ids: list[str] | None = None
    filter: Object | None = None


class DeletedVector(Struct):
    """Whether a vector was there."""

    id: str
    status: Literal["deleted", "absent"]


class Deleted(Struct):
    """How many vectors went; one result per id where ids were sent."""

    deleted: Count
    txid: Txid
    results: Maybe[list[DeletedVector]] = UNSET
