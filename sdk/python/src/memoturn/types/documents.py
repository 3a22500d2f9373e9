"""Documents: JSON objects in collections, each with a string `_id`."""

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from memoturn.types.stamps import Seen, Written

Document = dict[str, Any]
"""A JSON object; `_id` is its name."""

Filter = Mapping[str, Any]
"""Which documents are meant: fields and values, or operators such as `{"age": {"$gte": 18}}`; `{}` is all."""

Sort = Mapping[str, Literal[1, -1]]
"""Field paths in the order in which they count: 1 for ascending, -1 for descending."""

Projection = Mapping[str, bool | Literal[0, 1]]
"""Field paths to show, or to leave out."""

Update = Mapping[str, Mapping[str, Any]]
"""Operators with field paths and values, such as `{"$set": {"age": 19}, "$inc": {"visits": 1}}`."""

Scalar = bool | int | float | str
"""A value that documents are compared by."""


class DocumentsInserted(Written):
    """The ids of documents that were inserted, in their order."""

    ids: list[str]


class _Updated(Written):
    modified: int


class DocumentsUpdated(_Updated, total=False):
    """How many documents an update was applied to; an upsert says which one it inserted, None when none."""

    upserted_id: str | None


class DocumentsDeleted(Written):
    """How many documents were deleted."""

    deleted: int


class CollectionInfo(TypedDict):
    """A collection: how many documents it holds, and how many indexes it has."""

    name: str
    count: int
    indexes: int


class IndexInfo(TypedDict):
    """An index; with `unique` no two documents hold equal values at its path."""

    path: str
    unique: bool


class IndexCreated(Written):
    """An index that was made, or was there."""

    indexed: str
    unique: bool


class DistinctValues(Seen):
    """The different scalars of a field, ascending; `more` says that there are others."""

    values: list[bool | int | float | str]
    more: bool
