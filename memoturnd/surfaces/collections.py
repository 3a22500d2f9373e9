"""Collections of documents: their tables, and the indexes of their fields.

The schema is the register: a collection is there when its table is, and an index when SQLite has it. Names go
into those of tables and indexes by `names.suffix`, which makes no two of them one.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import apsw

from memoturnd.core import filters, names, paths
from memoturnd.core.durability import Durability
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.families import DOCUMENT_INDEXES, DOCUMENTS
from memoturnd.errors import ConflictError, InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields

COLLECTIONS_LIMIT: Final = 256
INDEXES_LIMIT: Final = 32
"""Indexes of one collection."""
_SEPARATOR: Final = "__"
_INDEX_IN_ERROR: Final = re.compile(f"'({re.escape(DOCUMENT_INDEXES.prefix)}[a-z0-9_]+)'")

_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND substr(name, 1, ?) = ?"
_INDEXES = "SELECT name, \"unique\" FROM pragma_index_list(?) WHERE origin = 'c'"
_HAS_INDEX = "SELECT 1 FROM pragma_index_info(?)"


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a field, checked."""

    path: str
    unique: bool


def parse_index(payload: Any) -> Index:
    """Return the index of `{path, unique?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    return Index(paths.field_path(body.get("path"), "path"), fields.boolean(body, "unique"))


# ---- tables


@lru_cache(maxsize=1024)
def table_of(collection: str) -> str:
    """Return the name of a checked collection's table."""
    return DOCUMENTS.name(names.suffix(collection))


def exists(conn: ProfileConnection, collection: str) -> bool:
    """Return whether a collection is there."""
    return conn.table_exists("main", table_of(collection))


def make(conn: ProfileConnection, collection: str) -> None:
    """Make a collection that is not there yet. Raises InvalidRequestError when there are too many."""
    count = len(_names(conn))
    if count >= COLLECTIONS_LIMIT:
        raise InvalidRequestError(
            f"the profile has {count} collections, of {COLLECTIONS_LIMIT} that it can have: "
            "drop one, or tell documents apart by a field"
        )
    conn.execute(DOCUMENTS.create(names.suffix(collection)), can_cache=False)


def _names(conn: ProfileConnection) -> list[str]:
    prefix = DOCUMENTS.prefix
    return sorted(
        names.of_suffix(table[len(prefix) :]) for (table,) in conn.execute(_TABLES, (len(prefix), prefix))
    )


def read_collections(
    conn: ProfileConnection, after: str = "", limit: int | None = None
) -> list[dict[str, Any]]:
    """Return `{name, count, indexes}` per collection by name: how many documents, and how many indexes.

    Up to `limit` (None: all) of those with names above `after`.
    """
    found = [name for name in _names(conn) if name > after]
    return [
        {
            "name": name,
            "count": conn.execute(f"SELECT count(*) FROM {table_of(name)}", can_cache=False).get,
            "indexes": len(read_indexes(conn, name)),
        }
        for name in found[:limit]
    ]


def apply_drop(conn: ProfileConnection, collection: str) -> tuple[None, bool]:
    """Remove a collection with its documents and indexes, where it is there."""
    if not exists(conn, collection):
        return None, False
    conn.execute(f"DROP TABLE {table_of(collection)}", can_cache=False)
    conn.noted.dropped("documents", collection)
    return None, True


# ---- indexes


def _index_of(collection: str, path: str) -> str:
    return DOCUMENT_INDEXES.name(f"{names.suffix(collection)}{_SEPARATOR}{names.suffix(path)}")


def _path_of(index: str) -> str:
    return names.of_suffix(index[len(DOCUMENT_INDEXES.prefix) :].partition(_SEPARATOR)[2])


def is_indexed(conn: ProfileConnection, collection: str, path: str) -> bool:
    """Return whether a field of a collection has an index."""
    return conn.execute(_HAS_INDEX, (_index_of(collection, path),)).fetchone() is not None


def read_indexes(conn: ProfileConnection, collection: str) -> list[dict[str, Any]]:
    """Return `{path, unique}` per index by path; none for a collection that is not there."""
    rows = conn.execute(_INDEXES, (table_of(collection),))
    found = [{"path": _path_of(name), "unique": bool(unique)} for name, unique in rows]
    return sorted(found, key=lambda index: str(index["path"]))


