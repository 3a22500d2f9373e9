"""How the catalog's statements are run: written once with SQLAlchemy Core, compiled once per database.

    FIND: Final = sa.select(tenants.c.name).where(tenants.c.name == sa.bindparam("name"))

    rows = await self._backend.rows(FIND, name="acme")          # a list of tuples, of RETURNING too
    changed = await self._backend.run(TOUCH, name="acme")       # how many rows it changed
    async with self._backend.transaction() as session:          # the same two methods, all or nothing
        await session.rows(LOCK, name="acme")
        await session.run(TOUCH, name="acme")

A statement is a constant of its module: what is made anew for each call would be compiled anew, and kept. Within a
transaction nothing is awaited but the session: the embedded database has one connection, and a transaction there
ends before anything else runs.

In Postgres transactions see what others commit meanwhile (READ COMMITTED): lock the row that a decision is about,
with `.with_for_update()` or by changing it first. SQLite leaves FOR UPDATE out; one transaction runs at a time.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sqlalchemy import Executable
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from memoturnd.errors import InvariantError

Row = Sequence[Any]
MOST_STATEMENTS = 1000


class TakenError(Exception):
    """A key of the row, or another value that is unique, is there already."""


class DanglingError(Exception):
    """The row names a row that is not there, or is named by one."""


class Session(Protocol):
    """Runs statements with the values of their parameters, which are given by name.

    Raises TakenError, DanglingError, RetryableError when the database cannot serve it now, DiskFullError.
    """

    async def rows(self, statement: Executable, **values: object) -> list[Row]:
        """Return the rows that a SELECT, or a RETURNING, gives."""
        ...

    async def run(self, statement: Executable, **values: object) -> int:
        """Return how many rows the statement changed."""
        ...

    async def run_each(self, statement: Executable, each: Sequence[Mapping[str, object]]) -> None:
        """Run the statement once for each of these values, far cheaper than one by one."""
        ...


class Backend(Session, Protocol):
    """A database; statements outside of `transaction` are transactions of their own."""

    def transaction(self) -> AbstractAsyncContextManager[Session]:
        """Begin a transaction, which the end of the context commits and an error in it rolls back."""
        ...

    async def ping(self) -> None:
        """Raise RetryableError when the database does not answer."""
        ...

    async def close(self) -> None:
        """Release the connections; later calls raise RetryableError."""
        ...


class Part:
    """Base of the classes that the catalog is made of."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def backend(self) -> Backend:
        """The database, for whoever has statements of their own."""
        return self._backend


class Compiled:
    """A statement as text of one database, with the order and the fixed values of its parameters."""

    __slots__ = ("fixed", "names", "text")

    def __init__(self, statement: Executable, dialect: Dialect) -> None:
        compiled = statement.compile(dialect=dialect)  # type: ignore[attr-defined]  # every statement has it
        self.text = str(compiled)
        params = compiled.params
        self.names: tuple[str, ...] = tuple(compiled.positiontup or params)
        self.fixed = {name: value for name, value in params.items() if value is not None}


class Statements:
    """The statements of one database that were used so far."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._compiled: dict[Executable, Compiled] = {}

    def __getitem__(self, statement: Executable) -> Compiled:
        found = self._compiled.get(statement)
        if found is None:
            if len(self._compiled) >= MOST_STATEMENTS:
                raise InvariantError("statements of the catalog are made per call; make them constants")
            found = self._compiled[statement] = Compiled(statement, self._dialect)
        return found


class Lesser(GenericFunction[Any]):
    """The lesser of two values, of which none is NULL."""

    name = "lesser"
    inherit_cache = True


@compiles(Lesser, "sqlite")
def _lesser_in_sqlite(element: Lesser, compiler: SQLCompiler, **options: Any) -> str:
    return f"min({compiler.process(element.clauses, **options)})"


@compiles(Lesser, "postgresql")
def _lesser_in_postgres(element: Lesser, compiler: SQLCompiler, **options: Any) -> str:
    return f"least({compiler.process(element.clauses, **options)})"
