"""Brings the schema of a catalog up to this release, by the revisions in `migrations/`.

One history serves both databases. Postgres is migrated by `memoturn-control migrate` alone, in one transaction: nodes
refuse to start on a schema that is not theirs. An embedded file belongs to one node, which migrates it when it opens
it; Alembic writes the SQL for that, since apsw and SQLAlchemy's own driver must not share a file.
"""

import io
from functools import cache, partial
from pathlib import Path
from typing import Final

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from control_plane.catalogs.postgres import CONNECT_S, check_revision
from control_plane.schema import REVISION
from memoturnd.errors import ConfigurationError, RetryableError

HEAD: Final = f"{REVISION:04d}"
_HERE: Final = Path(__file__).parent
_LOCK: Final = 0x6D656D6F
"""The advisory lock that lets one migration run at a time."""


def folder() -> Path:
    """Return where the revisions are: in an installed distribution inside of this package, else beside it."""
    inside = _HERE / "migrations"
    return inside if inside.exists() else _HERE.parent / "migrations"


def config() -> Config:
    """Return Alembic's settings for these revisions."""
    settings = Config()
    settings.set_main_option("script_location", str(folder()).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    return settings


@cache
def sqlite_script(version: int, until: int = REVISION) -> str:
    """Return the SQL that takes an embedded catalog from one schema version (0 is an empty file) to another."""
    text = io.StringIO()
    options = {"as_sql": True, "output_buffer": text, "literal_binds": True}
    context = MigrationContext.configure(dialect_name="sqlite", opts=options)
    base = f"{version:04d}" if version else "base"
    steps = ScriptDirectory.from_config(config()).iterate_revisions(f"{until:04d}", base)
    with Operations.context(context):
        for step in reversed([*steps]):
            step.module.upgrade()
    return text.getvalue()


async def migrate_postgres(url: str) -> tuple[str | None, str]:
    """Bring the schema of a Postgres database to HEAD; return the revision before (None: it was empty) and after.

    All of it is one transaction. Raises ConfigurationError when the schema is newer than this release, or the URL wrong;
    RetryableError when Postgres does not answer.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=partial(_connect, url), poolclass=NullPool
    )
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(_upgrade)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, SQLAlchemyError) as error:
        raise RetryableError(
            f"Postgres (MEMOTURN_CATALOG) could not be migrated: {error}; nothing was changed"
        ) from error
    finally:
        await engine.dispose()


async def _connect(url: str) -> "asyncpg.Connection[asyncpg.Record]":
    try:
        return await asyncpg.connect(url, timeout=CONNECT_S)
    except ValueError as error:
        raise ConfigurationError(f"MEMOTURN_CATALOG is no usable URL of Postgres ({error})") from error


def _upgrade(connection: Connection) -> tuple[str | None, str]:
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    before = MigrationContext.configure(connection).get_current_revision()
    if before is not None and before > HEAD:
        check_revision(before)
    settings = config()
    settings.attributes["connection"] = connection
    command.upgrade(settings, HEAD)
    return before, HEAD
