"""What a user's own statements may do: SQLite's authorizer with allow-lists, one verdict per action.

The authorizer stays installed for a connection's life (changing it would expire every prepared statement)
and consults one field: the block of user statements that is open, or none. Statements prepared while none is
open are trusted, which is why user statements never come from, and never enter, the statement cache.

What may be read, called, written and made is listed; everything else is refused, also what a later SQLite
brings. On the event loop a block refuses in addition whatever one SQLite step could make long: the pool runs
that.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

import apsw

from memoturnd.errors import ForbiddenError, InvalidRequestError, InvariantError, MemoturnError

if TYPE_CHECKING:
    from memoturnd.engine.connection import Bindings, ProfileConnection

RESERVED_PREFIX: Final = "__memoturn_"
"""Tables, indexes, views and triggers whose names start so (in any case) belong to Memoturn."""
_STEM: Final = RESERVED_PREFIX.rstrip("_")
"""A virtual table of this name would have tables of its own with the prefix."""

USER_LENGTH_LIMIT_BYTES: Final = 32 * 1024 * 1024
"""Longest string, blob or row that a user statement may make."""
LOOP_LENGTH_LIMIT_BYTES: Final = 64 * 1024
"""The same on the event loop; a statement with longer ones goes to the pool."""
QUADRATIC_LENGTH_LIMIT_BYTES: Final = 512 * 1024
"""Longest value in a statement with a function whose time grows with the square of its arguments."""
SLOW_LENGTH_LIMIT_BYTES: Final = 128 * 1024
"""The same with a function that does more for each of them than to compare bytes."""

_OK, _DENY, _IGNORE = apsw.SQLITE_OK, apsw.SQLITE_DENY, apsw.SQLITE_IGNORE

PRAGMAS: Final = frozenset(
    {
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "table_info",
        "table_xinfo",
    }
)
"""Pragmas that describe the table or index which they name."""
SHOWN_PRAGMAS: Final = frozenset(
    {
        "application_id",
        "collation_list",
        "compile_options",
        "data_version",  # FTS5 asks for it by itself, to see whether its cache is stale
        "encoding",
        "foreign_keys",
        "freelist_count",
        "function_list",
        "page_count",
        "page_size",
        "user_version",
    }
)
"""Pragmas that may be read, without an argument."""

MODULES: Final = frozenset({"fts5", "vec0"})
"""Modules of which a user may make virtual tables."""

_SCALARS = """
 -> ->> abs changes char coalesce concat concat_ws current_date current_time current_timestamp date datetime
 format glob hex if ifnull iif instr julianday last_insert_rowid length like likelihood likely lower ltrim match
 max min nullif octet_length printf quote random randomblob regexp replace round rtrim sign soundex
 sqlite_compileoption_get sqlite_compileoption_used sqlite_source_id sqlite_version strftime substr substring
 subtype time timediff total_changes trim typeof unhex unicode unistr unistr_quote unixepoch unlikely upper
 zeroblob
"""
_MATH = """
 acos acosh asin asinh atan atan2 atanh ceil ceiling cos cosh degrees exp floor ln log log10 log2 mod pi pow
 power radians sin sinh sqrt tan tanh trunc
"""
_JSON = """
 json json_array json_array_insert json_array_length json_error_position json_extract json_group_array
 json_group_object json_insert json_object json_patch json_pretty json_quote json_remove json_replace json_set
 json_type json_valid jsonb jsonb_array jsonb_array_insert jsonb_extract jsonb_group_array jsonb_group_object
 jsonb_insert jsonb_object jsonb_patch jsonb_remove jsonb_replace jsonb_set
"""
_AGGREGATES = """
 avg count group_concat median percentile percentile_cont percentile_disc string_agg sum total
 cume_dist dense_rank first_value lag last_value lead nth_value ntile percent_rank rank row_number
"""
_SEARCH = """
 bm25 fts5_get_locale fts5_insttoken fts5_locale fts5_source_id highlight snippet
 vec_add vec_bit vec_distance_cosine vec_distance_hamming vec_distance_l1 vec_distance_l2 vec_f32 vec_int8
 vec_length vec_normalize vec_quantize_binary vec_quantize_int8 vec_slice vec_sub vec_to_json vec_type
 vec_version
"""
FUNCTIONS: Final = frozenset(f"{_SCALARS}{_MATH}{_JSON}{_AGGREGATES}{_SEARCH}".split())
"""Functions that a user may call: SQLite's own, FTS5's and sqlite-vec's that touch nothing but their arguments."""

