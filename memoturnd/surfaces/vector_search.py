"""Search in a collection of vectors: exact, by cosine, under a filter of their metadata."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from memoturnd.core import names
from memoturnd.core.filters import Filter, compile_filter
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import embeddings, fields, vectors
from memoturnd.surfaces.vectors import Collection

K_DEFAULT: Final = 10
K_LIMIT: Final = 1000
NUMBERS_LIMIT: Final = 1_000_000
"""Most numbers in the embeddings of one answer."""

# A null vector has no direction: it is taken to be at right angles to everything.
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


def read_hits(conn: ProfileConnection, name: str, query: Query) -> list[dict[str, Any]]:
    """Return the k nearest vectors `{id, distance}`, nearest first, with metadata and embedding where asked for.

    Raises InvalidRequestError when the vector is of another dimension than the collection.
    """
    collection = vectors.find(conn, name)
    if collection is None:
        return []
    vectors.check_dimensions(collection, name, fields.dimensions(query.embedding), "vector")
    return _hits(conn, collection, query, nearest(conn, collection, query))


def nearest(conn: ProfileConnection, collection: Collection, query: Query) -> Sequence[tuple[int, float]]:
    """Return (rid, distance) of the k nearest vectors, by comparing every one that the filter lets through."""
    where, bindings = ("TRUE", ()) if query.filter is None else (query.filter.sql, query.filter.bindings)
    statement = _NEAREST.format(table=collection.table, filter=where)
    rows: list[Any] = conn.execute(statement, (query.embedding, *bindings, query.k)).fetchall()
    return rows


def _hits(
    conn: ProfileConnection, collection: Collection, query: Query, found: Sequence[tuple[int, float]]
) -> list[dict[str, Any]]:
    load = f"SELECT id, metadata, exponent, e FROM {collection.table} WHERE rid = ?"
    if not query.include_embedding:
        load = load.replace("exponent, e", "0, x''")
    hits = []
    for rid, distance in found:
        if query.max_distance is not None and distance > query.max_distance:
            break
        row: Any = conn.execute(load, (rid,)).fetchone()
        id_, metadata, exponent, e = row
        hit: dict[str, Any] = {"id": id_, "distance": max(distance, 0.0)}
        if query.include_metadata:
            hit["metadata"] = msgspec.Raw(metadata.encode())
        if query.include_embedding:
            hit["embedding"] = embeddings.numbers(e, exponent)
        hits.append(hit)
    return hits


async def search(
    profile: Profile, name: str, query: Query, *, min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """Search a collection; see `read_hits`. Raises InvalidRequestError for a bad collection."""
    names.collection(name)
    return await profile.read(
        lambda conn, _: read_hits(conn, name, query),
        min_txid=min_txid,
        work=Work.HEAVY if query.filter is not None and query.filter.slow else Work.SCAN,
    )
