"""What every part of one simulated run shares: its seed, its clock, its trace, and the way in which it fails."""

import asyncio
import hashlib
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from simulation.loop import Process, VirtualLoop

EPOCH_MS = 1_750_000_000_000
"""Unix ms at virtual second 0."""


class ViolationError(AssertionError):
    """The system did what it must never do."""


@dataclass(slots=True)
class World:
    """One run. Every choice comes from `seed` through a named stream."""

    seed: int
    loop: VirtualLoop
    root: Path
    pace: int = 1
    """How much slower than usual everything happens that is not a request: long histories for the collector."""
    events: list[tuple[Any, ...]] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def stream(self, name: str) -> random.Random:
        """Return the random numbers of one part, the same whatever the other parts do."""
        return random.Random(f"{self.seed}/{name}")

    def note(self, *facts: Any) -> None:
        """Put an event into the trace."""
        self.events.append((round(self.loop.time(), 6), *facts))

    def violated(self, rule: str) -> None:
        """Note that a rule was broken; the run ends at its next look."""
        self.note("VIOLATION", rule)
        self.violations.append(rule)

    def require(self, condition: object, rule: str) -> None:
        """Note a violation unless `condition` holds."""
        if not condition:
            self.violated(rule)

    def check(self) -> None:
        """Raise ViolationError for the first rule that was broken."""
        if self.violations:
            raise ViolationError(self.violations[0])

    def plain(self, text: object) -> str:
        """Return `text` without what differs between two runs: where the files are."""
        return str(text).replace(str(self.root), "$")

    def digest(self) -> str:
        """Return the hash of the trace."""
        return hashlib.blake2b("\n".join(map(repr, self.events)).encode(), digest_size=16).hexdigest()


class NodeClock:
    """A node's clocks: its wall clock is `skew_ms` off, its steady one runs `rate` times as fast as it should."""

    def __init__(
        self, loop: VirtualLoop, *, skew_ms: int = 0, rate: float = 1.0, start_s: float = 0.0
    ) -> None:
        self._loop = loop
        self.skew_ms = skew_ms
        self.rate = rate
        self._start_s = start_s

    def now_ms(self) -> int:
        return EPOCH_MS + int(self._loop.time() * 1000) + self.skew_ms

    def monotonic_s(self) -> float:
        return self._start_s + self._loop.time() * self.rate

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self.rate)


class Ids:
    """Random hex digits of one process life."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def hex(self, size_bytes: int) -> str:
        return self._source.randbytes(size_bytes).hex()


class PoolOfOne:
    """An executor whose work happens at one moment of its virtual duration."""

    def __init__(self, world: World, process: Process, source: random.Random) -> None:
        self._world = world
        self._process = process
        self._source = source

    async def run(self, work: Any) -> Any:
        self._process.check_alive()
        cancelled = await self._stay()
        result = work()
        cancelled = await self._stay() or cancelled
        if cancelled is not None:
            raise cancelled
        return result

    async def _stay(self) -> BaseException | None:
        """Let some time pass, cancelled or not; a killed process ends here."""
        cancelled: BaseException | None = None
        if self._source.random() < 0.5:
            return None
        until_s = self._world.loop.time() + self._source.expovariate(200.0)
        while self._world.loop.time() < until_s:
            try:
                await asyncio.sleep(until_s - self._world.loop.time())
            except asyncio.CancelledError as error:
                self._process.check_alive()
                cancelled = error
        return cancelled

    def close(self) -> None:
        """Nothing to stop."""
