"""Routes of transcripts: the turns of a session."""

from typing import Final

from memoturnd.core.canonical import decode_json
from memoturnd.http.addresses import open_database
from memoturnd.http.call import Call
from memoturnd.http.envelope import Answer, read_reply, write_reply
from memoturnd.surfaces import turns

_DEFAULT_WINDOW: Final = 20


async def append(call: Call) -> Answer:
    """Add a turn to the end of a session."""
    turn = await call.decoded_large(_turn)
    profile = await open_database(call)
    written = await turns.append(profile, call.params["session"], turn, durable=call.durable)
    return write_reply({"seq": written.value, "txid": written.txid}, written, status=201)


async def window(call: Call) -> Answer:
    """List the last turns of a session, oldest first."""
    profile = await open_database(call)
    last = call.limit("last", _DEFAULT_WINDOW)
    seen = await turns.window(profile, call.params["session"], last=last, min_txid=call.min_txid)
    return read_reply({"turns": seen.value}, seen)


async def search(call: Call) -> Answer:
    """List the turns of a session that are nearest to a vector."""
    embedding, k = turns.parse_search(call.decoded(decode_json))
    profile = await open_database(call)
    seen = await turns.search(profile, call.params["session"], embedding, k, min_txid=call.min_txid)
    return read_reply({"turns": seen.value}, seen)


def _turn(body: bytes) -> turns.Turn:
    return turns.parse_turn(decode_json(body))
