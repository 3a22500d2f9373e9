"""Brings the schema of a catalog up to this release, by the revisions in `migrations/`.

One history serves both databases. Postgres is migrated by `memoturn-control migrate` alone, in one transaction: nodes
refuse to start on a schema that is not theirs. An embedded file belongs to one node, which migrates it when it opens
it; Alembic writes the SQL for that, since apsw and SQLAlchemy's own driver must not share a file.
"""

import io
from functools import cache
from pathlib import Path
from typing import Final

from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from control_plane.schema import REVISION

HEAD: Final = f"{REVISION:04d}"
_HERE: Final = Path(__file__).parent


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
