"""`memoturn changes`: what commits changed, once or as it happens."""

from typing import Annotated, cast

import typer

from memoturn.cli.output import when
from memoturn.cli.run import Run, Spec, current, single
from memoturn.types import Change, ChangeEntry, Surface

_SURFACES = ("memory", "turns", "documents", "kv", "vectors", "timelines", "sql")


def changes(
    ctx: typer.Context,
    spec: Spec,
    *,
    since: Annotated[
        int | None,
        typer.Option(min=0, metavar="TXID", help="What was committed after it.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as changes come, until ^C.")] = False,
    surfaces: Annotated[
        list[str] | None, typer.Option("--surface", help="Only of this surface; repeatable.")
    ] = None,
    durable_only: Annotated[
        bool, typer.Option("--durable-only", help="Only what object storage has.")
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most commits, without --follow.")] = 100,
    wait: Annotated[
        int, typer.Option(min=0, max=60, metavar="SECONDS", help="Wait so long for the first one.")
    ] = 0,
) -> None:
    """Show what each commit changed, by surface and key; without --since, from where the feed is now.

    With --json one JSON object a line. --follow comes again by itself when the connection breaks.
    """
    run = current(ctx)
    wanted = cast("list[Surface] | None", surfaces or None)
    for one in wanted or ():
        if one not in _SURFACES:
            raise typer.BadParameter(f"takes one of {', '.join(_SURFACES)}", param_hint="--surface")
    db = run.client.db(spec)
    if follow:
        try:
            for change in db.follow(since, surfaces=wanted, durable=durable_only):
                _show(run, change)
        except KeyboardInterrupt:
            run.out.note("stopped")
        return
    page = db.changes(since, limit=limit, surfaces=wanted, durable=durable_only, wait_s=wait)
    for change in page["changes"]:
        _show(run, change)
    more = "; there is more" if page["more"] else ""
    run.out.note(f"go on with --since {page['next_since']}{more}")


def _show(run: Run, change: Change) -> None:
    what = (
        [f"everything ({change['all']})"] if "all" in change else [_entry(one) for one in change["changes"]]
    )
    run.out.line(change, f"{change['txid']}\t{when(change['at'])}\t{'; '.join(what)}")


def _entry(entry: ChangeEntry) -> str:
    place = f"{entry['surface']}/{entry['in']}" if "in" in entry else entry["surface"]
    said = [f"+{key}" for key in entry.get("put", [])] + [f"-{key}" for key in entry.get("deleted", [])]
    said += ["dropped"] * bool(entry.get("dropped")) + ["and more"] * bool(entry.get("more"))
    return f"{place} {' '.join(map(str, said))}".strip()


app = single(
    changes,
    "memoturn changes app--alice --since 0",
    "memoturn changes app--alice --follow --surface memory --json",
)
