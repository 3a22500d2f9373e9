"""Routes of transcripts: the turns of a session, and search among them."""

from typing import Final

from memoturnd.core.canonical import decode_json
from memoturnd.errors import InvalidRequestError
from memoturnd.http.addresses import database_of, open_database, open_database_or_create_profile
from memoturnd.http.call import MAX_LIMIT, Call
from memoturnd.http.describe import NOTHING, Value, described
from memoturnd.http.egress import embedder_for
from memoturnd.http.envelope import Answer, read_reply, write_reply, written_nothing_to_say
from memoturnd.http.shapes import Count
from memoturnd.http.shapes import turns as shapes
from memoturnd.surfaces import embedding, turn_search, turns

_DEFAULT_WINDOW: Final = turns.WINDOW_DEFAULT
_DEFAULT_PAGE: Final = 100


@described(takes=shapes.Append, gives={201: (shapes.Appended, shapes.AppendedAll)})
async def append(call: Call) -> Answer:
    """Add a turn, or up to 1000 as one commit, to the end of a session, creating the profile where `{db}` names one."""
    parsed, batch = await call.decoded_large(_turns)
    needs_vectors = any(turn.embedding is None for turn in parsed)
    embedder = await embedder_for(call, database_of(call)[0], is_needed=needs_vectors)
    profile = await open_database_or_create_profile(call)
    written = await embedding.append(
        profile, embedder, call.params["session"], parsed, batch=batch, durability=call.durability
    )
    value = written.value
    call.tell(count=len(value["seqs"]))
    if "degraded" in value:
        call.node.metrics.embed_degraded["ingest"].inc()
    if not batch:
        value = {"seq": value["seqs"][0], **{name: value[name] for name in value if name != "seqs"}}
    return write_reply({**value, "txid": written.txid}, written, status=201)


@described(
    gives={200: shapes.TurnPage},
    values=(
        Value("last", Count, "The last so many, up to 1000."),
        Value("before", Count, "Turns below this number."),
        Value("after", Count, "Turns above this number."),
        Value("limit", Count, "Most turns of the page, up to 1000."),
    ),
)
async def window(call: Call) -> Answer:
    """List turns of a session, oldest first: the last ones, or a page before or after one."""
    page = _page(call)
    profile = await open_database(call)
    seen = await turns.read(profile, call.params["session"], page, min_txid=call.min_txid)
    return read_reply(seen.value, seen)


@described(gives={200: shapes.Turn})
async def get(call: Call) -> Answer:
    """Show one turn. Raises NotFoundError."""
    seq = _seq(call)
    profile = await open_database(call)
    seen = await turns.get(profile, call.params["session"], seq, min_txid=call.min_txid)
    return read_reply(seen.value, seen)


@described(gives={204: NOTHING})
async def delete(call: Call) -> Answer:
    """Remove one turn. Raises NotFoundError."""
    seq, durability = _seq(call), call.durability
    profile = await open_database(call)
    return written_nothing_to_say(
        await turns.delete(profile, call.params["session"], seq, durability=durability)
    )


@described(
    gives={200: shapes.DeletedTurns},
    values=(
        Value("from", Count, "First number that goes."),
        Value("to", Count, "Last number that goes."),
        Value("all", bool, "The whole transcript goes."),
    ),
)
async def delete_range(call: Call) -> Answer:
    """Remove turns by their numbers, or the whole transcript, up to 10,000 at once; the session and its memories stay."""
    first, last, everything = call.integer("from"), call.integer("to"), call.flag("all")
    profile = await open_database(call)
    written = await turns.delete_range(
        profile,
        call.params["session"],
        first=first,
        last=last,
        everything=everything,
        durability=call.durability,
    )
    call.tell(count=written.value["deleted"])
    return write_reply({**written.value, "txid": written.txid}, written)


@described(takes=shapes.SearchTurns, gives={200: shapes.FoundTurns})
async def search(call: Call) -> Answer:
    """List the turns of a session that are nearest to a vector, to words, or to both."""
    return await _search(call, call.params["session"])


@described(takes=shapes.SearchTurns, gives={200: shapes.FoundTurns})
async def search_all(call: Call) -> Answer:
    """Like `search`, in every session."""
    return await _search(call, None)


async def _search(call: Call, session_id: str | None) -> Answer:
    wanted = await call.parsed(turn_search.parse_search)
    needs_vector = wanted.vector is None and wanted.mode != turn_search.KEYWORD
    embedder = await embedder_for(call, database_of(call)[0], is_needed=needs_vector)
    profile = await open_database(call)
    seen = await embedding.search_turns(
        profile, embedder, wanted, session_id=session_id, min_txid=call.min_txid
    )
    if "degraded" in seen.value:
        call.node.metrics.embed_degraded["recall"].inc()
    return read_reply(seen.value, seen)


def _page(call: Call) -> turns.Page:
    before, after, limit, last = (call.integer(name) for name in ("before", "after", "limit", "last"))
    if before is None and after is None and limit is None:
        return turns.Page(limit=min(_DEFAULT_WINDOW if last is None else last, MAX_LIMIT))
    if last is not None:
        raise InvalidRequestError(
            "`last` is of the end of a session: send it, or `before`, `after` and `limit`"
        )
    return turns.Page(before, after, min(_DEFAULT_PAGE if limit is None else limit, MAX_LIMIT))


def _seq(call: Call) -> int:
    text = call.params["seq"]
    if not (text.isascii() and text.isdigit() and len(text) <= 15):  # noqa: PLR2004 - digits that fit 2^53
        raise InvalidRequestError("a turn's number is an integer from 1, such as 17")
    return int(text)


def _turns(body: bytes) -> tuple[list[turns.Turn], bool]:
    return turns.parse_turns(decode_json(body))
