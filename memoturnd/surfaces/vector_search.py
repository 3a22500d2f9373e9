"""Search in a collection of vectors: exact, by cosine, under a filter of their metadata."""

import math
from dataclasses import dataclass
from typing import Any, Final

import apsw
import msgspec
import numpy as np
import numpy.typing as npt

from memoturnd.core import names
from memoturnd.core.filters import Filter, compile_filter
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import ElsewhereError, Profile, Seen, Work
from memoturnd.surfaces import embeddings, fields, vector_arrays, vectors
from memoturnd.surfaces.vector_arrays import Snapshot
from memoturnd.surfaces.vectors import Collection

K_DEFAULT: Final = 10
K_LIMIT: Final = 1000
NUMBERS_LIMIT: Final = 1_000_000
"""Most numbers in the embeddings of one answer."""

_INLINE_NUMBERS: Final = 4_000_000
"""Numbers of a collection in memory up to which it is searched on the event loop."""
_INLINE_FILE_NUMBERS: Final = 100_000
"""The same of one that is read from the file."""
_INLINE_K: Final = 100
_SPARE: Final = 8
"""Vectors that are compared once more beyond those asked for, since the file is searched in float32."""

# A null vector has no direction: it is taken to be at right angles to everything.
_LOAD = """SELECT rid, id, {metadata}, exponent, e
 FROM carray(?) AS c CROSS JOIN {table} AS v ON v.rid = c.value WHERE {filter}"""
_NEAREST = """SELECT rid, coalesce(vec_distance_cosine(e, ?), 1.0) AS distance
 FROM {table} WHERE {filter} ORDER BY distance, rid LIMIT ?"""


@dataclass(frozen=True, slots=True)
class Query:
    """A search, checked. `embedding` is float32 of unit length; a filter of None lets everything through."""

    embedding: bytes
    k: int
    filter: Filter | None
    max_distance: float | None
    include_metadata: bool
    include_embedding: bool


