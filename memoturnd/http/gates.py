"""The gates in front of the handlers: how often control requests may come, how many requests run at once, and
how much memory their bodies take together.
"""

import asyncio
import math

from memoturnd.errors import OverloadedError
from memoturnd.seams.clock import Clock

WAITERS_PER_SLOT = 8
"""Requests that may wait per slot, so that the wait itself is bounded."""


class TokenBucket:
    """Lets `rate_per_s` requests through on average, and twice as many in one burst."""

    def __init__(self, rate_per_s: float, clock: Clock) -> None:
        self._rate_per_s = rate_per_s
        self._burst = max(1.0, 2 * rate_per_s)
        self._tokens = self._burst
        self._clock = clock
        self._filled_at_s = clock.monotonic_s()

    def take(self) -> None:
        """Take one token. Raises OverloadedError, with the seconds until the next one, when there is none."""
        now_s = self._clock.monotonic_s()
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_at_s) * self._rate_per_s)
        self._filled_at_s = now_s
        if self._tokens < 1:
            raise OverloadedError(
                f"control requests are limited to {self._rate_per_s:g} per second on this node; send it again later",
                retry_after_s=math.ceil((1 - self._tokens) / self._rate_per_s),
            )
        self._tokens -= 1


class InFlight:
    """Lets `limit` requests run at once; up to `WAITERS_PER_SLOT` times as many wait, in order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.waiting_limit = limit * WAITERS_PER_SLOT
        self.running = 0
        self.waiting = 0
        self._slots = asyncio.Semaphore(limit)

    async def enter(self) -> None:
        """Wait for a slot; pair with `leave`. Raises OverloadedError when too many wait already."""
        if self._slots.locked():
            if self.waiting >= self.waiting_limit:
                raise OverloadedError(
                    f"{self.limit} requests are running and {self.waiting} wait; send it again later"
                )
            self.waiting += 1
            try:
                await self._slots.acquire()
            finally:
                self.waiting -= 1
        else:
            await self._slots.acquire()
        self.running += 1

    def leave(self) -> None:
        """Give the slot back."""
        self.running -= 1
        self._slots.release()


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
