"""How a profile's file is opened, and what a user's own statements may do on it.

Every connection of the product comes from `open_connection`. Two things are fixed here. The journal is
never checkpointed behind our back, because capture reads committed frames from it: no automatic
checkpoint, none on close. And user statements run under SQLite's authorizer with an allow-list, so that
no spelling of a name or statement reaches reserved tables, other files or the journal's settings.

The authorizer stays installed for the connection's life (changing it would expire every prepared
statement) and consults one flag. Statements prepared while the flag is down are trusted, which is why
user statements never come from, and never enter, the statement cache.
"""

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import apsw
import sqlite_vec

from memoturnd.core import filters, patterns
from memoturnd.errors import (
    ConfigurationError,
    ForbiddenError,
    InvalidRequestError,
    InvariantError,
    MemoturnError,
)

RESERVED_PREFIX: Final = "__memoturn_"
"""Tables, indexes, views and triggers whose names start so (in any case) belong to Memoturn."""

PAGE_SIZE_BYTES: Final = 4096
STATEMENT_CACHE_SIZE: Final = 24
BUSY_TIMEOUT_MS: Final = 50
USER_LENGTH_LIMIT_BYTES: Final = 32 * 1024 * 1024
"""Longest string, blob or row that a user statement may make."""

Binding = None | int | float | str | bytes
Bindings = Sequence[Binding] | Mapping[str, Binding]

_MINIMUM_LIBRARY = 3_051_003


def check_library(version_number: int) -> None:
    """Raise ConfigurationError for a SQLite older than 3.51.3 (they can corrupt a database on a WAL reset)."""
    if version_number < _MINIMUM_LIBRARY:
        major, rest = divmod(version_number, 1_000_000)
        version = f"{major}.{rest // 1000}.{rest % 1000}"
        raise ConfigurationError(
            f"SQLite {version} is too old: 3.51.3 is the first without the WAL-reset corruption bug;"
            f" install apsw 3.51.3.0 or newer"
        )


check_library(apsw.SQLITE_VERSION_NUMBER)
check_library(int("{:d}{:03d}{:03d}".format(*map(int, apsw.sqlite_lib_version().split(".")[:3]))))

_VEC_PATH: Final = str(next(Path(sqlite_vec.__file__).parent.glob("vec0.*")))
# Holding the library open makes each connection's load a reference count instead of 50 us of linking.
_VEC_LIBRARY = ctypes.CDLL(_VEC_PATH)


def _shrink_lookaside() -> None:
    """Give each connection 32 KB of lookaside memory instead of SQLite's 120 KB.

    A hot profile has two connections and a budget of 450 KB. The setting is the process's, and can only
    change while no connection is open.
    """
    if not apsw.connections():
        apsw.shutdown()
        apsw.config(apsw.SQLITE_CONFIG_LOOKASIDE, 512, 64)
        apsw.initialize()


_shrink_lookaside()

_OK, _DENY = apsw.SQLITE_OK, apsw.SQLITE_DENY

_PRAGMAS = frozenset(
    {
        "table_info",
        "table_xinfo",
        "table_list",
        "index_list",
        "index_info",
        "index_xinfo",
        "foreign_key_list",
        "data_version",  # FTS5 asks for it by itself, to see whether its cache is stale
    }
)
_MODULES = frozenset({"fts5", "vec0"})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer", "sqlite_log"})
_FORBIDDEN_TABLES = frozenset({"dbstat", "sqlite_stmt", "sqlite_dbpage", "bytecode", "tables_used"})
"""Virtual tables that exist without being created and show what a profile's user has no business with."""

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
_DDL = frozenset(
    {
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_ANALYZE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TABLE,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_CREATE_VIEW,
        apsw.SQLITE_CREATE_VTABLE,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TABLE,
        apsw.SQLITE_DROP_TRIGGER,
        apsw.SQLITE_DROP_VIEW,
        apsw.SQLITE_DROP_VTABLE,
        apsw.SQLITE_REINDEX,
    }
)
_UNSEEN_NAMES = frozenset({apsw.SQLITE_ALTER_TABLE, apsw.SQLITE_CREATE_VTABLE})
_READS = frozenset({apsw.SQLITE_READ, apsw.SQLITE_SELECT, apsw.SQLITE_RECURSIVE, apsw.SQLITE_FUNCTION})

_TEMPORARY_REASON = "temporary objects are not allowed: they would not outlive the request; use a plain table"

# SQLite itself undoes or aborts more than the statement here; the engine above decides what that means.
_NOT_OURS = (apsw.InterruptError, apsw.FullError, apsw.IOError, apsw.NoMemError)


