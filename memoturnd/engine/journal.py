"""Requests to the directory and to branches that came with an Idempotency-Key, kept in the catalog.

What they change is not in a profile's file, so that their answer cannot be part of the same transaction. Instead
each says before it begins what it is about to touch (the id of a branch to be made, of one to be deleted): if its
answer is lost, the one that is sent again finds by those facts whether it took effect, and does the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from memoturnd.engine.idempotency import KEPT_ENTRIES, KEPT_MS
from memoturnd.errors import IdempotencyKeyReusedError, MemoturnError, NotDurableError, RetryableError
from memoturnd.seams.catalog import Catalog, RequestKey
from memoturnd.seams.clock import Clock, Randomness

Facts = dict[str, Any]


@dataclass(slots=True)
class Entry:
    """A request under way. `facts` are those of its first try, `resumed` tells whether this is another one.

    `answer` is set where it has one already; whoever carries it out sets it at the end.
    """

    facts: Facts
    resumed: bool
    answer: bytes | None = None

    @property
    def has_answer(self) -> bool:
        """Whether it was, or now is, carried out."""
        return self.answer is not None


class Journal:
    """The requests of one node that are to take effect once."""

    def __init__(self, catalog: Catalog, clock: Clock, randomness: Randomness) -> None:
        self._catalog = catalog
        self._clock = clock
        self._randomness = randomness
        self._running: WeakValueDictionary[RequestKey, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def request(
        self, key: RequestKey, digest: bytes, facts: Callable[[], Awaitable[Facts]]
    ) -> AsyncIterator[Entry]:
        """Give the entry of a request, one at a time for each key.

        An error that says that nothing was changed lets go of the key; after others the next try resumes. Raises
        IdempotencyKeyReusedError when the key came with another request.
        """
        async with self._running.setdefault(key, asyncio.Lock()):
            entry = await self._begin(key, digest, facts)
            if entry.has_answer:
                yield entry
                return
            try:
                yield entry
            except (RetryableError, NotDurableError):
                raise
            except MemoturnError:
                await self._catalog.forget_request(key)
                raise
            if entry.answer is not None:
                await self._catalog.finish_request(key, entry.answer)

    def new_id(self, size_bytes: int) -> str:
        """Return a random id in hex, for what a request is about to make."""
        return self._randomness.hex(size_bytes)

    async def _begin(self, key: RequestKey, digest: bytes, facts: Callable[[], Awaitable[Facts]]) -> Entry:
        now_ms = self._clock.now_ms()
        known = await self._catalog.find_request(key, now_ms - KEPT_MS + 1)
        if known is None:
            entry = Entry({**await facts(), "at_ms": now_ms}, resumed=False)
            encoded = msgspec.json.encode(entry.facts)
            await self._catalog.begin_request(key, digest, encoded, now_ms, keep=KEPT_ENTRIES)
            return entry
        if known.digest != digest:
            raise IdempotencyKeyReusedError(
                f"the Idempotency-Key {key.key!a} came with another request before: use a new key for each write"
            )
        return Entry(msgspec.json.decode(known.facts), resumed=True, answer=known.answer)
