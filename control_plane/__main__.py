"""The `memoturn-control` command: what an operator does with the catalog, configured like a node."""

import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from control_plane.schema import REVISION
from memoturnd import __version__
from memoturnd.app import serve
from memoturnd.config import Settings
from memoturnd.errors import ConfigurationError, MemoturnError
from memoturnd.logs import set_up_logging

_USAGE = """usage: memoturn-control COMMAND

  serve      serve the directory, tokens, quotas, policies and audit of a cluster, and no profile, until SIGTERM or Ctrl-C
  migrate    bring the schema of the catalog (MEMOTURN_CATALOG) to that of this release
  rebuild    make a lost catalog anew from the object store (MEMOTURN_OBJECT_STORE); with --dry-run only tell what it
             would do. May be repeated. Exits 1 where something was damaged or had no place, and is listed

Settings are those of memoturnd, as environment variables: `memoturnd --help` lists them. Exits 0 when it is done, 2 when
a setting or the command is wrong, 1 on any other failure.
"""


async def migrate(settings: Settings) -> None:
    """Bring the catalog's schema to this release's, and say what was done. Raises ConfigurationError, RetryableError."""
    if settings.catalog is None:
        from control_plane.catalogs.sqlite import SqliteCatalog

        path = settings.data_dir / "registry.db"
        if not path.exists():
            raise ConfigurationError(f"there is no catalog {path}; a node makes it, or set MEMOTURN_CATALOG")
        await SqliteCatalog(path, sync=settings.sync).close()
        sys.stdout.write(f"{path} has the schema {REVISION:04d}\n")
        return
    from control_plane.migrating import migrate_postgres

    before, after = await migrate_postgres(settings.catalog.reveal())
    done = (
        f"has the schema {after} already"
        if before == after
        else f"went from {before or 'nothing'} to {after}"
    )
    sys.stdout.write(f"the catalog in Postgres {done}\n")


async def serve_alone(settings: Settings) -> None:
    """Serve the control routes until SIGTERM. Raises ConfigurationError for a catalog that is a node's own file."""
    if settings.catalog is None:
        raise ConfigurationError(
            "serve takes MEMOTURN_CATALOG=postgresql://...: a catalog in a file is served by its node, memoturnd"
        )
    await serve(settings, hosts_profiles=False)


async def rebuild(settings: Settings) -> bool:
    """Make the catalog anew from the object store; see control_plane.rebuild."""
    from control_plane.rebuild import rebuild as run

    return await run(settings, is_dry=False)


async def try_rebuild(settings: Settings) -> bool:
    """Tell what a rebuild would do."""
    from control_plane.rebuild import rebuild as run

    return await run(settings, is_dry=True)


_COMMANDS: dict[str, Callable[[Settings], Coroutine[Any, Any, bool | None]]] = {
    "serve": serve_alone,
    "migrate": migrate,
    "rebuild": rebuild,
    "rebuild --dry-run": try_rebuild,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments in (["--help"], ["-h"]):
        sys.stdout.write(_USAGE)
        return 0
    if arguments == ["--version"]:
        sys.stdout.write(f"memoturn-control {__version__}\n")
        return 0
    command = _COMMANDS.get(" ".join(arguments))
    if command is None:
        sys.stderr.write(_USAGE)
        return 2
    try:
        settings = Settings.from_env(os.environ)
        set_up_logging(settings)
        is_well = uvloop.run(command(settings))
    except ConfigurationError as error:
        sys.stderr.write(f"memoturn-control: {error}\n")
        return 2
    except (MemoturnError, OSError) as error:
        sys.stderr.write(f"memoturn-control: {error}\n")
        return 1
    return 1 if is_well is False else 0


if __name__ == "__main__":
    sys.exit(main())
