"""Documents: JSON objects in named collections, found by filters.

A document is kept as JSON text with its `_id` in it, numbers, strings and the order of keys as they came. Reads
cope with a collection that is not there: it is empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw
import msgspec

from memoturnd.core import canonical, names, ordering, paths, ulids, updates
from memoturnd.core.durability import Durability
from memoturnd.core.filters import Filter
from memoturnd.core.ordering import Order
from memoturnd.core.updates import Update
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError, PayloadTooLargeError
from memoturnd.seams.clock import Randomness, SystemRandomness
from memoturnd.seams.profile import Profile, Work, Written
from memoturnd.surfaces import collections, fields
from memoturnd.surfaces import document_queries as queries

INSERT_LIMIT: Final = 10_000
"""Documents of one insert."""
DOCUMENT_LIMIT_BYTES: Final = 4 * 1024 * 1024
ID_LENGTH_LIMIT: Final = 512
_INLINE_INSERT: Final = 200
_INLINE_INSERT_BYTES: Final = 128 * 1024
"""Up to so many documents of so many bytes together are inserted on the event loop."""
_RANDOMNESS: Final = SystemRandomness()
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class New:
    """A document to insert, checked: its id, where it has one, and its JSON, `_id` included where it has one."""

    id: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Change:
    """An update of documents, checked; without `multi` of the first by `order`."""

    filter: Filter
    update: Update
    order: Order
    multi: bool
    upsert: bool


@dataclass(frozen=True, slots=True)
class Removal:
    """A deletion of documents, checked; without `multi` of the first by `order`."""

    filter: Filter
    order: Order
    multi: bool


# ---- what comes in


def parse_insert(payload: Any) -> list[New]:
    """Return the documents of `{docs}`. Raises InvalidRequestError, PayloadTooLargeError."""
    docs = fields.array(fields.mapping(payload, "the body").get("docs"), "docs")
    if len(docs) > INSERT_LIMIT:
        raise InvalidRequestError(f"docs has {len(docs)} documents: at most {INSERT_LIMIT} are taken at once")
    return [_parse_document(doc, f"docs[{at}]") for at, doc in enumerate(docs)]


def _parse_document(value: Any, where: str) -> New:
    doc = fields.mapping(value, where)
    key = None
    if paths.KEY in doc:
        key = _checked_key(doc[paths.KEY], f"{where}.{paths.KEY}")
    return New(key, _text(doc, where))


def _checked_key(value: Any, where: str) -> str:
    key = fields.text(value, where, length_limit=ID_LENGTH_LIMIT)
    if not key:
        raise InvalidRequestError(f"{where} is empty: leave it out to have one made")
    return key


def _text(doc: dict[str, Any], where: str) -> str:
    text = canonical.json_text(doc, where=where)
    paths.check_keys(doc, text, where)
    if len(text) > DOCUMENT_LIMIT_BYTES:
        raise PayloadTooLargeError(
            f"{where} takes {len(text)} bytes as JSON, and a document at most {DOCUMENT_LIMIT_BYTES}: "
            "keep large values under keys"
        )
    return text.decode()


def parse_update(payload: Any) -> Change:
    """Return the update of `{filter, update, multi?, sort?, upsert?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    if "update" not in body:
        raise InvalidRequestError("update is missing: send an object of operators, such as $set")
    return Change(
        filter=queries.parse_filter(body, required=True),
        update=updates.parse_update(body["update"]),
        order=ordering.parse_sort(body.get("sort")),
        multi=fields.boolean(body, "multi"),
        upsert=fields.boolean(body, "upsert"),
    )


def parse_delete(payload: Any) -> Removal:
    """Return the deletion of `{filter, multi?, sort?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    return Removal(
        filter=queries.parse_filter(body, required=True),
        order=ordering.parse_sort(body.get("sort")),
        multi=fields.boolean(body, "multi"),
    )


# ---- insert


def apply_insert(
    conn: ProfileConnection, now_ms: int, collection: str, docs: Sequence[New], *, random: int = 0
) -> tuple[list[str], bool]:
    """Insert documents, all or none; return their ids in order. Without one a document gets a ULID, put first.

    Raises InvalidRequestError when an `_id` is taken, ConflictError when a unique index refuses a value.
    """
    if not docs:
        return [], False
    if not collections.exists(conn, collection):
        collections.make(conn, collection)
    rows = []
    newest = max(conn.newest_ulid, ulids.first(now_ms, random) - 1)
    for doc in docs:
        if doc.id is not None:
            rows.append((doc.id, doc.text))
            continue
        newest += 1
        key = ulids.text(newest)
        rows.append((key, _with_key(doc.text, key)))
    conn.newest_ulid = newest
    before = conn.total_changes()
    try:
        conn.executemany(f"INSERT INTO {collections.table_of(collection)}(id, doc) VALUES (?, ?)", rows)
    except apsw.ConstraintError as error:
        raise collections.taken(error, rows[conn.total_changes() - before][0]) from error
    conn.noted.put_all("documents", collection, [key for key, _ in rows])
    return [key for key, _ in rows], True


def _with_key(text: str, key: str) -> str:
    return f'{{"{paths.KEY}":"{key}"{"," if len(text) > 2 else ""}{text[1:]}'  # noqa: PLR2004 - `{}`


# ---- update and delete


def apply_update(
    conn: ProfileConnection, now_ms: int, collection: str, change: Change, *, random: int = 0
) -> tuple[dict[str, Any], bool]:
    """Update what matches; return `{modified, upserted_id}`: how many it was applied to, changed by it or not.

    Where nothing matches, an upsert inserts the fields that the filter says are equal to something, updated; its
    `_id` is the filter's, else a ULID. Raises InvalidRequestError when the update does not fit a document, and as
    `apply_insert` does; nothing is changed then.
    """
    rows: list[int] = []
    if collections.exists(conn, collection):
        queries.leave_loop_for_scan(conn, collection, change.filter)
        rows = _matching(conn, collection, change.filter, change.order, multi=change.multi)
    has_changed = False
    for row in rows:
        conn.between_statements()
        has_changed = _update_one(conn, collection, row, change.update) or has_changed
    if rows or not change.upsert:
        return {"modified": len(rows), "upserted_id": None}, has_changed
    ids, _ = apply_insert(conn, now_ms, collection, [_upserted(change)], random=random)
    return {"modified": 0, "upserted_id": ids[0]}, True


def _matching(
    conn: ProfileConnection, collection: str, filter_: Filter, order: Order, *, multi: bool
) -> list[int]:
    """Return the rows that match, before any of them is changed: all, or the first."""
    query = f"SELECT rowid FROM {collections.table_of(collection)} WHERE {filter_.sql}"
    if not multi:
        by = queries.order_by(conn, collection, filter_, order.without(filter_.equal))
        query += f" ORDER BY {by} LIMIT 1"
    return [row for (row,) in conn.execute(query, filter_.bindings)]


def _update_one(conn: ProfileConnection, collection: str, row: int, update: Update) -> bool:
    table = collections.table_of(collection)
    found: Any = conn.execute(f"SELECT id, doc FROM {table} WHERE rowid = ?", (row,)).fetchone()
    key, before = found
    if len(before) > queries.LOOP_BYTES:
        conn.leave_loop()
    after = _updated(_decode(before), update, key)
    if after == before:
        return False
    try:
        conn.execute(f"UPDATE {table} SET doc = ? WHERE rowid = ?", (after, row))
    except apsw.ConstraintError as error:
        raise collections.taken(error, key) from error
    conn.noted.put("documents", collection, key)
    return True


def _updated(doc: dict[str, Any], update: Update, key: str | None) -> str:
    where = "the new document" if key is None else f"document {key[:64]!a}"
    try:
        updates.apply(update, doc)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}: {error}") from error
    return _text(doc, where)


