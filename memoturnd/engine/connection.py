"""How a profile's file is opened.

Every connection of the product comes from `open_connection`. Three things are fixed here. The journal is
never checkpointed behind our back, because capture reads committed frames from it: no automatic
checkpoint, none on close. User statements run under SQLite's authorizer (memoturnd.engine.guard), so that
no spelling of a name or statement reaches reserved tables, other files or the journal's settings. And what
any statement may be is bounded: its depth, its terms, its program.
"""

import ctypes
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import apsw
import sqlite_vec

from memoturnd.core import filters, patterns
from memoturnd.core.changes import Noted
from memoturnd.engine.guard import RESERVED_PREFIX, Guard, OverBudgetError, UserStatements, is_reserved
from memoturnd.engine.kept import Kept
from memoturnd.errors import ConfigurationError, DiskFullError, InvariantError, MemoturnError, RetryableError

__all__ = [
    "PAGE_SIZE_BYTES",
    "RESERVED_PREFIX",
    "Binding",
    "Bindings",
    "ProfileConnection",
    "check_library",
    "disk_refusals_told",
    "is_reserved",
    "open_connection",
    "open_immutable",
    "open_on_pages",
]

PAGE_SIZE_BYTES: Final = 4096
STATEMENT_CACHE_SIZE: Final = 24
_PAGES_STATEMENTS: Final = 128
BUSY_TIMEOUT_MS: Final = 50
SQL_LIMIT_BYTES: Final = 4 * 1024 * 1024
"""Longest text of a statement, as a table's may become by ALTER TABLE."""
EXPRESSION_DEPTH_LIMIT: Final = 1000
COMPOUND_TERMS_LIMIT: Final = 500
COLUMNS_LIMIT: Final = 2000
ARGUMENTS_LIMIT: Final = 127
"""Arguments of a function."""
PATTERN_LENGTH_LIMIT: Final = 256
"""Bytes of the pattern of a LIKE or GLOB, whose time grows with its length times that of the text."""
VARIABLES_LIMIT: Final = 32_766
PROGRAM_LIMIT: Final = 1_000_000
"""Instructions of a compiled statement."""
TRIGGER_DEPTH_LIMIT: Final = 64
ATTACHED_LIMIT: Final = 0

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


class ProfileConnection(apsw.Connection):
    """A connection opened by Memoturn's policy; make one with `open_connection`."""

    guard: Guard
    kept: Kept | None = None
    """What is kept in memory of the file, where this connection reads its newest state."""
    round_txid: int = 0
    """Txid of the commit round that is open on this connection."""
    noted: Noted
    """What the open round changed so far, for the change feed."""
    recent_bytes: int | None = None
    """About how long the text of the newest rounds is that memoturnd.engine.changes moves; None where it is not known."""
    newest_ulid: int = 0
    """The ULID made last on this connection, as a number, so that the next one follows it."""
    stopped_by: MemoturnError | None = None
    """Why what runs on it is stopped, for good: the file is about to be opened anew."""

    def user_statements(self, read_only: bool, schema_view: str | None = None) -> UserStatements:
        """Return the block inside which statements are a user's: run them by the block's `execute`.

        With `schema_view` they may read that view; see memoturnd.engine.shown_schema.

        Leaving the block raises ForbiddenError for a statement that reached for what it may not touch,
        InvalidRequestError for transaction control, and OverBudgetError where the event loop waits for one
        that could hold it. Blocks do not nest (InvariantError).
        """
        return UserStatements(self, read_only=read_only, schema_view=schema_view)

    def between_statements(self) -> None:
        """Be called between two statements of a batch. Raises what ends it, once they took too much together."""
        if self.stopped_by is not None:
            raise self.stopped_by
        if self.guard.budget is not None:
            self.guard.budget.between()

    @property
    def is_large_on_loop(self) -> bool:
        """Whether the event loop waits for what is done now, in a file that is large."""
        return self.guard.on_loop and self.guard.large

    def leave_loop(self) -> None:
        """Be called before what no steps of SQLite's would show. Raises OverBudgetError where the event loop waits."""
        if self.guard.on_loop:
            raise OverBudgetError


@contextmanager
def disk_refusals_told(path: Path) -> Iterator[None]:
    """Let SQLite's errors about the disk below the file at `path` be raised as DiskFullError and RetryableError."""
    try:
        yield
    except apsw.FullError as error:
        raise DiskFullError(f"there is no room for {path}; make room, then try again") from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.IOError, apsw.PermissionsError) as error:
        raise RetryableError(
            f"{path} cannot be opened ({error}); check the data directory, and the room on its disk, then try again"
        ) from error


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


