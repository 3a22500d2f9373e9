"""Reading documents: find, count, and the different values of a field. Reads cope with a collection that is not there.

What the filter pins to one value is not sorted by, so that an index on it gives the documents in order.
"""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, cast

import apsw
import msgspec

from memoturnd.core import filters, names, ordering, paths, projections
from memoturnd.core.filters import Binding, Clause, Filter
from memoturnd.core.ordering import Order
from memoturnd.core.projections import Projection
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import ConflictError, InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import collections, fields

FIND_LIMIT: Final = 1000
FIND_DEFAULT: Final = 100
FIND_LIMIT_BYTES: Final = 32 * 1024 * 1024
"""JSON of the documents of one answer."""
LOOP_BYTES: Final = 256 * 1024
"""JSON of documents that is decoded on the event loop for one request."""
SKIP_LIMIT: Final = 2**53 - 1
_EVERYWHERE: Final[Clause] = ("TRUE", ())
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Find:
    """What to find, checked. `order` is as it was sent; what the filter pins is not sorted by."""

    filter: Filter
    order: Order
    projection: Projection | None
    limit: int
    skip: int
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Distinct:
    """Whose values to list, checked."""

    path: str
    filter: Filter
    limit: int


# ---- what comes in


def parse_find(payload: Any) -> Find:
    """Return what `{filter?, sort?, projection?, limit?, skip?, cursor?}` asks for. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    cursor = fields.optional_text(body.get("cursor"), "cursor", length_limit=ordering.CURSOR_LENGTH_LIMIT)
    skip = fields.clamped(body.get("skip"), "skip", default=0, limit=SKIP_LIMIT)
    if cursor is not None and skip:
        raise InvalidRequestError("cursor and skip cannot be combined: a cursor says where to go on")
    return Find(
        filter=parse_filter(body, required=False),
        order=ordering.parse_sort(body.get("sort")),
        projection=projections.parse_projection(body.get("projection")),
        limit=fields.clamped(body.get("limit"), "limit", default=FIND_DEFAULT, limit=FIND_LIMIT),
        skip=skip,
        cursor=cursor,
    )


def parse_count(payload: Any) -> Filter:
    """Return the filter of `{filter?}`. Raises InvalidRequestError."""
    return parse_filter(fields.mapping(payload, "the body"), required=False)


def parse_distinct(payload: Any) -> Distinct:
    """Return what `{path, filter?, limit?}` asks for. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    return Distinct(
        path=paths.field_path(body.get("path"), "path"),
        filter=parse_filter(body, required=False),
        limit=fields.clamped(body.get("limit"), "limit", default=FIND_LIMIT, limit=FIND_LIMIT),
    )


def parse_filter(body: dict[str, Any], *, required: bool) -> Filter:
    """Return the filter of a body; one that is missing stands for everything, unless it is `required`."""
    payload = body.get("filter")
    if payload is None:
        if required:
            raise InvalidRequestError("filter is missing: {} stands for every document")
        payload = {}
    return filters.compile_filter(payload)


# ---- reading


def read_find(conn: ProfileConnection, collection: str, find: Find) -> dict[str, Any]:
    """Return `{docs, next_cursor}`; the cursor is None where nothing comes behind them.

    Raises InvalidRequestError for a cursor of another sort and for an answer that is too large, ConflictError
    for a cursor whose document is gone, where it carries no more than its id.
    """
    order = find.order.without(find.filter.equal)
    places = [_EVERYWHERE]
    if find.cursor is not None:
        # Also where there is nothing: a cursor that is none is refused wherever it is sent.
        cursor = order.parse_cursor(find.cursor)
        places = order.behind(cursor.key, _place(conn, collection, order, cursor))
    if not find.limit or not collections.exists(conn, collection):
        return {"docs": [], "next_cursor": None}
    leave_loop_for_scan(conn, collection, find.filter, order)
    rows: list[tuple[str, str]] = []
    size_bytes = 0
    for place in places:
        for key, text in _select(conn, collection, find, order, place, find.limit + 1 - len(rows)):
            size_bytes += len(text)
            if size_bytes > FIND_LIMIT_BYTES:
                raise InvalidRequestError(
                    f"the documents take over {FIND_LIMIT_BYTES} bytes: lower limit and page through them"
                )
            rows.append((key, text))
        if len(rows) > find.limit:
            break
    if find.projection is not None and size_bytes > LOOP_BYTES:
        conn.leave_loop()
    next_cursor = None
    if len(rows) > find.limit:
        del rows[find.limit :]
        key = rows[-1][0]
        next_cursor = order.cursor(key, _values(conn, collection, order, key) or ())
    return {"docs": [_shown(text, find.projection) for _, text in rows], "next_cursor": next_cursor}


