"""A JSON object that changes only by compare-and-swap: branch manifests and `database.json`.

The outcome of a swap is one of three. Lost: read again and decide anew. Unknown (a lost reply, a timeout):
read; if our commit id stands there it landed; if not, that proves nothing yet, because the request may still
land later - so the transition is applied to what stands and swapped again. That is safe because transitions
are idempotent and every version's random commit id makes its etag unique: of two swaps that name the same
etag at most one can land.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from memoturnd.errors import CorruptionError, StoreUnavailableError
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.object_store import Committed, ObjectMissingError, ObjectStore

_ATTEMPTS = 8
_BACKOFF_S = 0.02


class Versioned(Protocol):
    """What a swapped document must carry."""

    @property
    def commit_id(self) -> str:
        """Random, new on every write."""
        ...


D = TypeVar("D", bound=Versioned)
T = TypeVar("T")


class SwapFile(Generic[D]):
    """One such object, as last read or written by this process."""

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        *,
        encode: Callable[[D], bytes],
        decode: Callable[[bytes], D],
        randomness: Randomness,
        clock: Clock,
    ) -> None:
        self.key = key
        self.size_bytes = 0
        self._store = store
        self._encode = encode
        self._decode = decode
        self._randomness = randomness
        self._clock = clock
        self._lock = asyncio.Lock()
        self._current: D | None = None
        self._etag = ""

    @property
    def cached(self) -> D | None:
        """Return the document as last seen, None before the first read or after a failure."""
        return self._current

    def forget(self) -> Self:
        """Read again before the next use."""
        self._current = None
        return self

    async def load(self, *, fresh: bool = False) -> D | None:
        """Return the document, None where it does not exist. Raises CorruptionError, StoreUnavailableError."""
        if self._current is not None and not fresh:
            return self._current
        async with self._lock:
            return await self._load()

    async def with_newest(self, known: D, work: Callable[[D], Awaitable[T]]) -> T:
        """Do `work` with a version of the document; where an object is missing, once more with the one that stands then.

        What a version names may be let go once another one stands: then that one knows better. Raises what
        `work` and `load` raise.
        """
        try:
            return await work(known)
        except CorruptionError:
            newest = await self.load(fresh=True)
            if newest is None or newest.commit_id == known.commit_id:
                raise
        return await work(newest)

    async def create(self, document: D) -> bool:
        """Create the document; False when another one stands already (load it then)."""
        async with self._lock:
            new = self._stamp(document)  # the same body each time: at most one copy can land
            data = self._encode(new)
            for attempt in range(_ATTEMPTS):
                result = await self._store.put_if_absent(self.key, data)
                if isinstance(result, Committed):
                    self._set(new, result.etag, len(data))
                    return True
                standing = await self._load()
                if standing is not None:
                    return standing.commit_id == new.commit_id
                await self._clock.sleep(_BACKOFF_S * 2**attempt)
            raise StoreUnavailableError(f"creating {self.key} did not come to an end; try again")

    async def update(self, transition: Callable[[D], D]) -> D:
        """Apply `transition` to what stands until one swap lands, and return what then stands.

        Raises what the transition raises, ObjectMissingError when the document does not exist, and
        StoreUnavailableError when the outcome stays unknown: the change may then still land.
        """
        async with self._lock:
            sent: set[str] = set()  # any of them may be the one that lands
            for attempt in range(_ATTEMPTS):
                current = self._current
                if current is None:
                    current = await self._load()
                    if current is None:
                        raise ObjectMissingError(f"{self.key} does not exist (any more)")
                changed = transition(current)
                if changed is current:
                    return current
                new = self._stamp(changed)
                data = self._encode(new)
                sent.add(new.commit_id)
                self._current = None
                result = await self._store.put_if_match(self.key, data, self._etag)
                if isinstance(result, Committed):
                    self._set(new, result.etag, len(data))
                    return new
                standing = await self._load()
                if standing is not None and standing.commit_id in sent:
                    return standing
                if attempt:
                    await self._clock.sleep(_BACKOFF_S * 2**attempt)
            raise StoreUnavailableError(f"changing {self.key} did not come to an end; try again")

    async def _load(self) -> D | None:
        self._current = None
        try:
            blob = await self._store.get(self.key)
        except ObjectMissingError:
            return None
        try:
            document = self._decode(blob.data)
        except CorruptionError as error:
            raise CorruptionError(f"object {self.key} is damaged: {error}") from error
        self._set(document, blob.etag, len(blob.data))
        return self._current

    def _stamp(self, document: D) -> D:
        return msgspec.structs.replace(document, commit_id=self._randomness.hex(8))  # type: ignore[type-var]

    def _set(self, document: D, etag: str, size_bytes: int) -> None:
        self._current, self._etag, self.size_bytes = document, etag, size_bytes