def _upserted(change: Change) -> New:
    doc: dict[str, Any] = {}
    key: str | None = None
    for path, value in change.filter.equal.items():
        if path == paths.KEY:
            key = _checked_key(value, f"filter.{path}")
            doc = {paths.KEY: key, **doc}
        else:
            updates.put(doc, path, value)
    if key is None and paths.KEY in doc:
        raise InvalidRequestError(f"filter: {paths.KEY} is a string, which has no fields")
    return New(key, _updated(doc, change.update, key))


def apply_delete(conn: ProfileConnection, collection: str, removal: Removal) -> tuple[int, bool]:
    """Delete what matches; return how many documents went."""
    if not collections.exists(conn, collection):
        return 0, False
    queries.leave_loop_for_scan(conn, collection, removal.filter)
    table, filter_ = collections.table_of(collection), removal.filter
    if removal.multi:
        query = f"DELETE FROM {table} WHERE {filter_.sql}"
    else:
        by = queries.order_by(conn, collection, filter_, removal.order.without(filter_.equal))
        query = f"DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {filter_.sql} ORDER BY {by} LIMIT 1)"
    deleted: Any = conn.execute(f"{query} RETURNING id", filter_.bindings).fetchall()
    conn.noted.deleted_all("documents", collection, (key for (key,) in deleted))
    return len(deleted), bool(deleted)


# ---- operations


def _is_one_by_key(filter_: Filter) -> bool:
    return paths.KEY in filter_.equal and not filter_.slow


def _random(randomness: Randomness) -> int:
    # Drawn before the op, which may run twice and must do the same then.
    return int(randomness.hex(ulids.RANDOM_BYTES), 16)


async def insert(
    profile: Profile,
    collection: str,
    docs: Sequence[New],
    *,
    durability: Durability = Durability.LOCAL,
    randomness: Randomness = _RANDOMNESS,
) -> Written[list[str]]:
    """Insert documents; see `apply_insert`. Raises InvalidRequestError for a bad collection."""
    names.collection(collection)
    random = _random(randomness)
    is_small = len(docs) <= _INLINE_INSERT and sum(len(doc.text) for doc in docs) <= _INLINE_INSERT_BYTES
    return await profile.write(
        lambda conn, now_ms: apply_insert(conn, now_ms, collection, docs, random=random),
        durability=durability,
        work=Work.POINT if is_small else Work.HEAVY,
    )


async def update(
    profile: Profile,
    collection: str,
    change: Change,
    *,
    durability: Durability = Durability.LOCAL,
    randomness: Randomness = _RANDOMNESS,
) -> Written[dict[str, Any]]:
    """Update documents; see `apply_update`. Raises InvalidRequestError for a bad collection."""
    names.collection(collection)
    random = _random(randomness)
    return await profile.write(
        lambda conn, now_ms: apply_update(conn, now_ms, collection, change, random=random),
        durability=durability,
        work=queries.work_of(change.filter),
    )


async def delete(
    profile: Profile, collection: str, removal: Removal, *, durability: Durability = Durability.LOCAL
) -> Written[int]:
    """Delete documents; see `apply_delete`. Raises InvalidRequestError for a bad collection."""
    names.collection(collection)
    return await profile.write(
        lambda conn, _: apply_delete(conn, collection, removal),
        durability=durability,
        work=Work.POINT if _is_one_by_key(removal.filter) else queries.work_of(removal.filter),
    )
