"""A store whose requests are counted: what shipping and waking cost, by kind of request and in bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from timeit import default_timer
from typing import Final, Self

from prometheus_client import Counter, Histogram

from memoturnd.metrics import STORE_OPERATIONS, Metrics
from memoturnd.seams.object_store import (
    Blob,
    Committed,
    Lost,
    ObjectInfo,
    ObjectMissingError,
    ObjectStore,
    SwapResult,
)

_SWAPS: Final = frozenset({"put_if_absent", "put_if_match"})
LIST_PAGE = 1000
"""Objects that one request of a listing returns, as S3 has it."""


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """Requests since the start by operation, and the bytes of bodies. Two of them subtract."""

    requests: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STORE_OPERATIONS, 0))
    sent_bytes: int = 0
    received_bytes: int = 0

    def __sub__(self, earlier: "StoreUsage") -> "StoreUsage":
        return StoreUsage(
            {name: count - earlier.requests[name] for name, count in self.requests.items()},
            self.sent_bytes - earlier.sent_bytes,
            self.received_bytes - earlier.received_bytes,
        )


class CountedStore:
    """Wraps a store and counts what is asked of it, by how it ended and with its time, and once however often it is sent.

    A listing counts once for each thousand objects. `stored` is told of every object that was put: its key, its size in
    bytes, and whether it is a new one.
    """

    def __init__(self, inner: ObjectStore, metrics: Metrics) -> None:
        self.inner = inner
        self._requests = metrics.store_requests
        self._seconds = metrics.store_seconds
        self._sent = metrics.store_sent_bytes
        self._received = metrics.store_received_bytes
        self._counts = dict.fromkeys(STORE_OPERATIONS, 0)
        self._sent_bytes = 0
        self._received_bytes = 0
        self.stored: Callable[[str, int, bool], None] = lambda _key, _size_bytes, _is_new: None

    @property
    def usage(self) -> StoreUsage:
        """What was asked until now."""
        return StoreUsage(dict(self._counts), self._sent_bytes, self._received_bytes)

    async def get(self, key: str) -> Blob:
        """Return the whole object."""
        with self._asked("get"):
            blob = await self.inner.get(key)
        self._receive(len(blob.data))
        return blob

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length)."""
        with self._asked("get_range"):
            data = await self.inner.get_range(key, start, length)
        self._receive(len(data))
        return data

    async def put(self, key: str, data: bytes) -> None:
        """Write an immutable object."""
        with self._asked("put", len(data)):
            await self.inner.put(key, data)
        self.stored(key, len(data), True)

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object."""
        with self._asked("put_if_absent", len(data)) as asked:
            result = await self.inner.put_if_absent(key, data)
            asked.swapped(result)
        self.stored(key, len(data), True)
        return result

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`."""
        with self._asked("put_if_match", len(data)) as asked:
            result = await self.inner.put_if_match(key, data, etag)
            asked.swapped(result)
        self.stored(key, len(data), False)
        return result

    async def delete(self, key: str) -> None:
        """Remove the object."""
        with self._asked("delete"):
            await self.inner.delete(key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order."""
        listed = 0
        with self._asked("list"):
            async for info in self.inner.list(prefix):
                if listed and listed % LIST_PAGE == 0:
                    self._counts["list"] += 1
                    self._requests["list", "ok"].inc()
                listed += 1
                yield info

    async def close(self) -> None:
        """Close the store inside."""
        await self.inner.close()

    def _asked(self, operation: str, sent_bytes: int = 0) -> "_Asked":
        self._counts[operation] += 1
        if sent_bytes:
            self._sent_bytes += sent_bytes
            self._sent.inc(sent_bytes)
        return _Asked(operation, self._requests, self._seconds[operation])

    def _receive(self, size_bytes: int) -> None:
        self._received_bytes += size_bytes
        self._received.inc(size_bytes)


class _Asked:
    """One request, until it is answered: then its time and outcome are counted."""

    __slots__ = ("_begun_s", "_operation", "_outcome", "_requests", "_seconds")

    def __init__(self, operation: str, requests: dict[tuple[str, str], Counter], seconds: Histogram) -> None:
        self._operation = operation
        self._requests = requests
        self._seconds = seconds
        self._outcome = "ok"
        self._begun_s = 0.0

    def __enter__(self) -> Self:
        self._begun_s = default_timer()
        return self

    def swapped(self, result: SwapResult) -> None:
        """Take note of how a conditional write ended."""
        if not isinstance(result, Committed):
            self._outcome = "lost" if isinstance(result, Lost) else "unknown"

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        outcome = self._outcome
        if kind is not None and kind is not GeneratorExit:  # a listing that is not wanted to its end is well
            given_up = issubclass(kind, asyncio.CancelledError) and self._operation in _SWAPS
            outcome = (
                "unknown" if given_up else "missing" if issubclass(kind, ObjectMissingError) else "failed"
            )
        self._seconds.observe(max(0.0, default_timer() - self._begun_s))
        self._requests[self._operation, outcome].inc()
