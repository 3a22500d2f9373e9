"""Documents: JSON objects in the collections of a branch, found by filters."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from memoturn._async.address import AsyncAddress
from memoturn._core.bodies import given
from memoturn.types import (
    DistinctValues,
    Document,
    DocumentsDeleted,
    DocumentsInserted,
    DocumentsUpdated,
    Filter,
    IndexCreated,
    IndexInfo,
    Projection,
    ReadOptions,
    Sort,
    Update,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncCollection:
    """A collection of JSON objects. It is made by its first insert, index or upsert, and reads as empty before that.

    A filter is an object of field paths and values, or of operators: `{"age": {"$gte": 18}, "tags": {"$all": ["a"]}}`;
    the operators are `$eq $ne $gt $gte $lt $lte $in $nin $exists $all $size $regex $not`, joined by `$and` and `$or`.
    """

    def __init__(self, address: AsyncAddress, name: str) -> None:
        self.name = name
        self._address = address.below("docs", name)

    async def insert(
        self, docs: Iterable[Mapping[str, Any]], **options: "Unpack[WriteOptions]"
    ) -> DocumentsInserted:
        """Insert up to 10,000 documents as one commit; return their ids, in order.

        One without an `_id` gets one, and ids that were made so sort by time. Raises InvalidRequestError for an
        `_id` that is taken, ConflictError for a value that a unique index refuses; then nothing is inserted.
        """
        body = {"docs": [dict(doc) for doc in docs]}
        return cast(
            "DocumentsInserted", (await self._address.write("POST", "insert", body=body, **options)).stamped()
        )

    async def get(self, document_id: str, **options: "Unpack[ReadOptions]") -> Document | None:
        """Return the document of that `_id`, None when there is none."""
        return await self.find_one({"_id": document_id}, **options)

    async def find(
        self,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        *,
        sort: Sort | None = None,
        limit: int = 100,
        skip: int = 0,
        projection: Projection | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> list[Document]:
        """Return up to `limit` (at most 1000) documents that match, the first `skip` left out.

        They come in the order of `sort`, `{"age": -1, "name": 1}`, else of their ids. `projection` shows some of
        their fields (`{"name": True}`), or leaves some out. For more than 1000 use `iter_find`.
        """
        body = given(filter=filter, sort=sort, projection=projection, limit=limit, skip=skip or None)
        answer = await self._address.read("POST", "find", body=body, **options)
        return cast("list[Document]", answer.json()["docs"])

    async def find_one(
        self,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        *,
        sort: Sort | None = None,
        projection: Projection | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> Document | None:
        """Return the first document that matches, None when none does."""
        found = await self.find(filter, sort=sort, limit=1, projection=projection, **options)
        return found[0] if found else None

    async def iter_find(
        self,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        *,
        sort: Sort | None = None,
        projection: Projection | None = None,
        limit: int | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> AsyncIterator[Document]:
        """Yield every document that matches.

        One that does not change comes once, whatever is inserted and deleted meanwhile.
        """
        body = given(filter=filter, sort=sort, projection=projection)
        async for row in self._address.pages("docs", "find", body=body, most=limit, **options):
            yield row

    async def count(
        self,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        **options: "Unpack[ReadOptions]",
    ) -> int:
        """Return how many documents match."""
        answer = await self._address.read("POST", "count", body=given(filter=filter), **options)
        return int(answer.json()["count"])

    async def distinct(
        self,
        path: str,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        *,
        limit: int = 1000,
        **options: "Unpack[ReadOptions]",
    ) -> DistinctValues:
        """Return the different scalars of a field of the documents that match, ascending, up to `limit`."""
        body = given(path=path, filter=filter, limit=limit)
        return cast(
            "DistinctValues", (await self._address.read("POST", "distinct", body=body, **options)).stamped()
        )

    async def update(
        self,
        filter: Filter,  # noqa: A002 - the field's name
        update: Update,
        *,
        multi: bool = False,
        sort: Sort | None = None,
        upsert: bool = False,
        **options: "Unpack[WriteOptions]",
    ) -> DocumentsUpdated:
        """Update the first document that matches, by `sort`, or with `multi` all of them, in one commit.

        `update` has operators (`$set $unset $inc $max $min $push $addToSet $pull`), which are applied in their
        order. With `upsert` a document is inserted where nothing matched: of what the filter says is equal,
        updated. Raises InvalidRequestError where something does not fit, ConflictError for a value that a unique
        index refuses; then nothing is changed.
        """
        body = given(filter=filter, update=update, multi=multi or None, sort=sort, upsert=upsert or None)
        return cast(
            "DocumentsUpdated", (await self._address.write("POST", "update", body=body, **options)).stamped()
        )

    async def delete(
        self,
        filter: Filter,  # noqa: A002 - the field's name
        *,
        multi: bool = False,
        sort: Sort | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> DocumentsDeleted:
        """Delete the first document that matches, by `sort`, or with `multi` all of them, in one commit."""
        body = given(filter=filter, multi=multi or None, sort=sort)
        return cast(
            "DocumentsDeleted", (await self._address.write("POST", "delete", body=body, **options)).stamped()
        )

    async def create_index(
        self, path: str, *, unique: bool = False, **options: "Unpack[WriteOptions]"
    ) -> IndexCreated:
        """Index a field path, for equality, ranges and sorting; no error when that index is there.

        With `unique` no two documents hold equal values there, None and missing ones aside. Raises ConflictError
        where they do already, or where the index is there and is not like that.
        """
        body = given(path=path, unique=unique or None)
        return cast(
            "IndexCreated", (await self._address.write("POST", "indexes", body=body, **options)).stamped()
        )

    async def indexes(self, **options: "Unpack[ReadOptions]") -> list[IndexInfo]:
        """Return the indexes of the collection, by path."""
        answer = await self._address.read("GET", "indexes", **options)
        return cast("list[IndexInfo]", answer.json()["indexes"])

    async def drop_index(self, path: str, **options: "Unpack[WriteOptions]") -> None:
        """Drop an index; no error when there is none."""
        await self._address.write("DELETE", "indexes", path, **options)

    async def drop(self, **options: "Unpack[WriteOptions]") -> None:
        """Drop the collection with its documents and indexes; no error when there is none."""
        await self._address.write("DELETE", **options)
