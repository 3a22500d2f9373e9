"""The gates in front of the handlers: how often control requests may come, how many requests run at once, and
how much memory their bodies take together.
"""

import asyncio
import math
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Final

from memoturnd.core.limits import Bucket, Owner, may_take
from memoturnd.errors import OverloadedError
from memoturnd.seams.clock import Clock

WAITERS_PER_SLOT: Final = 8
"""Requests that may wait per slot, so that the wait itself is bounded."""
BUCKETS_KEPT: Final = 10_000
"""Namespaces whose rates are counted at once."""
TENANT_SHARE: Final = 4
NAMESPACE_SHARE: Final = 2
"""A tenant alone takes 4/5 of the slots and of the places to wait, a namespace alone 2/3; see core.limits.may_take."""

_Queue = deque[asyncio.Future[None]]


class TokenBucket:
    """Lets `rate_per_s` requests through on average, and twice as many in one burst."""

    def __init__(self, rate_per_s: float, clock: Clock) -> None:
        self._rate_per_s = rate_per_s
        self._clock = clock
        self._bucket = Bucket(clock.monotonic_s())

    def take(self) -> None:
        """Take one token. Raises OverloadedError, with the seconds until the next one, when there is none."""
        wait_s = self._bucket.wait_s(self._rate_per_s, self._clock.monotonic_s())
        if wait_s:
            raise OverloadedError(
                f"control requests are limited to {self._rate_per_s:g} per second on this node; send it again later",
                retry_after_s=math.ceil(wait_s),
            )
        self._bucket.take()


class TokenBuckets:
    """A bucket of the same rate for each of many, by key. Of more than `kept_limit`, the one unused longest begins anew."""

    def __init__(self, rate_per_s: float, clock: Clock, *, kept_limit: int = BUCKETS_KEPT) -> None:
        self._rate_per_s = rate_per_s
        self._clock = clock
        self._kept_limit = kept_limit
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def take(self, key: Hashable) -> None:
        """Take one token of a key's bucket. Raises OverloadedError."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate_per_s, self._clock)
            if len(self._buckets) > self._kept_limit:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.take()


class InFlight:
    """Lets `limit` requests run at once, and up to `WAITERS_PER_SLOT` times as many wait.

    No tenant and no namespace can take all of either. Who waits gets the next slot in turn: tenant by tenant, within one
    namespace by namespace, within that in the order of arrival.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting_limit = limit * WAITERS_PER_SLOT
        self.running = 0
        self.waiting = 0
        self._running: dict[str | Owner, int] = {}
        """Slots taken, by tenant and by namespace."""
        self._waiting: dict[str | Owner, int] = {}
        # Who waits, by tenant and namespace; whose turn comes next stands first.
        self._queues: OrderedDict[str, OrderedDict[str, _Queue]] = OrderedDict()

    async def enter(self, owner: Owner = Owner()) -> None:  # noqa: B008 - it is frozen
        """Wait for a slot; pair with `leave`. Raises OverloadedError when too many wait already."""
        if owner not in self._waiting and _may(owner, self._running, self.limit - self.running):
            self._take(owner)
            return
        if not _may(owner, self._waiting, self.waiting_limit - self.waiting):
            raise OverloadedError(
                f"{self.running} requests are running and {self.waiting} wait, {self._waiting.get(owner, 0)} of them of "
                f"{owner.shown}; send it again later"
            )
        await self._wait(owner)

    def leave(self, owner: Owner = Owner()) -> None:  # noqa: B008 - it is frozen
        """Give the slot back, and let run who may now."""
        self.running -= 1
        _count(self._running, owner, -1)
        while self.waiting and (turn := self._next()) is not None:
            turn.set_result(None)

    async def _wait(self, owner: Owner) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        spaces = self._queues.setdefault(owner.tenant, OrderedDict())
        spaces.setdefault(owner.namespace, deque()).append(turn)
        self.waiting += 1
        _count(self._waiting, owner, 1)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(owner)
            else:
                self._remove(owner, turn)
            raise

    def _take(self, owner: Owner) -> None:
        self.running += 1
        _count(self._running, owner, 1)

    def _next(self) -> "asyncio.Future[None] | None":
        """Give a slot to the next one who may have it, who is then not waiting any more."""
        free = self.limit - self.running
        for tenant, spaces in self._queues.items():
            if not may_take(self._running.get(tenant, 0), free, TENANT_SHARE):
                continue
            for namespace, queue in spaces.items():
                owner = Owner(tenant, namespace)
                if may_take(self._running.get(owner, 0), free, NAMESPACE_SHARE):
                    turn = next((one for one in queue if not one.done()), None)
                    if turn is None:
                        continue  # all of them have given up, and are about to say so
                    self._remove(owner, turn)
                    self._pass_on(owner)
                    self._take(owner)
                    return turn
        return None

    def _pass_on(self, owner: Owner) -> None:
        """Let everybody else who waits come before this tenant, and others of it before this namespace."""
        if owner.tenant in self._queues:
            self._queues.move_to_end(owner.tenant)
            if owner.namespace in self._queues[owner.tenant]:
                self._queues[owner.tenant].move_to_end(owner.namespace)

    def _remove(self, owner: Owner, turn: "asyncio.Future[None]") -> None:
        spaces = self._queues[owner.tenant]
        spaces[owner.namespace].remove(turn)  # mostly the first
        if not spaces[owner.namespace]:
            del spaces[owner.namespace]
        if not spaces:
            del self._queues[owner.tenant]
        self.waiting -= 1
        _count(self._waiting, owner, -1)


def _may(owner: Owner, held: dict[str | Owner, int], free: int) -> bool:
    """Return whether a tenant and its namespace may take one of `free` places."""
    return may_take(held.get(owner.tenant, 0), free, TENANT_SHARE) and may_take(
        held.get(owner, 0), free, NAMESPACE_SHARE
    )


def _count(held: dict[str | Owner, int], owner: Owner, more: int) -> None:
    for key in (owner.tenant, owner):
        count = held.get(key, 0) + more
        if count:
            held[key] = count
        else:
            del held[key]


class BodyMemory:
    """Counts the bytes of the bodies that are being read or handled, and refuses those over `limit_bytes`.

    A body whose length is declared counts whole before it is read, so that it is refused at once or not at all.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count `size_bytes`; pair with `give`. Raises OverloadedError, and counts nothing, where that is too much."""
        held_bytes = self.held_bytes + size_bytes
        if held_bytes > self.limit_bytes:
            raise OverloadedError(
                f"the bodies of other requests hold {self.held_bytes} of {self.limit_bytes} bytes, too many for "
                f"{size_bytes} more; send it again later"
            )
        self.held_bytes = held_bytes

    def give(self, size_bytes: int) -> None:
        """Count `size_bytes` no longer."""
        self.held_bytes -= size_bytes
