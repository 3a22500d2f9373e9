"""`memoturn ask` and `memoturn memory extract`: what a language model answers and proposes."""

from typing import Annotated, Any, cast

import typer

from memoturn.cli.output import Cell, visible
from memoturn.cli.profile import Kind, profile_of
from memoturn.cli.run import At, Namespace, OnBranch, Profile, current, parse_lines, single
from memoturn.types import MemoryType, SaidTurn

_Session = Annotated[str | None, typer.Option(metavar="ID", help="Only of this session.", show_default=False)]


def ask(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    question: Annotated[list[str], typer.Argument(metavar="QUESTION...", help="What is asked.")],
    *,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Most memories to answer from.")] = 8,
    types: Annotated[
        list[Kind] | None, typer.Option("--type", help="Only fact, event, instruction or task; repeatable.")
    ] = None,
    session: _Session = None,
    source: Annotated[str | None, typer.Option(help="Only from this source.", show_default=False)] = None,
    include_superseded: Annotated[
        bool, typer.Option("--include-superseded", help="Also what was replaced.")
    ] = False,
    branch: OnBranch = "main",
    at: At = None,
) -> None:
    """Answer a question from memories. The answer is written as it comes; the memories it is from go to stderr."""
    run = current(ctx)
    asked: dict[str, Any] = {
        "types": cast("list[MemoryType] | None", [kind.value for kind in types] if types else None),
        "session_id": session,
        "source": source,
        "k": k,
        "include_superseded": include_superseded,
        "at": at,
    }
    memories = profile_of(run, ns, profile, branch)
    words = " ".join(question)
    if run.out.as_json:
        run.out.json(memories.ask(words, **asked))
        return
    summaries: dict[str, str] = {}
    answered = False
    for event in memories.ask_stream(words, **asked):
        if event["event"] == "memories":
            summaries = {hit["id"]: hit["summary"] for hit in event["memories"]}
        elif event["event"] == "delta":
            print(visible(event["text"]), end="", flush=True)
            answered = True
        else:
            if not answered and event["answer"]:
                print(visible(event["answer"]), end="")
            print(flush=True)
            for source_id in event["sources"]:
                run.out.note(f"from {source_id}: {summaries.get(source_id, '')}")
            if event["answer"] is None:
                run.out.note("nothing is known of that")


def extract(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    *,
    session: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Session of the memories; of its stored turns with --stored.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Where they come from.", show_default=False)] = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Read the stored turns of --session, not stdin.")
    ] = False,
    from_seq: Annotated[
        int | None, typer.Option("--from", min=1, metavar="SEQ", help="From this turn on, with --stored.")
    ] = None,
    to_seq: Annotated[
        int | None, typer.Option("--to", min=1, metavar="SEQ", help="Up to this turn, with --stored.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is proposed, store nothing.")] = False,
    branch: OnBranch = "main",
) -> None:
    """Let the node's language model propose memories of a transcript, and store them.

    The turns are JSON on stdin: an array of {"role", "content"}, or one a line.
    """
    run = current(ctx)
    if stored and session is None:
        raise typer.BadParameter("needs --session", param_hint="--stored")
    turns = None if stored else cast("list[SaidTurn]", parse_lines("-", "stdin"))
    memories = profile_of(run, ns, profile, branch)
    asked: dict[str, Any] = {"session_id": session, "source": source, "from_seq": from_seq, "to_seq": to_seq}
    if dry_run:
        proposed = memories.extract(turns, dry_run=True, **asked)
        shown: list[list[Cell]] = [
            [item["type"], item.get("topic_key"), item["summary"]] for item in proposed["proposed"]
        ]
        run.out.rows(proposed, ["type", "topic", "summary"], shown, empty="nothing is proposed")
        return
    done = memories.extract(turns, durability=run.durability, **asked)
    rows: list[list[Cell]] = [
        [one["status"], one["id"], " ".join(one["superseded"])] for one in done["results"]
    ]
    run.out.rows(done, ["status", "id", "superseded"], rows, empty="nothing was proposed")
    for dropped in done["dropped"]:
        run.out.note(f"dropped: {dropped['summary']} ({dropped['reason']})")
    if done["results"]:
        run.out.txid(memories.last_txid, memories.last_durable_txid)


app = single(
    ask, "memoturn ask app alice what does Alice eat", 'memoturn ask app alice "when is her flight?" --json'
)
