"""A store whose every call ends: the one place where requests to object storage get their timeout."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import TypeVar

from memoturnd.errors import StoreUnavailableError
from memoturnd.seams.object_store import Blob, ObjectInfo, ObjectStore, SwapResult, Unknown

T = TypeVar("T")
BYTES_PER_S = 4 * 1024 * 1024
"""A call gets a second more for so many bytes that it sends, or asks for a range of."""


class TimedStore:
    """Wraps a store: a call over `timeout_s` raises StoreUnavailableError, a conditional write is Unknown.

    A call that moves many bytes gets longer, by BYTES_PER_S.

    A listing is timed step by step, since its length has no bound.
    """

    def __init__(self, inner: ObjectStore, timeout_s: float) -> None:
        self.inner = inner
        self.timeout_s = timeout_s

    async def get(self, key: str) -> Blob:
        """Return the whole object."""
        return await self._within(self.inner.get(key), key)

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length)."""
        return await self._within(self.inner.get_range(key, start, length), key, length)

    async def put(self, key: str, data: bytes) -> None:
        """Write an immutable object."""
        await self._within(self.inner.put(key, data), key, len(data))

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object."""
        return await self._swap(self.inner.put_if_absent(key, data))

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`."""
        return await self._swap(self.inner.put_if_match(key, data, etag))

    async def delete(self, key: str) -> None:
        """Remove the object."""
        await self._within(self.inner.delete(key), key)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order."""
        listing = aiter(self.inner.list(prefix))
        while (info := await self._within(anext(listing, None), prefix)) is not None:
            yield info

    async def close(self) -> None:
        """Close the store inside."""
        await self.inner.close()

    async def _within(self, request: Awaitable[T], key: str, size_bytes: int = 0) -> T:
        timeout_s = self.timeout_s + size_bytes / BYTES_PER_S
        try:
            async with asyncio.timeout(timeout_s):
                return await request
        except TimeoutError as error:
            raise StoreUnavailableError(
                f"the object store took over {round(timeout_s, 2):g} s for {key}; try again"
            ) from error

    async def _swap(self, request: Awaitable[SwapResult]) -> SwapResult:
        try:
            async with asyncio.timeout(self.timeout_s):
                return await request
        except TimeoutError:
            return Unknown(f"no answer within {self.timeout_s:g} s")
