"""The embedded catalog: one SQLite file, used inline on the event loop because every call is a few microseconds."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

import apsw
from sqlalchemy import Executable
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from control_plane.catalogs.backend import DanglingError, Row, Statements, TakenError
from control_plane.catalogs.catalog import SqlCatalog
from control_plane.schema import FIRST_ROWS, REVISION, metadata
from memoturnd.errors import (
    ConfigurationError,
    CorruptionError,
    DiskFullError,
    InvariantError,
    RetryableError,
)

BUSY_TIMEOUT_MS = 1000
CHECKPOINT_PAGES = 1000
_DIALECT = sqlite.dialect(paramstyle="named")
_STATEMENTS = Statements(_DIALECT)
_TAKEN = frozenset(
    {apsw.SQLITE_CONSTRAINT_UNIQUE, apsw.SQLITE_CONSTRAINT_PRIMARYKEY, apsw.SQLITE_CONSTRAINT_ROWID}
)


class SqliteCatalog(SqlCatalog):
    """A catalog in the file `path`, made on opening, or in memory for `:memory:`. An older file is migrated.

    Raises ConfigurationError when the file cannot be opened or is newer than this release, CorruptionError
    when it is damaged.
    """

    def __init__(
        self, path: Path | Literal[":memory:"], *, sync: Literal["normal", "full"] = "normal"
    ) -> None:
        super().__init__(SqliteBackend(path, sync=sync))


class SqliteBackend:
    """Runs statements on one connection; nothing here ever waits for another task."""

    def __init__(self, path: Path | Literal[":memory:"], *, sync: Literal["normal", "full"]) -> None:
        self._path = path
        try:
            self.connection = _open(path, sync)
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise CorruptionError(
                f"the catalog {path} is not a readable SQLite file ({error}); move it away and restore a copy",
            ) from error
        except apsw.Error as error:
            raise ConfigurationError(
                f"cannot open the catalog {path} ({error}); check that its folder exists and is writable",
            ) from error
        self._execute = self.connection.execute

    async def rows(self, statement: Executable, **values: Any) -> list[Row]:
        """Return the rows that a SELECT, or a RETURNING, gives."""
        compiled = _STATEMENTS[statement]
        try:
            found: list[Any] = self._execute(compiled.text, compiled.fixed | values).fetchall()
        except apsw.Error as error:
            raise self._translated(error) from error
        return found

    async def run(self, statement: Executable, **values: Any) -> int:
        """Return how many rows the statement changed."""
        compiled = _STATEMENTS[statement]
        try:
            self._execute(compiled.text, compiled.fixed | values)
            return self.connection.changes()
        except apsw.Error as error:
            raise self._translated(error) from error

    async def run_each(self, statement: Executable, each: Sequence[Mapping[str, object]]) -> None:
        """Run the statement once for each of these values."""
        compiled = _STATEMENTS[statement]
        with self.translated():
            values: Any = [{**compiled.fixed, **one} for one in each]
            self.connection.executemany(compiled.text, values)

    def transaction(self) -> "_Transaction":
        """Begin a transaction, which the end of the context commits and an error in it rolls back."""
        return _Transaction(self)

    async def ping(self) -> None:
        """Raise RetryableError when the file does not answer."""
        with self.translated():
            self._execute("SELECT count(*) FROM counters").fetchall()

    async def close(self) -> None:
        """Close the file; later calls raise RetryableError."""
        self.connection.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Let errors of SQLite come out as ours."""
        try:
            yield
        except apsw.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: apsw.Error) -> Exception:
        if isinstance(error, apsw.ConstraintError):
            kind = cast("Any", error).extendedresult  # missing in the type stubs
            if kind in _TAKEN:
                return TakenError(str(error))
            if kind == apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
                return DanglingError(str(error))
            return InvariantError(f"the catalog {self._path} refuses a row ({error})")
        if isinstance(error, apsw.FullError):
            return DiskFullError(f"no room to write the catalog {self._path}; free space on its disk")
        if isinstance(error, apsw.NotADBError | apsw.CorruptError):
            return CorruptionError(
                f"the catalog {self._path} is damaged ({error}); stop the node and restore a copy"
            )
        return RetryableError(
            f"the catalog {self._path} does not answer ({error}); try again, then check its disk"
        )


class _Transaction:
    """BEGIN IMMEDIATE and COMMIT around what happens before anything else runs."""

    def __init__(self, backend: SqliteBackend) -> None:
        self._backend = backend

    async def __aenter__(self) -> SqliteBackend:
        if self._backend.connection.in_transaction:
            raise InvariantError("a transaction of the catalog waits for something: await nothing else in it")
        with self._backend.translated():
            self._backend.connection.__enter__()
        return self._backend

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._backend.translated():
            self._backend.connection.__exit__(kind, error, trace)


def _open(path: Path | Literal[":memory:"], sync: str) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.transaction_mode = "IMMEDIATE"
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {sync}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        _settle_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _settle_schema(connection: apsw.Connection, path: Path | Literal[":memory:"]) -> None:
    with connection:
        version = connection.execute("PRAGMA user_version").get
        if version == REVISION:
            return
        if version > REVISION:
            raise ConfigurationError(
                f"the catalog {path} has schema version {version}, this release knows {REVISION}: "
                "start the newer release that wrote it",
            )
        if version:
            from control_plane.migrating import sqlite_script

            connection.execute(sqlite_script(version))
        elif connection.execute("SELECT count(*) FROM sqlite_schema").get:
            raise ConfigurationError(f"{path} is a SQLite file of something else: move it away")
        else:
            connection.execute(_script_of_new())
        connection.execute(f"PRAGMA user_version = {REVISION}")


def _script_of_new() -> str:
    """Return the statements that make an empty file a new catalog."""
    lines: list[str] = []
    for table in metadata.sorted_tables:
        lines.append(str(CreateTable(table).compile(dialect=_DIALECT)))
        lines += [
            str(CreateIndex(i).compile(dialect=_DIALECT))
            for i in sorted(table.indexes, key=lambda i: str(i.name))
        ]
    for row in FIRST_ROWS:
        lines.append(str(row.compile(dialect=_DIALECT, compile_kwargs={"literal_binds": True})))
    return ";\n".join(lines) + ";"
