"""A store that misbehaves on demand, around one that does not: the failures of a network, made repeatable.

A test puts `Fault` rules into a list; the first rule that matches a call decides its fate (latency rules
only delay it, and the next rule is asked). Outcomes follow the protocol: where a real client could not know,
a conditional write is `Unknown` and every other call raises StoreUnavailableError.
"""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from memoturnd.errors import MemoturnError, StoreUnavailableError
from memoturnd.seams.clock import Clock
from memoturnd.seams.object_store import Blob, Lost, ObjectInfo, ObjectStore, SwapResult, Unknown

T = TypeVar("T")

READS = frozenset({"get", "get_range"})
SWAPS = frozenset({"put_if_absent", "put_if_match"})
WRITES = SWAPS | {"put", "delete"}
OPERATIONS = READS | WRITES | {"list"}


class FaultKind(Enum):
    """What goes wrong."""

    LATENCY = "latency"
    """The call takes `latency_s` longer."""
    LOST_REQUEST = "lost request"
    """The call never reaches the store."""
    LOST_REPLY = "lost reply"
    """The store does it, the caller hears nothing."""
    DELAYED = "delayed landing"
    """The caller hears nothing now; the write reaches the store after `delay_s`, or at `land()`."""
    STATUS_409 = "409"
    """The store reports a conflicting request: nothing is applied, and it proves nothing."""
    STATUS_412 = "412"
    """The store says that the condition does not hold."""
    STATUS_500 = "500"
    """The store fails inside; nothing is applied."""
    STATUS_503 = "503"
    """The store is busy; nothing is applied."""
    SHORT_READ = "short read"
    """Half of the bytes arrive, without an error."""
    BIT_FLIP = "bit flip"
    """One bit in the middle of the bytes is wrong."""


_APPLIES_TO = {
    FaultKind.DELAYED: WRITES,
    FaultKind.STATUS_412: SWAPS,
    FaultKind.SHORT_READ: READS,
    FaultKind.BIT_FLIP: READS,
}


@dataclass(slots=True)
class Fault:
    """One rule, free to change while in use.

    It matches calls of `operations` whose key (for list: prefix) contains a match of the regular expression
    `key`, `times` times (None is for ever), after letting `skip` matching calls pass. `hits` counts how
    often it struck. `delay_s` None leaves a delayed write to `land()`.
    """

    kind: FaultKind
    operations: Iterable[str] = OPERATIONS
    key: str = ""
    times: int | None = 1
    skip: int = 0
    latency_s: float = 0.0
    delay_s: float | None = None
    hits: int = 0

    def strikes(self, operation: str, key: str) -> bool:
        """Return whether this call is struck, and count it."""
        if operation not in self.operations or operation not in _APPLIES_TO.get(self.kind, OPERATIONS):
            return False
        if self.times == 0 or re.search(self.key, key) is None:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        self.hits += 1
        return True


@dataclass(slots=True, eq=False)
class _Delayed:
    apply: Callable[[], Awaitable[object]]
    timer: asyncio.Task[None] | None = field(default=None)


