"""Routes that look after memories: lists, history, topics, changes by hand, forgetting many."""

import dataclasses
from typing import Any

from memoturnd.core.canonical import decode_json
from memoturnd.core.erasures import Target
from memoturnd.errors import InvalidRequestError
from memoturnd.http.addresses import open_profile, profile_of
from memoturnd.http.call import Call
from memoturnd.http.describe import CURSOR, Value, described
from memoturnd.http.egress import embedder_for
from memoturnd.http.envelope import Answer, read_reply, reply, write_reply
from memoturnd.http.erasures import purge, purges
from memoturnd.http.memory import nothing, open_or_none
from memoturnd.http.ports import BranchProfile, Requested
from memoturnd.http.shapes import Count
from memoturnd.http.shapes import memory_upkeep as shapes
from memoturnd.surfaces import embedding, memories, memory_edits, memory_list, topics
from memoturnd.surfaces.memory_edits import Forget
from memoturnd.surfaces.memory_list import Listing
from memoturnd.surfaces.topics import Page

_TYPE = Value("type", shapes.Topical, "Of this type alone.")


@described(
    gives={200: shapes.Memories},
    values=(
        Value("types", str, "One or more types, with commas between."),
        Value("topic_key", str, "Of this topic."),
        Value("topic_prefix", str, "Of topics that start so."),
        Value("session_id", str, "Of this session."),
        Value("source", str, "From this source."),
        Value("pinned", bool, "Pinned, or not."),
        Value("since", shapes.Moment, "Stored first at or after this time."),
        Value("until", shapes.Moment, "Stored first at or before this time."),
        Value("include_superseded", bool, "History too; false unless given."),
        Value("order", str, "newest, oldest, most_important or least_important; newest unless given."),
        Value("limit", Count, "Most memories of the page, up to 1000; 100 unless given."),
        CURSOR,
    ),
)
async def list_all(call: Call) -> Answer:
    """List memories, a page at a time. An unknown profile has none."""
    listing, min_txid = _listing(call), call.min_txid
    profile = await open_or_none(call, min_txid)
    if profile is None:
        return nothing({"memories": [], "next_cursor": None})
    seen = await memory_list.page(profile, listing, min_txid=min_txid)
    return read_reply({**seen.value, "txid": seen.txid}, seen)


def _listing(call: Call) -> Listing:
    types = call.text("types")
    asked: dict[str, Any] = {
        "types": None if types is None else [name for name in types.split(",") if name],
        "pinned": None if call.text("pinned") is None else call.flag("pinned"),
        "include_superseded": call.flag("include_superseded"),
        "since": _moment(call, "since"),
        "until": _moment(call, "until"),
    }
    for name in ("topic_key", "topic_prefix", "session_id", "source"):
        asked[name] = call.text(name)
    return memory_list.parse_listing(
        asked,
        order=call.text("order"),
        limit=call.limit("limit", memory_list.LIST_DEFAULT),
        cursor=call.text("cursor"),
    )


def _moment(call: Call, name: str) -> int | str | None:
    value = call.text(name)
    return call.integer(name) if value is not None and value.isdigit() else value


@described(takes=shapes.Patch, gives={200: shapes.Patched})
async def patch(call: Call) -> Answer:
    """Change what is said of a memory by hand. Raises NotFoundError."""
    change, durability = await call.parsed(memory_edits.parse_patch), call.durability
    database, _ = profile_of(call)
    change = dataclasses.replace(change, task_ttl_max_s=await call.node.policies.task_ttl_max_s(database))
    embedder = await embedder_for(call, database, is_needed="keywords" in change.given)
    profile = await open_profile(call)
    written = await embedding.patch(profile, embedder, call.params["id"], change, durability=durability)
    if "degraded" in written.value:
        call.node.metrics.embed_degraded["ingest"].inc()
    return write_reply({**written.value, "txid": written.txid}, written)


_LIMIT = Value("limit", Count, "Most versions of the page, up to 1000, which it is unless given.")


@described(gives={200: shapes.History}, values=(_LIMIT, CURSOR))
async def history(call: Call) -> Answer:
    """Show every version of what a memory says, the newest first. Raises NotFoundError."""
    page, min_txid = _page(call), call.min_txid
    profile = await open_profile(call)
    seen = await topics.history(profile, call.params["id"], page, min_txid=min_txid)
    return read_reply({**seen.value, "txid": seen.txid}, seen)


