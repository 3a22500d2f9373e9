"""`memoturn timelines`: rows by key and time."""

from typing import Annotated, Any, Literal, cast

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.output import compact, when
from memoturn.cli.run import (
    At,
    DryRun,
    Filter,
    Lines,
    Since,
    Spec,
    Until,
    Yes,
    add,
    confirm,
    current,
    group,
    parse_filter,
    parse_json,
    parse_lines,
    parse_time,
    stamp,
    would,
)
from memoturn.types import NewRow, TimelineInfo

app = group("Append and query rows by key and time.")

_Timeline = Annotated[
    str, typer.Argument(metavar="TIMELINE", help="Name of the timeline.", show_default=False)
]
_Keys = Annotated[list[str] | None, typer.Option("--key", help="Only this key; repeatable.")]
_Oldest = Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest.")]
_NUMBERS = ("sum", "min", "max", "average", "last")


def list_all(ctx: typer.Context, spec: Spec, *, at: At = None) -> None:
    """List timelines, with what each holds and retains."""
    run = current(ctx)
    rows = list(run.client.db(spec).iter_timelines(at=at))
    run.out.rows(
        {"timelines": rows},
        ["timeline", "rows", "keys", "oldest", "newest", "retains"],
        [
            (row["name"], row["rows"], row["keys"], when(row["oldest"]), when(row["newest"]), _retains(row))
            for row in rows
        ],
        empty=f"{spec} has no timelines",
    )


def show(ctx: typer.Context, spec: Spec, timeline: _Timeline, *, at: At = None) -> None:
    """Show one timeline: what it holds and retains."""
    run = current(ctx)
    found = run.client.db(spec).timeline(timeline).info(at=at)
    if found is None:
        run.out.error(f"{spec} has no timeline {timeline}", "`memoturn timelines list SPEC` shows them.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    run.out.record(
        found,
        {
            "timeline": found["name"],
            "created": when(found["created_at"]),
            "rows": found["rows"],
            "keys": found["keys"],
            "oldest": when(found["oldest"]),
            "newest": when(found["newest"]),
            "retains": _retains(found),
        },
    )


def append(
    ctx: typer.Context,
    spec: Spec,
    timeline: _Timeline,
    key: Annotated[str, typer.Argument(metavar="KEY", help="Key of the row.", show_default=False)],
    data: Annotated[str | None, typer.Argument(metavar="[JSON]", help="Any JSON; `-` is stdin.")] = None,
    *,
    time: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="RFC 3339 or unix ms, now by default.", show_default=False),
    ] = None,
) -> None:
    """Append a row; the timeline is made by its first."""
    run = current(ctx)
    value = None if data is None else parse_json(data, "JSON")
    done = (
        run.client.db(spec)
        .timeline(timeline)
        .append(key, value, at=parse_time(time, "--time"), durability=run.durability)
    )
    run.out.done(done, f"appended {done['appended']} row to {timeline}")
    stamp(run, done)


def load(
    ctx: typer.Context,
    spec: Spec,
    timeline: _Timeline,
    rows: Lines = "-",
) -> None:
    """Append up to 10,000 rows as one commit: {"key", "at", "data"}, one a line."""
    run = current(ctx)
    given = cast("list[NewRow]", parse_lines(rows, "JSON"))
    done = run.client.db(spec).timeline(timeline).append_many(given, durability=run.durability)
    expired = f"; {done['expired']} were past retention" if done["expired"] else ""
    run.out.done(done, f"appended {done['appended']} rows to {timeline}{expired}")
    stamp(run, done)


def query(
    ctx: typer.Context,
    spec: Spec,
    timeline: _Timeline,
    *,
    keys: _Keys = None,
    since: Since = None,
    until: Until = None,
    where: Filter = None,
    oldest_first: _Oldest = False,
    limit: Annotated[int, typer.Option(min=1, help="Most rows.")] = 100,
    at: At = None,
) -> None:
    """Show rows, the newest first. --until is not included."""
    run = current(ctx)
    rows = list(
        run.client.db(spec)
        .timeline(timeline)
        .iter_rows(**_terms(keys, since, until, where, oldest_first=oldest_first), limit=limit, at=at)
    )
    run.out.rows(
        {"rows": rows},
        ["time", "key", "seq", "data"],
        [(when(row["at"]), row["key"], row["seq"], compact(row["data"])) for row in rows],
        empty="no rows",
    )


