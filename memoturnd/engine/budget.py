"""How long a user's statement may run: a count of SQLite steps on the event loop, a deadline in the pool."""

from collections.abc import Callable
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


def within_deadline(conn: ProfileConnection, clock: Clock, timeout_s: float, work: Callable[[], T]) -> T:
    """Run `work` for at most `timeout_s` seconds. Raises RequestTimeoutError."""
    deadline_s = clock.monotonic_s() + timeout_s
    conn.set_progress_handler(lambda: clock.monotonic_s() > deadline_s, _POOL_STEPS_PER_LOOK)
    try:
        return work()
    except apsw.InterruptError as error:
        raise RequestTimeoutError(
            f"the statement ran for over {timeout_s:g} s and was stopped; do less in one request"
        ) from error
    finally:
        conn.set_progress_handler(None)
