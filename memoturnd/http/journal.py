"""Requests to the directory and to branches that take effect once, however often they are sent."""

from collections.abc import Awaitable, Callable

import msgspec

from memoturnd.engine.journal import Entry, Facts
from memoturnd.http.call import Call
from memoturnd.http.envelope import Answer
from memoturnd.seams.catalog import RequestKey


class _Kept(msgspec.Struct):
    """An answer as the journal keeps it."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]


async def taking_effect_once(
    call: Call,
    facts: Callable[[], Awaitable[Facts]],
    run: Callable[[Entry | None], Awaitable[Answer]],
    *,
    scope: str = "",
) -> Answer:
    """Answer a request by `run`, or as it was answered before where it came with an Idempotency-Key.

    `facts` are what a later try has to know; `scope` is the uuid of the database that the key belongs to. `run` gets
    None without a key. Raises IdempotencyKeyReusedError, and whatever `run` raises.
    """
    once = call.asks_once()
    if once is None:
        return await run(None)
    key = RequestKey(scope, once.route, once.principal, once.key)
    async with call.node.journal.request(key, once.digest, facts) as entry:
        if entry.answer is not None:
            once.replayed = True
            kept = msgspec.json.decode(entry.answer, type=_Kept)
            return Answer(kept.status, kept.body, kept.headers)
        answer = await run(entry)
        entry.answer = msgspec.json.encode(_Kept(answer.status, answer.body, answer.headers))
        return answer