_ALTERING = frozenset(
    {
        "sqlite_add_constraint",
        "sqlite_drop_column",
        "sqlite_drop_constraint",
        "sqlite_fail",
        "sqlite_find_constraint",
        "sqlite_rename_column",
        "sqlite_rename_quotefix",
        "sqlite_rename_table",
        "sqlite_rename_test",
    }
)
"""Functions that ALTER TABLE calls in statements of its own; SQLite lets nobody else call them."""
_QUADRATIC = frozenset({"instr", "replace"})
_SLOW = frozenset({"json_patch", "jsonb_patch", "ltrim", "rtrim", "snippet", "trim"})
_LONG_CALLS = _QUADRATIC | _SLOW | {"glob", "group_concat", "like", "randomblob", "string_agg", "zeroblob"}
"""Functions of which one call may take long: in the pool alone."""

_NOT_REMEMBERED = _LONG_CALLS | _ALTERING | {"count"}

_SCHEMA_TABLES = frozenset({"sqlite_schema", "sqlite_master", "sqlite_temp_schema", "sqlite_temp_master"})
_KEPT_TABLES = frozenset({"sqlite_sequence", "sqlite_stat1", "sqlite_stat4"})
"""Tables that SQLite keeps for all tables together, ours too: written by SQLite alone."""
_SAMPLES = "sqlite_stat4"
"""Where ANALYZE keeps keys of every index, ours too."""
_CHECK = "quick_check"
"""The PRAGMA by which ALTER TABLE holds rows to a new constraint."""
_ARRAYS = "carray"
"""A virtual table that exists without being created, and reads memory."""

_ROWS = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_TEMPORARY = frozenset(
    {
        apsw.SQLITE_CREATE_TEMP_INDEX,
        apsw.SQLITE_CREATE_TEMP_TABLE,
        apsw.SQLITE_CREATE_TEMP_TRIGGER,
        apsw.SQLITE_CREATE_TEMP_VIEW,
        apsw.SQLITE_DROP_TEMP_INDEX,
        apsw.SQLITE_DROP_TEMP_TABLE,
        apsw.SQLITE_DROP_TEMP_TRIGGER,
        apsw.SQLITE_DROP_TEMP_VIEW,
    }
)
_MAKING = frozenset(
    {
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
    }
)
_DDL = _MAKING | {
    apsw.SQLITE_ANALYZE,
    apsw.SQLITE_DROP_INDEX,
    apsw.SQLITE_DROP_TABLE,
    apsw.SQLITE_DROP_TRIGGER,
    apsw.SQLITE_DROP_VIEW,
    apsw.SQLITE_DROP_VTABLE,
    apsw.SQLITE_REINDEX,
}
_CHANGING = _ROWS | _DDL
_HOUSEKEEPING = (_DDL - _MAKING) | {apsw.SQLITE_ALTER_TABLE}
"""Actions of statements that read and write what SQLite keeps by themselves, and have no part of a user's in them."""
_READS = frozenset({apsw.SQLITE_READ, apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE, apsw.SQLITE_FUNCTION})
_REMEMBERED = _READS | {apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE}

_TEMPORARY_REASON = "temporary objects are not allowed: they would not outlive the request; use a plain table"

# SQLite itself undoes or aborts more than the statement here; the engine above decides what that means.
_NOT_OURS = (apsw.InterruptError, apsw.FullError, apsw.IOError, apsw.NoMemError)

_Verdict = tuple[int, str | None, str | None, str | None]
_VERDICTS_LIMIT = 4096
_NAME_LENGTH_LIMIT = 64
# Actions that were allowed, and are whatever the statement and the connection; for reading and for writing.
_FINE: dict[bool, set[_Verdict]] = {True: set(), False: set()}
_NOTHING_FINE: set[_Verdict] = set()


class Budget(Protocol):
    """What the statements that run may take. While it is `paused` nothing is stopped."""

    paused: bool

    def between(self) -> None:
        """Be called between two statements. Raises what ends them, once they took too much together."""
        ...


class File(Protocol):
    """The file that statements work on."""

    @property
    def is_large(self) -> bool:
        """Whether whatever is in proportion to the file is too much for the event loop."""
        ...


class OverBudgetError(Exception):
    """The statement would hold the event loop for too long, or did; it is rolled back, and for the pool to run."""


def is_reserved(name: str) -> bool:
    """Return whether `name` belongs to Memoturn, whatever its case."""
    return name[: len(RESERVED_PREFIX)].lower() == RESERVED_PREFIX


