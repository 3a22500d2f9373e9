"""The connections that read an open branch beside its writer.

Reads in the pool run in parallel, each on a connection of its own, which stays open for the next one. What that
takes is bounded on the node: how many connections are open without use, whosever they are (the one that was unused
longest is closed first), and how many descriptors branches take beyond the one reader that is counted in
what a hot profile costs. SQLite keeps a closed connection's descriptor for the next one as long as the file is
open elsewhere, so that a branch gives those back only when it is closed itself. A read that gets no connection waits for
another read of its branch to end. No more are in use than there are threads, because a read takes its
connection on the thread that runs it.

What puts another file in the place of this one waits for the engine's reads to end, and holds new ones back. A user's
read may take long and is not waited for: it ends on the state that it began with, and its connection is closed when it
comes back. What puts another log beside the same file (memoturnd.engine.replaying) must not have that: SQLite's
connections of one process share one index of the log. It waits for users' reads too, for a while, and then stops them.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import RetryableError
from memoturnd.seams.clock import Clock

AT_ONCE: Final = 3
"""Reads of one branch that the engine's pool runs at once, so that others find a thread."""
EXTRA_LIMIT: Final = 32
"""Reader connections of all branches of a node that may be open besides one for each branch; see `IdleReaders`."""
EXTRA_DESCRIPTORS: Final = 2
"""Descriptors that one of them takes: of the file and of its log."""
IDLE_LIMIT: Final = 64
"""Reader connections of a node that may be open without use: one takes about 170 KiB."""
IDLE_S: Final = 30.0
"""Time after which an unused one is closed."""
STOPPED_S: Final = 5.0
"""How long a read that was told to stop may take to do so."""
_LOOK_S: Final = 0.002


class ReopenedError(RetryableError):
    """The file was closed between a read's coming and its turn: it can be asked again of the one that is open now."""