@described(gives={200: shapes.Chains}, values=(_TYPE, _LIMIT, CURSOR))
async def topic(call: Call) -> Answer:
    """Show every version of what a topic says, for each type or one. Raises NotFoundError."""
    page, min_txid, type_ = _page(call), call.min_txid, topics.parse_type(call.text("type"))
    profile = await open_profile(call)
    seen = await topics.topic(profile, call.params["topic_key"], page, type_=type_, min_txid=min_txid)
    return read_reply({**seen.value, "txid": seen.txid}, seen)


@described(
    gives={200: shapes.Topics},
    values=(
        Value("prefix", str, "Topics that start so."),
        _TYPE,
        Value("limit", Count, "Most topics of the page, up to 1000; 100 unless given."),
        CURSOR,
    ),
)
async def list_topics(call: Call) -> Answer:
    """List topics by key, a page at a time. An unknown profile has none."""
    page, min_txid = _page(call, memory_list.LIST_DEFAULT), call.min_txid
    type_, prefix = topics.parse_type(call.text("type")), call.text("prefix") or ""
    if len(prefix) > memories.TOPIC_LENGTH_LIMIT:
        raise InvalidRequestError(
            f"`prefix` is longer than any topic: {memories.TOPIC_LENGTH_LIMIT} characters"
        )
    profile = await open_or_none(call, min_txid)
    if profile is None:
        return nothing({"topics": [], "next_cursor": None})
    seen = await topics.topics(profile, page, prefix=prefix, type_=type_, min_txid=min_txid)
    return read_reply({**seen.value, "txid": seen.txid}, seen)


def _page(call: Call, default: int = memory_list.LIST_LIMIT) -> Page:
    return topics.parse_page(limit=call.integer("limit"), cursor=call.text("cursor"), default=default)


@described(takes=shapes.Undo, gives={200: shapes.Undone}, optional_body=True)
async def undo(call: Call) -> Answer:
    """Make active again what a memory superseded, with an optional reason. Raises NotFoundError, ConflictError."""
    reason = topics.parse_reason(decode_json(call.body)) if call.body else None
    durability = call.durability
    profile = await open_profile(call)
    written = await topics.undo(profile, call.params["id"], reason=reason, durability=durability)
    return write_reply({**written.value, "txid": written.txid}, written)


@described(takes=shapes.Forget, gives={200: shapes.ForgottenMany})
async def forget_many(call: Call) -> Answer:
    """Remove the memories of a filter or of ids, or show with `dry_run` which those are."""
    forget = await call.parsed(memory_edits.parse_forget)
    durability, min_txid = call.durability, call.min_txid
    profile = await open_profile(call)
    if forget.dry_run:
        seen = await memory_edits.would_forget(profile, forget, min_txid=min_txid)
        return read_reply({**seen.value, "txid": seen.txid}, seen)
    if await purges(call):
        return await _purge_many(call, forget)
    written = await memory_edits.forget_many(profile, forget, durability=durability)
    call.tell(count=written.value["forgotten"])
    return write_reply({**written.value, "txid": written.txid}, written)


async def _purge_many(call: Call, forget: Forget) -> Answer:
    """Erase what is meant, and answer as a forgetting does; nothing is erased where nothing is meant."""
    profile = await open_profile(call)
    meant = (await memory_edits.would_forget(profile, forget)).value
    gone = [row["id"] for row in meant["results"] if row["status"] == "would_forget"]
    if not gone:
        written = await memory_edits.forget_many(profile, forget, durability=call.durability)
        return write_reply({**written.value, "txid": written.txid}, written)

    async def targets(_: BranchProfile) -> list[Target]:
        return [Target(memory_id=id_) for id_ in gone]

    def answer(requested: Requested) -> Answer:
        named = {target.memory_id for target in requested.coupon.targets}
        results = [
            {**row, "status": "forgotten" if row["id"] in named else "not_found"} for row in meant["results"]
        ]
        shown = {"dry_run": False, "forgotten": len(named), "results": results, "more": meant["more"]}
        return reply({**shown, "txid": requested.txid})

    return await purge(call, targets, answer)