def parse_query(payload: Any) -> Query:
    """Return the search that a body asks for; unknown fields are ignored. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    wanted = body.get("filter")
    query = Query(
        embedding=fields.vector(body.get("vector"), "vector"),
        k=max(fields.clamped(body.get("k"), "k", default=K_DEFAULT, limit=K_LIMIT), 1),
        filter=None if wanted is None else compile_filter(wanted, where="filter", doc="metadata", key="id"),
        max_distance=_parse_bound(body),
        include_metadata=fields.boolean(body, "include_metadata"),
        include_embedding=fields.boolean(body, "include_embedding"),
    )
    if query.include_embedding and query.k * fields.dimensions(query.embedding) > NUMBERS_LIMIT:
        raise InvalidRequestError(
            f"k is {query.k}: with include_embedding at most"
            f" {NUMBERS_LIMIT // fields.dimensions(query.embedding)} vectors of this size are returned"
        )
    return query


def _parse_bound(body: dict[str, Any]) -> float | None:
    """Return the largest distance that `max_distance` and `min_score`, which is 1 - distance, let through."""
    max_distance = fields.optional_number(body.get("max_distance"), "max_distance", least=0, most=2)
    min_score = fields.optional_number(body.get("min_score"), "min_score", least=-1, most=1)
    bounds = [max_distance] if max_distance is not None else []
    if min_score is not None:
        bounds.append(1.0 - min_score)
    return min(bounds, default=None)


def read_hits(
    conn: ProfileConnection, name: str, query: Query, *, at_once: bool = False
) -> list[dict[str, Any]]:
    """Return the k nearest vectors `{id, distance}`, nearest first, with metadata and embedding where asked for.

    Raises InvalidRequestError when the vector is of another dimension than the collection, and ElsewhereError
    where it is to be done `at_once` and takes longer than the event loop may be held.
    """
    collection = vectors.find(conn, name)
    if collection is None:
        return []
    vectors.check_dimensions(collection, name, fields.dimensions(query.embedding), "vector")
    numbers = collection.count * collection.dimensions
    if at_once and (numbers > _INLINE_NUMBERS or query.k > _INLINE_K):
        raise ElsewhereError
    snapshot = vector_arrays.opened(conn, collection, at_once=at_once)
    found = None if snapshot is None else _nearest_in_memory(conn, collection, query, snapshot)
    if found is None:
        if at_once and numbers > _INLINE_FILE_NUMBERS:
            raise ElsewhereError
        found = _nearest_in_file(conn, collection, query)
    return [
        _hit(query, *row)
        for row in found[: query.k]
        if query.max_distance is None or row[0] <= query.max_distance
    ]


_Row = tuple[float, int, str, str, int, bytes]
"""Distance, rid, id, metadata, exponent and e of a vector; sorted, they are the nearest first."""


def _nearest_in_memory(
    conn: ProfileConnection, collection: Collection, query: Query, snapshot: Snapshot
) -> list[_Row] | None:
    """Return the nearest vectors, ranked by the matrix; None where few of the best pass the filter."""
    for count in (query.k,) if query.filter is None else (4 * query.k + 64, 32 * query.k + 1024):
        near = snapshot.nearest(query.embedding, count)
        if near is None:
            return None
        rids, none_missing_up_to = near
        rows = _rows(conn, collection, query, rids, query.filter)
        if math.isinf(none_missing_up_to):
            return rows
        if len(rows) >= query.k and rows[query.k - 1][0] <= none_missing_up_to:
            return rows
    return None


def _nearest_in_file(conn: ProfileConnection, collection: Collection, query: Query) -> list[_Row]:
    """Return the nearest vectors, by comparing every one in the file that the filter lets through."""
    where, bindings = ("TRUE", ()) if query.filter is None else (query.filter.sql, query.filter.bindings)
    statement = _NEAREST.format(table=collection.table, filter=where)
    rows: list[Any] = conn.execute(statement, (query.embedding, *bindings, query.k + _SPARE)).fetchall()
    return _rows(conn, collection, query, np.array([rid for rid, _ in rows], np.int64), None)


def _rows(
    conn: ProfileConnection,
    collection: Collection,
    query: Query,
    rids: npt.NDArray[np.int64],
    wanted: Filter | None,
) -> list[_Row]:
    """Return those of some vectors that pass a filter, with their distances in float64, the nearest first."""
    where, bindings = ("TRUE", ()) if wanted is None else (wanted.sql, wanted.bindings)
    statement = _LOAD.format(
        table=collection.table, filter=where, metadata="metadata" if query.include_metadata else "''"
    )
    found: list[Any] = conn.execute(statement, (apsw.carray(rids), *bindings)).fetchall() if len(rids) else []
    distances = _distances(query.embedding, [row[-1] for row in found])
    return sorted((distance, *row) for distance, row in zip(distances, found, strict=True))


def _distances(embedding: bytes, vectors: list[bytes]) -> list[float]:
    """Return the cosine distances of stored vectors; one without a direction is at right angles to everything."""
    wanted = np.frombuffer(embedding, "<f4").astype(np.float64)
    matrix = np.frombuffer(b"".join(vectors), "<f4").reshape(len(vectors), len(wanted)).astype(np.float64)
    products = (matrix * wanted).sum(axis=1)  # row by row alike, so that equal vectors stay equal
    lengths = np.sqrt((matrix * matrix).sum(axis=1)) * np.sqrt(wanted @ wanted)
    cosines = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    found: list[float] = np.clip(1.0 - cosines, 0.0, 2.0).tolist()
    return found


def _hit(
    query: Query, distance: float, _rid: int, id_: str, metadata: str, exponent: int, e: bytes
) -> dict[str, Any]:
    hit: dict[str, Any] = {"id": id_, "distance": distance}
    if query.include_metadata:
        hit["metadata"] = msgspec.Raw(metadata.encode())
    if query.include_embedding:
        hit["embedding"] = embeddings.numbers(e, exponent)
    return hit


async def search(
    profile: Profile, name: str, query: Query, *, min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """Search a collection; see `read_hits`. Raises InvalidRequestError for a bad collection."""
    names.collection(name)
    slow = query.filter is not None and query.filter.slow
    if not slow:
        try:
            return await profile.read(
                lambda conn, _: read_hits(conn, name, query, at_once=True), min_txid=min_txid
            )
        except ElsewhereError:
            pass
    return await profile.read(
        lambda conn, _: read_hits(conn, name, query),
        min_txid=min_txid,
        work=Work.OPAQUE if slow else Work.HEAVY,
    )
