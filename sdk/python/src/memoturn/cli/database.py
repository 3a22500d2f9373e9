"""`memoturn db`: the directory of databases."""

from typing import Annotated

import typer

from memoturn import DatabaseNotFoundError, ForbiddenError, UnauthorizedError
from memoturn.cli.output import when
from memoturn.cli.run import Database, DryRun, Run, Yes, add, confirm, current, examples, group, would

app = group("Create, list and delete databases.")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the database.", show_default=False)]


@app.command(epilog=examples("memoturn db create orders"))
def create(ctx: typer.Context, name: _Name) -> None:
    """Create a database; only its name is written."""
    run = current(ctx)
    made = run.client.create_database(name)
    run.out.record(made, {"name": made["name"], "uuid": made["uuid"], "created": when(made["created_at"])})


def list_all(
    ctx: typer.Context,
    *,
    prefix: Annotated[str, typer.Option(help="Only names that start so.", show_default=False)] = "",
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that can be undeleted instead.")] = False,
) -> None:
    """List databases by name, profiles included."""
    run = current(ctx)
    databases = list(run.client.iter_databases(prefix=prefix, deleted=deleted))
    columns = ["name", "created", "uuid"]
    rows = [[row["name"], when(row["created_at"]), row["uuid"]] for row in databases]
    if deleted:
        columns = ["name", "deleted", "can come back until", "uuid"]
        rows = [
            [row["name"], when(row["deleted_at"]), when(row["undelete_until"]), row["uuid"]]
            for row in databases
        ]
    empty = "nothing can be undeleted" if deleted else "no databases yet"
    run.out.rows({"databases": databases}, columns, rows, empty=empty)


def delete(ctx: typer.Context, name: Database, *, dry_run: DryRun = False, yes: Yes = False) -> None:
    """Delete a database with all its branches; `db undelete` brings it back for a while."""
    run = current(ctx)
    if dry_run:
        _would_delete(run, name)
        return
    confirm(f"Delete database {name} with all its branches, for good?", yes=yes)
    run.client.delete_database(name)
    run.out.done({"deleted": name}, f"deleted database {name}")


def undelete(
    ctx: typer.Context,
    name: Database,
    *,
    uuid: Annotated[
        str | None, typer.Option(help="The one with this id, not the last.", show_default=False)
    ] = None,
) -> None:
    """Bring back the database that was deleted last under this name, with its branches."""
    run = current(ctx)
    back = run.client.undelete_database(name, uuid=uuid)
    run.out.done(back, f"database {name} is there again")


def _would_delete(run: Run, name: str) -> None:
    there = next(
        (row for row in run.client.iter_databases(prefix=name, limit=1) if row["name"] == name), None
    )
    if there is None:
        raise DatabaseNotFoundError(f"there is no database {name}", status=404, code="database_not_found")
    try:
        branches: list[str] | None = [row["branch"] for row in run.client.db(name).branch.iter()]
    except (ForbiddenError, UnauthorizedError):
        branches = None  # the platform key opens no data
    known = "its branches" if branches is None else f"{1 + len(branches)} branches"
    told = f"delete database {name} ({there['uuid']}) with {known}; it could be undeleted for a while"
    would(run, {"database": there, "branches": branches}, told)


add(app, "list", list_all, "memoturn db list --prefix app--", "memoturn db list --deleted")
add(app, "delete", delete, "memoturn db delete orders --dry-run")
add(app, "undelete", undelete, "memoturn db undelete orders")