def is_reserved(name: str) -> bool:
    """Return whether `name` belongs to Memoturn, whatever its case."""
    return name[: len(RESERVED_PREFIX)].lower() == RESERVED_PREFIX


class UserStatements:
    """What happened inside one `user_statements` block.

    `ddl` is whether a statement that changes the schema was prepared, `denied` why one was refused (None
    if none was), `needs_write` whether that was for writing where only reads are allowed.
    """

    __slots__ = (
        "_conn",
        "_length_limit",
        "_read_only",
        "_sql",
        "ddl",
        "denied",
        "needs_write",
        "transaction_control",
    )

    def __init__(self, conn: "ProfileConnection", *, read_only: bool) -> None:
        self._conn = conn
        self._read_only = read_only
        self._sql: str | None = None
        self._length_limit = 0
        self.ddl = False
        self.needs_write = False
        self.denied: str | None = None
        self.transaction_control = False

    def execute(self, sql: str, bindings: Bindings | None = None) -> apsw.Cursor:
        """Run one user statement past the statement cache; the cursor yields its rows."""
        return self.run(self._conn.cursor(), sql, bindings)

    def run(self, cursor: apsw.Cursor, sql: str, bindings: Bindings | None = None) -> apsw.Cursor:
        """Like `execute`, on a cursor that the caller made and set up."""
        self._sql = sql
        return cursor.execute(sql, bindings, can_cache=False)

    def error(self) -> MemoturnError | None:
        """Return the error that a refused statement deserves, None if none was refused."""
        if self.denied is None:
            return None
        return InvalidRequestError(self.denied) if self.transaction_control else ForbiddenError(self.denied)

    def __enter__(self) -> Self:
        guard = self._conn.guard
        if guard.seen is not None:
            raise InvariantError("user_statements blocks do not nest")
        self._length_limit = self._conn.limit(apsw.SQLITE_LIMIT_LENGTH, USER_LENGTH_LIMIT_BYTES)
        guard.seen = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._conn.guard.seen = None
        self._conn.limit(apsw.SQLITE_LIMIT_LENGTH, self._length_limit)
        refusal = self.error()
        # A refusal inside a virtual table's own statement comes out as some other SQLite error, or none.
        if refusal is not None and (error is None or isinstance(error, apsw.Error)):
            if isinstance(error, _NOT_OURS):
                return
            raise refusal from error

    def judge(self, action: int, first: str | None, second: str | None, database: str | None) -> int:
        """Decide one authorizer call: SQLITE_OK or SQLITE_DENY, with the reason left in `denied`."""
        reason = self._reason(action, first or "", second or "", database or "")
        if reason is None:
            return _OK
        self.denied = self.denied or reason
        return _DENY

    def _reason(self, action: int, first: str, second: str, database: str) -> str | None:
        if action in _READS:
            return _read_reason(action, first, second)
        if action in _ROWS or action in _DDL:
            return self._write_reason(action, first, second, database)
        if action == apsw.SQLITE_PRAGMA:
            return _pragma_reason(first, second)
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

    def _write_reason(self, action: int, first: str, second: str, database: str) -> str | None:
        self.ddl = self.ddl or action in _DDL
        for name in (first, second) if action in _DDL else (first,):
            if is_reserved(name):
                return _reserved_reason(name)
        # `CREATE TABLE temp.x` is told as a plain CREATE TABLE in another database. An UPDATE there is what
        # every ALTER TABLE does, and finds nothing.
        if database == "temp" and action != apsw.SQLITE_UPDATE:
            return _TEMPORARY_REASON
        if self._read_only:
            self.needs_write = self.needs_write or self.denied is None
            return "the statement writes, and only reads are allowed here"
        if action == apsw.SQLITE_CREATE_VTABLE and second.lower() not in _MODULES:
            return f"virtual tables of module {second!r} are not allowed: fts5 and vec0 are"
        if action == apsw.SQLITE_REINDEX and RESERVED_PREFIX in first.lower():
            return _reserved_reason(first)
        # SQLite does not tell the authorizer the new name of a rename, nor the table that an FTS5 table takes
        # its content from. A name has no escapes, so its prefix must stand in the text as it is.
        if action in _UNSEEN_NAMES and (self._sql is None or RESERVED_PREFIX in self._sql.lower()):
            return f"names that start {RESERVED_PREFIX} are reserved: the statement names one"
        return None


def _reserved_reason(name: str) -> str:
    return f"{name} is reserved: names that start {RESERVED_PREFIX} are Memoturn's own; use the API for them"


def _read_reason(action: int, first: str, second: str) -> str | None:
    if action == apsw.SQLITE_READ:
        if is_reserved(first):
            return _reserved_reason(first)
        if first.lower() in _FORBIDDEN_TABLES:
            return f"the table {first} is not available"
    elif action == apsw.SQLITE_FUNCTION and (second.lower() in _FORBIDDEN_FUNCTIONS or is_reserved(second)):
        return f"the function {second}() is not available"
    return None


