"""How long a user's statement may run: a count of SQLite steps on the event loop, a deadline in the pool."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import apsw

from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import RequestTimeoutError
from memoturnd.seams.clock import Clock

T = TypeVar("T")
LOOP_STEPS = 20_000
"""SQLite virtual machine steps that a user statement may take on the event loop: about half a millisecond."""
_STEPS_PER_LOOK = 1_000
_POOL_STEPS_PER_LOOK = 50_000


class OverBudgetError(Exception):
    """The work was interrupted for taking more than its steps; its statement is rolled back."""


def within_steps(conn: ProfileConnection, work: Callable[[], T]) -> T:
    """Run `work` within LOOP_STEPS. Raises OverBudgetError; a transaction it wrote in is rolled back then."""
    steps = 0

    def look() -> bool:
        nonlocal steps
        steps += _STEPS_PER_LOOK
        return steps > LOOP_STEPS

    conn.set_progress_handler(look, _STEPS_PER_LOOK)
    try:
        return work()
    except apsw.InterruptError as error:
        raise OverBudgetError from error
    finally:
        conn.set_progress_handler(None)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long statements may run, and whether the node is stopping, which ends them all."""

    clock: Clock
    timeout_s: float
    stopping: threading.Event


def within_deadline(conn: ProfileConnection, deadlines: Deadlines, work: Callable[[], T]) -> T:
    """Run `work` up to its deadline, or until the node stops. Raises RequestTimeoutError."""
    clock, stopping = deadlines.clock, deadlines.stopping
    deadline_s = clock.monotonic_s() + deadlines.timeout_s
    conn.set_progress_handler(
        lambda: stopping.is_set() or clock.monotonic_s() > deadline_s, _POOL_STEPS_PER_LOOK
    )
    try:
        return work()
    except apsw.InterruptError as error:
        if stopping.is_set():
            raise RequestTimeoutError(
                "the node is stopping: the statement was stopped; send it again"
            ) from error
        raise RequestTimeoutError(
            f"the statement ran for over {deadlines.timeout_s:g} s and was stopped; do less in one request"
        ) from error
    finally:
        conn.set_progress_handler(None)