def open_on_pages(name: str, vfs: str, *, cache_kib: int) -> ProfileConnection:
    """Open the file `name` of a virtual file system for writing, with a journal in memory and no log.

    Nobody else may use that file, and nothing is ever synced. Raises apsw.Error as SQLite does.
    """
    conn = ProfileConnection(
        name, flags=apsw.SQLITE_OPEN_READWRITE, vfs=vfs, statementcachesize=_PAGES_STATEMENTS
    )
    try:
        _restrict(conn)
        for text in ("journal_mode=MEMORY", "synchronous=off", "secure_delete=1", "temp_store=memory"):
            conn.execute(f"PRAGMA {text}", can_cache=False).fetchall()
        conn.execute(f"PRAGMA cache_size=-{cache_kib}", can_cache=False)
        conn.guard = Guard()
        conn.authorizer = conn.guard
    except BaseException:
        conn.close()
        raise
    return conn


def _matches(*values: Binding) -> bool:
    pattern, text = values
    return isinstance(pattern, str) and isinstance(text, str) and patterns.matches(pattern, text)


_LIMITS: Final = (
    (apsw.SQLITE_LIMIT_SQL_LENGTH, SQL_LIMIT_BYTES),
    (apsw.SQLITE_LIMIT_EXPR_DEPTH, EXPRESSION_DEPTH_LIMIT),
    (apsw.SQLITE_LIMIT_COMPOUND_SELECT, COMPOUND_TERMS_LIMIT),
    (apsw.SQLITE_LIMIT_COLUMN, COLUMNS_LIMIT),
    (apsw.SQLITE_LIMIT_FUNCTION_ARG, ARGUMENTS_LIMIT),
    (apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_LENGTH_LIMIT),
    (apsw.SQLITE_LIMIT_VARIABLE_NUMBER, VARIABLES_LIMIT),
    (apsw.SQLITE_LIMIT_VDBE_OP, PROGRAM_LIMIT),
    (apsw.SQLITE_LIMIT_TRIGGER_DEPTH, TRIGGER_DEPTH_LIMIT),
    (apsw.SQLITE_LIMIT_ATTACHED, ATTACHED_LIMIT),
    (apsw.SQLITE_LIMIT_WORKER_THREADS, 0),
)
"""The same on every connection: a schema that one of them made must be readable by all."""
_MODULES_KEPT: Final = ("fts5", "fts5vocab", "vec0", "vec_each")


def _is_new(filename: str) -> bool:
    """Return whether the open file is empty, as SQLite makes it: nothing that may be lost is in it."""
    return filename != "" and os.stat(filename).st_size == 0  # noqa: PTH116 - a stat, and never an open of the main file


def _restrict(conn: ProfileConnection) -> None:
    """Set what is the same on every connection."""
    conn.noted = Noted()
    conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    conn.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    for limit, value in _LIMITS:
        conn.limit(limit, value)
    conn.wal_autocheckpoint(0)
    conn.set_busy_timeout(BUSY_TIMEOUT_MS)
    conn.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1)  # the call, and not the SQL function
    conn.load_extension(_VEC_PATH)
    conn.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0)
    conn.create_scalar_function(
        filters.MATCHES_FUNCTION, _matches, 2, deterministic=True, flags=apsw.SQLITE_DIRECTONLY
    )
    conn.drop_modules(_MODULES_KEPT)


def _configure(
    conn: ProfileConnection, *, read_only: bool, sync: Literal["normal", "full"], cache_kib: int
) -> None:
    _restrict(conn)

    def pragma(text: str) -> object:
        return conn.execute(text, can_cache=False).get

    if read_only:
        pragma("PRAGMA query_only=1")
    else:
        if _is_new(conn.filename):
            pragma(f"PRAGMA page_size={PAGE_SIZE_BYTES}")
            if sync == "normal":
                # Setting WAL mode in a new file would fsync it, its journal and their folder. Its one page is
                # written at once, so that the journal protects nothing either.
                pragma("PRAGMA synchronous=off")
                pragma("PRAGMA journal_mode=memory")
        mode = pragma("PRAGMA journal_mode=WAL")
        if mode not in ("wal", "memory"):
            raise InvariantError(f"{conn.filename} could not be set to WAL mode (it stays {mode})")
        pragma(
            "PRAGMA secure_delete=1"
        )  # what is deleted is overwritten, so that it is in no page shipped later
    pragma(f"PRAGMA synchronous={sync}")
    pragma(f"PRAGMA cache_size=-{cache_kib}")
    pragma("PRAGMA temp_store=memory")
    conn.guard = Guard()
    conn.authorizer = conn.guard
