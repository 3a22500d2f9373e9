"""`memoturn branch`: forks, checkpoints and rewinds."""

from typing import Annotated

import typer

from memoturn import MAIN, BranchNotFoundError, ConflictError
from memoturn.cli import branch_graph
from memoturn.cli.complete import branches as complete_branches
from memoturn.cli.output import Cell, when
from memoturn.cli.run import Database, DryRun, Run, Yes, confirm, current, examples, group, would
from memoturn.types import Rewind

app = group("Fork, checkpoint and rewind a database.")

_Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the new branch.", show_default=False)]
_Branch = Annotated[
    str,
    typer.Argument(
        metavar="BRANCH", help="Branch, as in `main`.", show_default=False, autocompletion=complete_branches
    ),
]
_Checkpoint = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the checkpoint.", show_default=False)
]
_To = Annotated[
    str, typer.Argument(metavar="TO", help="Txid, checkpoint, head~N, or time.", show_default=False)
]


@app.command(epilog=examples("memoturn branch create app--alice what-if --at monday"))
def create(
    ctx: typer.Context,
    db: Database,
    name: _Name,
    *,
    from_branch: Annotated[str, typer.Option("--from", metavar="BRANCH", help="Branch to fork.")] = MAIN,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", metavar="REVISION", help="Txid, checkpoint, head~N or time to fork, the head by default."
        ),
    ] = None,
    ttl: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="Delete the branch after this time.")
    ] = None,
) -> None:
    """Fork a branch; no data is copied."""
    run = current(ctx)
    fork = run.client.db(db).branch.create(name, from_branch=from_branch, at=at, ttl=ttl)
    shown: dict[str, Cell] = {
        "branch": fork["branch"],
        "spec": fork["spec"],
        "parent": fork["parent"],
        "fork txid": fork["fork_txid"],
        "deleted at": when(fork["ttl_at"]),
    }
    run.out.record(fork, shown)


@app.command("list", epilog=examples("memoturn branch list app--alice"))
def list_all(
    ctx: typer.Context,
    db: Database,
    *,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those that can be undeleted instead.")] = False,
) -> None:
    """List the branches other than main."""
    run = current(ctx)
    if deleted:
        gone = list(run.client.db(db).branch.iter_deleted())
        rows = [[row["branch"], when(row["deleted_at"]), when(row["undelete_until"])] for row in gone]
        columns = ["branch", "deleted", "can come back until"]
        run.out.rows({"branches": gone}, columns, rows, empty="nothing can be undeleted")
        return
    branches = run.client.db(db).branch.list()
    run.out.rows(
        {"branches": branches},
        ["branch", "parent", "fork txid", "created", "deleted at"],
        [
            (row["branch"], row["parent"], row["fork_txid"], when(row["created_at"]), when(row["ttl_at"]))
            for row in branches
        ],
        empty=f"{db} has no branch but main",
    )


@app.command(epilog=examples("memoturn branch delete app--alice what-if"))
def delete(
    ctx: typer.Context, db: Database, branch: _Branch, *, dry_run: DryRun = False, yes: Yes = False
) -> None:
    """Delete a branch; `branch undelete` brings it back for a while."""
    run = current(ctx)
    if dry_run:
        there = next((row for row in run.client.db(db).branch.iter() if row["branch"] == branch), None)
        marks = [] if there is None else run.client.db(db).branch.checkpoints(branch)
        told = "do nothing: there is none of that name"
        if there is not None:
            told = f"delete {db}@{branch} with {len(marks)} checkpoints; it could be undeleted for a while"
        would(run, {"branch": there, "checkpoints": marks}, told)
        return
    confirm(f"Delete branch {branch} of {db}?", yes=yes)
    run.client.db(db).branch.delete(branch)
    run.out.done({"deleted": f"{db}@{branch}"}, f"deleted branch {db}@{branch}")


@app.command(epilog=examples("memoturn branch undelete app--alice what-if"))
def undelete(ctx: typer.Context, db: Database, branch: _Branch) -> None:
    """Bring back the branch that was deleted last under this name, while the node still keeps it."""
    run = current(ctx)
    back = run.client.db(db).branch.undelete(branch)
    run.out.done(back, f"branch {back['spec']} is there again")


@app.command(epilog=examples("memoturn branch checkpoint app--alice main monday"))
def checkpoint(ctx: typer.Context, db: Database, branch: _Branch, name: _Checkpoint) -> None:
    """Name the head of a branch, to fork or rewind to it later."""
    run = current(ctx)
    made = run.client.db(db).branch.checkpoint(branch, name)
    run.out.done(made, f"checkpoint {made['checkpoint']} names txid {made['txid']} of {db}@{branch}")
    run.out.txid(made["txid"], made["durable_txid"])