class FaultyStore:
    """`inner` behind a network that fails as `faults` say.

    `counts` counts calls by operation name, struck ones included. `landed` holds what the store answered to
    each delayed write when it arrived: a SwapResult, None, or the error.
    """

    def __init__(self, inner: ObjectStore, clock: Clock, faults: list[Fault] | None = None) -> None:
        self.inner = inner
        self.faults = [] if faults is None else faults
        self.counts: Counter[str] = Counter()
        self.landed: list[object] = []
        self._clock = clock
        self._delayed: list[_Delayed] = []

    async def get(self, key: str) -> Blob:
        """Return the whole object, or what is left of it."""
        fault = await self._meet("get", key)
        blob = await self._call(fault, "get", key, lambda: self.inner.get(key))
        return Blob(_damage(fault, blob.data), blob.etag)

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length), or what is left of them."""
        fault = await self._meet("get_range", key)
        data = await self._call(fault, "get_range", key, lambda: self.inner.get_range(key, start, length))
        return _damage(fault, data)

    async def put(self, key: str, data: bytes) -> None:
        """Write an immutable object."""
        fault = await self._meet("put", key)
        await self._call(fault, "put", key, lambda: self.inner.put(key, data))

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object; Lost when the key exists, Unknown when a fault hides the outcome."""
        fault = await self._meet("put_if_absent", key)
        return await self._swap(fault, "put_if_absent", key, lambda: self.inner.put_if_absent(key, data))

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`; Unknown when a fault hides the outcome."""
        fault = await self._meet("put_if_match", key)
        return await self._swap(fault, "put_if_match", key, lambda: self.inner.put_if_match(key, data, etag))

    async def delete(self, key: str) -> None:
        """Remove the object."""
        fault = await self._meet("delete", key)
        await self._call(fault, "delete", key, lambda: self.inner.delete(key))

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`; a lost reply breaks off after the first."""
        fault = await self._meet("list", prefix)
        if fault is not None and fault.kind is not FaultKind.LOST_REPLY:
            raise _unavailable(fault, "list", prefix)
        async for row in self.inner.list(prefix):
            yield row
            if fault is not None:
                break
        if fault is not None:
            raise _unavailable(fault, "list", prefix)

    async def land(self) -> None:
        """Let every delayed write reach the store now, in the order in which they were sent."""
        while self._delayed:
            await self._arrive(self._delayed[0])

    async def close(self) -> None:
        """Drop the writes still under way, stop their timers, and close the inner store."""
        timers = [delayed.timer for delayed in self._delayed if delayed.timer is not None]
        self._delayed.clear()
        for timer in timers:
            timer.cancel()
        await asyncio.gather(*timers, return_exceptions=True)
        await self.inner.close()

    async def _meet(self, operation: str, key: str) -> Fault | None:
        """Count the call, wait out its latency, and return the fault that decides it."""
        self.counts[operation] += 1
        for fault in list(self.faults):
            if fault.strikes(operation, key):
                if fault.kind is not FaultKind.LATENCY:
                    return fault
                await self._clock.sleep(fault.latency_s)
        return None

    async def _call(
        self, fault: Fault | None, operation: str, key: str, work: Callable[[], Awaitable[T]]
    ) -> T:
        if fault is None or fault.kind in {FaultKind.SHORT_READ, FaultKind.BIT_FLIP}:
            return await work()
        await self._suffer(fault, work)
        raise _unavailable(fault, operation, key)

    async def _swap(
        self,
        fault: Fault | None,
        operation: str,
        key: str,
        work: Callable[[], Awaitable[SwapResult]],
    ) -> SwapResult:
        if fault is None:
            return await work()
        if fault.kind is FaultKind.STATUS_412:
            return Lost()
        await self._suffer(fault, work)
        return Unknown(f"{operation} {key!r}: {fault.kind.value} (injected)")

    async def _suffer(self, fault: Fault, work: Callable[[], Awaitable[object]]) -> None:
        """Do to the store what the fault lets through."""
        if fault.kind is FaultKind.LOST_REPLY:
            with suppress(MemoturnError):
                await work()
        elif fault.kind is FaultKind.DELAYED:
            delayed = _Delayed(work)
            self._delayed.append(delayed)
            if fault.delay_s is not None:
                delayed.timer = asyncio.create_task(self._arrive_later(delayed, fault.delay_s))

    async def _arrive_later(self, delayed: _Delayed, delay_s: float) -> None:
        await self._clock.sleep(delay_s)
        delayed.timer = None
        await self._arrive(delayed)

    async def _arrive(self, delayed: _Delayed) -> None:
        if delayed not in self._delayed:
            return
        self._delayed.remove(delayed)
        if delayed.timer is not None:
            delayed.timer.cancel()
        try:
            self.landed.append(await delayed.apply())
        except MemoturnError as error:
            self.landed.append(error)


def _unavailable(fault: Fault, operation: str, key: str) -> StoreUnavailableError:
    return StoreUnavailableError(f"{operation} {key!r}: {fault.kind.value} (injected); try again")


def _damage(fault: Fault | None, data: bytes) -> bytes:
    if fault is None or not data:
        return data
    if fault.kind is FaultKind.SHORT_READ:
        return data[: len(data) // 2]
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    return bytes(damaged)
