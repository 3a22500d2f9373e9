"""`memoturn memory list`, `patch`, `history`, `undo`, `topics`, `forget-many`, and the embedding models."""

from typing import Annotated, Any, Literal, cast

import typer

from memoturn.cli.output import Cell, when
from memoturn.cli.profile import Kinds, MemoryId, missing, profile_of
from memoturn.cli.run import (
    At,
    DryRun,
    Namespace,
    OnBranch,
    Profile,
    Since,
    Until,
    Yes,
    confirm,
    current,
    parse_time,
    stamp,
    would,
)
from memoturn.types import MemoryHistory, MemoryOrder, TopicChain

_ORDERS = ("newest", "oldest", "most_important", "least_important")
_Topic = Annotated[str | None, typer.Option(metavar="KEY", help="Only of this topic.", show_default=False)]
_Prefix = Annotated[
    str | None, typer.Option("--topic-prefix", help="Only of topics that start so.", show_default=False)
]
_Session = Annotated[str | None, typer.Option(metavar="ID", help="Only of this session.", show_default=False)]
_Source = Annotated[str | None, typer.Option(help="Only from this source.", show_default=False)]
_Pinned = Annotated[
    bool | None, typer.Option("--pinned/--not-pinned", help="Only what is (not) pinned.", show_default=False)
]
_Type = Annotated[str | None, typer.Option("--type", help="fact or instruction.", show_default=False)]


def list_all(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    *,
    types: Kinds = None,
    topic: _Topic = None,
    topic_prefix: _Prefix = None,
    session: _Session = None,
    source: _Source = None,
    pinned: _Pinned = None,
    since: Since = None,
    until: Until = None,
    include_superseded: Annotated[
        bool, typer.Option("--include-superseded", help="Also what was replaced.")
    ] = False,
    order: Annotated[str, typer.Option(help=f"{', '.join(_ORDERS)}.")] = "newest",
    limit: Annotated[int, typer.Option(min=1, help="Most memories.")] = 100,
    branch: OnBranch = "main",
    at: At = None,
) -> None:
    """List memories that match every filter, without ranking them."""
    run = current(ctx)
    if order not in _ORDERS:
        raise typer.BadParameter(f"takes one of {', '.join(_ORDERS)}", param_hint="--order")
    found = list(
        profile_of(run, ns, profile, branch).iter_memories(
            **_filters(types, topic, topic_prefix, session, source, pinned, since, until),
            include_superseded=include_superseded,
            order=cast("MemoryOrder", order),
            limit=limit,
            at=at,
        )
    )
    rows: list[list[Cell]] = [
        [
            when(one["created_at"]),
            one["type"],
            one["topic_key"],
            one["summary"] + (" (superseded)" if one["superseded_by"] else ""),
            one["id"],
        ]
        for one in found
    ]
    columns = ["created", "type", "topic", "summary", "id"]
    run.out.rows({"memories": found}, columns, rows, empty="no memory matches", under=("id",))


