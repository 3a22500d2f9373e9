"""Verifications that clients ask for, and the drill that goes on by itself: what a node does beside its own work.

A verification's events are yielded as lines of JSON while it runs. It ends with the request: when the client
is gone, so is the verification.
"""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import msgspec

from memoturnd.core import names
from memoturnd.core.verification import Event, Summary
from memoturnd.engine.files import refused
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import OverloadedError
from memoturnd.replication.verify import Scope, Verifier
from memoturnd.seams.catalog import MAIN

AT_ONCE = 2
"""Verifications that a node runs at once; one of a database."""
HEARTBEAT_S = 1.0
"""Time after which progress is told though nothing moved, so that who is gone is noticed."""
_EVENTS_WAITING = 64


class Verifications:
    """The verifications of one node."""

    def __init__(self, services: Services, tiers: Tiers) -> None:
        self._services = services
        self._tiers = tiers
        self._folder = services.branches_folder.parent / "verify"
        self._running: set[str] = set()

    def sweep(self) -> None:
        """Remove what a process that was killed left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def begin(
        self, db_name: str, branch: str | None, *, deep: bool, seed: str | None
    ) -> "VerificationLines":
        """Return the verification of a database, or of one branch of it; it begins when its lines are read.

        Whoever gets it closes it. Raises DatabaseNotFoundError, BranchNotFoundError, OverloadedError when the
        database is being verified, or the node has enough to do, DiskFullError.
        """
        services = self._services
        database = await services.catalog.get_database(db_name)
        if branch is not None and branch != MAIN:
            await services.catalog.get_branch(database.uuid, names.branch(branch))
        rows = await services.catalog.list_branches(database.uuid)
        scope = Scope(
            database.uuid,
            db_name,
            database.written,
            {MAIN: database.main_branch_id, **{row.name: row.branch_id for row in rows}},
            branch,
            deep,
            seed or services.randomness.hex(4),
        )
        self._enter(database.uuid, db_name)
        folder = self._folder / services.randomness.hex(8)
        try:
            make_folder(folder)
        except BaseException:
            self._running.discard(database.uuid)
            raise
        events: asyncio.Queue[Event] = asyncio.Queue(_EVENTS_WAITING)
        verifier = Verifier(
            scope,
            services.store,
            services.executor,
            folder=folder,
            room=self._tiers.scratch,
            stopping=services.writer_settings.deadlines.stopping,
            clock=services.clock,
            report=events.put,
        )
        return VerificationLines(verifier, events, lambda: self._leave(database.uuid, folder))

    def _enter(self, uuid: str, db_name: str) -> None:
        full = uuid in self._running or len(self._running) >= AT_ONCE
        if full:
            self._services.metrics.shed["verifications"].inc()
        if uuid in self._running:
            raise OverloadedError(
                f"database {db_name} is being verified already; wait until that is done", retry_after_s=10
            )
        if full:
            raise OverloadedError(
                f"{AT_ONCE} verifications run on this node already; wait until one is done", retry_after_s=10
            )
        self._running.add(uuid)

    def _leave(self, uuid: str, folder: Path) -> None:
        self._running.discard(uuid)
        shutil.rmtree(folder, ignore_errors=True)


class VerificationLines:
    """A verification as lines of JSON, the last one its summary."""

    size_bytes = None

    def __init__(self, verifier: Verifier, events: "asyncio.Queue[Event]", done: Callable[[], None]) -> None:
        self._verifier = verifier
        self._events = events
        self._done: Callable[[], None] | None = done

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Run it, and yield its events as they come."""
        task = asyncio.create_task(self._verifier.run())
        try:
            while not (task.done() and self._events.empty()):
                event = await self._next(task)
                if event is not None:
                    yield msgspec.json.encode(event) + b"\n"
            yield msgspec.json.encode(task.result()) + b"\n"
        finally:
            # It may wait for room among its events: it must not have to tell anybody that it ends.
            task.cancel()
            await asyncio.wait([task])

    async def _next(self, task: "asyncio.Task[Summary]") -> Event | None:
        """Return the next event, the progress where none came for HEARTBEAT_S, None where the task has ended."""
        getting = asyncio.create_task(self._events.get())
        try:
            await asyncio.wait([getting, task], timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            return None if task.done() else self._verifier.progress
        finally:
            getting.cancel()  # what is not taken stays in the queue

    def close(self) -> None:
        """Give back the place that it took."""
        if self._done is not None:
            self._done()
            self._done = None


def make_folder(folder: Path) -> None:
    """Make a folder for restored states. Raises DiskFullError."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise refused(folder, error) from error
