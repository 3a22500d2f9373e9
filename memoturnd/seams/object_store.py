"""The object store seam: where segments, snapshots and manifests live, and the source of truth.

Two kinds of object go through it. Immutable ones (segments, snapshots) are named by their content, so a
retry writes the same bytes to the same key. Mutable ones (manifests, `database.json`) change only by
compare-and-swap, whose result has three values, because a lost reply says nothing about what happened
(hazards: ambiguous compare-and-swap). Correctness never depends on `list`.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from memoturnd.errors import MemoturnError


class ObjectMissingError(MemoturnError):
    """No object has that key (get, get_range, or the target of put_if_match)."""


@dataclass(frozen=True, slots=True)
class Blob:
    """An object as read: its bytes and the opaque etag that a swap must name."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One row of a listing: `modified_ms` is unix milliseconds by the store's clock."""

    key: str
    size_bytes: int
    modified_ms: int


@dataclass(frozen=True, slots=True)
class Committed:
    """The conditional write landed; `etag` names the new version."""

    etag: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The condition did not hold: somebody else's version stands, and this write will never land."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No proof either way: the write may have landed, or may still land later. Read to find out."""

    cause: str


SwapResult = Committed | Lost | Unknown


class ObjectStore(Protocol):
    """What every store does. Keys are `/`-separated, made of `[A-Za-z0-9._-]` parts, never `.` or `..`.

    Every method may raise StoreUnavailableError (try again later), except that the two conditional
    writes report an ambiguous outcome as `Unknown` instead of raising.
    """

    async def get(self, key: str) -> Blob:
        """Return the whole object. Raises ObjectMissingError."""
        ...

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length), fewer only where the object ends. Raises ObjectMissingError."""
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Write an immutable object; on return it is durable. Safe to repeat with the same bytes."""
        ...

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object; Lost when the key exists."""
        ...

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`; Lost when another stands. Raises ObjectMissingError."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the object; no error when it is already gone."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order, paging as needed."""
        ...

    async def close(self) -> None:
        """Release connections and threads."""
        ...
