"""Admission by key: so many of one key run at once, so many wait in order, the next is turned away."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from memoturnd.errors import OverloadedError


class Admission:
    """Counts what was admitted under each key and has not left yet; a key that nobody uses costs nothing."""

    def __init__(self, what: str, *, running: int, waiting: int) -> None:
        self._what = what
        self._running = running
        self._most = running + waiting
        self._held: dict[str, int] = {}
        self._gates: dict[str, asyncio.Semaphore] = {}

    def enter(self, keys: tuple[str, ...]) -> None:
        """Take a place under every key; pair with `leave`. Raises OverloadedError, and takes none then."""
        for key in keys:
            if self._held.get(key, 0) >= self._most:
                raise OverloadedError(
                    f"{self._running} {self._what} are being made for this profile and "
                    f"{self._most - self._running} wait; send it again later"
                )
        for key in keys:
            self._held[key] = self._held.get(key, 0) + 1

    @asynccontextmanager
    async def turn(self, keys: tuple[str, ...]) -> AsyncIterator[None]:
        """Wait, in order, until few enough run under each key; a place is held already."""
        async with AsyncExitStack() as gates:
            for key in keys:
                gate = self._gates.setdefault(key, asyncio.Semaphore(self._running))
                await gates.enter_async_context(gate)
            yield

    def leave(self, keys: tuple[str, ...]) -> None:
        """Give the places back."""
        for key in keys:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self._gates.pop(key, None)
