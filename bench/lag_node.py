"""A node that also records how late its event loop runs: `python -m bench.lag_node FILE`.

A timer on the node's own loop is due every millisecond. When the node stops, FILE gets pairs of doubles: the
monotonic time at which a timer fired, and by how much that was late. With `--stacks` a thread looks at what
the loop executes whenever it is overdue, and FILE.stacks gets what it found, most often first.
"""

import asyncio
import os
import sys
import threading
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Final

import uvloop

from memoturnd.app import serve
from memoturnd.config import Settings
from memoturnd.logs import set_up_logging

TICK_S: Final = 0.001
_OVERDUE_S: Final = 0.015
_LOOK_S: Final = 0.002
_FRAMES: Final = 9


class Ticker:
    """The timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.seen: array[float] = array("d")
        self.due_s = time.monotonic() + TICK_S
        self._loop = loop
        loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        now_s = time.monotonic()
        self.seen.extend((now_s, max(0.0, now_s - self.due_s)))
        self.due_s = now_s + TICK_S
        self._loop.call_later(TICK_S, self._tick)


def _watch(ticker: Ticker, stacks: Counter[str], thread_id: int) -> None:
    """Count what the loop's thread executes while it is overdue."""
    counted_s = 0.0
    while True:
        time.sleep(_LOOK_S)
        overdue_s = time.monotonic() - ticker.due_s
        if overdue_s < _OVERDUE_S or counted_s == ticker.due_s:
            continue
        frame = sys._current_frames().get(thread_id)  # noqa: SLF001 - the one way to see another thread
        lines: list[str] = []
        while frame is not None and len(lines) < _FRAMES:
            code = frame.f_code
            lines.append(f"{'/'.join(code.co_filename.split('/')[-2:])}:{frame.f_lineno} {code.co_name}")
            frame = frame.f_back
        stacks[" < ".join(lines)] += 1
        counted_s = ticker.due_s


async def _serve(stacks: Counter[str] | None) -> "array[float]":
    """Run the node and return what its timer saw."""
    settings = Settings.from_env(os.environ)
    set_up_logging(settings)
    ticker = Ticker(asyncio.get_running_loop())
    if stacks is not None:
        arguments = (ticker, stacks, threading.get_ident())
        threading.Thread(target=_watch, args=arguments, daemon=True).start()
    await serve(settings)
    return ticker.seen


def main() -> None:
    """Run the node until it is told to stop."""
    path = Path(sys.argv[1])
    stacks: Counter[str] | None = Counter() if "--stacks" in sys.argv else None
    path.write_bytes(uvloop.run(_serve(stacks)).tobytes())
    if stacks is not None:
        lines = [f"{count:6d}  {stack}" for stack, count in stacks.most_common(40)]
        path.with_suffix(".stacks").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
