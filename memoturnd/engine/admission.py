"""Admission by key: so many of one key run at once, so many wait in order, the next is turned away."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from memoturnd.errors import OverloadedError


class Places(NamedTuple):
    """How many of one key run at once, and how many more wait."""

    running: int
    waiting: int


class Key(NamedTuple):
    """What something is counted under: one of a `kind`, which is what messages call it."""

    kind: str
    name: str


class Admission:
    """Counts what was admitted under each key and has not left yet; a key that nobody uses costs nothing."""

    def __init__(self, what: str, places: Mapping[str, Places]) -> None:
        self._what = what
        self._places = places
        self._held: dict[Key, int] = {}
        self._gates: dict[Key, asyncio.Semaphore] = {}

    def enter(self, keys: tuple[Key, ...]) -> None:
        """Take a place under every key; pair with `leave`. Raises OverloadedError, and takes none then."""
        for key in keys:
            running, waiting = self._places[key.kind]
            if self._held.get(key, 0) >= running + waiting:
                raise OverloadedError(
                    f"{running} {self._what} are being made for this {key.kind} and {waiting} wait; send it again later"
                )
        for key in keys:
            self._held[key] = self._held.get(key, 0) + 1

    @asynccontextmanager
    async def turn(self, keys: tuple[Key, ...]) -> AsyncIterator[None]:
        """Wait, in order, until few enough run under each key; a place is held already."""
        async with AsyncExitStack() as gates:
            for key in keys:
                gate = self._gates.setdefault(key, asyncio.Semaphore(self._places[key.kind].running))
                await gates.enter_async_context(gate)
            yield

    def leave(self, keys: tuple[Key, ...]) -> None:
        """Give the places back."""
        for key in keys:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self._gates.pop(key, None)
