"""`memoturn db`: the directory of databases."""

from typing import Annotated

import typer

from memoturn.cli.output import when
from memoturn.cli.run import Database, Yes, confirm, current, examples, group

app = group("Create, list and delete databases.")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the database.", show_default=False)]


@app.command(epilog=examples("memoturn db create orders"))
def create(ctx: typer.Context, name: _Name) -> None:
    """Create a database; only its name is written."""
    run = current(ctx)
    made = run.client.create_database(name)
    run.out.record(made, {"name": made["name"], "uuid": made["uuid"], "created": when(made["created_at"])})


@app.command("list", epilog=examples("memoturn db list --prefix app--"))
def list_all(
    ctx: typer.Context,
    *,
    prefix: Annotated[str, typer.Option(help="Only names that start so.", show_default=False)] = "",
) -> None:
    """List databases by name, profiles included."""
    run = current(ctx)
    databases = run.client.list_databases(prefix=prefix)
    run.out.rows(
        {"databases": databases},
        ["name", "created", "uuid"],
        [(row["name"], when(row["created_at"]), row["uuid"]) for row in databases],
        empty="no databases yet",
    )


@app.command(epilog=examples("memoturn db delete orders --dry-run"))
def delete(ctx: typer.Context, name: Database, *, yes: Yes = False) -> None:
    """Delete a database with all its branches, for good."""
    run = current(ctx)
    confirm(f"Delete database {name} with all its branches, for good?", yes=yes)
    run.client.delete_database(name)
    run.out.done({"deleted": name}, f"deleted database {name}")
