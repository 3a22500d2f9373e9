"""Routes of typed memory, per profile. Reads of a profile that nobody has written yet see an empty one."""

from typing import Any, Final

import msgspec

from memoturnd.core import cursors, names
from memoturnd.core.canonical import decode_json
from memoturnd.core.erasures import Target
from memoturnd.errors import DatabaseNotFoundError, NotFoundError
from memoturnd.http.addresses import open_or_create_profile, open_profile, profile_of
from memoturnd.http.call import INLINE_BODY_BYTES, Call
from memoturnd.http.describe import NOTHING, PAGE, Value, described
from memoturnd.http.egress import embedder_for
from memoturnd.http.envelope import Answer, at, read_reply, reply, write_reply, written_nothing_to_say
from memoturnd.http.erasures import purge, purges
from memoturnd.http.paging import page
from memoturnd.http.ports import BranchProfile
from memoturnd.http.shapes import memories as shapes
from memoturnd.surfaces import embedding, memories
from memoturnd.surfaces import recall as recalls
from memoturnd.surfaces import sessions as session_list
from memoturnd.surfaces.memory_batch import Batch, parse_batch

_DEFAULT_SESSIONS: Final = 100


@described(takes=shapes.Ingest, gives={201: shapes.Ingested})
async def ingest(call: Call) -> Answer:
    """Store up to 1000 memories as one commit, creating the profile where absent."""
    batch = await call.decoded_large(_batch_of)
    durability = call.durability
    database, _ = profile_of(call)
    items = memories.capped(batch.items, await call.node.policies.task_ttl_max_s(database))
    embedder = await embedder_for(call, database, is_needed=embedding.needs_vectors(items))
    profile = await open_or_create_profile(call)
    written = await embedding.ingest(profile, embedder, items, places=batch.places, durability=durability)
    if "degraded" in written.value:
        call.node.metrics.embed_degraded["ingest"].inc()
    results = batch.results(written.value["results"])
    call.tell(count=len(results))
    call.memories_added = sum(result["status"] == "created" for result in results)
    return write_reply({**written.value, "results": results, "txid": written.txid}, written, status=201)


@described(takes=shapes.Recall, gives={200: shapes.Recalled})
async def recall(call: Call) -> Answer:
    """Find memories by text, embedding or topic, best first. An unknown profile recalls nothing."""
    query = await call.parsed(recalls.parse_query)
    if query.include_turns:
        call.require_surface("turns")
    embedder = await embedder_for(call, profile_of(call)[0], is_needed=embedding.needs_vector(query))
    embedding.check_recall(embedder, query)
    min_txid = call.min_txid
    profile = await open_or_none(call, min_txid)
    if profile is None:
        return nothing({"memories": [], "turns": []} if query.include_turns else {"memories": []})
    query = await embedding.resolve(embedder, query)
    seen = await recalls.recall(profile, query, min_txid=min_txid, timed=call.node.metrics.recall_timer)
    if "degraded" in seen.value:
        call.node.metrics.embed_degraded["recall"].inc()
    return read_reply({**seen.value, "txid": seen.txid}, seen)


@described(gives={200: shapes.Memory})
async def get(call: Call) -> Answer:
    """Show one memory with the ids that it superseded. Raises NotFoundError."""
    profile = await open_profile(call)
    seen = await memories.get(profile, call.params["id"], min_txid=call.min_txid)
    return read_reply(seen.value, seen)


@described(gives={204: NOTHING})
async def forget(call: Call) -> Answer:
    """Remove one memory. Raises NotFoundError."""
    memory_id, durability = call.params["id"], call.durability
    if await purges(call):

        async def targets(profile: BranchProfile) -> list[Target]:
            await memories.get(profile, memory_id)
            return [Target(memory_id=memory_id)]

        return await purge(call, targets, lambda _: Answer(204))
    profile = await open_profile(call)
    return written_nothing_to_say(await memories.forget(profile, memory_id, durability=durability))


@described(gives={200: shapes.Sessions}, values=PAGE)
async def sessions(call: Call) -> Answer:
    """List sessions, the most recently active first, a page at a time. An unknown profile has none."""
    asked = page(call, tuple[cursors.Integer, str], call.branch, default=_DEFAULT_SESSIONS)
    min_txid = call.min_txid
    profile = await open_or_none(call, min_txid)
    if profile is None:
        return nothing({"sessions": [], "next_cursor": None})
    seen = await session_list.recent(profile, limit=asked.rows, after=asked.after, min_txid=min_txid)
    listed = asked.listed("sessions", seen.value, seen.value, lambda row: [row["last_active_at"], row["id"]])
    return read_reply({**listed, "txid": seen.txid}, seen)


@described(gives={204: NOTHING}, values=(Value("turns", bool, "Remove the transcript too."),))
async def end_session(call: Call) -> Answer:
    """Remove a session and its tasks, with `turns=true` its transcript too; 204 also when it is unknown."""
    session_id, turns, durability = names.session_id(call.params["sid"]), call.flag("turns"), call.durability
    if turns:
        call.require_surface("turns")
    if await purges(call):

        async def targets(_: BranchProfile) -> list[Target]:
            return [Target(session_id=session_id, turns=turns)]

        return await purge(call, targets, lambda _: Answer(204))
    profile = await open_profile(call)
    return written_nothing_to_say(
        await session_list.end(profile, session_id, turns=turns, durability=durability)
    )


class _Batch(msgspec.Struct):
    memories: list[msgspec.Raw]
    on_error: Any = None


_batch = msgspec.json.Decoder(_Batch)


def _batch_of(body: bytes) -> Batch:
    """Decode a batch; a large one item by item, so that no single call holds the interpreter for long."""
    if len(body) > INLINE_BODY_BYTES:
        try:
            parts = _batch.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # whatever is wrong with it, the plain way says it right
        else:
            items = [decode_json(bytes(part)) for part in parts.memories]
            return parse_batch({"memories": items, "on_error": parts.on_error})
    return parse_batch(decode_json(body))


async def open_or_none(call: Call, min_txid: int) -> BranchProfile | None:
    """Return the profile, None when nobody has created it.

    Raises NotFoundError when a floor, DatabaseNotFoundError when a past state was asked of that.
    """
    try:
        return await open_profile(call)
    except DatabaseNotFoundError:
        if call.at is not None:
            raise
        if min_txid > 0:
            raise NotFoundError(
                f"no such profile here, so txid {min_txid} cannot be reached; ingest into it first"
            ) from None
        return None


def nothing(body: dict[str, Any]) -> Answer:
    """Answer a read of a profile that nobody has created."""
    return at(reply({**body, "txid": 0}), 0, 0)