def _select(
    conn: ProfileConnection, collection: str, find: Find, order: Order, place: Clause, limit: int
) -> apsw.Cursor:
    """Run the query of one place; it yields (id, JSON) in order."""
    table = collections.table_of(collection)
    sql, bindings = _both(find.filter, place)
    by = order_by(conn, collection, find.filter, order)
    if not find.skip and by == "id":
        query = f"SELECT id, doc FROM {table} WHERE {sql} ORDER BY id LIMIT ?"
        return conn.execute(query, (*bindings, limit))
    # Documents are sorted and skipped without their text, which may be large; the join keeps the order.
    query = (
        f"SELECT d.id, d.doc FROM (SELECT rowid AS row FROM {table} WHERE {sql} ORDER BY {by} LIMIT ? OFFSET ?) AS s"
        f" CROSS JOIN {table} AS d ON d.rowid = s.row"
    )
    return conn.execute(query, (*bindings, limit, find.skip))


def order_by(conn: ProfileConnection, collection: str, filter_: Filter, order: Order) -> str:
    """Return what follows ORDER BY, such that an index on what the filter bounds is used."""
    by = order.sql
    if len(order.fields) == 1 and _range_has_index(conn, collection, filter_):
        return f"+{by}"  # else SQLite prefers to walk the keys, which are in order already
    return by


def _both(filter_: Filter, place: Clause) -> Clause:
    if place is _EVERYWHERE:
        return filter_.sql, filter_.bindings
    return f"{filter_.sql} AND {place[0]}", (*filter_.bindings, *place[1])


def _range_has_index(conn: ProfileConnection, collection: str, filter_: Filter) -> bool:
    """Return whether the filter bounds an indexed field, and pins none that has an index."""
    if not filter_.ranged or paths.KEY in filter_.equal:
        return False
    return any(collections.is_indexed(conn, collection, path) for path in sorted(filter_.ranged)) and not any(
        collections.is_indexed(conn, collection, path) for path in filter_.equal
    )


def _values(conn: ProfileConnection, collection: str, order: Order, key: str) -> tuple[Binding, ...] | None:
    """Return what document `key` is sorted by, None where it is not there."""
    columns = order.extracted
    if not columns:
        return ()
    if not collections.exists(conn, collection):
        return None
    query = f"SELECT {', '.join(columns)} FROM {collections.table_of(collection)} WHERE id = ?"
    return cast("tuple[Binding, ...] | None", conn.execute(query, (key,)).fetchone())


def _place(
    conn: ProfileConnection, collection: str, order: Order, cursor: ordering.Cursor
) -> tuple[Binding, ...]:
    values = cursor.values
    if values is None:
        values = _values(conn, collection, order, cursor.key)
    if values is None:
        raise ConflictError("the document that the cursor stands behind is gone: start again without it")
    return values


def _shown(text: str, projection: Projection | None) -> Any:
    if projection is None:
        return msgspec.Raw(text.encode())
    return projection.of(_decode(text))


def leave_loop_for_scan(
    conn: ProfileConnection, collection: str, filter_: Filter, order: Order | None = None
) -> None:
    """Raise OverBudgetError where the event loop would wait for a walk through a collection of a large file."""
    if not conn.is_large_on_loop:
        return
    bounding = {*filter_.equal, *filter_.ranged}
    if order is not None and filter_.sql == _EVERYWHERE[0]:
        bounding.add(order.fields[0][0])
    if not any(path == paths.KEY or collections.is_indexed(conn, collection, path) for path in bounding):
        conn.leave_loop()


def read_count(conn: ProfileConnection, collection: str, filter_: Filter) -> int:
    """Return how many documents match."""
    if not collections.exists(conn, collection):
        return 0
    leave_loop_for_scan(conn, collection, filter_)
    query = f"SELECT count(*) FROM {collections.table_of(collection)} WHERE {filter_.sql}"
    return int(conn.execute(query, filter_.bindings).get)


