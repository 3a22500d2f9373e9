"""`memoturn memory`: ingest, recall and look after the memories of a profile."""

from typing import Annotated, Literal, cast

import typer

from memoturn import MAIN
from memoturn.cli import asking, memory_files, upkeep
from memoturn.cli.erase import Grace, show_all, show_one, show_requested
from memoturn.cli.erase_target import counted_session, profile_target, show_would_erase
from memoturn.cli.output import Cell, compact, when
from memoturn.cli.profile import Kind, MemoryId, missing, profile_of, stamped
from memoturn.cli.run import (
    At,
    DryRun,
    Namespace,
    OnBranch,
    Profile,
    Since,
    Until,
    Yes,
    add,
    confirm,
    current,
    examples,
    group,
    parse_embedding,
    parse_json,
    parse_time,
    would,
)
from memoturn.types import IngestItem, Memory, RecallHit

app = group("Ingest, recall and look after memories.")


_Embedding = Annotated[
    str | None, typer.Option(metavar="JSON", help="Array of numbers from your embedder.", show_default=False)
]


@app.command(epilog=examples('memoturn memory ingest app alice --topic diet --summary "Alice is vegan"'))
def ingest(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    *,
    summary: Annotated[str, typer.Option(help="What is remembered, in a sentence.", show_default=False)],
    kind: Annotated[Kind, typer.Option("--type", help="fact, event, instruction or task.")] = Kind.FACT,
    topic: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Topic; a newer fact or instruction on it replaces the older."),
    ] = None,
    content: Annotated[
        str | None, typer.Option(metavar="JSON", help='Content; {"summary": ...} by default.')
    ] = None,
    keywords: Annotated[str | None, typer.Option(help="More words to be found by.")] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Session that it belongs to.")] = None,
    source: Annotated[str | None, typer.Option(envvar="MEMOTURN_SOURCE", help="Where it comes from.")] = None,
    ttl: Annotated[int | None, typer.Option(min=0, metavar="SECONDS", help="Lifetime, for a task.")] = None,
    embedding: _Embedding = None,
    reason: Annotated[
        str | None, typer.Option(help="Why it replaces what its topic said.", show_default=False)
    ] = None,
    pinned: Annotated[bool, typer.Option("--pin", help="Pin it.")] = False,
    importance: Annotated[
        float | None, typer.Option(min=0, max=1, help="How important it is.", show_default=False)
    ] = None,
    branch: OnBranch = MAIN,
) -> None:
    """Store one memory; the profile is created by its first."""
    run = current(ctx)
    item: IngestItem = {
        "type": kind.value,
        "summary": summary,
        "content": {"summary": summary} if content is None else parse_json(content, "--content"),
        "topic_key": topic,
        "keywords": keywords,
        "session_id": session,
        "source": source,
        "embedding": parse_embedding(embedding),
    }
    if ttl is not None:
        item["ttl"] = ttl
    if reason is not None:
        item["reason"] = reason
    if pinned:
        item["pinned"] = True
    if importance is not None:
        item["importance"] = importance
    memories = profile_of(run, ns, profile, branch)
    result = memories.ingest([item], durability=run.durability)
    outcome = result["results"][0]
    shown: dict[str, Cell] = {"status": outcome["status"], "id": outcome["id"]}
    if outcome["superseded"]:
        shown["superseded"] = " ".join(outcome["superseded"])
    run.out.record(result, shown)
    stamped(run, memories)