@app.command(epilog=examples("memoturn branch checkpoints app--alice main"))
def checkpoints(ctx: typer.Context, db: Database, branch: _Branch) -> None:
    """List the checkpoints of a branch."""
    run = current(ctx)
    rows = run.client.db(db).branch.checkpoints(branch)
    run.out.rows(
        {"checkpoints": rows},
        ["name", "txid", "created"],
        [(row["checkpoint"], row["txid"], when(row["created_at"])) for row in rows],
        empty=f"{db}@{branch} has no checkpoints",
    )


@app.command("delete-checkpoint", epilog=examples("memoturn branch delete-checkpoint app--alice main monday"))
def delete_checkpoint(
    ctx: typer.Context,
    db: Database,
    branch: _Branch,
    name: _Checkpoint,
    *,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Drop a checkpoint; the state that it names stays reachable by its txid."""
    run = current(ctx)
    if dry_run:
        marks = run.client.db(db).branch.iter_checkpoints(branch)
        there = next((mark for mark in marks if mark["checkpoint"] == name), None)
        if there is None:
            raise BranchNotFoundError(
                f"branch {branch} has no checkpoint {name!r}", status=404, code="branch_not_found"
            )
        would(run, there, f"drop checkpoint {name}, which names txid {there['txid']}")
        return
    confirm(f"Drop checkpoint {name} of {db}@{branch}?", yes=yes)
    run.client.db(db).branch.delete_checkpoint(branch, name)
    run.out.done({"deleted": name}, f"dropped checkpoint {name} of {db}@{branch}")


@app.command(
    "restore-points",
    epilog=examples("memoturn branch restore-points app--alice main --since 2026-11-27T00:00:00Z"),
)
def restore_points(
    ctx: typer.Context,
    db: Database,
    branch: _Branch = MAIN,
    *,
    limit: Annotated[int, typer.Option(min=1, help="Most of them.")] = 100,
    since: Annotated[
        str | None, typer.Option(metavar="TIME|TXID", help="Only from here on.", show_default=False)
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME|TXID", help="Only up to here.", show_default=False)
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest.")] = False,
) -> None:
    """List the states of a branch that can be forked, rewound to and read with --at, the newest first."""
    run = current(ctx)
    rows = run.client.db(db).branch.restore_points(
        branch, limit=limit, since=since, until=until, oldest_first=oldest_first
    )
    run.out.rows(
        {"restore_points": rows},
        ["txid", "time", "kind", "checkpoints"],
        [(row["txid"], row["time"], row["kind"], " ".join(row["checkpoints"])) for row in rows],
        empty=f"{db}@{branch} has nothing that could be restored yet",
    )


@app.command(
    epilog=examples(
        "memoturn branch rewind app--alice main monday",
        "memoturn branch rewind app--alice main head~3 --dry-run",
    )
)
def rewind(
    ctx: typer.Context, db: Database, branch: _Branch, to: _To, *, dry_run: DryRun = False, yes: Yes = False
) -> None:
    """Bring back an earlier state as a new commit; `branch undo` takes it back."""
    run = current(ctx)
    if dry_run:
        state = run.client.db(f"{db}@{branch}").batch([("select 1", ())], at=to)["txid"]
        head = _head(run, db, branch)
        told = f"bring back txid {state} of {db}@{branch}, whose head is txid {head}; `branch undo` would take it back"
        would(run, {"rewound_to": state, "undo_txid": head}, told)
        return
    confirm(f"Rewind {db}@{branch} to {to}?", yes=yes)
    _say(run, f"{db}@{branch}", run.client.db(db).branch.rewind(branch, to))


@app.command(epilog=examples("memoturn branch undo app--alice main"))
def undo(
    ctx: typer.Context, db: Database, branch: _Branch, *, dry_run: DryRun = False, yes: Yes = False
) -> None:
    """Take the last rewind of a branch back, as a new commit."""
    run = current(ctx)
    if dry_run:
        head, past = _head(run, db, branch), run.client.db(db).branch.past_rewinds(branch)
        if not past or past[-1]["txid"] != head:
            why = "it was never rewound" if not past else f"there are commits after txid {past[-1]['txid']}"
            raise ConflictError(f"nothing of {db}@{branch} can be undone: {why}", status=409, code="conflict")
        to = past[-1]["undo_txid"]
        would(run, {"rewound_to": to, "undo_txid": head}, f"bring back txid {to} of {db}@{branch}")
        return
    confirm(f"Undo the last rewind of {db}@{branch}?", yes=yes)
    _say(run, f"{db}@{branch}", run.client.db(db).branch.undo(branch))


def _head(run: Run, db: str, branch: str) -> int:
    newest = run.client.db(db).branch.restore_points(branch, limit=1)
    return newest[0]["txid"] if newest else 0


def _say(run: Run, spec: str, rewound: Rewind) -> None:
    run.out.done(rewound, f"{spec} is as it was at txid {rewound['rewound_to']}")
    run.out.txid(rewound["txid"], rewound["durable_txid"])


app.command(
    "graph", epilog=examples("memoturn branch graph app--alice", "memoturn branch graph app--alice --limit 5")
)(branch_graph.draw)
