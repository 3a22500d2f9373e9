"""Requests that are made again: puts that are turned away by mistake, and reads of work that nobody could go on with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from memoturnd.errors import StoreRefusedError, StoreUnavailableError
from memoturnd.seams.clock import Clock
from memoturnd.seams.object_store import Blob, ObjectInfo, ObjectStore, SwapResult

ATTEMPTS = 3
READ_ATTEMPTS = 5
_PAUSE_S = 0.05


class PatientReads:
    """A store whose reads of whole objects and lists are each made up to READ_ATTEMPTS times, with pauses that
    double, while the store does not answer.

    For work of many reads that is lost with any of them.
    """

    def __init__(self, inner: ObjectStore, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock

    async def get(self, key: str) -> Blob:
        """Return the whole object. Raises ObjectMissingError, StoreUnavailableError."""
        attempt = 1
        while True:
            try:
                return await self._inner.get(key)
            except StoreUnavailableError as error:
                await self._pause(attempt, error)
            attempt += 1

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order. Raises StoreUnavailableError."""
        last, attempt = "", 1
        while True:
            try:
                async for info in self._inner.list(prefix):
                    if info.key > last:
                        yield info
                        last, attempt = info.key, 1
            except StoreUnavailableError as error:
                await self._pause(attempt, error)
            else:
                return
            attempt += 1

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length), asked for once."""
        return await self._inner.get_range(key, start, length)

    async def put(self, key: str, data: bytes) -> None:
        """Write an immutable object."""
        await self._inner.put(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object."""
        return await self._inner.put_if_absent(key, data)

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`."""
        return await self._inner.put_if_match(key, data, etag)

    async def delete(self, key: str) -> None:
        """Remove the object."""
        await self._inner.delete(key)

    async def close(self) -> None:
        """Close the store inside."""
        await self._inner.close()

    async def _pause(self, attempt: int, error: StoreUnavailableError) -> None:
        if attempt == READ_ATTEMPTS or isinstance(error, StoreRefusedError):
            raise error
        await self._clock.sleep(_PAUSE_S * 2**attempt)


async def put_again(request: Callable[[], Awaitable[object]]) -> None:
    """Make a put that may be repeated, up to three times while the store refuses it. Raises what the last one did.

    MinIO says 403 AccessDenied, as to wrong credentials, where a delete beside the put has just emptied its folder.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await request()
        except StoreRefusedError:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(_PAUSE_S * attempt)
        else:
            return