class UserStatements:
    """What happened inside one `user_statements` block.

    `ddl` is whether a statement that may change the schema was prepared, `grows` whether one adds to it, `denied`
    why one was refused (None if none was), `needs_write` whether that was for writing where only reads are
    allowed, `needs_schema` whether one reads the schema table, which users see by a view (`schema_view`, see
    memoturnd.engine.shown_schema). Of the last statement `columns` are the names of its columns, `statements` how many there were in
    its text, `is_explain` whether it only explains. `changing` is what was asked of the authorizer that writes: the action
    and its two names.
    """

    # Defaults in the class: most blocks change few of them.
    _alters = False
    _keeps_house = False
    _length_limit = 0
    _long_call = False
    _most_bytes = USER_LENGTH_LIMIT_BYTES
    _schema_version = 0
    _sql: str | None = None
    changing: AbstractSet[tuple[int, str | None, str | None]] = frozenset()
    columns: Sequence[str] = ()
    ddl = False
    denied: str | None = None
    fine = _NOTHING_FINE
    grows = False
    is_explain = False
    needs_schema = False
    needs_write = False
    statements = 0
    transaction_control = False

    def __init__(self, conn: "ProfileConnection", *, read_only: bool, schema_view: str | None = None) -> None:
        self._conn = conn
        self._read_only = read_only
        self.schema_view = schema_view

    def execute(self, sql: str, bindings: "Bindings | None" = None) -> apsw.Cursor:
        """Run one user statement past the statement cache; the cursor yields its rows."""
        return self.run(self._conn.cursor(), sql, bindings)

    def run(self, cursor: apsw.Cursor, sql: str, bindings: "Bindings | None" = None) -> apsw.Cursor:
        """Like `execute`, on a cursor that the caller made. A second statement ends it with ExecTraceAbort."""
        self._sql = sql
        self.statements = 0
        cursor.exec_trace = self._before
        return cursor.execute(sql, bindings, can_cache=False)

    def has_changed_schema(self) -> bool:
        """Return whether the last statement changed the schema, or what SQLite keeps of it.

        One that makes what is there already changes nothing.
        """
        if not self.ddl or self.is_explain:
            return False
        moved = self._conn.guard.schema_version(self._conn) != self._schema_version
        return moved or self._keeps_house

    def error(self) -> MemoturnError | None:
        """Return the error that a refused statement deserves, None if none was refused."""
        if self.denied is None:
            return None
        return InvalidRequestError(self.denied) if self.transaction_control else ForbiddenError(self.denied)

    def __enter__(self) -> Self:
        conn = self._conn
        guard = conn.guard
        if guard.seen is not None:
            raise InvariantError("user_statements blocks do not nest")
        if guard.on_loop:
            guard.look_for_virtual_tables(conn)
            self._most_bytes = LOOP_LENGTH_LIMIT_BYTES
        if not (guard.on_loop and guard.virtual):
            self.fine = _FINE[self._read_only]
        self._length_limit = conn.limit(apsw.SQLITE_LIMIT_LENGTH, self._most_bytes)
        guard.seen = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        guard = self._conn.guard
        guard.seen = None
        self._conn.limit(apsw.SQLITE_LIMIT_LENGTH, self._length_limit)
        if self.ddl:
            guard.virtual = None
        if self.denied is None and not self._long_call and not isinstance(error, apsw.TooBigError):
            return
        if isinstance(error, _NOT_OURS) or not (error is None or isinstance(error, apsw.Error)):
            return
        # A refusal inside a virtual table's own statement comes out as some other SQLite error, or none.
        refusal = self.error()
        if refusal is not None:
            raise refusal from error
        if guard.on_loop:
            raise OverBudgetError from error

    def _before(self, cursor: apsw.Cursor, _sql: str, _bindings: object) -> bool:
        """See a statement before it runs: its columns are gone after its last row."""
        if not cursor.has_vdbe:  # a comment has none
            return True
        self.statements += 1
        if self.statements > 1:
            return False
        if self._read_only and not cursor.is_readonly:
            self._refuse_write()
            return False
        self.columns = [column[0] for column in cursor.get_description()]
        self.is_explain = cursor.is_explain != 0
        if self.ddl:
            self._schema_version = self._conn.guard.schema_version(self._conn)
        if self._most_bytes < USER_LENGTH_LIMIT_BYTES:
            self._conn.limit(apsw.SQLITE_LIMIT_LENGTH, self._most_bytes)
        return True

    # ---- verdicts

    def judge(self, action: int, first: str | None, second: str | None, database: str | None) -> int:
        """Decide one authorizer call: SQLITE_OK, IGNORE or DENY, with the reason left in `denied`."""
        reason = self._reason(action, first or "", second or "", database or "")
        if reason is not None:
            self.denied = self.denied or reason
            return _DENY
        if self._conn.guard.on_loop and self._takes_long(action, first or "", second or ""):
            self._long_call = True
            return _DENY
        if action in _REMEMBERED:
            self._remember((action, first, second, database))
        elif action == apsw.SQLITE_DELETE and not self.ddl and self._conn.guard.on_loop:
            return self._delete(first or "")
        return _OK

    def _remember(self, verdict: _Verdict) -> None:
        """Note what is allowed always; what depends on the statement, or on the place, is asked for each time."""
        _, first, second, _ = verdict
        if self.schema_view is not None:
            return
        first, second = first or "", second or ""
        if len(first) + len(second) > _NAME_LENGTH_LIMIT or first[:7].lower() == "sqlite_":
            return
        if second.lower() in _NOT_REMEMBERED or self.fine is _NOTHING_FINE:
            return
        if len(self.fine) >= _VERDICTS_LIMIT:
            self.fine.clear()
        self.fine.add(verdict)

    def _delete(self, table: str) -> int:
        """Let rows of a large file be deleted one by one, so that they are counted: emptying a table is one step.

        SQLite asks about its own tables when something is dropped, and drops nothing where it is told to ignore.
        """
        is_users = table[:7].lower() != "sqlite_"
        return _IGNORE if is_users and self._conn.guard.large else _OK

    def _takes_long(self, action: int, first: str, second: str) -> bool:
        """Return whether one step of it may hold the event loop."""
        guard = self._conn.guard
        if action == apsw.SQLITE_FUNCTION:
            name = second.lower()
            return name in _LONG_CALLS or (name == "count" and guard.large)
        if action in _DDL:
            return action in (apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_DROP_VTABLE) or guard.large
        return bool(guard.virtual) and first.lower() in (guard.virtual or ())

    def _reason(self, action: int, first: str, second: str, database: str) -> str | None:
        if action == apsw.SQLITE_FUNCTION:
            return self._function_reason(second.lower())
        if action in _READS:
            return self._read_reason(first, second)
        if action in _ROWS or action in _DDL:
            return self._write_reason(action, first, second, database)
        if action == apsw.SQLITE_PRAGMA:
            return self._pragma_reason(first, second)
        if action in (apsw.SQLITE_TRANSACTION, apsw.SQLITE_SAVEPOINT):
            self.transaction_control = True
            return f"transaction control ({first}) is not allowed: a batch is one transaction already"
        if action in _TEMPORARY:
            return _TEMPORARY_REASON
        if action in (apsw.SQLITE_ATTACH, apsw.SQLITE_DETACH):
            return (
                "ATTACH, DETACH and VACUUM are not allowed: a profile is one file, kept compact by the node"
            )
        return f"statement not allowed (SQLite action {action})"

    def _function_reason(self, name: str) -> str | None:
        if is_reserved(name):
            return _reserved_reason(name)
        if name not in FUNCTIONS and not (self._alters and name in _ALTERING):
            return f"the function {name}() is not available"
        if name in _QUADRATIC:
            self._most_bytes = min(self._most_bytes, QUADRATIC_LENGTH_LIMIT_BYTES)
        elif name in _SLOW:
            self._most_bytes = min(self._most_bytes, SLOW_LENGTH_LIMIT_BYTES)
        return None

    def _read_reason(self, table: str, column: str) -> str | None:
        if table and table == self.schema_view:
            return None
        if is_reserved(table):
            return _reserved_reason(table)
        name = table.lower()
        if (name in _hidden_tables() and not (self._alters and name == f"pragma_{_CHECK}")) or (
            name == _SAMPLES and not self._keeps_house
        ):
            return f"the table {table} is not available"
        if name in _SCHEMA_TABLES and not self._keeps_schema(column):
            self.needs_schema = True
            return "sqlite_schema can be read in a statement by this name, and not in views and triggers"
        return None

    def _keeps_schema(self, column: str) -> bool:
        """Return whether it is SQLite itself that reads the schema table, to make, alter or drop something."""
        return self.ddl and (column == "ROWID" or self._alters or self._keeps_house)

    def _pragma_reason(self, name: str, argument: str) -> str | None:
        pragma = name.lower()
        if pragma in PRAGMAS or (pragma == _CHECK and self._alters):
            return _reserved_reason(argument) if RESERVED_PREFIX in argument.lower() else None
        if pragma in SHOWN_PRAGMAS:
            return f"PRAGMA {name} may only be read" if argument else None
        allowed = sorted(PRAGMAS | SHOWN_PRAGMAS - {"data_version"})
        return f"PRAGMA {name} is not allowed: {', '.join(allowed)} are"

    def _write_reason(self, action: int, first: str, second: str, database: str) -> str | None:
        self.ddl = self.ddl or action in _DDL
        self.grows = self.grows or action in _MAKING
        self._alters = self._alters or action == apsw.SQLITE_ALTER_TABLE
        self._keeps_house = self._keeps_house or action in _HOUSEKEEPING
        for name in (first, second) if action in _DDL else (first,):
            if is_reserved(name):
                return _reserved_reason(name)
        # `CREATE TABLE temp.x` is told as a plain CREATE TABLE in another database. An UPDATE there is what
        # every ALTER TABLE does, and finds nothing.
        if database == "temp" and action != apsw.SQLITE_UPDATE:
            return _TEMPORARY_REASON
        if self._read_only:
            return self._refuse_write()
        if action in _ROWS and not self.ddl and first.lower() in _KEPT_TABLES:
            return f"{first} is kept by SQLite for all tables together: it cannot be written"
        if action == apsw.SQLITE_CREATE_VTABLE and second.lower() not in MODULES:
            return f"virtual tables of module {second!r} are not allowed: fts5 and vec0 are"
        if action == apsw.SQLITE_REINDEX and RESERVED_PREFIX in first.lower():
            return _reserved_reason(first)
        # SQLite does not tell the authorizer the new name of a rename, the table of a foreign key, or that an
        # FTS5 table takes its content from. A name has no escapes, so its start must stand in the text as it is.
        if action in _MAKING and _STEM in self._text_of_user():
            return f"names that start {RESERVED_PREFIX} are reserved: the statement names one"
        return None

    def _text_of_user(self) -> str:
        """Return the text of the statement in lower case, without the name of the view that it is run on."""
        text = (self._sql or _STEM).lower()
        return text if self.schema_view is None else text.replace(self.schema_view.lower(), "")

    def _refuse_write(self) -> str:
        self.needs_write = self.needs_write or self.denied is None
        self.denied = self.denied or "the statement writes, and only reads are allowed here"
        return self.denied


