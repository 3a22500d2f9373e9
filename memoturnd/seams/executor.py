"""The executor seam: where SQLite work that must not stall the event loop runs."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from memoturnd.errors import OverloadedError

T = TypeVar("T")
_NICENESS = 10


class Executor(Protocol):
    """Runs blocking functions."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` to its end and return its value; a cancelled caller is cancelled only after that."""
        ...

    def close(self) -> None:
        """Wait for running work, then stop."""
        ...


class PoolExecutor:
    """A bounded pool of named threads; with `waiting` at most so many calls wait for one."""

    def __init__(self, threads: int, name: str = "sqlite", *, waiting: int | None = None) -> None:
        self._most = None if waiting is None else threads + waiting
        self._held = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name, initializer=_step_back)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` on a thread; a cancelled caller stays until it is done, so that its locks hold as long.

        Raises OverloadedError when too many calls wait already.
        """
        if self._most is not None and self._held >= self._most:
            raise OverloadedError(f"{self._held} long statements are running or waiting; try again later")
        self._held += 1
        try:
            return await self._run(work)
        finally:
            self._held -= 1

    async def _run(self, work: Callable[[], T]) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        cancelled: asyncio.CancelledError | None = None
        while not running.done():
            try:
                await asyncio.wait([running])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            running.exception()  # looked at, so that nobody is told that it was lost
            raise cancelled
        return running.result()

    def close(self) -> None:
        """Wait for running work, then stop."""
        self._pool.shutdown(wait=True)


def _step_back() -> None:
    """Let the event loop's thread go first where both want a core: niceness is per thread on Linux."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


class InlineExecutor:
    """Runs work on the caller, so that a simulation is deterministic."""

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` at once."""
        return work()

    def close(self) -> None:
        """Nothing to stop."""