@app.command(epilog=examples('memoturn memory recall app alice "what does Alice eat" --explain'))
def recall(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    query: Annotated[str | None, typer.Argument(metavar="QUERY", help="Words to look for.")] = None,
    *,
    topic: Annotated[str | None, typer.Option(metavar="KEY", help="Topic to look up.")] = None,
    embedding: _Embedding = None,
    k: Annotated[int, typer.Option(min=1, max=1000, help="Most memories.")] = 8,
    types: Annotated[
        list[Kind] | None, typer.Option("--type", help="Only fact, event, instruction or task; repeatable.")
    ] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Only of this session.")] = None,
    source: Annotated[str | None, typer.Option(help="Only from this source.")] = None,
    include_superseded: Annotated[
        bool, typer.Option("--include-superseded", help="Also what was replaced.")
    ] = False,
    include_turns: Annotated[bool, typer.Option("--turns", help="Find turns by the embedding, too.")] = False,
    since: Since = None,
    until: Until = None,
    min_score: Annotated[
        float | None, typer.Option(help="Leave out what scores less.", show_default=False)
    ] = None,
    half_life: Annotated[
        int | None,
        typer.Option(min=1, metavar="SECONDS", help="Let newer ones score more, by this half-life."),
    ] = None,
    pinned_first: Annotated[bool, typer.Option("--pinned-first", help="Pinned ones come first.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Embedding model to search.", show_default=False)
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show the rank in every channel.")] = False,
    branch: OnBranch = MAIN,
    at: At = None,
) -> None:
    """Find memories by words, topic and embedding, best first."""
    run = current(ctx)
    if query is None and topic is None and embedding is None:
        raise typer.BadParameter("give a QUERY, --topic or --embedding", param_hint="QUERY")
    memories = profile_of(run, ns, profile, branch)
    result = memories.recall(
        query,
        topic_key=topic,
        embedding=parse_embedding(embedding),
        types=[kind.value for kind in types] if types else None,
        session_id=session,
        source=source,
        k=k,
        include_superseded=include_superseded,
        include_turns=include_turns,
        since=parse_time(since, "--since"),
        until=parse_time(until, "--until"),
        min_score=min_score,
        decay=None if half_life is None else {"half_life_s": half_life},
        pinned_first=pinned_first,
        embedding_model=model,
        explain=explain,
        at=at,
    )
    columns = ["score", "type", "topic", "summary", "found by", "id"]
    rows = [_hit(hit, explain=explain) for hit in result["memories"]]
    run.out.rows(result, columns, rows, empty="nothing recalled", under=("found by", "id"))
    if not run.out.as_json:
        for turn in result.get("turns", []):
            run.out.note(f"turn {turn['seq']} of {turn['session_id']}: {turn['role']}: {turn['content']}")
    stamped(run, memories)


@app.command(epilog=examples("memoturn memory get app alice mem_3694b5ab5ba431146a731624bb30c06e"))
def get(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    memory_id: MemoryId,
    *,
    branch: OnBranch = MAIN,
    at: At = None,
) -> None:
    """Show one memory and its neighbours in the chain of its topic."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    memory = memories.get(memory_id, at=at)
    if memory is None:
        raise missing(run, memories, f"memory {memory_id}")
    run.out.record(memory, _fields(memory))
    stamped(run, memories)


@app.command(
    epilog=examples("memoturn memory forget app alice mem_3694b5ab5ba431146a731624bb30c06e --dry-run")
)
def forget(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    memory_id: MemoryId,
    *,
    branch: OnBranch = MAIN,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Remove one memory; the chain of its topic closes over it."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    if dry_run:
        found = memories.get(memory_id)
        if found is None:
            raise missing(run, memories, f"memory {memory_id}")
        would(run, {"memory": found}, f"forget {found['type']} {found['summary']!r}")
        return
    confirm(f"Forget {memory_id} of {ns}/{profile}?", yes=yes)
    if not memories.forget(memory_id, durability=run.durability):
        raise missing(run, memories, f"memory {memory_id}")
    run.out.done({"forgotten": memory_id, "txid": memories.last_txid}, f"forgot {memory_id}")
    stamped(run, memories)


@app.command(epilog=examples("memoturn memory sessions app alice"))
def sessions(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most sessions.")] = 100,
    branch: OnBranch = MAIN,
    at: At = None,
) -> None:
    """List sessions, the most recently active first."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    rows = memories.sessions(limit=limit, at=at)
    run.out.rows(
        {"sessions": rows, "txid": memories.last_txid},
        ["session", "created", "last active"],
        [(row["id"], when(row["created_at"]), when(row["last_active_at"])) for row in rows],
        empty=f"{ns}/{profile} has no sessions",
    )
    stamped(run, memories)


@app.command("end-session", epilog=examples("memoturn memory end-session app alice s1 --turns"))
def end_session(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    session: Annotated[str, typer.Argument(metavar="SESSION", help="Id of the session.", show_default=False)],
    *,
    turns: Annotated[bool, typer.Option("--turns", help="Delete the transcript too.")] = False,
    branch: OnBranch = MAIN,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Delete a session and its tasks; facts, events and instructions stay."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    if dry_run:
        going = counted_session(memories, session, turns=turns)
        told = ", ".join(f"{count} {name}" for name, count in going.items())
        would(run, {"session": session, **going}, f"end session {session}: {told}")
        return
    confirm(f"End session {session} of {ns}/{profile} and delete its tasks?", yes=yes)
    memories.end_session(session, turns=turns, durability=run.durability)
    run.out.done({"ended": session, "txid": memories.last_txid}, f"ended session {session}")
    stamped(run, memories)


@app.command(epilog=examples("memoturn memory profiles app"))
def profiles(ctx: typer.Context, ns: Namespace) -> None:
    """List the profiles of a namespace."""
    run = current(ctx)
    rows = run.client.profiles(ns)
    run.out.rows(
        {"namespace": ns, "profiles": rows},
        ["profile", "created"],
        [(row["profile"], when(row["created_at"])) for row in rows],
        empty=f"{ns} has no profiles yet",
    )


@app.command(epilog=examples("memoturn memory erase app alice --topic diet --type fact"))
def erase(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    *,
    memory_id: Annotated[str | None, typer.Option(metavar="ID", help="A memory.")] = None,
    topic: Annotated[str | None, typer.Option(metavar="KEY", help="A topic, of one --type.")] = None,
    kind: Annotated[
        Kind, typer.Option("--type", help="fact or instruction: kind of the topic's memories.")
    ] = Kind.FACT,
    session: Annotated[str | None, typer.Option(metavar="ID", help="A session and its tasks.")] = None,
    turns: Annotated[bool, typer.Option("--turns", help="The session's transcript too.")] = False,
    memories: Annotated[bool, typer.Option("--memories", help="All memories of the session too.")] = False,
    grace: Grace = None,
    branch: OnBranch = MAIN,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Erase a memory, a topic or a session: now, and from history after the grace time."""
    run = current(ctx)
    if dry_run:
        target = profile_target(memory_id, topic, kind.value, session, turns=turns, memories=memories)
        show_would_erase(run, run.client.db(f"{ns}--{profile}@{branch}"), [target])
        return
    confirm(f"Erase this from all history of {ns}/{profile}?", yes=yes)
    requested = profile_of(run, ns, profile, branch).erase(
        memory_id=memory_id,
        topic_key=topic,
        type=None if topic is None else cast("Literal['fact', 'instruction']", kind.value),
        session_id=session,
        turns=turns,
        memories=memories,
        grace_secs=grace,
    )
    show_requested(run, requested)


@app.command(epilog=examples("memoturn memory erasures app alice"))
def erasures(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    erasure_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="One of them.")] = None,
) -> None:
    """List the erasures of a profile, the newest request first, or show one with its receipt."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, MAIN)
    if erasure_id is None:
        show_all(run, memories.erasures())
    else:
        show_one(run, erasure_id, memories.erasure(erasure_id))


def _hit(hit: RecallHit, *, explain: bool) -> list[Cell]:
    found_by = _explained(hit.get("explain", {})) if explain else " ".join(hit["channels"])
    summary = hit["summary"] + (" (superseded)" if hit["superseded_by"] else "")
    score = f"{hit['score']:.6f}"
    return [score, hit["type"], hit["topic_key"], summary, found_by, hit["id"]]


def _explained(explain: dict[str, dict[str, float]]) -> str:
    return ", ".join(_ranked(channel, dict(how)) for channel, how in explain.items())


def _ranked(channel: str, how: dict[str, float]) -> str:
    rank = f"{channel} #{how.pop('rank'):g}"
    measures = " ".join(f"{name} {value:.4g}" for name, value in how.items())
    return f"{rank} ({measures})" if measures else rank


def _fields(memory: Memory) -> dict[str, Cell]:
    return {
        "id": memory["id"],
        "type": memory["type"],
        "topic": memory["topic_key"],
        "summary": memory["summary"],
        "content": compact(memory["content"]),
        "keywords": memory["keywords"] or None,
        "session": memory["session_id"],
        "source": memory["source"],
        "created": when(memory["created_at"]),
        "expires": when(memory["expires_at"]),
        "superseded by": memory["superseded_by"],
        "superseded at": when(memory["superseded_at"]),
        "supersedes": " ".join(memory["supersedes"]) or None,
    }


add(
    app,
    "list",
    upkeep.list_all,
    "memoturn memory list app alice --type fact --topic-prefix user. --order most_important",
)
add(
    app,
    "patch",
    upkeep.patch,
    "memoturn memory patch app alice mem_3694b5ab5ba431146a731624bb30c06e --pin --importance 0.9",
)
add(app, "history", upkeep.history, "memoturn memory history app alice mem_3694b5ab5ba431146a731624bb30c06e")
add(
    app,
    "undo",
    upkeep.undo,
    'memoturn memory undo app alice mem_3694b5ab5ba431146a731624bb30c06e --reason "it was a joke"',
)
add(app, "topics", upkeep.topics, "memoturn memory topics app alice --prefix user.")
add(app, "topic", upkeep.topic, "memoturn memory topic app alice diet")
add(app, "forget-many", upkeep.forget_many, "memoturn memory forget-many app alice --session s1 --dry-run")
add(app, "extract", asking.extract, "memoturn memory extract app alice --session s1 --dry-run < turns.json")
add(app, "export", memory_files.export, "memoturn memory export app alice alice.jsonl")
add(app, "import", memory_files.import_, "memoturn memory import app alice alice.jsonl --replace --dry-run")
add(app, "models", upkeep.models, "memoturn memory models app alice")
add(
    app,
    "drop-model",
    upkeep.drop_model,
    "memoturn memory drop-model app alice text-embedding-3-small --dry-run",
)
add(app, "reembed", memory_files.reembed, "memoturn memory reembed app alice --only-missing --wait")