class IdleReaders:
    """What the readers of all branches of a node take. Safe to use from threads.

    `extra` counts by branch the most that were open at a time since it was opened: so many descriptors SQLite
    keeps, closed connections or not.
    """

    def __init__(self, *, extra_limit: int = EXTRA_LIMIT, idle_limit: int = IDLE_LIMIT) -> None:
        self.changed = threading.Condition()
        """Held for every change of what is open or idle, also in a branch's `Readers`; never while SQLite works."""
        self.extra = 0
        self._extra_limit = extra_limit
        self._idle_limit = idle_limit
        # Longest unused first.
        self._idle: OrderedDict[ProfileConnection, tuple[Readers, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._idle)

    def grant(self) -> bool:
        """Let a branch open one more at a time than it ever did, if the node can."""
        granted = self.extra < self._extra_limit
        self.extra += granted
        return granted

    def put(self, conn: ProfileConnection, readers: "Readers", now_s: float) -> ProfileConnection | None:
        """Note an idle connection; return the one that has to be closed for it, if any."""
        self._idle[conn] = (readers, now_s)
        return self._pop_oldest() if len(self._idle) > self._idle_limit else None

    def drop(self, conn: ProfileConnection) -> None:
        """Note that a connection is idle no longer."""
        self._idle.pop(conn, None)

    def close_unused(self, before_s: float) -> None:
        """Close those that were put before a moment of the monotonic clock."""
        closing = []
        with self.changed:
            while self._idle and next(iter(self._idle.values()))[1] < before_s:
                closing.append(self._pop_oldest())
        for conn in closing:
            conn.close()

    def _pop_oldest(self) -> ProfileConnection:
        conn, (readers, _) = self._idle.popitem(last=False)
        readers.idle.remove(conn)
        readers.opened -= 1
        return conn


class Readers:
    """The reader connections of one branch."""

    def __init__(self, shared: IdleReaders, monotonic_s: Callable[[], float]) -> None:
        self.idle: list[ProfileConnection] = []
        """Open and unused."""
        self.opened = 0
        """Connections that are open, idle ones too."""
        self.generation = 0
        """Counts how often the connections were closed: a read that began before has no business with later ones."""
        self._in_use: set[ProfileConnection] = set()
        """Taken, and neither idle again nor closed: also where nobody waits for the read any more."""
        self._shared = shared
        self._monotonic_s = monotonic_s
        self._allowed = 1
        self._opening = threading.Lock()
        self._door = asyncio.Lock()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._inside = 0
        self._left = asyncio.Event()

    # ---- on the event loop

    @property
    def busy(self) -> bool:
        """Return whether one of the engine's reads runs, or something holds them back."""
        return self._inside > 0 or self._door.locked()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Be one of the engine's reads, beside AT_ONCE - 1 others."""
        async with self._places:
            async with self._door:
                self._inside += 1
            try:
                yield
            finally:
                self._inside -= 1
                self._left.set()

    @asynccontextmanager
    async def held_back(self) -> AsyncIterator[None]:
        """Let the engine's reads end, and no other begin."""
        async with self._door:
            while self._inside:
                self._left.clear()
                await self._left.wait()
            yield

    async def close_all(self, clock: Clock, *, wait_s: float) -> None:
        """Close every connection, once what is read on it has ended; what has not after `wait_s` is stopped.

        What is stopped fails with a RetryableError. Raises RetryableError where something does not stop.
        """
        self.close()
        now_s = clock.monotonic_s()
        stop_s, end_s = now_s + wait_s, now_s + wait_s + STOPPED_S
        while self._in_use:
            now_s = clock.monotonic_s()
            if now_s > end_s:
                raise RetryableError("a read of the profile does not end; try again")
            if now_s >= stop_s:
                self._stop_reads()  # again and again: one that is between two statements does not notice
            await clock.sleep(_LOOK_S)

    def _stop_reads(self) -> None:
        with self._shared.changed:
            for conn in self._in_use:
                conn.stopped_by = RetryableError(
                    "this node's copy came to a newer state while the statement ran; send it again, or, where it takes "
                    "long, with Memoturn-Consistency: primary"
                )
                conn.interrupt()

    # ---- on any thread

    def take(self, generation: int, connect: Callable[[], ProfileConnection]) -> ProfileConnection:
        """Return a connection of the `generation` in which the read was asked for, by `connect` where none is idle.

        Raises ReopenedError when the file was closed since, and what `connect` raises.
        """
        conn = self._take_idle(generation)
        if conn is not None:
            return conn
        try:
            with self._opening:  # so that no file is opened that is being closed, or another in its place
                self._check(generation)
                conn = connect()
                self._in_use.add(conn)
                return conn
        except BaseException:
            with self._shared.changed:
                if generation == self.generation:
                    self.opened -= 1
                    self._shared.changed.notify_all()
            raise

    def _take_idle(self, generation: int) -> ProfileConnection | None:
        """Return an idle connection, or None once one more may be opened, which is counted then."""
        shared = self._shared
        with shared.changed:
            while True:
                self._check(generation)
                if self.idle:
                    conn = self.idle.pop()
                    shared.drop(conn)
                    self._in_use.add(conn)
                    return conn
                if self.opened >= self._allowed and shared.grant():
                    self._allowed += 1
                if self.opened < self._allowed:
                    self.opened += 1
                    return None
                shared.changed.wait()

    def _check(self, generation: int) -> None:
        if generation != self.generation:
            raise ReopenedError("the profile was closed while a read waited; send it again")

    def give(self, conn: ProfileConnection, generation: int) -> None:
        """Take a connection back: keep it for the next read, or close it."""
        closing: ProfileConnection | None = conn
        shared = self._shared
        with shared.changed:
            if generation == self.generation:
                self._in_use.discard(conn)
                self.idle.append(conn)
                closing = shared.put(conn, self, self._monotonic_s())
                shared.changed.notify_all()
        if closing is not None:
            closing.close()
        self._in_use.discard(conn)  # behind the close: until then the file is open

    def close(self) -> None:
        """Close what is idle now, and what is in use when it comes back."""
        shared = self._shared
        with self._opening, shared.changed:
            self.generation += 1
            closing, self.idle = self.idle, []
            shared.extra -= self._allowed - 1
            self.opened, self._allowed = 0, 1
            for conn in closing:
                shared.drop(conn)
            shared.changed.notify_all()
        for conn in closing:
            conn.close()
