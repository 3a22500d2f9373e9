"""An object store in a dictionary: for tests, simulations and the benchmark.

Its methods never suspend, so each one is atomic on the event loop.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass

from memoturnd.seams.clock import Clock, SystemClock
from memoturnd.seams.object_store import Blob, Committed, Lost, ObjectInfo, ObjectMissingError, SwapResult
from memoturnd.stores.keys import check_key, check_prefix, check_range


@dataclass(frozen=True, slots=True)
class _Version:
    blob: Blob
    modified_ms: int


class MemoryStore:
    """Objects in memory, gone with the process. An etag is the number of the write that made the version."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._objects: dict[str, _Version] = {}
        self._writes = 0

    async def get(self, key: str) -> Blob:
        """Return the whole object. Raises ObjectMissingError, InvalidRequestError."""
        return self._stored(key).blob

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length), fewer only where the object ends. Raises ObjectMissingError."""
        check_range(key, start, length)
        return self._stored(key).blob.data[start : start + length]

    async def put(self, key: str, data: bytes) -> None:
        """Write an object. Raises InvalidRequestError."""
        check_key(key)
        self._write(key, data)

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object; Lost when the key exists. Never Unknown."""
        check_key(key)
        if key in self._objects:
            return Lost()
        return self._write(key, data)

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`; Lost when another stands. Raises ObjectMissingError."""
        if self._stored(key).blob.etag != etag:
            return Lost()
        return self._write(key, data)

    async def delete(self, key: str) -> None:
        """Remove the object; no error when it is already gone."""
        check_key(key)
        self._objects.pop(key, None)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix`, in key order; one deleted meanwhile is left out."""
        check_prefix(prefix)
        for key in sorted(key for key in self._objects if key.startswith(prefix)):
            version = self._objects.get(key)
            if version is not None:
                yield ObjectInfo(key, len(version.blob.data), version.modified_ms)

    async def close(self) -> None:
        """Nothing to release."""

    def _stored(self, key: str) -> _Version:
        version = self._objects.get(key)
        if version is None:
            check_key(key)
            raise ObjectMissingError(f"no object {key!r} in the memory store")
        return version

    def _write(self, key: str, data: bytes) -> Committed:
        self._writes += 1
        etag = str(self._writes)
        self._objects[key] = _Version(Blob(bytes(data), etag), self._clock.now_ms())
        return Committed(etag)
