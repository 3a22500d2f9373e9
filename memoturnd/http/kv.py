"""Routes of key-values. A key is whatever stands percent-encoded in the last part of a path, `%2F` included."""

import json
from typing import Any, Final

from memoturnd.core.canonical import decode_json
from memoturnd.http.addresses import open_database
from memoturnd.http.call import Call
from memoturnd.http.describe import BYTES as ANY_BYTES
from memoturnd.http.describe import CURSOR, NOTHING, Value, described
from memoturnd.http.envelope import (
    BYTES,
    Answer,
    Header,
    at,
    read_reply,
    write_reply,
    written_nothing_to_say,
)
from memoturnd.http.shapes import Count, Stamped
from memoturnd.http.shapes import kv as shapes
from memoturnd.surfaces import kv, kv_batch

_DEFAULT_KEYS: Final = 100
_CONDITIONS: Final = (
    Value("If-Match", str, "ETags one of which the value must have, or `*`.", is_header=True),
    Value("If-None-Match", str, "ETags none of which the value may have, or `*`.", is_header=True),
)


@described(
    gives={200: shapes.KeyPage},
    values=(
        Value("prefix", str, "How keys begin."),
        Value("limit", Count, "Most keys of the page, up to 1000."),
        CURSOR,
        Value("values", bool, "Show values and metadata."),
        Value("metadata", bool, "Show metadata."),
    ),
)
async def list_keys(call: Call) -> Answer:
    """List live keys that start with `prefix`, ascending, with what stands under them where asked for."""
    profile = await open_database(call)
    seen = await kv.page(
        profile,
        call.params["ns"],
        prefix=call.text("prefix") or "",
        after=call.text("cursor"),
        limit=call.limit("limit", _DEFAULT_KEYS),
        with_values=call.flag("values"),
        with_metadata=call.flag("metadata"),
        min_txid=call.min_txid,
    )
    return read_reply(seen.value, seen)


@described(gives={200: ANY_BYTES, 304: NOTHING}, values=_CONDITIONS)
async def get(call: Call) -> Answer:
    """Answer with a key's bytes, 304 where its ETag is one that is asked not to come.

    Raises NotFoundError when it has none or has expired, PreconditionFailedError.
    """
    profile = await open_database(call)
    condition = call.condition(weak=True)
    seen = await kv.get(profile, call.params["ns"], call.params["key"], min_txid=call.min_txid)
    entry = seen.value
    if condition is None or condition.holds(entry.etag):
        answer = Answer(200, entry.value, [BYTES])
    else:
        condition.require_match(entry.etag, kv.named(call.params["ns"], call.params["key"]))
        answer = Answer(304)
    answer.headers.append(_etag(entry.etag))
    if entry.metadata is not None:
        answer.headers.append((b"memoturn-meta", _ascii(entry.metadata)))
    if entry.expires_at_ms is not None:
        answer.headers.append((b"memoturn-expires-at", b"%d" % entry.expires_at_ms))
    return at(answer, seen.txid, seen.durable_txid)


@described(
    gives={200: Stamped},
    values=(
        Value("ttl", Count, "Seconds after which the key is gone."),
        Value("Memoturn-Meta", str, "A JSON object kept beside the value.", is_header=True),
        *_CONDITIONS,
    ),
)
async def put(call: Call) -> Answer:
    """Set a key to the body's bytes, with `ttl` for so many seconds, where the request's condition holds."""
    profile = await open_database(call)
    written = await kv.put(
        profile,
        call.params["ns"],
        call.params["key"],
        call.body,
        ttl_s=call.integer("ttl"),
        metadata=kv.parse_metadata(call.metadata, "Memoturn-Meta"),
        condition=call.condition(),
        durability=call.durability,
    )
    answer = write_reply({"txid": written.txid}, written)
    answer.headers.append(_etag(written.value))
    return answer


@described(gives={204: NOTHING}, values=_CONDITIONS)
async def delete(call: Call) -> Answer:
    """Remove a key where the request's condition holds; 204 also when it had no value."""
    profile = await open_database(call)
    written = await kv.delete(
        profile, call.params["ns"], call.params["key"], condition=call.condition(), durability=call.durability
    )
    return written_nothing_to_say(written)


@described(takes=shapes.Increment, gives={200: shapes.Incremented}, optional_body=True)
async def increment(call: Call) -> Answer:
    """Add to the number under a key."""
    by, ttl_s = kv.parse_increment(call.decoded(decode_json) if call.body else {})
    profile = await open_database(call)
    written = await kv.increment(
        profile, call.params["ns"], call.params["key"], by, ttl_s=ttl_s, durability=call.durability
    )
    answer = write_reply({**written.value, "txid": written.txid}, written)
    answer.headers.append(_etag(written.value["etag"]))
    return answer


@described(takes=shapes.Batch, gives={200: shapes.Batched})
async def batch(call: Call) -> Answer:
    """Get, put and remove keys as one commit."""
    items = await call.parsed(kv_batch.parse_batch)
    profile = await open_database(call)
    written = await kv_batch.apply(profile, call.params["ns"], items, durability=call.durability)
    call.tell(count=len(written.value["puts"]) + len(written.value["deletes"]))
    return write_reply({**written.value, "txid": written.txid}, written)


def _etag(etag: str) -> Header:
    return b"etag", b'"%b"' % etag.encode()


def _ascii(text: str) -> bytes:
    """Return JSON such that a header may hold it."""
    value: Any = json.loads(text)
    return json.dumps(value, separators=(",", ":")).encode()