def _pragma_reason(name: str, argument: str) -> str | None:
    if name.lower() not in _PRAGMAS:
        return f"PRAGMA {name} is not allowed: {', '.join(sorted(_PRAGMAS - {'data_version'}))} are"
    return _reserved_reason(argument) if is_reserved(argument) else None


class _Guard:
    """The permanently installed authorizer. Separate from the connection, so that no cycle keeps a file open."""

    __slots__ = ("seen",)

    def __init__(self) -> None:
        self.seen: UserStatements | None = None

    def __call__(
        self, action: int, first: str | None, second: str | None, database: str | None, _source: str | None
    ) -> int:
        if self.seen is None:
            return _OK
        return self.seen.judge(action, first, second, database)


class ProfileConnection(apsw.Connection):
    """A connection opened by Memoturn's policy; make one with `open_connection`."""

    guard: _Guard
    round_txid: int = 0
    """Txid of the commit round that is open on this connection."""

    def user_statements(self, read_only: bool) -> UserStatements:
        """Return the block inside which statements are a user's: run them by the block's `execute`.

        Leaving the block raises ForbiddenError for a statement that reached for what it may not touch,
        InvalidRequestError for transaction control. Blocks do not nest (InvariantError).
        """
        return UserStatements(self, read_only=read_only)


def open_connection(
    path: str, *, read_only: bool, sync: Literal["normal", "full"], cache_kib: int
) -> ProfileConnection:
    """Open the profile file `path` (`":memory:"` works) with a page cache of `cache_kib` KiB.

    A writer makes the file if need be and sets WAL mode. A read-only connection needs the file to exist; it
    opens it read-write with `query_only`, because reading a WAL database takes its shared memory. `sync`
    decides whether COMMIT fsyncs. Costs about 60 us. Raises apsw.Error as SQLite does.
    """
    flags = apsw.SQLITE_OPEN_READWRITE
    if not read_only:
        flags |= apsw.SQLITE_OPEN_CREATE
    conn = ProfileConnection(path, flags=flags, statementcachesize=STATEMENT_CACHE_SIZE)
    try:
        _configure(conn, read_only=read_only, sync=sync, cache_kib=cache_kib)
    except BaseException:
        conn.close()
        raise
    return conn


def open_immutable(path: Path, *, cache_kib: int) -> ProfileConnection:
    """Open the profile file `path` for reading, which nobody changes as long as it is there.

    SQLite takes no locks on such a file and makes neither log nor shared memory beside it; a log that is
    there is not looked at. Raises apsw.Error as SQLite does.
    """
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    uri = f"{path.absolute().as_uri()}?immutable=1"
    conn = ProfileConnection(uri, flags=flags, statementcachesize=STATEMENT_CACHE_SIZE)
    try:
        _configure(conn, read_only=True, sync="normal", cache_kib=cache_kib)
    except BaseException:
        conn.close()
        raise
    return conn


def _matches(*values: Binding) -> bool:
    pattern, text = values
    return isinstance(pattern, str) and isinstance(text, str) and patterns.matches(pattern, text)


def _configure(
    conn: ProfileConnection, *, read_only: bool, sync: Literal["normal", "full"], cache_kib: int
) -> None:
    conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    conn.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    conn.wal_autocheckpoint(0)
    conn.set_busy_timeout(BUSY_TIMEOUT_MS)
    conn.enable_load_extension(True)
    conn.load_extension(_VEC_PATH)
    conn.enable_load_extension(False)
    conn.create_scalar_function(
        filters.MATCHES_FUNCTION, _matches, 2, deterministic=True, flags=apsw.SQLITE_DIRECTONLY
    )

    def pragma(text: str) -> object:
        return conn.execute(text, can_cache=False).get

    if read_only:
        pragma("PRAGMA query_only=1")
    else:
        if not os.path.exists(conn.filename):  # noqa: PTH110 - a stat, and never an open of the main file
            pragma(f"PRAGMA page_size={PAGE_SIZE_BYTES}")
            if sync == "normal":
                pragma("PRAGMA synchronous=off")  # setting WAL mode in a new file would fsync it
        mode = pragma("PRAGMA journal_mode=WAL")
        if mode not in ("wal", "memory"):
            raise InvariantError(f"{conn.filename} could not be set to WAL mode (it stays {mode})")
    pragma(f"PRAGMA synchronous={sync}")
    pragma(f"PRAGMA cache_size=-{cache_kib}")
    pragma("PRAGMA temp_store=memory")
    conn.guard = _Guard()
    conn.authorizer = conn.guard
