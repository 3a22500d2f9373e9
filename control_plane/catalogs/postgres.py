"""The catalog of a cluster: Postgres, over a small pool of connections. Nothing waits for it longer than CALL_S."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
from sqlalchemy import Executable
from sqlalchemy.dialects.postgresql import asyncpg as dialects

from control_plane.catalogs.backend import DanglingError, Row, Session, Statements, TakenError
from control_plane.catalogs.breaker import Breaker
from control_plane.catalogs.remembering import RememberingCatalog
from control_plane.schema import REVISION
from memoturnd.errors import ConfigurationError, DiskFullError, InvariantError, RetryableError
from memoturnd.seams.clock import Clock, SystemClock

CALL_S: Final = 3.0
"""How long a call may take, waiting for a connection included."""
CONNECT_S: Final = 2.0
CONNECTIONS: Final = 8
IDLE_S: Final = 300.0
_STATEMENTS: Final = Statements(dialects.dialect())  # type: ignore[no-untyped-call]
_WHERE = "Postgres (MEMOTURN_CATALOG)"
_NO_ANSWER = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
)
_NO_ROOM = (asyncpg.DiskFullError, asyncpg.OutOfMemoryError)


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that is given back as it is: nothing here changes its settings, locks beyond a transaction, or listens."""

    def get_reset_query(self) -> str:
        """Return nothing: resetting would be a round trip and a transaction for each call."""
        return ""


class PostgresBackend:
    """Runs statements on whichever connection is free, at most CONNECTIONS at once."""

    def __init__(
        self,
        pool: "asyncpg.Pool[asyncpg.Record]",
        clock: Clock,
        *,
        call_s: float = CALL_S,
        answered: Callable[[float], None] = lambda _seconds: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._now_s = clock.monotonic_s
        self._told_answered = answered
        self._told_failed = failed
        self._pool = pool
        self._call_s = call_s
        self._breaker = Breaker(clock, call_s=call_s)

    @property
    def is_down(self) -> bool:
        """Whether the last call got no answer."""
        return self._breaker.is_down

    async def rows(self, statement: Executable, **values: Any) -> list[Row]:
        """Return the rows that a SELECT, or a RETURNING, gives."""
        async with self._session() as session:
            return await session.rows(statement, **values)

    async def run(self, statement: Executable, **values: Any) -> int:
        """Return how many rows the statement changed."""
        async with self._session() as session:
            return await session.run(statement, **values)

    async def run_each(self, statement: Executable, each: Sequence[Mapping[str, object]]) -> None:
        """Run the statement once for each of these values, all or none."""
        async with self._session() as session:
            await session.run_each(statement, each)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Begin a transaction, which the end of the context commits and an error in it rolls back.

        An error of the COMMIT itself leaves open whether it took effect.
        """
        async with self._session() as session, session.connection.transaction():
            yield session

    async def ping(self) -> None:
        """Raise RetryableError when Postgres does not answer, or has another schema by now."""
        async with self._session() as session:
            await session.connection.fetchval("SELECT 1")

    async def close(self) -> None:
        """Close the connections; later calls raise RetryableError."""
        try:
            async with asyncio.timeout(self._call_s):
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()

    @asynccontextmanager
    async def _session(self) -> AsyncIterator["_Session"]:
        """Borrow a connection for at most the time of a call; one that may be in the middle of something is dropped."""
        self._breaker.check()
        begun_s = self._now_s()
        try:
            async with asyncio.timeout(self._call_s):
                connection = await self._pool.acquire(timeout=self._call_s)
                try:
                    yield _Session(connection)
                except (asyncio.CancelledError, OSError):
                    connection.terminate()
                    raise
                finally:
                    await self._pool.release(connection, timeout=CONNECT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as error:
            if isinstance(error, _NO_ANSWER):
                self._breaker.failed()
                self._told_failed()
            else:
                self._breaker.answered()
            raise _translated(error) from error
        self._breaker.answered()
        self._told_answered(self._now_s() - begun_s)


class _Session:
    """The statements of one connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def rows(self, statement: Executable, **values: Any) -> list[Row]:
        """Return the rows that a SELECT, or a RETURNING, gives."""
        compiled = _STATEMENTS[statement]
        known = compiled.fixed | values
        found = await self.connection.fetch(compiled.text, *[known[name] for name in compiled.names])
        return [tuple(row) for row in found]

    async def run(self, statement: Executable, **values: Any) -> int:
        """Return how many rows the statement changed."""
        compiled = _STATEMENTS[statement]
        known = compiled.fixed | values
        status: str = await self.connection.execute(compiled.text, *[known[name] for name in compiled.names])
        count = status.rpartition(" ")[2]
        return int(count) if count.isdigit() else 0

    async def run_each(self, statement: Executable, each: Sequence[Mapping[str, object]]) -> None:
        """Run the statement once for each of these values, all or none."""
        compiled = _STATEMENTS[statement]
        rows = [{**compiled.fixed, **one} for one in each]
        await self.connection.executemany(
            compiled.text, [[row[name] for name in compiled.names] for row in rows]
        )


async def open_postgres(
    url: str,
    *,
    clock: Clock | None = None,
    connections: int = CONNECTIONS,
    call_s: float = CALL_S,
    remembered: Callable[[], None] = lambda: None,
    answered: Callable[[float], None] = lambda _seconds: None,
    failed: Callable[[], None] = lambda: None,
) -> RememberingCatalog:
    """Return the catalog in a Postgres database whose schema is this release's. `remembered` is RememberingCatalog's; `answered` is told
    the seconds of each call that was answered, `failed` of each other one.

    Raises ConfigurationError for a URL that is wrong, a server that turns us away, or another schema;
    RetryableError when it does not answer.
    """
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=0,
            max_size=connections,
            max_inactive_connection_lifetime=IDLE_S,
            timeout=min(CONNECT_S, call_s),
            command_timeout=call_s,
            connection_class=_Connection,
            server_settings={"application_name": "memoturn", "statement_timeout": str(round(1000 * call_s))},
        )
        backend = PostgresBackend(
            pool, clock or SystemClock(), call_s=call_s, answered=answered, failed=failed
        )
        try:
            await _check(backend)
        except BaseException:
            pool.terminate()
            raise
    except (ValueError, OverflowError, asyncpg.ClientConfigurationError) as error:
        raise ConfigurationError(f"MEMOTURN_CATALOG is no usable URL of Postgres ({error})") from error
    return RememberingCatalog(backend, remembered=remembered)


