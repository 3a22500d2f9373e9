"""Routes of key-values. A key is whatever stands percent-encoded in the last part of the path, `%2F` included."""

from typing import Final

from memoturnd.http.addresses import open_database
from memoturnd.http.call import Call
from memoturnd.http.envelope import BYTES, Answer, at, read_reply, write_reply, written_nothing_to_say
from memoturnd.surfaces import kv

_DEFAULT_KEYS: Final = 100


async def list_keys(call: Call) -> Answer:
    """List live keys that start with `prefix`, ascending."""
    profile = await open_database(call)
    prefix, limit = call.text("prefix") or "", call.limit("limit", _DEFAULT_KEYS)
    seen = await kv.keys(profile, call.params["ns"], prefix=prefix, limit=limit, min_txid=call.min_txid)
    return read_reply({"keys": seen.value}, seen)


async def get(call: Call) -> Answer:
    """Answer with a key's bytes. Raises NotFoundError when it has none or has expired."""
    profile = await open_database(call)
    seen = await kv.get(profile, call.params["ns"], call.params["key"], min_txid=call.min_txid)
    return at(Answer(200, seen.value, [BYTES]), seen.txid, seen.durable_txid)


async def put(call: Call) -> Answer:
    """Set a key to the body's bytes, with `ttl` for so many seconds."""
    profile = await open_database(call)
    written = await kv.put(
        profile,
        call.params["ns"],
        call.params["key"],
        call.body,
        ttl_s=call.integer("ttl"),
        durable=call.durable,
    )
    return write_reply({"txid": written.txid}, written)


async def delete(call: Call) -> Answer:
    """Remove a key; 204 also when it had no value."""
    profile = await open_database(call)
    written = await kv.delete(profile, call.params["ns"], call.params["key"], durable=call.durable)
    return written_nothing_to_say(written)
