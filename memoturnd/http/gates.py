"""The two gates in front of the handlers: how many requests run at once, and how often control ones may."""

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
