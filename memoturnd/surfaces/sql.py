"""The user's own SQL: one atomic batch, under the authorizer, with limits on what it may return.

Errors of SQLite's become InvalidRequestError with the statement's place in the batch. What the engine must
see as it is (an interrupt, a full disk, an I/O error, no memory) passes through.
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass, replace
from typing import Any, Final

import apsw

from memoturnd.core import canonical
from memoturnd.core.durability import Durability
from memoturnd.engine import incoming
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.engine.shown_schema import on_view, shown_schema
from memoturnd.errors import ForbiddenError, InvalidRequestError, RetryableError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields, sql_changes

ROWS_LIMIT: Final = 10_000
RESULT_LIMIT_BYTES: Final = 32 * 1024 * 1024
STATEMENT_LIMIT_BYTES: Final = 1024 * 1024
STATEMENTS_LIMIT: Final = 100_000
"""Statements of a batch."""
_SQLITE_INTEGERS = range(-(2**63), 2**63)
_VALUE_COST_BYTES = 8
_READS = re.compile(r"[\s(]*(select|with|values|explain|pragma)\b", re.IGNORECASE)

# The user's to correct. The rest of SQLite's errors are about the node, not about the statement.
_USER_ERRORS = (
    apsw.SQLError,
    apsw.ConstraintError,
    apsw.MismatchError,
    apsw.TooBigError,
    apsw.RangeError,
    apsw.BindingsError,
    apsw.AbortError,
    UnicodeError,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a batch with its positional parameters, as SQLite takes them."""

    q: str
    params: tuple[Binding, ...]


@dataclass(slots=True)
class _Budget:
    """What the rest of a batch may still return."""

    rows: int = ROWS_LIMIT
    size_bytes: int = RESULT_LIMIT_BYTES


class _NeedsWriteError(Exception):
    """A batch that looked like reads has a statement that writes."""


def parse_batch(payload: Any) -> list[Statement]:
    """Return the batch of `{"stmts": [{q, params?}]}`. Raises InvalidRequestError."""
    stmts = fields.array(fields.mapping(payload, "the body").get("stmts"), "stmts")
    if len(stmts) > STATEMENTS_LIMIT:
        raise InvalidRequestError(
            f"stmts has {len(stmts)} statements: at most {STATEMENTS_LIMIT} are taken in one batch"
        )
    return [_parse_statement(stmt, index) for index, stmt in enumerate(stmts)]


def _parse_statement(value: Any, index: int) -> Statement:
    stmt = value if type(value) is dict else fields.mapping(value, f"stmts[{index}]")
    q: Any = stmt.get("q")
    if not (type(q) is str and len(q) <= STATEMENT_LIMIT_BYTES and q.isascii() and "\0" not in q):
        fields.text(q, f"stmts[{index}].q", length_limit=STATEMENT_LIMIT_BYTES)
    params = stmt.get("params")
    if params is None:
        return Statement(q, ())
    if type(params) is not list:
        fields.array(params, f"stmts[{index}].params")
    return Statement(q, tuple([_parameter(param, index, at) for at, param in enumerate(params)]))


def _parameter(value: Any, index: int, at: int) -> Binding:
    """Map a JSON value to SQLite's; what most values are needs no name to be made for it."""
    kind = type(value)
    if (
        value is None
        or kind is float
        or (kind is int and value in _SQLITE_INTEGERS)
        or (kind is str and value.isascii())
    ):
        plain: Binding = value
        return plain
    return _binding(value, f"stmts[{index}].params[{at}]")


