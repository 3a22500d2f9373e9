"""`memoturn export` and `memoturn import`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from memoturn.cli.files import refuse_existing
from memoturn.cli.progress import shown
from memoturn.cli.run import current, single

_File = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="SQLite file; `-` is stdout.", allow_dash=True, show_default=False),
]
_State = Annotated[
    str,
    typer.Argument(
        metavar="DB[@BRANCH][:REVISION]",
        help="Database, its branch, and a txid, checkpoint, head~N or time; the head of main by default.",
        show_default=False,
    ),
]


def export_(
    ctx: typer.Context,
    state: _State,
    file: _File,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Save a state as one plain SQLite file."""
    run = current(ctx)
    spec, _, at = state.partition(":")
    if not spec or (":" in state and not at):
        raise typer.BadParameter("takes DB[@BRANCH][:REVISION]", param_hint="DB")
    db = run.client.db(spec)
    if str(file) == "-":
        saved = db.export(sys.stdout.buffer, at=at or None)
        sys.stdout.buffer.flush()
    else:
        refuse_existing(file, force=force)
        with shown(run.out, f"export {state}") as progress:
            saved = db.export(file, at=at or None, overwrite=force, progress=progress)
        run.out.done(
            {"file": os.fspath(file), **saved}, f"saved {state} to {file}, {saved['size_bytes']} bytes"
        )
    run.out.txid(saved["txid"], saved["durable_txid"])


def import_(
    ctx: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="SQLite file.", exists=True, dir_okay=False, show_default=False),
    ],
    db: Annotated[
        str,
        typer.Argument(
            metavar="DB[@BRANCH]",
            help="New database, that of a profile is NS--PROFILE; or new branch of one that exists.",
            show_default=False,
        ),
    ],
) -> None:
    """Make a new database of a SQLite file, or a new branch of one that exists."""
    run = current(ctx)
    name, at, branch = db.partition("@")
    if at and not branch:
        raise typer.BadParameter("takes DB or DB@BRANCH", param_hint="DB")
    with shown(run.out, f"import {file.name}") as progress:
        made = run.client.import_database(file, name, branch=branch or None, progress=progress)
    run.out.done(made, f"{db} begins with {file}, at txid {made['txid']}")
    run.out.txid(made["txid"], made["txid"])


export_app = single(
    export_, "memoturn export app--alice:monday alice.db", "memoturn export app--alice - > alice.db"
)
import_app = single(import_, "memoturn import alice.db app--alice-2")
