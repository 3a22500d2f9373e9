"""Collections of vectors: each of one dimension, with metadata. What is found in them is memoturnd.surfaces.vector_search's.

A collection is a row in `__memoturn_vector_collections` and a table of its own, named by the row's id, both made
by its first upsert. So no two names meet in one table, and dropping a large one is cheap.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from memoturnd.core import names
from memoturnd.core.durability import Durability
from memoturnd.core.filters import Filter, compile_filter
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.families import VECTOR_IDS, VECTORS
from memoturnd.errors import ConflictError, InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import embeddings, fields
from memoturnd.surfaces.embeddings import Embedding

BATCH_LIMIT: Final = 1000
COLLECTIONS_LIMIT: Final = 1000
LIST_LIMIT: Final = 1000
METADATA_LIMIT_BYTES: Final = 16 * 1024
_INLINE_BYTES: Final = 64 * 1024
"""Vectors and metadata up to this size are written on the event loop."""
_INLINE_ITEMS: Final = 32
_NO_METADATA: Final = "{}"

_FIND = """SELECT id, dimensions, vectors, next_rid, created_txid, changed_txid
 FROM __memoturn_vector_collections WHERE name = ?"""
_MAKE = """INSERT INTO __memoturn_vector_collections
 (name, id, dimensions, vectors, next_rid, created_at, created_txid, changed_txid) VALUES (?, ?, ?, 0, 1, ?, ?, ?)"""
_CHANGED = """UPDATE __memoturn_vector_collections SET vectors = vectors + ?, next_rid = ?, changed_txid = ?
 WHERE name = ?"""


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection as a profile has it, made by commit `created_txid` and last changed by `changed_txid`.

    A vector's row has a number below `next_rid`, which no other row of the collection ever had.
    """

    id: int
    dimensions: int
    count: int
    next_rid: int
    created_txid: int
    changed_txid: int

    @property
    def table(self) -> str:
        """Return the table of its vectors."""
        return VECTORS.name(str(self.id))


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector to store, checked. `metadata` is canonical JSON of an object."""

    id: str
    embedding: Embedding
    metadata: str


def find(conn: ProfileConnection, name: str) -> Collection | None:
    """Return a collection by name, None where the profile has none of it."""
    row: Any = conn.execute(_FIND, (name,)).fetchone()
    return None if row is None else Collection(*row)


def check_dimensions(collection: Collection, name: str, dimensions: int, where: str) -> None:
    """Raise InvalidRequestError when a vector of `dimensions`, in the field `where`, is not one of the collection's."""
    if dimensions != collection.dimensions:
        raise InvalidRequestError(
            f"{where} has {dimensions} dimensions, the vectors of collection {name} have {collection.dimensions}:"
            f" use the same model, or another collection"
        )


# ---- writes