def patch(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    memory_id: MemoryId,
    *,
    pinned: Annotated[
        bool | None, typer.Option("--pin/--unpin", help="Pin it, or not any more.", show_default=False)
    ] = None,
    importance: Annotated[
        float | None, typer.Option(min=0, max=1, help="How important it is.", show_default=False)
    ] = None,
    keywords: Annotated[
        str | None, typer.Option(help="Words to be found by, in place of those that are there.")
    ] = None,
    ttl: Annotated[
        int | None, typer.Option(min=0, metavar="SECONDS", help="Let it expire.", show_default=False)
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Let it stay for good.")] = False,
    unrated: Annotated[bool, typer.Option("--unrated", help="Take its rating away.")] = False,
    branch: OnBranch = "main",
) -> None:
    """Change what is said of a memory. What it says is corrected by ingesting another on its topic."""
    run = current(ctx)
    change: dict[str, Any] = {}
    if pinned is not None:
        change["pinned"] = pinned
    if importance is not None or unrated:
        change["importance"] = None if unrated else importance
    if keywords is not None:
        change["keywords"] = keywords
    if ttl is not None or keep:
        change["ttl"] = None if keep else ttl
    if not change:
        raise typer.BadParameter("give --pin, --importance, --keywords, --ttl or --keep", param_hint="ID")
    done = profile_of(run, ns, profile, branch).patch(memory_id, **change, durability=run.durability)
    shown: dict[str, Cell] = {
        "id": done["id"],
        "pinned": "yes" if done["pinned"] else "no",
        "importance": done["importance"],
        "keywords": done["keywords"],
        "expires": when(done["expires_at"]),
    }
    run.out.record(done, shown)
    stamp(run, done)


def history(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    memory_id: MemoryId,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most versions.")] = 1000,
    branch: OnBranch = "main",
    at: At = None,
) -> None:
    """Show every version of what a memory says, the newest first, with the reasons of corrections."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    found = memories.history(memory_id, limit=limit, at=at)
    if found is None:
        raise missing(run, memories, f"memory {memory_id}")
    columns = ["version", "created", "summary", "state", "id"]
    run.out.rows(found, columns, _versions(found), empty="", under=("state", "id"))
    stamp(run, found)


def undo(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    memory_id: MemoryId,
    *,
    reason: Annotated[str | None, typer.Option(help="Kept with what comes back.", show_default=False)] = None,
    branch: OnBranch = "main",
    dry_run: DryRun = False,
) -> None:
    """Undo a correction: what the active memory of a topic superseded last becomes active again."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    if dry_run:
        found = memories.history(memory_id)
        if found is None:
            raise missing(run, memories, f"memory {memory_id}")
        before = next((one for one in found["versions"] if one["superseded_by"] == memory_id), None)
        told = "nothing: it superseded nothing" if before is None else before["summary"]
        would(run, {"undone": memory_id, "active": before and before["id"]}, f"bring back {told}")
        return
    done = memories.undo(memory_id, reason=reason, durability=run.durability)
    run.out.done(done, f"{done['active']} is active again, as version {done['version']}")
    stamp(run, done)


def topics(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    *,
    prefix: Annotated[str, typer.Option(help="Only keys that start so.", show_default=False)] = "",
    kind: _Type = None,
    limit: Annotated[int, typer.Option(min=1, help="Most topics.")] = 100,
    branch: OnBranch = "main",
    at: At = None,
) -> None:
    """List topics by key, with how many versions each has."""
    run = current(ctx)
    found = profile_of(run, ns, profile, branch).iter_topics(
        prefix=prefix, type=_topical(kind), limit=limit, at=at
    )
    rows = list(found)
    run.out.rows(
        {"topics": rows},
        ["topic", "type", "versions", "changed", "active"],
        [
            (row["topic_key"], row["type"], row["count"], when(row["last_updated"]), row["active"])
            for row in rows
        ],
        empty=f"{ns}/{profile} has no topics",
    )


def topic(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    topic_key: Annotated[str, typer.Argument(metavar="TOPIC", help="Key of the topic.", show_default=False)],
    *,
    kind: _Type = None,
    branch: OnBranch = "main",
    at: At = None,
) -> None:
    """Show what a topic says, and what it said before."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    found = memories.topic(topic_key, type=_topical(kind), at=at)
    if found is None:
        raise missing(run, memories, f"topic {topic_key}")
    rows = [row for chain in found["chains"] for row in _versions(chain)]
    columns = ["version", "created", "summary", "state", "id"]
    run.out.rows(found, columns, rows, empty="", under=("state", "id"))
    stamp(run, found)


def forget_many(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of memories.")] = None,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every memory of the profile.")] = False,
    types: Kinds = None,
    topic: _Topic = None,
    topic_prefix: _Prefix = None,
    session: _Session = None,
    source: _Source = None,
    pinned: _Pinned = None,
    since: Since = None,
    until: Until = None,
    branch: OnBranch = "main",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Forget many memories: by ids, by filters (superseded ones too), or all of them."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    filters = _filters(types, topic, topic_prefix, session, source, pinned, since, until)
    asked = {name: value for name, value in filters.items() if value is not None}
    if bool(ids) + bool(asked) + everything != 1:
        raise typer.BadParameter("give ids, or filters, or --all", param_hint="ID")
    meant: dict[str, Any] = {"ids": ids} if ids else {"all": True} if everything else asked
    if dry_run:
        found = memories.forget_many(**meant, dry_run=True)
        count = found.get("matched", found["forgotten"])
        run.out.done(found, f"would forget {count} memories; nothing was changed")
        return
    confirm(f"Forget {'these' if ids else 'all matching'} memories of {ns}/{profile}?", yes=yes)
    forgotten = 0
    while True:
        done = memories.forget_many(**meant, durability=run.durability)
        forgotten += done["forgotten"]
        if not done["more"]:
            break
    run.out.done({**done, "forgotten": forgotten}, f"forgot {forgotten} memories")
    stamp(run, done)


# ---- embedding models


def models(
    ctx: typer.Context, ns: Namespace, profile: Profile, *, branch: OnBranch = "main", at: At = None
) -> None:
    """List the embedding models of a profile, and how many memories and turns have a vector of each."""
    run = current(ctx)
    found = profile_of(run, ns, profile, branch).models(at=at)
    run.out.rows(
        found,
        ["model", "dimensions", "memories", "turns", "state", "created"],
        [
            (
                one["name"] or "-",
                one["dimensions"],
                one["memories"],
                one["turns"],
                "active" if one["active"] else "",
                when(one["created_at"]),
            )
            for one in found["models"]
        ],
        empty=f"{ns}/{profile} has no vectors",
    )
    if not run.out.as_json:
        embeddable = found["embeddable"]
        run.out.note(
            f"the node embeds with {found['embedder'] or 'nothing'}; {embeddable['memories']} memories and "
            f"{embeddable['turns']} turns may have vectors"
        )


def drop_model(
    ctx: typer.Context,
    ns: Namespace,
    profile: Profile,
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Its name; `-` is the unnamed one.")],
    *,
    branch: OnBranch = "main",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Drop an embedding model with its vectors; memories and turns stay."""
    run = current(ctx)
    memories = profile_of(run, ns, profile, branch)
    wanted = None if name == "-" else name
    if dry_run:
        there = next((one for one in memories.models()["models"] if one["name"] == wanted), None)
        if there is None:
            raise missing(run, memories, f"model {name}")
        would(
            run, dict(there), f"drop {name}: vectors of {there['memories']} memories, {there['turns']} turns"
        )
        return
    confirm(f"Drop model {name} of {ns}/{profile} with its vectors?", yes=yes)
    if not memories.drop_model(wanted, durability=run.durability):
        raise missing(run, memories, f"model {name}")
    run.out.done({"dropped": name}, f"dropped {name}")


def _filters(
    types: Kinds,
    topic: str | None,
    topic_prefix: str | None,
    session: str | None,
    source: str | None,
    pinned: bool | None,
    since: str | None,
    until: str | None,
) -> dict[str, Any]:
    return {
        "types": [kind.value for kind in types] if types else None,
        "topic_key": topic,
        "topic_prefix": topic_prefix,
        "session_id": session,
        "source": source,
        "pinned": pinned,
        "since": parse_time(since, "--since"),
        "until": parse_time(until, "--until"),
    }


def _topical(kind: str | None) -> "Literal['fact', 'instruction'] | None":
    if kind not in {None, "fact", "instruction"}:
        raise typer.BadParameter("takes fact or instruction", param_hint="--type")
    return cast("Literal['fact', 'instruction'] | None", kind)


def _versions(chain: MemoryHistory | TopicChain) -> list[list[Cell]]:
    rows: list[list[Cell]] = []
    for one in chain["versions"]:
        state = ["active"] if one["active"] else []
        state += [f"reason: {one['reason']}"] if one["reason"] else []
        state += [f"undone {when(one['undone_at'])}"] if one["undone_at"] else []
        rows.append([one["version"], when(one["created_at"]), one["summary"], "; ".join(state), one["id"]])
    return rows
