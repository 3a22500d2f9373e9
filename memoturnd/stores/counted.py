"""A store whose requests are counted: what shipping and waking cost, by kind of request and in bytes."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from memoturnd.metrics import STORE_OPERATIONS, Metrics
from memoturnd.seams.object_store import Blob, ObjectInfo, ObjectStore, SwapResult

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
    """Wraps a store and counts what is asked of it: whether it succeeds or not, and once however often it is sent.

    A listing counts once for each thousand objects. `stored` is told of every object that was put: its key, its size in
    bytes, and whether it is a new one.
    """

    def __init__(self, inner: ObjectStore, metrics: Metrics) -> None:
        self.inner = inner
        self._requests = metrics.store_requests
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
        self._count("get")
        blob = await self.inner.get(key)
        self._receive(len(blob.data))
        return blob

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length)."""
        self._count("get_range")
        data = await self.inner.get_range(key, start, length)
        self._receive(len(data))
        return data

    async def put(self, key: str, data: bytes) -> None:
        """Write an immutable object."""
        self._count("put", len(data))
        await self.inner.put(key, data)
        self.stored(key, len(data), True)

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object."""
        self._count("put_if_absent", len(data))
        result = await self.inner.put_if_absent(key, data)
        self.stored(key, len(data), True)
        return result

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`."""
        self._count("put_if_match", len(data))
        result = await self.inner.put_if_match(key, data, etag)
        self.stored(key, len(data), False)
        return result

    async def delete(self, key: str) -> None:
        """Remove the object."""
        self._count("delete")
        await self.inner.delete(key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order."""
        self._count("list")
        listed = 0
        async for info in self.inner.list(prefix):
            if listed and listed % LIST_PAGE == 0:
                self._count("list")
            listed += 1
            yield info

    async def close(self) -> None:
        """Close the store inside."""
        await self.inner.close()

    def _count(self, operation: str, sent_bytes: int = 0) -> None:
        self._counts[operation] += 1
        self._requests[operation].inc()
        if sent_bytes:
            self._sent_bytes += sent_bytes
            self._sent.inc(sent_bytes)

    def _receive(self, size_bytes: int) -> None:
        self._received_bytes += size_bytes
        self._received.inc(size_bytes)
