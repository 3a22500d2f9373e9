"""Bodies of documents and their collections."""

from typing import Literal

from memoturnd.http.shapes import UNSET, Count, Maybe, Object, Struct, Txid


class Collection(Struct):
    """How many documents a collection has, and how many indexes."""

    name: str
    count: Count
    indexes: Count


class Collections(Struct):
    """Collections by name; a page of them where one was asked for."""

    collections: list[Collection]
    txid: Txid
    next_cursor: Maybe[str | None] = UNSET


class Insert(Struct):
    """Documents to insert, all or none; one without `_id` gets a ULID."""

    docs: list[Object]


class Inserted(Struct):
    """The ids of the documents, in order."""

    ids: list[str]
    txid: Txid


class Find(Struct):
    """What to find. A sort is by 1 or -1, a projection true or false, both by field path."""

    filter: Object | None = None
    sort: dict[str, Literal[1, -1]] | None = None
    projection: dict[str, bool | Literal[0, 1]] | None = None
    limit: Count | None = None
    skip: Count | None = None
    cursor: str | None = None


class Found(Struct):
    """Documents in order; `next_cursor` goes on behind them, null where nothing comes."""

    docs: list[Object]
    next_cursor: str | None
    txid: Txid


class Counting(Struct):
    """What to count; everything without a filter."""

    filter: Object | None = None


class Counted(Struct):
    """How many documents match."""

    count: Count
    txid: Txid


class Distinct(Struct):
    """The field whose values are listed."""

    path: str
    filter: Object | None = None
    limit: Count | None = None


class Values(Struct):
    """Different scalars, ascending; `more` is whether there are others."""

    values: list[bool | int | float | str]
    more: bool
    txid: Txid


class Update(Struct):
    """Operators and the paths and values of each, applied to the first match by `sort`, or with `multi` to all."""

    filter: Object
    update: dict[str, Object]
    multi: bool | None = None
    sort: dict[str, Literal[1, -1]] | None = None
    upsert: bool | None = None


class Updated(Struct):
    """To how many documents it was applied; with `upsert` the id of the one that was inserted, null where none was."""

    modified: Count
    txid: Txid
    upserted_id: Maybe[str | None] = UNSET


class Delete(Struct):
    """What to delete: the first match by `sort`, or with `multi` all."""

    filter: Object
    multi: bool | None = None
    sort: dict[str, Literal[1, -1]] | None = None


class Deleted(Struct):
    """How many documents went."""

    deleted: Count
    txid: Txid


class NewIndex(Struct):
    """The field to index; `unique` keeps equal values apart."""

    path: str
    unique: bool | None = None


class Indexed(Struct):
    """The field that has an index now."""

    indexed: str
    unique: bool
    txid: Txid


class Index(Struct):
    """An index of a field."""

    path: str
    unique: bool


class Indexes(Struct):
    """Every index of a collection, by path."""

    indexes: list[Index]
    txid: Txid