def parse_upsert(payload: Any) -> list[Vector]:
    """Return the vectors of `{id, embedding, metadata?}`, or of `{"vectors": [...]}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    if "vectors" not in body:
        return [_parse_vector(body, "")]
    if "id" in body or "embedding" in body:
        raise InvalidRequestError("the body has `vectors` beside `id` or `embedding`: send one or the other")
    batch = fields.array(body["vectors"], "vectors")
    if len(batch) > BATCH_LIMIT:
        raise InvalidRequestError(f"vectors holds {len(batch)} items: send at most {BATCH_LIMIT} at once")
    vectors = [
        _parse_vector(fields.mapping(item, f"vectors[{at}]"), f"vectors[{at}].")
        for at, item in enumerate(batch)
    ]
    for at, vector in enumerate(vectors):
        if vector.embedding.dimensions != vectors[0].embedding.dimensions:
            raise InvalidRequestError(
                f"vectors[{at}].embedding has {vector.embedding.dimensions} dimensions and vectors[0].embedding"
                f" {vectors[0].embedding.dimensions}: a collection's vectors share one"
            )
    return vectors


def _parse_vector(item: dict[str, Any], at: str) -> Vector:
    return Vector(
        fields.name(item.get("id"), f"{at}id", names.vector_id),
        embeddings.parse(item.get("embedding"), f"{at}embedding"),
        _parse_metadata(item.get("metadata"), f"{at}metadata"),
    )


def _parse_metadata(value: Any, where: str) -> str:
    if value is None:
        return _NO_METADATA
    return fields.object_text(value, where, limit_bytes=METADATA_LIMIT_BYTES)


def apply_upsert(
    conn: ProfileConnection, now_ms: int, name: str, vectors: Sequence[Vector]
) -> tuple[list[dict[str, Any]], bool]:
    """Store vectors, each with its metadata in place of what it had; return `{id, status}` for each, in order.

    The first ones make the collection. Raises InvalidRequestError, before anything is written, when they are of
    another dimension than the collection, ConflictError when the profile has too many collections.
    """
    if not vectors:
        return [], False
    collection = _ensure(conn, now_ms, name, vectors)
    rid = collection.next_rid
    results = []
    for vector in vectors:
        status = _store(conn, collection.table, rid, vector)
        if status != "unchanged":
            rid += 1
            conn.noted.put("vectors", name, vector.id)
        results.append({"id": vector.id, "status": status})
    changed = rid > collection.next_rid
    if changed:
        created = sum(result["status"] == "created" for result in results)
        conn.execute(_CHANGED, (created, rid, conn.round_txid, name))
    return results, changed


def _ensure(conn: ProfileConnection, now_ms: int, name: str, vectors: Sequence[Vector]) -> Collection:
    dimensions = vectors[0].embedding.dimensions
    collection = find(conn, name)
    if collection is not None:
        check_dimensions(collection, name, dimensions, "embedding")
        return collection
    row: Any = conn.execute(
        "SELECT count(*), coalesce(max(id), 0) FROM __memoturn_vector_collections"
    ).fetchone()
    total, last_id = row
    if total >= COLLECTIONS_LIMIT:
        raise ConflictError(f"the profile has {total} collections of vectors, which is the most: drop one")
    txid = conn.round_txid
    collection = Collection(last_id + 1, dimensions, 0, 1, txid, txid)
    conn.execute(_MAKE, (name, collection.id, dimensions, now_ms, txid, txid))
    conn.execute(VECTORS.create(str(collection.id)), can_cache=False)
    conn.execute(VECTOR_IDS.create(f"{collection.id}_id", table=collection.table), can_cache=False)
    return collection


def _store(conn: ProfileConnection, table: str, rid: int, vector: Vector) -> str:
    """Write a vector as row `rid`, unless it is there as it is; return what became of it."""
    e, exponent = vector.embedding
    row: Any = conn.execute(
        f"SELECT rid, e = ? AND exponent = ? AND metadata = ? FROM {table} WHERE id = ?",
        (e, exponent, vector.metadata, vector.id),
    ).fetchone()
    old_rid, is_same = row if row is not None else (None, False)
    if old_rid is not None:
        if is_same:
            return "unchanged"
        conn.execute(f"DELETE FROM {table} WHERE rid = ?", (old_rid,))
    conn.execute(
        f"INSERT INTO {table}(rid, id, metadata, exponent, replaces, e) VALUES (?, ?, ?, ?, ?, ?)",
        (rid, vector.id, vector.metadata, exponent, old_rid, e),
    )
    return "created" if row is None else "updated"


def _note_removed(conn: ProfileConnection, name: str, collection: Collection, removed: int) -> None:
    conn.execute(_CHANGED, (-removed, collection.next_rid, conn.round_txid, name))


def apply_delete(conn: ProfileConnection, name: str, ids: Iterable[str]) -> tuple[list[dict[str, Any]], bool]:
    """Remove vectors; return `{id, status}` for each, in order."""
    collection = find(conn, name)
    results = []
    for id_ in ids:
        deleted = collection is not None and _changes(
            conn, f"DELETE FROM {collection.table} WHERE id = ?", (id_,)
        )
        if deleted:
            conn.noted.deleted("vectors", name, id_)
        results.append({"id": id_, "status": "deleted" if deleted else "absent"})
    removed = sum(result["status"] == "deleted" for result in results)
    if collection is not None and removed:
        _note_removed(conn, name, collection, removed)
    return results, removed > 0


def apply_delete_matching(conn: ProfileConnection, name: str, wanted: Filter) -> tuple[int, bool]:
    """Remove the vectors that match a filter of their metadata; return how many."""
    collection = find(conn, name)
    if collection is None:
        return 0, False
    statement = f"DELETE FROM {collection.table} WHERE {wanted.sql} RETURNING id"
    removed: Any = conn.execute(statement, wanted.bindings).fetchall()
    if removed:
        _note_removed(conn, name, collection, len(removed))
        conn.noted.deleted_all("vectors", name, (id_ for (id_,) in removed))
    return len(removed), bool(removed)


def _changes(conn: ProfileConnection, statement: str, bindings: tuple[Any, ...]) -> int:
    before = conn.total_changes()
    conn.execute(statement, bindings)
    return conn.total_changes() - before


def apply_drop(conn: ProfileConnection, name: str) -> tuple[bool, bool]:
    """Remove a collection with its vectors; return whether there was one."""
    collection = find(conn, name)
    if collection is None:
        return False, False
    conn.execute(f"DROP TABLE {collection.table}", can_cache=False)
    conn.execute("DELETE FROM __memoturn_vector_collections WHERE name = ?", (name,))
    conn.noted.dropped("vectors", name)
    return True, True


# ---- reads


def read_vector(conn: ProfileConnection, name: str, id_: str) -> dict[str, Any]:
    """Return `{id, embedding, metadata}`. Raises NotFoundError."""
    collection = find(conn, name)
    row: Any = None
    if collection is not None:
        row = conn.execute(
            f"SELECT metadata, exponent, e FROM {collection.table} WHERE id = ?", (id_,)
        ).fetchone()
    if row is None:
        raise NotFoundError(f"no vector {id_[:64]!a} in collection {name}: it was never stored, or deleted")
    metadata, exponent, e = row
    return {
        "id": id_,
        "embedding": embeddings.numbers(e, exponent),
        "metadata": msgspec.Raw(metadata.encode()),
    }


def read_page(
    conn: ProfileConnection, name: str, *, after: str = "", limit: int, with_metadata: bool = False
) -> dict[str, Any]:
    """Return `{ids, next_cursor}`: up to `limit` ids behind `after`, ascending by their UTF-8 bytes.

    With metadata there are `vectors` `{id, metadata}` too.
    """
    collection = find(conn, name)
    if collection is None:
        return {"ids": [], "next_cursor": None, **({"vectors": []} if with_metadata else {})}
    columns = "id, metadata" if with_metadata else "id"
    rows: list[Any] = conn.execute(
        f"SELECT {columns} FROM {collection.table} WHERE id > ? ORDER BY id LIMIT ?", (after, limit + 1)
    ).fetchall()
    shown = rows[:limit]
    ids = [row[0] for row in shown]
    page: dict[str, Any] = {"ids": ids, "next_cursor": ids[-1] if ids and len(rows) > limit else None}
    if with_metadata:
        page["vectors"] = [{"id": id_, "metadata": msgspec.Raw(metadata.encode())} for id_, metadata in shown]
    return page


def read_collections(
    conn: ProfileConnection, after: str = "", limit: int | None = None
) -> list[dict[str, Any]]:
    """Return up to `limit` (None: all) collections `{name, dimensions, count, created_at}` by name, above `after`."""
    rows = conn.execute(
        "SELECT name, dimensions, vectors, created_at FROM __memoturn_vector_collections"
        " WHERE name > ? ORDER BY name LIMIT ?",
        (after, -1 if limit is None else limit),
    )
    return [
        {"name": name, "dimensions": dimensions, "count": count, "created_at": created_at}
        for name, dimensions, count, created_at in rows
    ]


# ---- what routes call


async def upsert(
    profile: Profile, name: str, vectors: Sequence[Vector], *, durability: Durability = Durability.LOCAL
) -> Written[list[dict[str, Any]]]:
    """Store vectors; see `apply_upsert`. Raises InvalidRequestError for a bad collection."""
    names.collection(name)
    size_bytes = sum(len(vector.embedding.e) + len(vector.metadata) for vector in vectors)
    small = len(vectors) <= _INLINE_ITEMS and size_bytes <= _INLINE_BYTES
    return await profile.write(
        lambda conn, now_ms: apply_upsert(conn, now_ms, name, vectors),
        durability=durability,
        work=Work.POINT if small else Work.HEAVY,
    )


def parse_delete(payload: Any) -> tuple[str, ...] | Filter:
    """Return the ids, or the filter, of `{"ids": [...]}` or `{"filter": {...}}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    ids, wanted = body.get("ids"), body.get("filter")
    if (ids is None) == (wanted is None):
        raise InvalidRequestError("the body takes either ids or filter: `{}` as a filter means every vector")
    if ids is None:
        return compile_filter(wanted, where="filter", doc="metadata", key="id")
    listed = fields.array(ids, "ids")
    if len(listed) > BATCH_LIMIT:
        raise InvalidRequestError(f"ids holds {len(listed)} items: send at most {BATCH_LIMIT} at once")
    return tuple(fields.name(id_, f"ids[{at}]", names.vector_id) for at, id_ in enumerate(listed))


async def delete(
    profile: Profile,
    name: str,
    wanted: tuple[str, ...] | Filter,
    *,
    durability: Durability = Durability.LOCAL,
) -> Written[dict[str, Any]]:
    """Remove vectors by id or by filter; return `{deleted}`, and `results` by id. See `apply_delete`."""
    names.collection(name)

    def op(conn: ProfileConnection, _now_ms: int) -> tuple[dict[str, Any], bool]:
        if isinstance(wanted, Filter):
            removed, changed = apply_delete_matching(conn, name, wanted)
            return {"deleted": removed}, changed
        results, changed = apply_delete(conn, name, wanted)
        removed = sum(result["status"] == "deleted" for result in results)
        return {"deleted": removed, "results": results}, changed

    if isinstance(wanted, Filter):
        return await profile.write(op, durability=durability, work=Work.OPAQUE)
    return await profile.write(
        op, durability=durability, work=Work.POINT if len(wanted) <= _INLINE_ITEMS else Work.HEAVY
    )


async def drop(profile: Profile, name: str, *, durability: Durability = Durability.LOCAL) -> Written[bool]:
    """Remove a collection; see `apply_drop`. Raises InvalidRequestError for a bad collection."""
    names.collection(name)
    return await profile.write(lambda conn, _: apply_drop(conn, name), durability=durability, work=Work.HEAVY)


async def get(profile: Profile, name: str, id_: str, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return one vector; see `read_vector`. Raises InvalidRequestError for a bad collection or id."""
    names.collection(name)
    names.vector_id(id_)
    return await profile.read(lambda conn, _: read_vector(conn, name, id_), min_txid=min_txid)


async def page(
    profile: Profile,
    name: str,
    *,
    after: str | None = None,
    limit: int = 100,
    with_metadata: bool = False,
    min_txid: int = 0,
) -> Seen[dict[str, Any]]:
    """List ids; see `read_page`. Raises InvalidRequestError for a bad collection or cursor."""
    names.collection(name)
    if after is not None:
        fields.name(after, "cursor", names.vector_id)
    limit = min(limit, LIST_LIMIT)
    return await profile.read(
        lambda conn, _: read_page(conn, name, after=after or "", limit=limit, with_metadata=with_metadata),
        min_txid=min_txid,
    )


async def collections(
    profile: Profile, *, after: str = "", limit: int | None = None, min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """List the collections; see `read_collections`."""
    return await profile.read(lambda conn, _: read_collections(conn, after, limit), min_txid=min_txid)
