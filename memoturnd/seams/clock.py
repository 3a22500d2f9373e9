"""The clock and randomness seams, so that time and ids can be simulated."""

import asyncio
import os
import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for records, a monotonic clock that runs through suspend for deadlines, and sleep."""

    def now_ms(self) -> int:
        """Return unix milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Return seconds of a clock that never goes back and runs through suspend."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Randomness(Protocol):
    """Source of ids."""

    def hex(self, size_bytes: int) -> str:
        """Return `2 * size_bytes` random lowercase hex digits."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Return CLOCK_BOOTTIME seconds where the system has it, else CLOCK_MONOTONIC."""
        return time.clock_gettime(_STEADY)

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(seconds)


class SystemRandomness:
    """The operating system's randomness."""

    def hex(self, size_bytes: int) -> str:
        """Return `2 * size_bytes` random lowercase hex digits."""
        return os.urandom(size_bytes).hex()


_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