def aggregate(
    ctx: typer.Context,
    spec: Spec,
    timeline: _Timeline,
    path: Annotated[
        str | None, typer.Argument(metavar="[PATH]", help="Number in `data`; '' is data itself.")
    ] = None,
    *,
    window: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Width of the windows: 30s, 5m, 1h, 1d, or ms.", show_default=False
        ),
    ] = None,
    by_key: Annotated[bool, typer.Option("--by-key", help="Windows of its own for each key.")] = False,
    keys: _Keys = None,
    since: Since = None,
    until: Until = None,
    where: Filter = None,
    oldest_first: _Oldest = False,
    limit: Annotated[int, typer.Option(min=1, help="Most windows.")] = 100,
    at: At = None,
) -> None:
    """Count rows, and sum up numbers in them, by windows of time and by key."""
    run = current(ctx)
    windows: list[dict[str, Any]] = [
        dict(one)
        for one in run.client.db(spec)
        .timeline(timeline)
        .aggregate(
            path,
            window_ms=_milliseconds(window),
            by_key=by_key,
            **_terms(keys, since, until, where, oldest_first=oldest_first),
            limit=limit,
            at=at,
        )
    ]
    numbers = _NUMBERS if path is not None else ()
    columns = [*(["time"] if window else []), *(["key"] if by_key else []), "count", *numbers]
    shown = [
        [
            *([when(one["at"])] if window else []),
            *([one.get("key")] if by_key else []),
            one["count"],
            *(one.get(name) for name in numbers),
        ]
        for one in windows
    ]
    run.out.rows({"windows": windows}, columns, shown, empty="no rows")


def retain(
    ctx: typer.Context,
    spec: Spec,
    timeline: _Timeline,
    *,
    seconds: Annotated[
        int | None, typer.Option(min=0, help="Keep rows so long, by their time.", show_default=False)
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=0, help="Keep so many rows of each key.", show_default=False)
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Set what a timeline keeps; without an option it keeps everything. What is past it is gone for good."""
    run = current(ctx)
    found = run.client.db(spec).timeline(timeline)
    if dry_run:
        there = found.info()
        told = "nothing yet" if there is None else f"{there['rows']} rows of {there['keys']} keys"
        asked = {"timeline": timeline, "retention_s": seconds, "retention_rows": rows, "now": there}
        would(run, asked, f"keep {_span(seconds, rows)} of {timeline}, which holds {told}")
        return
    confirm(f"Keep {_span(seconds, rows)} of {timeline}, and let go of the rest?", yes=yes)
    done = found.set_retention(retention_s=seconds, retention_rows=rows, durability=run.durability)
    run.out.done(done, f"{timeline} keeps {_span(seconds, rows)}")
    stamp(run, done)


def delete(
    ctx: typer.Context, spec: Spec, timeline: _Timeline, *, dry_run: DryRun = False, yes: Yes = False
) -> None:
    """Delete a timeline with its rows; also fine when there is none."""
    run = current(ctx)
    found = run.client.db(spec).timeline(timeline)
    if dry_run:
        there = found.info()
        count = 0 if there is None else there["rows"]
        would(run, {"timeline": timeline, "rows": count}, f"delete {timeline} with {count} rows")
        return
    confirm(f"Delete timeline {timeline} of {spec}?", yes=yes)
    found.delete(durability=run.durability)
    run.out.done({"deleted": timeline}, f"deleted {timeline}")


def _terms(
    keys: list[str] | None, since: str | None, until: str | None, where: str | None, *, oldest_first: bool
) -> dict[str, Any]:
    order: Literal["asc", "desc"] = "asc" if oldest_first else "desc"
    return {
        "keys": keys or None,
        "since": parse_time(since, "--since"),
        "until": parse_time(until, "--until"),
        "filter": parse_filter(where),
        "order": order,
    }


def _milliseconds(text: str | None) -> int | None:
    if text is None:
        return None
    units = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
    number = text.rstrip("smhd")
    if not (number.isascii() and number.isdigit()) or (text[len(number) :] or "ms") not in units:
        raise typer.BadParameter("takes a time such as 30s, 5m, 1h or 1d", param_hint="--window")
    return int(number) * units[text[len(number) :] or "ms"]


def _retains(row: TimelineInfo) -> str:
    return _span(row["retention_s"], row["retention_rows"])


def _span(seconds: int | None, rows: int | None) -> str:
    said = [
        *([f"{seconds} s"] if seconds is not None else []),
        *([f"{rows} rows a key"] if rows is not None else []),
    ]
    return ", ".join(said) or "everything"


add(app, "list", list_all, "memoturn timelines list app--alice")
add(app, "show", show, "memoturn timelines show app--alice calls")
add(app, "append", append, "memoturn timelines append app--alice calls search '{\"ms\": 12}'")
add(app, "load", load, "memoturn timelines load app--alice calls < calls.jsonl")
add(
    app, "query", query, "memoturn timelines query app--alice calls --key search --since 2026-11-28T00:00:00Z"
)
add(app, "aggregate", aggregate, "memoturn timelines aggregate app--alice calls ms --window 1h --by-key")
add(app, "retain", retain, "memoturn timelines retain app--alice calls --seconds 604800 --rows 1000")
add(app, "delete", delete, "memoturn timelines delete app--alice calls --dry-run")
