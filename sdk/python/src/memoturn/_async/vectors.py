"""Vectors of one branch: under ids of your own, in collections of one dimension, with metadata."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from memoturn._async.address import AsyncAddress
from memoturn._core.bodies import changed, given, listed, numbers
from memoturn.types import (
    Filter,
    NewVector,
    ReadOptions,
    StoredVector,
    VectorCollectionInfo,
    VectorHit,
    VectorInfo,
    VectorsDeleted,
    VectorsStored,
    VectorStored,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncVectors:
    """Vectors by collection and id. A collection is made by its first upsert, which fixes its dimension."""

    def __init__(self, address: AsyncAddress) -> None:
        self._address = address.below("vectors")

    async def upsert(
        self,
        coll: str,
        id: str,  # noqa: A002 - the field's name
        embedding: Sequence[float],
        metadata: Mapping[str, Any] | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> VectorStored:
        """Store a vector; what is there under the id is replaced, metadata included.

        Raises InvalidRequestError for one of another dimension than the collection's.
        """
        body = given(id=id, embedding=list(embedding), metadata=metadata)
        return cast("VectorStored", (await self._address.write("POST", coll, body=body, **options)).stamped())

    async def upsert_many(
        self, coll: str, vectors: Iterable[NewVector], **options: "Unpack[WriteOptions]"
    ) -> VectorsStored:
        """Store up to 1000 vectors as one commit; the outcomes are in their order."""
        body = {"vectors": [changed(vector, "embedding", numbers) for vector in vectors]}
        return cast(
            "VectorsStored", (await self._address.write("POST", coll, body=body, **options)).stamped()
        )

    async def search(
        self,
        coll: str,
        vector: Sequence[float],
        *,
        k: int = 10,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        max_distance: float | None = None,
        min_score: float | None = None,
        include_metadata: bool = False,
        include_embedding: bool = False,
        **options: "Unpack[ReadOptions]",
    ) -> list[VectorHit]:
        """Return the `k` nearest vectors by cosine, of those whose metadata `filter` lets through; exact.

        `filter` is one as of documents, with `_id` for the id. `max_distance` (0 to 2) and `min_score` (1 -
        distance) leave out what is further away.
        """
        body = given(
            vector=list(vector),
            k=k,
            filter=filter,
            max_distance=max_distance,
            min_score=min_score,
            include_metadata=include_metadata or None,
            include_embedding=include_embedding or None,
        )
        answer = await self._address.read("POST", coll, "search", body=body, **options)
        return cast("list[VectorHit]", answer.json()["hits"])

    async def get(
        self,
        coll: str,
        id: str,  # noqa: A002 - the field's name
        **options: "Unpack[ReadOptions]",
    ) -> StoredVector | None:
        """Return a vector with its metadata, None when there is none of that id."""
        answer = await self._address.find("GET", coll, id, **options)
        return None if answer is None else cast("StoredVector", answer.json())

    async def iter_ids(
        self, coll: str, *, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> AsyncIterator[str]:
        """Yield the ids of a collection, ascending."""
        async for row in self._address.pages("ids", coll, most=limit, **options):
            yield cast("str", row)

    async def iter_metadata(
        self, coll: str, *, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> AsyncIterator[VectorInfo]:
        """Yield the ids of a collection with their metadata, ascending."""
        query = {"metadata": True}
        async for row in self._address.pages("vectors", coll, query=query, most=limit, **options):
            yield cast("VectorInfo", row)

    async def delete(
        self,
        coll: str,
        id: str,  # noqa: A002 - the field's name
        **options: "Unpack[WriteOptions]",
    ) -> int:
        """Delete a vector; no error when it is absent. Return the txid."""
        return (await self._address.write("DELETE", coll, id, **options)).txid

    async def delete_many(
        self,
        coll: str,
        *,
        ids: Iterable[str] | None = None,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        **options: "Unpack[WriteOptions]",
    ) -> VectorsDeleted:
        """Delete up to 1000 `ids`, or all whose metadata matches `filter` (`{}` is every one), as one commit."""
        body = given(ids=listed(ids), filter=filter)
        return cast(
            "VectorsDeleted",
            (await self._address.write("POST", coll, "delete", body=body, **options)).stamped(),
        )

    async def drop(self, coll: str, **options: "Unpack[WriteOptions]") -> None:
        """Drop a collection; no error when there is none. Its name may then have another dimension."""
        await self._address.write("DELETE", coll, **options)

    async def iter_collections(
        self, *, limit: int | None = None, **options: "Unpack[ReadOptions]"
    ) -> AsyncIterator[VectorCollectionInfo]:
        """Yield the collections of the branch by name."""
        async for row in self._address.pages("collections", most=limit, **options):
            yield cast("VectorCollectionInfo", row)