async def _check(backend: PostgresBackend) -> None:
    """Raise ConfigurationError unless the database has the schema of this release, and keeps text as UTF-8."""
    try:
        async with backend._session() as session:  # noqa: SLF001 - of this module
            encoding = await session.connection.fetchval("SHOW server_encoding")
            there = await session.connection.fetchval("SELECT to_regclass('alembic_version') IS NOT NULL")
            found = (
                await session.connection.fetchval("SELECT version_num FROM alembic_version")
                if there
                else None
            )
    except RetryableError as error:
        if isinstance(error.__cause__, _REFUSALS):
            raise ConfigurationError(
                f"{_WHERE} refuses us ({error.__cause__}): check user, password and database"
            ) from error
        raise
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database of MEMOTURN_CATALOG is in {encoding}: create it WITH ENCODING 'UTF8'"
        )
    check_revision(found)


def check_revision(found: str | None) -> None:
    """Raise ConfigurationError unless a database at this revision (None is an empty one) is what this release works with."""
    wanted = f"{REVISION:04d}"
    if found == wanted:
        return
    if found is None or found < wanted:
        have = "has no schema yet" if found is None else f"has the older schema {found}"
        raise ConfigurationError(
            f"the database of MEMOTURN_CATALOG {have}, this release works with {wanted}: run `memoturn-control migrate`"
        )
    raise ConfigurationError(
        f"the database of MEMOTURN_CATALOG has the newer schema {found}, this release knows {wanted}: start the release "
        "that migrated it"
    )


_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)


def _translated(error: Exception) -> Exception:
    if isinstance(error, asyncpg.UniqueViolationError):
        return TakenError(str(error))
    if isinstance(error, asyncpg.ForeignKeyViolationError):
        return DanglingError(str(error))
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return InvariantError(f"{_WHERE} refuses a row ({error})")
    if isinstance(error, _NO_ROOM):
        return DiskFullError(f"{_WHERE} has no room left ({error}); free space on its disk")
    told = str(error) or type(error).__name__
    return RetryableError(f"the catalog does not answer: {_WHERE} says {told!r}; try again, then look at it")
