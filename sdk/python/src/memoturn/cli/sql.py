"""`memoturn sql` and `memoturn sync`."""

from typing import Annotated

import typer

from memoturn.cli.output import Cell
from memoturn.cli.run import At, Run, Spec, current, parse_json, read_stdin, single
from memoturn.cli.statements import split
from memoturn.types import SqlBatchResult, SqlValue


def sql(
    ctx: typer.Context,
    spec: Spec,
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="SQL; read from stdin when left out.")
    ] = None,
    *,
    params: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Array of parameters, for a single statement.", show_default=False),
    ] = None,
    at: At = None,
) -> None:
    """Run SQL statements as one transaction: all of them, or none. With --at they may only read."""
    run = current(ctx)
    statements = split(read_stdin() if query is None else query)
    if not statements:
        raise typer.BadParameter("there is no statement in it", param_hint="QUERY")
    values = [] if params is None else parse_json(params, "--params")
    if not isinstance(values, list) or (values and len(statements) > 1):
        raise typer.BadParameter("takes a JSON array, for a single statement", param_hint="--params")
    db = run.client.db(spec)
    batch = db.batch([(text, values) for text in statements], durability=run.durability, at=at)
    show_batch(run, batch)


def show_batch(run: Run, batch: SqlBatchResult) -> None:
    """Print the rows of each statement, and what the others changed."""
    if run.out.as_json:
        run.out.json(batch)
    else:
        for result in batch["results"]:
            if result["columns"]:
                rows = [[_cell(value) for value in row] for row in result["rows"]]
                run.out.rows(result, result["columns"], rows, empty="no rows")
            else:
                run.out.note(f"{result['rows_affected']} rows affected")
    run.out.txid(batch["txid"], batch["durable_txid"])


def sync(
    ctx: typer.Context,
    spec: Spec,
    *,
    txid: Annotated[
        int | None, typer.Option(min=0, help="Txid to wait for, the head by default.", show_default=False)
    ] = None,
) -> None:
    """Ship until everything, or everything up to a txid, is in object storage."""
    run = current(ctx)
    durable_txid = run.client.db(spec).sync(txid)
    run.out.done({"txid": durable_txid}, f"{spec} is in object storage up to txid {durable_txid}")


def _cell(value: SqlValue) -> Cell:
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value


app = single(
    sql, 'memoturn sql app--alice "select * from orders" --at monday', "memoturn sql app--alice < report.sql"
)
sync_app = single(sync, "memoturn sync app--alice")
