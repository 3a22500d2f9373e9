"""`memoturn memory export`, `import` and `reembed`: what takes its time."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated, cast

import typer

from memoturn.cli.files import refuse_existing
from memoturn.cli.profile import profile_of
from memoturn.cli.progress import counted, shown
from memoturn.cli.run import DryRun, Namespace, OnBranch, Profile, Run, Yes, confirm, current, stamp, would
from memoturn.types import ReembedJob, ReembedScope

_POLL_S = 0.5


def export(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File of JSON lines; `-` is stdout.", allow_dash=True)
    ],
    *,
    branch: OnBranch = "main",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
) -> None:
    """Save memories with their history, vectors, sessions and turns as lines of JSON."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    if str(file) == "-":
        saved = memories.export_memory(sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        refuse_existing(file, force=force)
        with shown(run.out, f"export {ns}/{profile}") as progress:
            saved = memories.export_memory(file, overwrite=force, progress=progress)
        done = {"file": os.fspath(file), **saved}
        run.out.done(done, f"saved {ns}/{profile} to {file}, {saved['size_bytes']} bytes")
    stamp(run, saved)


def import_(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File of JSON lines.", exists=True, dir_okay=False)
    ],
    *,
    replace: Annotated[bool, typer.Option("--replace", help="Remove what is there first.")] = False,
    branch: OnBranch = "main",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Store what `memory export` saved as one commit, or nothing of it; ids, times and versions stay."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    if dry_run:
        there = len(memories.list_memories(limit=1000, include_superseded=True)["memories"])
        told = f"replace {there} memories" if replace else "store them"
        if there and not replace:
            told = f"be refused: the profile has {there} memories already (--replace)"
        would(run, {"file": os.fspath(file), "memories_there": there, "replace": replace}, told)
        return
    if replace:
        confirm(f"Replace all memory of {ns}/{profile}?", yes=yes)
    with shown(run.out, f"import {file.name}") as progress:
        done = memories.import_memory(file, replace=replace, progress=progress, durability=run.durability)
    counts = cast("dict[str, int]", done["imported"])
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    run.out.done(done, f"stored {told or 'nothing'}")
    stamp(run, done)


def reembed(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    *,
    scope: Annotated[str, typer.Option(help="memories, turns or all.")] = "all",
    only_missing: Annotated[
        bool, typer.Option("--only-missing", help="Leave alone what has a vector of the model.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is done.")] = False,
    status: Annotated[bool, typer.Option("--status", help="Say how far the job is.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel the job; what it made stays.")] = False,
    branch: OnBranch = "main",
) -> None:
    """Embed what a profile holds with the model of the node, in the background."""
    run = current(ctx)
    if scope not in {"memories", "turns", "all"}:
        raise typer.BadParameter("takes memories, turns or all", param_hint="--scope")
    memories = profile_of(run, ns, profile, branch)
    if cancel:
        memories.cancel_reembed(durability=run.durability)
        run.out.done({"cancelled": True}, "cancelled")
        return
    if status:
        job = memories.reembed_progress()
    else:
        job = memories.reembed(
            scope=cast("ReembedScope", scope), only_missing=only_missing, durability=run.durability
        )
    if wait:
        with counted(run.out) as report:
            while job["state"] in {"running", "waiting"}:
                if report is not None:
                    report(f"embed {ns}/{profile}", job["done"], job["total"])
                time.sleep(_POLL_S)
                job = memories.reembed_progress()
    _show(run, job)


def _show(run: Run, job: ReembedJob) -> None:
    run.out.record(
        job,
        {
            "state": job["state"],
            "model": job["model"],
            "done": f"{job['done']} of {job['total']}" if job["total"] is not None else None,
            "failed": job["failed"] or None,
            "error": job["error"],
        },
    )