def apply_create_index(conn: ProfileConnection, collection: str, index: Index) -> tuple[None, bool]:
    """Index a field, making the collection where it is not there; nothing changes for an index that is there.

    A unique index lets no two documents hold equal values there; null, and no value, may be held by many. Raises
    ConflictError when documents do hold equal values already, or when the index is there and is not like that,
    InvalidRequestError when there are too many.
    """
    path = index.path
    if path == paths.KEY:
        return None, False  # the key is its own index
    is_new = not exists(conn, collection)
    if is_new:
        make(conn, collection)
    found = {other["path"]: other["unique"] for other in read_indexes(conn, collection)}
    if path in found:
        if found[path] != index.unique:
            kind = "unique" if found[path] else "not unique"
            raise ConflictError(
                f"{collection} has an index of {path} already, which is {kind}: drop that one first"
            )
        return None, False
    if len(found) >= INDEXES_LIMIT:
        raise InvalidRequestError(
            f"{collection} has {len(found)} indexes, of {INDEXES_LIMIT} that it can have: drop one first"
        )
    column = filters.extracted("doc", path)
    table, name = table_of(collection), _index_of(collection, path)
    sql = (
        f"CREATE UNIQUE INDEX {name} ON {table}({column})"
        if index.unique
        else f"CREATE INDEX {name} ON {table}({column}, id)"
    )
    try:
        conn.execute(sql, can_cache=False)
        conn.noted.more("documents", collection)
    except apsw.ConstraintError as error:
        raise ConflictError(
            f"documents of {collection} hold equal values of {path}: make them differ before the index is unique"
        ) from error
    return None, True


def apply_drop_index(conn: ProfileConnection, collection: str, path: str) -> tuple[None, bool]:
    """Remove the index of a field, where it is there."""
    if not is_indexed(conn, collection, path):
        return None, False
    conn.execute(f"DROP INDEX {_index_of(collection, path)}", can_cache=False)
    conn.noted.more("documents", collection)
    return None, True


def taken(error: apsw.ConstraintError, key: str) -> InvalidRequestError | ConflictError:
    """Return what the sender of document `key` should hear of a constraint that refused it."""
    if getattr(error, "extendedresult", 0) == apsw.SQLITE_CONSTRAINT_PRIMARYKEY:
        return InvalidRequestError(
            f"the {paths.KEY} {key[:64]!a} is taken by another document: update that one"
        )
    found = _INDEX_IN_ERROR.search(str(error))
    path = _path_of(found[1]) if found else "a field"
    return ConflictError(f"another document holds the same {path} as {key[:64]!a}, and its index is unique")


# ---- operations


async def list_all(
    profile: Profile, *, after: str = "", limit: int | None = None, min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """Return the collections; see `read_collections`."""
    return await profile.read(
        lambda conn, _: read_collections(conn, after, limit), min_txid=min_txid, work=Work.SCAN
    )


async def drop(
    profile: Profile, collection: str, *, durability: Durability = Durability.LOCAL
) -> Written[None]:
    """Remove a collection; see `apply_drop`. Raises InvalidRequestError for a bad name."""
    names.collection(collection)
    return await profile.write(
        lambda conn, _: apply_drop(conn, collection), durability=durability, work=Work.HEAVY
    )


async def indexes(profile: Profile, collection: str, *, min_txid: int = 0) -> Seen[list[dict[str, Any]]]:
    """Return a collection's indexes; see `read_indexes`. Raises InvalidRequestError for a bad name."""
    names.collection(collection)
    return await profile.read(lambda conn, _: read_indexes(conn, collection), min_txid=min_txid)


async def create_index(
    profile: Profile, collection: str, index: Index, *, durability: Durability = Durability.LOCAL
) -> Written[None]:
    """Index a field; see `apply_create_index`. Raises InvalidRequestError for a bad name."""
    names.collection(collection)
    return await profile.write(
        lambda conn, _: apply_create_index(conn, collection, index), durability=durability, work=Work.HEAVY
    )


async def drop_index(
    profile: Profile, collection: str, path: str, *, durability: Durability = Durability.LOCAL
) -> Written[None]:
    """Remove an index; see `apply_drop_index`. Raises InvalidRequestError for a bad name or path."""
    names.collection(collection)
    paths.field_path(path, "the path")
    return await profile.write(
        lambda conn, _: apply_drop_index(conn, collection, path), durability=durability, work=Work.HEAVY
    )