@cache
def _hidden_tables() -> frozenset[str]:
    """Return the tables that this SQLite has without their being created, and users have no business with."""
    conn = apsw.Connection(":memory:")
    try:
        pragmas = {f"pragma_{name}" for (name,) in conn.execute("PRAGMA pragma_list")}
    finally:
        conn.close()
    return frozenset(pragmas - {f"pragma_{name}" for name in PRAGMAS | SHOWN_PRAGMAS} | {_ARRAYS})


def _reserved_reason(name: str) -> str:
    return f"{name} is reserved: names that start {RESERVED_PREFIX} are Memoturn's own; use the API for them"


class Guard:
    """The permanently installed authorizer. Separate from the connection, so that no cycle keeps a file open.

    `budget` is what the statements may still take, `on_loop` whether the event loop waits for them, `file` what
    they work on then.
    """

    __slots__ = ("budget", "file", "on_loop", "seen", "virtual")

    def __init__(self) -> None:
        self.seen: UserStatements | None = None
        self.on_loop = False
        self.file: File | None = None
        self.budget: Budget | None = None
        self.virtual: frozenset[str] | None = None
        """Names of the user's virtual tables, in lower case; None before they were looked for."""

    def __call__(  # noqa: D102 - what SQLite calls
        self, action: int, first: str | None, second: str | None, database: str | None, source: str | None
    ) -> int:
        seen = self.seen
        if seen is not None and action in _CHANGING:
            seen.changing = {*seen.changing, (action, first, second)}
        if seen is None or (action, first, second, database) in seen.fine:
            return _OK
        if source is not None and source == seen.schema_view:
            return _OK  # what the view does is ours
        return seen.judge(action, first, second, database)

    @property
    def large(self) -> bool:
        """Return whether the file is large: looked at where it matters, since most statements need not know."""
        return self.file is not None and self.file.is_large

    def schema_version(self, conn: apsw.Connection) -> int:
        """Return the number that every change of the schema raises, inside a block or not."""
        seen, self.seen = self.seen, None
        try:
            version: int = conn.execute("PRAGMA main.schema_version").get
        finally:
            self.seen = seen
        return version

    def look_for_virtual_tables(self, conn: apsw.Connection) -> None:
        """Learn the user's virtual tables: what one step of theirs does has no bound."""
        if self.virtual is None:
            rows = conn.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table' AND rootpage = 0")
            self.virtual = frozenset(name.lower() for (name,) in rows if not is_reserved(name))
