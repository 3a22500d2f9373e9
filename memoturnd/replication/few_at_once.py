"""Many requests of a background pass, a few under way at a time, and fewer while foreground work is late."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from memoturnd.seams.clock import Clock

FEW = 4
"""Requests that a pass has under way at once: foreground work goes first."""
MORE = 12
"""The same where there are many, while no foreground work is late: two passes leave connections to a bucket free."""
MANY = 1_000
"""Requests from which on there are many."""
TOGETHER = 16
"""Requests under way at once for what somebody waits for."""
_LOOK_S = 0.25
T = TypeVar("T")


async def together(items: Iterable[T], work: Callable[[T], Awaitable[None]]) -> None:
    """Do `work` on each item for somebody who waits; raise the first error once all have ended."""
    gate = asyncio.Semaphore(TOGETHER)

    async def one(item: T) -> None:
        async with gate:
            await work(item)

    _raise_first(await asyncio.gather(*map(one, items), return_exceptions=True))


async def each(
    items: Iterable[T], work: Callable[[T], Awaitable[None]], *, clock: Clock, is_busy: Callable[[], bool]
) -> None:
    """Do `work` on each item, a few at a time; raise the first error once those under way have ended."""
    known = list(items)
    waiting = iter(known)
    left = len(known)

    async def worker(number: int) -> None:
        nonlocal left
        while left:
            if number >= FEW and is_busy():
                await clock.sleep(_LOOK_S)
                continue
            left -= 1
            await work(next(waiting))

    workers = MORE if left > MANY else FEW
    _raise_first(await asyncio.gather(*(worker(n) for n in range(workers)), return_exceptions=True))


def _raise_first(outcomes: Iterable[object]) -> None:
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