def read_distinct(conn: ProfileConnection, collection: str, distinct: Distinct) -> tuple[list[Any], bool]:
    """Return the different scalars at a path, ascending, and whether there are more than `limit`.

    Null is none of them. Booleans come as such, between the numbers that they are equal to. Raises
    InvalidRequestError for an answer that is too large.
    """
    if not collections.exists(conn, collection):
        return [], False
    leave_loop_for_scan(conn, collection, distinct.filter)
    has_index = distinct.path == paths.KEY or collections.is_indexed(conn, collection, distinct.path)
    values: list[Any] = []
    size_bytes = 0
    with closing((_values_by_index if has_index else _values_by_scan)(conn, collection, distinct)) as found:
        for value in found:
            values.append(value)
            size_bytes += len(value) if isinstance(value, str) else 0
            if size_bytes > FIND_LIMIT_BYTES:
                raise InvalidRequestError(
                    f"the values take over {FIND_LIMIT_BYTES} characters: lower limit, or filter by ranges of {distinct.path}"
                )
            if len(values) > distinct.limit:
                break
    return values[: distinct.limit], len(values) > distinct.limit


def _values_by_scan(
    conn: ProfileConnection, collection: str, distinct: Distinct
) -> Generator[Any, None, None]:
    """Yield different scalars in order, by looking at each document once."""
    value, filter_ = filters.extracted("doc", distinct.path), distinct.filter
    kind = f"json_type(doc, {paths.literal(distinct.path)})"
    query = (
        f"SELECT {value} AS v, {kind} IN ('true', 'false') AS is_boolean FROM {collections.table_of(collection)}"
        f" WHERE {filter_.sql} AND {value} IS NOT NULL AND {kind} NOT IN ('array', 'object')"
        " GROUP BY v, is_boolean ORDER BY v, is_boolean LIMIT ?"
    )
    for found, is_boolean in conn.execute(query, (*filter_.bindings, distinct.limit + 1)):
        yield bool(found) if is_boolean else found


def _values_by_index(
    conn: ProfileConnection, collection: str, distinct: Distinct
) -> Generator[Any, None, None]:
    """Yield different scalars in order, as an index has them; what it does not tell is asked of it value by value."""
    path, filter_ = distinct.path, distinct.filter
    value = "id" if path == paths.KEY else filters.extracted("doc", path)
    rows = f"FROM {collections.table_of(collection)} WHERE {filter_.sql}"
    query = f"SELECT {value} AS v {rows} AND {value} IS NOT NULL GROUP BY v ORDER BY v"
    for (found,) in conn.execute(query, filter_.bindings):
        yield from _kinds(conn, f"{rows} AND {value} = ?", (*filter_.bindings, found), path)


def _kinds(conn: ProfileConnection, rows: str, bindings: tuple[Binding, ...], path: str) -> list[Any]:
    """Return what the scalar that is bound last may be: itself, a boolean, both, or nothing but the text of a container."""
    found = bindings[-1]
    may_be_other = found.startswith(("[", "{")) if isinstance(found, str) else found in (0, 1)
    if path == paths.KEY or not may_be_other:
        return [found]

    def has(kinds: str) -> bool:
        query = f"SELECT 1 {rows} AND json_type(doc, {paths.literal(path)}) IN ({kinds}) LIMIT 1"
        return conn.execute(query, bindings).fetchone() is not None

    if isinstance(found, str):
        return [found] if has("'text'") else []
    return [found] * has("'integer', 'real'") + [bool(found)] * has("'true', 'false'")


# ---- operations


def work_of(filter_: Filter) -> Work:
    """Return the work of finding what a filter matches: how much, an index decides that the filter does not know."""
    return Work.OPAQUE if filter_.slow else Work.USER


async def find(profile: Profile, collection: str, find: Find, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Find documents; see `read_find`. Raises InvalidRequestError for a bad collection."""
    names.collection(collection)
    return await profile.read(
        lambda conn, _: read_find(conn, collection, find), min_txid=min_txid, work=work_of(find.filter)
    )


async def count(profile: Profile, collection: str, filter_: Filter, *, min_txid: int = 0) -> Seen[int]:
    """Count documents; see `read_count`. Raises InvalidRequestError for a bad collection."""
    names.collection(collection)
    return await profile.read(
        lambda conn, _: read_count(conn, collection, filter_), min_txid=min_txid, work=work_of(filter_)
    )


async def distinct(
    profile: Profile, collection: str, distinct: Distinct, *, min_txid: int = 0
) -> Seen[tuple[list[Any], bool]]:
    """List different values; see `read_distinct`. Raises InvalidRequestError for a bad collection."""
    names.collection(collection)
    return await profile.read(
        lambda conn, _: read_distinct(conn, collection, distinct),
        min_txid=min_txid,
        work=work_of(distinct.filter),
    )