def _binding(value: Any, where: str) -> Binding:
    """Map a JSON value to SQLite's: `{"$base64": ...}` is a blob, other objects and arrays become JSON text."""
    if value is None or isinstance(value, float):
        return value
    if isinstance(value, str):
        return fields.whole_text(value, where)
    if isinstance(value, int):
        if value not in _SQLITE_INTEGERS:
            raise InvalidRequestError(f"{where} is beyond 64-bit integers: send it as a string")
        return int(value)  # true and false are 1 and 0
    if isinstance(value, dict) and value.keys() == {"$base64"}:
        try:
            return base64.b64decode(fields.text(value["$base64"], f"{where}.$base64"), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidRequestError(f"{where}.$base64 is not valid base64: {error}") from error
    return canonical.canonical_json(value, where=where).decode()


def run_batch(
    conn: ProfileConnection, batch: list[Statement], *, read_only: bool
) -> tuple[list[dict[str, Any]], bool]:
    """Run a batch; return `{columns, rows, rows_affected}` per statement, and whether anything changed.

    The caller's transaction makes it atomic. Raises InvalidRequestError for an error in a statement,
    ForbiddenError for one that reaches for what it may not touch.
    """
    budget = _Budget()
    results = []
    changed = False
    for index, stmt in enumerate(batch):
        if index:
            conn.between_statements()
        result, has_changed = _run_statement(conn, stmt, index, budget, read_only=read_only)
        results.append(result)
        changed = changed or has_changed
    return results, changed


def _run_statement(
    conn: ProfileConnection,
    stmt: Statement,
    index: int,
    budget: _Budget,
    *,
    read_only: bool,
    schema_view: str | None = None,
) -> tuple[dict[str, Any], bool]:
    cursor = conn.cursor()
    before = conn.total_changes()
    seen = conn.user_statements(read_only, schema_view)
    try:
        with seen:
            rows = _collect(seen.run(cursor, stmt.q, stmt.params), budget, index)
    except ForbiddenError as error:
        if seen.needs_write:
            raise _NeedsWriteError from error
        if seen.needs_schema and schema_view is None:
            cursor.close(force=True)
            return _run_on_shown_schema(conn, stmt, index, budget, read_only=read_only)
        raise ForbiddenError(f"stmts[{index}]: {error}") from error
    except InvalidRequestError as error:
        if seen.denied is not None:
            raise InvalidRequestError(f"stmts[{index}]: {error}") from error
        raise
    except apsw.ExecTraceAbort as error:
        raise _several(index) from error
    except _USER_ERRORS as error:
        if seen.statements and isinstance(error, apsw.BindingsError):
            raise _several(index) from error
        raise InvalidRequestError(f"stmts[{index}]: {error}") from error
    finally:
        cursor.close(force=True)
    if seen.statements != 1:
        raise _several(index) if seen.statements else _none(index)
    changed_rows = conn.total_changes() > before
    if seen.grows and not seen.is_explain:
        _check_schema(conn, index)
    result = {
        "columns": seen.columns,
        "rows": rows,
        "rows_affected": conn.changes() if changed_rows else 0,
    }
    changed_schema = seen.ddl and seen.has_changed_schema()
    if changed_rows or changed_schema:
        sql_changes.note(conn, seen, rows=changed_rows, schema=changed_schema)
    return result, changed_rows or changed_schema


def _run_on_shown_schema(
    conn: ProfileConnection, stmt: Statement, index: int, budget: _Budget, *, read_only: bool
) -> tuple[dict[str, Any], bool]:
    """Run a statement that reads the schema table on what its user may see of it."""
    with shown_schema(conn) as view:
        shown = replace(stmt, q=on_view(stmt.q, view))
        return _run_statement(conn, shown, index, budget, read_only=read_only, schema_view=view)


def _none(index: int) -> InvalidRequestError:
    return InvalidRequestError(f"stmts[{index}].q holds no statement")


def _several(index: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"stmts[{index}].q holds more than one statement: send each as its own entry of stmts"
    )


def _check_schema(conn: ProfileConnection, index: int) -> None:
    """Hold the schema, which every connection keeps in memory, to what an import may bring. Raises InvalidRequestError."""
    count, size_bytes = incoming.schema_size(conn)
    if count > incoming.OBJECTS_LIMIT or size_bytes > incoming.SCHEMA_LIMIT_BYTES:
        raise InvalidRequestError(
            f"stmts[{index}]: the profile would have {count} tables, indexes, views and triggers in {size_bytes} bytes"
            f" of SQL; it takes {incoming.OBJECTS_LIMIT} in {incoming.SCHEMA_LIMIT_BYTES}: drop some, or use another profile"
        )


def _collect(cursor: apsw.Cursor, budget: _Budget, index: int) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for row in cursor:
        budget.rows -= 1
        budget.size_bytes -= sum(
            len(value) if isinstance(value, str | bytes) else _VALUE_COST_BYTES for value in row
        )
        if budget.rows < 0 or budget.size_bytes < 0:
            raise InvalidRequestError(
                f"stmts[{index}]: the batch returns over {ROWS_LIMIT} rows or {RESULT_LIMIT_BYTES} bytes:"
                f" add a LIMIT and page through the rest"
            )
        rows.append([_result(value) for value in row])
    return rows


def _result(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no infinity
    return value


def looks_like_reads(batch: list[Statement]) -> bool:
    """Return whether no statement starts like a write; one that starts with WITH may still be one."""
    return all(_READS.match(stmt.q) for stmt in batch)


async def run(
    profile: Profile,
    batch: list[Statement],
    *,
    durability: Durability = Durability.LOCAL,
    min_txid: int = 0,
    may_write: bool = True,
) -> Written[list[dict[str, Any]]] | Seen[list[dict[str, Any]]]:
    """Run a batch as one transaction; see `run_batch`.

    A batch that only reads is a read; anything else is a write, which raises ForbiddenError unless
    `may_write`. Raises RetryableError when there is no memory for it.
    """
    if not may_write or looks_like_reads(batch):
        try:
            return await profile.read(
                lambda conn, _: run_batch(conn, batch, read_only=True)[0], min_txid=min_txid, work=Work.USER
            )
        except _NeedsWriteError as error:
            if not may_write:
                raise ForbiddenError("the batch writes, and this credential may only read") from error
        except (apsw.NoMemError, MemoryError) as error:
            raise RetryableError(
                "the node has no memory for the statement; do less in one request, or try again"
            ) from error
    return await profile.write(
        lambda conn, _: run_batch(conn, batch, read_only=False), durability=durability, work=Work.USER
    )
