"""The user's own SQL: one atomic batch, under the authorizer, with limits on what it may return.

Errors of SQLite's become InvalidRequestError with the statement's place in the batch. What the engine must
see as it is (an interrupt, a full disk, an I/O error, no memory) passes through.
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass
from typing import Any, Final

import apsw

from memoturnd.core import canonical
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import ForbiddenError, InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields

ROWS_LIMIT: Final = 10_000
RESULT_LIMIT_BYTES: Final = 32 * 1024 * 1024
STATEMENT_LIMIT_BYTES: Final = 1024 * 1024
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
    UnicodeDecodeError,
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
    return [_parse_statement(stmt, f"stmts[{index}]") for index, stmt in enumerate(stmts)]


def _parse_statement(value: Any, where: str) -> Statement:
    stmt = fields.mapping(value, where)
    q = fields.text(stmt.get("q"), f"{where}.q", length_limit=STATEMENT_LIMIT_BYTES)
    params = stmt.get("params")
    values = [] if params is None else fields.array(params, f"{where}.params")
    return Statement(q, tuple(_binding(param, f"{where}.params[{at}]") for at, param in enumerate(values)))


def _binding(value: Any, where: str) -> Binding:
    """Map a JSON value to SQLite's: `{"$base64": ...}` is a blob, other objects and arrays become JSON text."""
    if value is None or isinstance(value, str | float):
        return value
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
        result, has_changed = _run_statement(conn, stmt, f"stmts[{index}]", budget, read_only=read_only)
        results.append(result)
        changed = changed or has_changed
    return results, changed


def _run_statement(
    conn: ProfileConnection, stmt: Statement, where: str, budget: _Budget, *, read_only: bool
) -> tuple[dict[str, Any], bool]:
    watch = _Watch()
    cursor = conn.cursor()
    cursor.exec_trace = watch
    before = conn.total_changes()
    seen = conn.user_statements(read_only)
    try:
        with seen:
            rows = _collect(seen.run(cursor, stmt.q, stmt.params), budget, where)
    except ForbiddenError as error:
        if seen.needs_write:
            raise _NeedsWriteError from error
        raise ForbiddenError(f"{where}: {error}") from error
    except InvalidRequestError as error:
        if seen.denied is not None:
            raise InvalidRequestError(f"{where}: {error}") from error
        raise
    except apsw.ExecTraceAbort as error:
        raise _several(where) from error
    except _USER_ERRORS as error:
        if watch.statements and isinstance(error, apsw.BindingsError):
            raise _several(where) from error
        raise InvalidRequestError(f"{where}: {error}") from error
    finally:
        cursor.close(force=True)
    if watch.statements == 0:
        raise InvalidRequestError(f"{where}.q holds no statement")
    if watch.statements > 1:
        raise _several(where)
    changed_rows = conn.total_changes() > before
    result = {
        "columns": watch.columns,
        "rows": rows,
        "rows_affected": conn.changes() if changed_rows else 0,
    }
    return result, changed_rows or (seen.ddl and not watch.explains)


def _several(where: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{where}.q holds more than one statement: send each as its own entry of stmts"
    )


class _Watch:
    """Sees each statement before it runs: its columns, which are gone after its last row, and how many."""

    __slots__ = ("columns", "explains", "statements")

    def __init__(self) -> None:
        self.columns: list[str] = []
        self.explains = False
        self.statements = 0

    def __call__(self, cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
        if cursor.has_vdbe:  # a comment has none
            self.statements += 1
            if self.statements > 1:
                return False  # ends the execution with ExecTraceAbort
            self.columns = [name for name, _ in cursor.get_description()]
            self.explains = bool(cursor.is_explain)
        return True


def _collect(cursor: apsw.Cursor, budget: _Budget, where: str) -> list[list[Any]]:
    rows: list[list[Any]] = []
    for row in cursor:
        rows.append([_result(value) for value in row])
        budget.rows -= 1
        budget.size_bytes -= sum(
            len(value) if isinstance(value, str | bytes) else _VALUE_COST_BYTES for value in row
        )
        if budget.rows < 0 or budget.size_bytes < 0:
            raise InvalidRequestError(
                f"{where}: the batch returns over {ROWS_LIMIT} rows or {RESULT_LIMIT_BYTES} bytes:"
                f" add a LIMIT and page through the rest"
            )
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
    durable: bool = False,
    min_txid: int = 0,
    may_write: bool = True,
) -> Written[list[dict[str, Any]]] | Seen[list[dict[str, Any]]]:
    """Run a batch as one transaction; see `run_batch`.

    A batch that only reads is a read; anything else is a write, which raises ForbiddenError unless
    `may_write`.
    """
    if not may_write or looks_like_reads(batch):
        try:
            return await profile.read(
                lambda conn, _: run_batch(conn, batch, read_only=True)[0], min_txid=min_txid, work=Work.USER
            )
        except _NeedsWriteError as error:
            if not may_write:
                raise ForbiddenError("the batch writes, and this credential may only read") from error
    return await profile.write(
        lambda conn, _: run_batch(conn, batch, read_only=False), durable=durable, work=Work.USER
    )
