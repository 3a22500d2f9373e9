"""How long a user's statement may run and how much memory it may take: little on the event loop, more in the pool.

SQLite calls back after so many steps of one statement. What many short statements take together is looked at
between them, by whoever runs them: `ProfileConnection.between_statements`.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import apsw

from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.guard import File, OverBudgetError
from memoturnd.errors import MemoturnError, OverloadedError, RequestTimeoutError
from memoturnd.seams.clock import Clock

T = TypeVar("T")
LOOP_STEPS: Final = 20_000
"""SQLite virtual machine steps that a user's statements may take on the event loop: about half a millisecond."""
LOOP_S: Final = 0.002
LOOP_MEMORY_BYTES: Final = 16 * 1024 * 1024
"""Memory of SQLite's that may be taken meanwhile, before the pool has to do it."""
POOL_MEMORY_BYTES: Final = 256 * 1024 * 1024
"""The same in the pool, before the statement is stopped."""
_STEPS_PER_LOOK = 100
_STEPS_PER_STATEMENT = 40
"""What a statement counts as at least: compiling it is no step."""
_POOL_STEPS_PER_LOOK = 50_000


class _LoopBudget:
    """What is left of a budget on the event loop. Time and memory count from the first look on: most need none."""

    __slots__ = ("_clock", "_most_bytes", "_steps", "_until_s", "paused")

    def __init__(self, clock: Clock) -> None:
        self.paused = False
        self._clock = clock
        self._steps = 0
        self._until_s = 0.0
        self._most_bytes = 0

    def look(self, taken: int = _STEPS_PER_LOOK) -> bool:
        """Return whether the budget is used up."""
        self._steps += taken
        if not self._most_bytes:
            self._until_s = self._clock.monotonic_s() + LOOP_S
            self._most_bytes = apsw.memory_used() + LOOP_MEMORY_BYTES
            return False
        return not self.paused and (
            self._steps > LOOP_STEPS
            or self._clock.monotonic_s() > self._until_s
            or apsw.memory_used() > self._most_bytes
        )

    def between(self) -> None:
        """Count a statement. Raises OverBudgetError."""
        if self.look(_STEPS_PER_STATEMENT):
            raise OverBudgetError


def within_steps(conn: ProfileConnection, clock: Clock, file: File, work: Callable[[], T]) -> T:
    """Run `work` on the event loop within LOOP_STEPS, LOOP_S and LOOP_MEMORY_BYTES; `file` is what `conn` is open on.

    Raises OverBudgetError, also for what a single step could make long; a transaction it wrote in is rolled
    back then, or has to be.
    """
    guard = conn.guard
    budget = _LoopBudget(clock)
    conn.set_progress_handler(budget.look, _STEPS_PER_LOOK)
    guard.budget, guard.on_loop, guard.file = budget, True, file
    try:
        return work()
    except apsw.InterruptError as error:
        raise OverBudgetError from error
    finally:
        guard.budget, guard.on_loop, guard.file = None, False, None
        conn.set_progress_handler(None)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long statements may run, and whether the node is stopping, which ends them all."""

    clock: Clock
    timeout_s: float
    stopping: threading.Event


class _PoolBudget:
    """The deadline of work in the pool, and the memory that it may take."""

    __slots__ = ("_deadline_s", "_deadlines", "_most_bytes", "ended", "paused")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._deadline_s = deadlines.clock.monotonic_s() + deadlines.timeout_s
        self._most_bytes = apsw.memory_used() + POOL_MEMORY_BYTES
        self.ended: MemoturnError | None = None
        self.paused = False

    def look(self) -> bool:
        """Return whether the work ends here; `ended` says why."""
        if self.paused:
            return False
        self.ended = self.ended or self._ends()
        return self.ended is not None

    def between(self) -> None:
        """Raise what ends the work, if anything does."""
        if (ended := self._ends()) is not None:
            raise ended

    def _ends(self) -> MemoturnError | None:
        deadlines = self._deadlines
        if deadlines.stopping.is_set():
            return RequestTimeoutError("the node is stopping: the statement was stopped; send it again")
        if deadlines.clock.monotonic_s() > self._deadline_s:
            return RequestTimeoutError(
                f"the statement ran for over {deadlines.timeout_s:g} s and was stopped; do less in one request"
            )
        if apsw.memory_used() > self._most_bytes:
            return OverloadedError(
                f"the statement took over {POOL_MEMORY_BYTES} bytes of memory and was stopped; do less in one request"
            )
        return None


def within_deadline(conn: ProfileConnection, deadlines: Deadlines, work: Callable[[], T]) -> T:
    """Run `work` up to its deadline, or until the node stops. Raises RequestTimeoutError.

    Raises OverloadedError when SQLite's memory grew by more than POOL_MEMORY_BYTES meanwhile.
    """
    budget = conn.guard.budget = _PoolBudget(deadlines)
    conn.set_progress_handler(budget.look, _POOL_STEPS_PER_LOOK)
    try:
        return work()
    except apsw.InterruptError as error:
        raise (
            conn.stopped_by
            or budget.ended
            or RequestTimeoutError("the statement was stopped; do less in one request")
        ) from error
    finally:
        conn.guard.budget = None
        conn.set_progress_handler(None)
