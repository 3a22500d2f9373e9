"""What fuzzing holds a decoder to: only its own errors, bounded memory and time, and the same meaning once encoded again.

A target measures `read` and then calls `again`, which is not measured, with what it returned. `python
tests/fuzz/run.py NAME` drives one with atheris; the inputs in regressions/NAME are what it once found.
"""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

REGRESSIONS = Path(__file__).parent / "regressions"
GOLDEN = Path(__file__).parent.parent / "golden" / "v2"
INPUT_LIMIT_BYTES = 16 * 1024
"""Longest input that is made up. What a decoder may take grows with its input, so short ones show it."""
TIME_LIMIT_S = 2.0
"""Processor seconds that one input may take."""

INTERESTING = (
    0,
    1,
    2,
    15,
    16,
    17,
    255,
    256,
    511,
    512,
    4096,
    65535,
    65536,
    1 << 31,
    (1 << 32) - 1,
    1 << 53,
    1 << 63,
)
"""Values at the edges of the fields of binary formats."""


class BreachError(Exception):
    """A decoder did what it may not."""


@dataclass(frozen=True)
class Target:
    """One decoder under test.

    `read` returns what it decoded, None where the input was refused; `again` raises where that does not come
    back the same after encoding; `mutate` changes an input so that it gets past the checksums. An input of n
    bytes may take `multiple * n + constant` bytes of memory.
    """

    name: str
    modules: tuple[str, ...]
    """The modules whose branches guide the search."""
    read: Callable[[bytes], Any]
    again: Callable[[Any], None]
    mutate: Callable[[bytes, Random], bytes]
    seeds: Callable[[], list[bytes]]
    multiple: int
    constant: int

    def hold(self, data: bytes) -> bool:
        """Decode one input and hold it to every rule; return whether it was taken. Raises BreachError."""
        tracing = tracemalloc.is_tracing()
        if not tracing:
            tracemalloc.start()
        try:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            started_s = time.process_time()
            value = self.read(data)
            took_s = time.process_time() - started_s
            peak = tracemalloc.get_traced_memory()[1] - before
        finally:
            if not tracing:
                tracemalloc.stop()
        if peak > self.multiple * len(data) + self.constant:
            raise BreachError(f"{self.name}: {len(data)} bytes took {peak} bytes of memory")
        if took_s > TIME_LIMIT_S:
            raise BreachError(f"{self.name}: {len(data)} bytes took {took_s:.1f} s")
        if value is None:
            return False
        self.again(value)
        return True

    def regressions(self) -> list[Path]:
        """Return the inputs that once were a breach."""
        return sorted((REGRESSIONS / self.name).glob("*"))


def same(before: object, after: object) -> None:
    """Raise BreachError unless two decoded values mean the same."""
    if before != after:
        raise BreachError(f"encoded and decoded again, it differs: {before!r} became {after!r}"[:2000])
