"""Telling those who wait for a branch that it has moved: a commit, a ship, another owner, its end."""

import asyncio


class Moves:
    """Who waits for one branch to move. For the event loop's thread."""

    __slots__ = ("_waiting", "count")

    def __init__(self) -> None:
        self.count = 0
        """How often it moved; whoever has seen so many knows of all of them."""
        self._waiting: dict[asyncio.Future[None], None] = {}
        """In the order in which they came, and are woken."""

    def note(self) -> None:
        """Say that it moved."""
        self.count += 1
        if self._waiting:
            for future in self._waiting:
                if not future.done():
                    future.set_result(None)

    def add(self, future: "asyncio.Future[None]") -> None:
        """Let a future be done at the next move; pair with `discard`."""
        self._waiting[future] = None

    def discard(self, future: "asyncio.Future[None]") -> None:
        """Forget a future."""
        self._waiting.pop(future, None)
