"""An event loop on which time passes only when nobody has anything left to do, and the processes that run on it.

Production coroutines run unchanged: sleeps, timeouts and locks all wait in virtual time. A process is whatever
runs in a context that names it; it can be paused, which holds back its callbacks, and killed, which cancels its
tasks while its seams answer nothing any more. Nothing here looks at the real clock, and no order depends on the
address of an object, so that the same program does the same twice.
"""

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any

_KILL_TURNS = 500
_TURNS_WITHOUT_TIME = 200_000


class StuckError(Exception):
    """Nothing is left to do and somebody still waits, or the loop spins without time passing."""


class Process:
    """One life of one process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.paused = False
        self.dead = False
        self.held: deque[events.Handle] = deque()

    def __repr__(self) -> str:
        return self.name

    def context(self) -> Context:
        """Return a context in which everything belongs to this process."""
        context = copy_context()
        context.run(PROCESS.set, self)
        return context

    def check_alive(self) -> None:
        """Raise CancelledError in a process that was killed: its last words reach nobody."""
        if self.dead:
            raise asyncio.CancelledError


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)


class Task(asyncio.Task[Any]):
    """A task whose hash is its number, so that sets of tasks have one order."""

    numbers = count()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.number = next(Task.numbers)
        context = kwargs.get("context")
        self.process = PROCESS.get() if context is None else context.get(PROCESS)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self.number


class VirtualLoop(asyncio.BaseEventLoop):
    """The loop. `time()` is in virtual seconds from 0 on; `steps` counts callbacks."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._clock_resolution = 1e-9
        self.steps = 0
        self._turns = 0
        Task.numbers = count()
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_s

    @staticmethod
    def _make_task(loop: asyncio.AbstractEventLoop, coro: Any, context: Context | None = None) -> Task:
        return Task(coro, loop=loop, context=context)

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> events.Handle:
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def spawn(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task in a process."""
        return self.create_task(work, context=process.context())

    def resume(self, process: Process) -> None:
        """Let a paused process go on with what piled up."""
        process.paused = False
        self._ready.extend(process.held)
        process.held.clear()

    async def kill(self, process: Process) -> None:
        """End a process: no callback of it runs again but to unwind."""
        process.dead = True
        self.resume(process)
        for _ in range(_KILL_TURNS):
            tasks = [t for t in asyncio.all_tasks(self) if isinstance(t, Task) and t.process is process]
            if not tasks:
                return
            for task in sorted(tasks, key=hash):
                task.cancel()
            await asyncio.sleep(0)
        raise StuckError(f"{process} does not die: {tasks}")

    # ---- what BaseEventLoop leaves to the platform

    def _process_events(self, event_list: Any) -> None:
        """There are no files to watch."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        while scheduled and scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:
            if not scheduled:
                raise StuckError("nothing is left to do, and somebody waits")
            self._now_s = max(self._now_s, scheduled[0]._when)
            self._turns = 0
        self._turns += 1
        if self._turns > _TURNS_WITHOUT_TIME:
            raise StuckError("the loop spins without time passing")
        while scheduled and scheduled[0]._when <= self._now_s:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None and process.paused:
                process.held.append(handle)
                continue
            if process is not None and process.dead and _is_products(handle):
                continue
            self.steps += 1
            handle._run()


def _is_products(handle: events.Handle) -> bool:
    """Return whether a callback is the product's own function, and no step of a task that unwinds."""
    return str(getattr(handle._callback, "__module__", "")).startswith("memoturnd.")
