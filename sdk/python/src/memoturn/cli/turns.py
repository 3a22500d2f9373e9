"""`memoturn turns`: the transcripts of sessions."""

import json
from typing import Annotated, Any, Literal, cast

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.output import Cell, compact, when
from memoturn.cli.run import (
    At,
    DryRun,
    Lines,
    Since,
    Spec,
    Until,
    Yes,
    add,
    confirm,
    current,
    group,
    parse_embedding,
    parse_lines,
    parse_time,
    read_stdin,
    stamp,
    would,
)
from memoturn.types import NewTurn, Turn

app = group("Append, read, search and delete turns of sessions.")

_Session = Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.", show_default=False)]
_Seq = Annotated[int, typer.Argument(metavar="SEQ", help="Number of the turn.", show_default=False)]


def append(
    ctx: typer.Context,
    spec: Spec,
    session: _Session,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Who says it: user, assistant, ...")],
    content: Annotated[str, typer.Argument(metavar="CONTENT", help="What is said; `-` is stdin.")],
    *,
    as_value: Annotated[bool, typer.Option("--value", help="CONTENT is JSON, not text.")] = False,
    embedding: Annotated[
        str | None, typer.Option(metavar="JSON", help="Array of numbers from your embedder.")
    ] = None,
) -> None:
    """Append one turn; the session is made by its first."""
    run = current(ctx)
    said: Any = read_stdin() if content == "-" else content
    if as_value:
        try:
            said = json.loads(said)
        except (ValueError, RecursionError) as error:
            raise typer.BadParameter(f"not valid JSON: {error}", param_hint="CONTENT") from error
    done = (
        run.client.db(spec)
        .session(session)
        .append_turn(role, said, parse_embedding(embedding), durability=run.durability)
    )
    run.out.done(done, f"turn {done['seq']} of {session}")
    stamp(run, done)


def load(
    ctx: typer.Context,
    spec: Spec,
    session: _Session,
    turns: Lines = "-",
) -> None:
    """Append up to 1000 turns as one commit: {"role", "content"}, one a line."""
    run = current(ctx)
    rows = cast("list[NewTurn]", parse_lines(turns, "JSON"))
    done = run.client.db(spec).session(session).append_turns(rows, durability=run.durability)
    run.out.done(done, f"turns {done['seqs'][0]} to {done['seqs'][-1]} of {session}")
    stamp(run, done)


def list_turns(
    ctx: typer.Context,
    spec: Spec,
    session: _Session,
    *,
    last: Annotated[int, typer.Option(min=1, max=1000, help="So many of the newest.")] = 20,
    after: Annotated[
        int | None,
        typer.Option(min=0, metavar="SEQ", help="All above this number instead.", show_default=False),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Most of them, with --after.", show_default=False)
    ] = None,
    at: At = None,
) -> None:
    """Show the newest turns of a session, oldest first."""
    run = current(ctx)
    transcript = run.client.db(spec).session(session)
    turns = (
        transcript.get_window(last, at=at)
        if after is None
        else list(transcript.iter_turns(after=after, limit=limit, at=at))
    )
    run.out.rows(
        {"turns": turns},
        ["seq", "time", "role", "content"],
        [(turn["seq"], when(turn["created_at"]), turn["role"], _text(turn["content"])) for turn in turns],
        empty=f"{session} has no turns",
    )


def get(ctx: typer.Context, spec: Spec, session: _Session, seq: _Seq, *, at: At = None) -> None:
    """Show one turn."""
    run = current(ctx)
    turn = run.client.db(spec).session(session).get(seq, at=at)
    if turn is None:
        run.out.error(f"{session} has no turn {seq}", "`memoturn turns list` shows the numbers.")
        raise typer.Exit(ExitCode.NOT_FOUND)
    run.out.record(turn, _fields(turn))


