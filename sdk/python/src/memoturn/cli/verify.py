"""`memoturn verify`."""

from typing import Annotated

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.output import Cell
from memoturn.cli.progress import counted
from memoturn.cli.run import Run, Spec, current, single
from memoturn.types import Verification, VerifyFinding


def verify(
    ctx: typer.Context,
    spec: Spec,
    *,
    deep: Annotated[
        bool, typer.Option("--deep", help="Restore every state, not a sample: this takes long.")
    ] = False,
    seed: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Draw the sample of an earlier run again.", show_default=False),
    ] = None,
) -> None:
    """Prove everything that object storage has of a database; exit 7 on damage, 5 if not all could be looked at."""
    run = current(ctx)
    with counted(run.out) as report:
        progress = None if report is None else lambda done, whole: report(f"verify {spec}", done, whole)
        found = run.client.db(spec).verify(deep=deep, seed=seed, progress=progress)
    _show(run, spec, found)
    if found["outcome"] == "damaged":
        raise typer.Exit(ExitCode.DAMAGED)
    if found["outcome"] == "unfinished":
        raise typer.Exit(ExitCode.UNAVAILABLE)


def _show(run: Run, spec: str, found: Verification) -> None:
    if run.out.as_json:
        run.out.json(found)
        return
    if found["findings"]:
        run.out.rows(
            found,
            ["kind", "branch", "lost txids", "object"],
            [(f["kind"], f["branch"] or "(database)", _lost(f), _object(f)) for f in found["findings"]],
            empty="",
        )
    for text in found["unfinished"]:
        run.out.note(f"not looked at: {text}")
    shown: dict[str, Cell] = {
        "outcome": found["outcome"],
        "damaged objects": found["damaged_objects"] or None,
        "branches": found["branches"],
        "objects": found["objects"],
        "bytes": found["bytes"],
        "states restored": f"{found['states']} ({'all' if found['deep'] else 'a sample'})",
        "unreachable": _unreachable(found),
        "seed": None if found["deep"] else found["seed"],
    }
    run.out.record(found, {"verified": spec, **shown})


def _lost(finding: VerifyFinding) -> str:
    ranges = [f"{first}" if first == last else f"{first}-{last}" for first, last in finding["lost"]]
    return ", ".join(ranges) or "none"


def _object(finding: VerifyFinding) -> str:
    return f"{finding['key']}\n{finding['what']}\n{finding['todo']}"


def _unreachable(found: Verification) -> str | None:
    count = found["unreachable_objects"]
    if not count:
        return None
    return f"{count} objects, {found['unreachable_bytes']} bytes (garbage, no damage)"


app = single(verify, "memoturn verify app--alice --deep")
