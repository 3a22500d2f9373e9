"""`memoturn branch graph`: what the server tells of the branches of a database, drawn."""

import shutil
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from memoturn.cli import graph
from memoturn.cli.output import CODES, is_terminal, visible, wants_colour, when
from memoturn.cli.run import Database, Run, current

if TYPE_CHECKING:
    from memoturn import Db
    from memoturn.types import BranchInfo

_WIDTH = 100


def draw(
    ctx: typer.Context,
    db: Database,
    *,
    limit: Annotated[
        int, typer.Option(min=0, max=1000, help="Newest checkpoints and rewinds of each branch.")
    ] = 20,
    most: Annotated[int, typer.Option("--branches", min=1, max=1000, help="Newest branches.")] = 50,
    deleted: Annotated[
        bool, typer.Option("--deleted/--no-deleted", help="Show what can be undeleted, too.")
    ] = True,
) -> None:
    """Draw branches, checkpoints and rewinds, the newest on top. A deleted branch is there while it can come back."""
    run = current(ctx)
    rows, left_out = _branches(run.client.db(db), most, deleted=deleted)
    lanes, told = _lanes(run, db, rows, limit)
    if run.out.as_json:
        run.out.json({"database": db, "branches": told, "left_out": left_out})
        return
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if is_terminal(sys.stdout) else _WIDTH
    colour = CODES if wants_colour(sys.stdout) else None
    ascii_only = not is_terminal(sys.stdout) or "utf" not in (sys.stdout.encoding or "").lower()
    for row in graph.layout(lanes):
        print(graph.text(row, width=width, ascii_only=ascii_only, colour=colour))
    if left_out:
        run.out.note(f"{left_out} older branches are left out: --branches shows more")


def _branches(db: "Db", most: int, *, deleted: bool) -> "tuple[list[BranchInfo], int]":
    """Return the newest branches, each behind its parent where that is known, and how many are left out."""
    rows = list(db.branch.iter())
    if deleted:
        rows += db.branch.iter_deleted()
    rows.sort(key=lambda row: row["created_at"])
    return rows[-most:], max(0, len(rows) - most)


def _lanes(
    run: Run, db: str, rows: "list[BranchInfo]", limit: int
) -> tuple[list[graph.Lane], list[dict[str, Any]]]:
    lanes = [_lane(run, db, "main", None, None, limit)]
    for row in rows:
        lanes.append(_lane(run, db, row["branch"], row, _parent(lanes, rows, row), limit))
    told = [
        {
            "branch": lane.name,
            "parent": None if lane.parent is None else lanes[lane.parent].name,
            "fork_txid": None if lane.parent is None else lane.fork_txid,
            "txid": lane.head_txid,
            "is_deleted": lane.is_deleted,
            "note": lane.note or None,
            "checkpoints": [mark._asdict() for mark in lane.checkpoints],
            "rewinds": [turn._asdict() for turn in lane.rewinds],
        }
        for lane in lanes
    ]
    return lanes, told


def _parent(lanes: list[graph.Lane], rows: "list[BranchInfo]", row: "BranchInfo") -> int | None:
    """Return which of the lanes so far a branch was forked from: of those of that name the one that was there then."""
    named = [at for at, lane in enumerate(lanes) if lane.name == row["parent"]]
    alive = [
        at
        for at in named
        if at == 0 or (rows[at - 1].get("deleted_at") or row["created_at"]) >= row["created_at"]
    ]
    found = alive or named
    return found[-1] if found else None


def _lane(
    run: Run, db: str, name: str, row: "BranchInfo | None", parent: int | None, limit: int
) -> graph.Lane:
    fork_txid = (row["fork_txid"] or 0) if row is not None else 0
    created_at = row["created_at"] if row is not None else 0
    if row is not None and "deleted_at" in row:
        note = f"deleted {when(row['deleted_at'])}, can come back until {when(row['undelete_until'])}"
        return graph.Lane(name, parent, fork_txid, row["deleted_at"], None, note=note, is_deleted=True)
    branch = run.client.db(db).branch
    newest = branch.restore_points(name, limit=1)
    marks = [
        graph.Mark(visible(one["checkpoint"]), one["txid"], one["created_at"])
        for one in branch.iter_checkpoints(name)
    ]
    turns = [
        graph.Turn(one["txid"], one["rewound_to"], one["undo_txid"], one["created_at"])
        for one in branch.past_rewinds(name)
    ]
    return graph.Lane(
        name,
        parent,
        fork_txid,
        created_at,
        newest[0]["txid"] if newest else fork_txid,
        newest[0]["created_at"] if newest else created_at,
        note=_note(row, parent),
        checkpoints=tuple(marks[len(marks) - min(limit, len(marks)) :]),
        rewinds=tuple(turns[len(turns) - min(limit, len(turns)) :]),
    )


def _note(row: "BranchInfo | None", parent: int | None) -> str:
    said = []
    if row is not None and parent is None and row["parent"]:
        said.append(f"forked from {row['parent']} at txid {row['fork_txid']}, which is gone")
    if row is not None and row["ttl_at"] is not None:
        said.append(f"goes at {when(row['ttl_at'])}")
    return "; ".join(said)