def search(
    ctx: typer.Context,
    spec: Spec,
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="Words to look for.")] = None,
    *,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Only in this session.", show_default=False)
    ] = None,
    vector: Annotated[
        str | None, typer.Option(metavar="JSON", help="Array of numbers to be near to.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Most turns.")] = 5,
    role: Annotated[str | None, typer.Option(help="Only what this role said.", show_default=False)] = None,
    mode: Annotated[str | None, typer.Option(help="keyword, vector or hybrid.", show_default=False)] = None,
    since: Since = None,
    until: Until = None,
    at: At = None,
) -> None:
    """Find turns by words, by a vector, or by both, in one session or in all; best first."""
    run = current(ctx)
    if query is None and vector is None:
        raise typer.BadParameter("give a QUERY, or --vector", param_hint="QUERY")
    if mode not in {None, "keyword", "vector", "hybrid"}:
        raise typer.BadParameter("takes keyword, vector or hybrid", param_hint="--mode")
    where = run.client.db(spec)
    asked: dict[str, Any] = {
        "vector": parse_embedding(vector, "--vector"),
        "k": k,
        "role": role,
        "mode": cast("Literal['keyword', 'vector', 'hybrid'] | None", mode),
        "since": parse_time(since, "--since"),
        "until": parse_time(until, "--until"),
        "at": at,
    }
    found = (
        where.search_turns(query, **asked)
        if session is None
        else where.session(session).search(query, **asked)
    )
    run.out.rows(
        found,
        ["score", "session", "seq", "role", "content"],
        [
            (_score(turn), turn["session_id"], turn["seq"], turn["role"], _text(turn["content"]))
            for turn in found["turns"]
        ],
        empty="nothing was found",
    )


def delete(
    ctx: typer.Context,
    spec: Spec,
    session: _Session,
    seq: Annotated[int | None, typer.Argument(metavar="[SEQ]", help="One turn.")] = None,
    *,
    from_seq: Annotated[
        int | None, typer.Option("--from", min=1, metavar="SEQ", help="From this one on.", show_default=False)
    ] = None,
    to_seq: Annotated[
        int | None, typer.Option("--to", min=1, metavar="SEQ", help="Up to this one.", show_default=False)
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="The whole transcript.")] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete one turn, a range, or all; the session and its memories stay."""
    run = current(ctx)
    is_range = from_seq is not None or to_seq is not None
    if (seq is not None) + is_range + everything != 1:
        raise typer.BadParameter("give a SEQ, --from and --to, or --all", param_hint="SEQ")
    transcript = run.client.db(spec).session(session)
    first, last = (seq, seq) if seq is not None else (from_seq or 1, to_seq)
    if dry_run:
        going = [
            turn["seq"]
            for turn in transcript.iter_turns(after=(first or 1) - 1)
            if last is None or turn["seq"] <= last
        ]
        would(run, {"seqs": going}, f"delete {len(going)} turns of {session}")
        return
    confirm(f"Delete turns of {session}?", yes=yes)
    if seq is not None:
        if not transcript.delete(seq, durability=run.durability):
            run.out.error(f"{session} has no turn {seq}", "`memoturn turns list` shows the numbers.")
            raise typer.Exit(ExitCode.NOT_FOUND)
        run.out.done({"deleted": 1}, f"deleted turn {seq} of {session}")
        return
    deleted = 0
    while True:
        done = transcript.delete_turns(
            from_seq=from_seq, to_seq=to_seq, all=everything, durability=run.durability
        )
        deleted += done["deleted"]
        if not done["more"]:
            break
    run.out.done({**done, "deleted": deleted}, f"deleted {deleted} turns of {session}")
    stamp(run, done)


def _score(turn: Any) -> str:
    if "score" in turn:
        return f"{turn['score']:.6f}"
    return "" if turn["distance"] is None else f"{1 - turn['distance']:.6f}"


def _text(content: Any) -> str:
    return content if isinstance(content, str) else compact(content)


def _fields(turn: Turn) -> dict[str, Cell]:
    return {
        "seq": turn["seq"],
        "time": when(turn["created_at"]),
        "role": turn["role"],
        "content": _text(turn["content"]),
    }


add(app, "append", append, 'memoturn turns append app--alice s1 user "I am vegan now"')
add(app, "load", load, "memoturn turns load app--alice s1 < turns.jsonl")
add(app, "list", list_turns, "memoturn turns list app--alice s1 --last 50")
add(app, "get", get, "memoturn turns get app--alice s1 3")
add(app, "search", search, 'memoturn turns search app--alice "what was said of the flight" --session s1')
add(
    app,
    "delete",
    delete,
    "memoturn turns delete app--alice s1 3",
    "memoturn turns delete app--alice s1 --from 1 --to 10 --dry-run",
)
