"""Compaction of one branch that this node owns: joined segments, snapshots, history pages, in the background.

One job of a branch runs at a time, a few on the node. A job reads objects and writes new ones beside the
ships, and holds nobody up: its change of the manifest rides on the next ship's swap, or lands alone
where none comes for LAND_S. What it replaces must
still stand exactly so then; otherwise, or after REUSE_S, the change is dropped and the new object is garbage.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import structlog

from memoturnd.core import compaction, layout, segment
from memoturnd.core.compaction import Join, Roll
from memoturnd.core.manifest import Manifest, Transition
from memoturnd.errors import FencedError, MemoturnError
from memoturnd.metrics import Metrics
from memoturnd.replication.archive import Archive
from memoturnd.replication.join import Joined, Writer, join
from memoturnd.replication.ranged import named_damage
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore

REUSE_S = 120.0
"""How long after it was put an object may still be named by a swap; the collector's grace is longer."""
SNAPSHOT_MARGIN_S = 120.0
"""How long before the collector's grace ends a snapshot must be named, counted from its first part."""
LAND_S = 10.0
"""How long what a job has made waits for the next ship to name it, before it is named alone."""
KEEP_UP_S = 2.0
"""Longest wait of a ship for a compaction that has fallen behind."""
_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 300.0
_log = structlog.get_logger(__name__)


Tasks = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]
"""Starts a task in the node's task group."""


class _Job(NamedTuple):
    outcome: str
    work: Callable[[], Awaitable[None]]


class Compactor:
    """Keeps the chain of one branch short. `look` is cheap; the rest happens in a task of the node's."""

    def __init__(
        self,
        store: ObjectStore,
        archive: Archive,
        *,
        epoch: int,
        attach: Callable[[Transition], None],
        land: Callable[[], None],
        snapshot: Callable[[], Awaitable[None]],
        slots: asyncio.Semaphore,
        spawn: Tasks,
        executor: Executor,
        clock: Clock,
        randomness: Randomness,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._archive = archive
        self._epoch = epoch
        self._attach = attach
        self._land = land
        self._lander: asyncio.Task[None] | None = None
        self._snapshot = snapshot
        self._slots = slots
        self._spawn = spawn
        self._executor = executor
        self._clock = clock
        self._randomness = randomness
        self._metrics = metrics
        self._task: asyncio.Task[None] | None = None
        self._at_work = False
        """Whether the job has its place among those of the node."""
        self._holds = 0
        self.rewriting_up_to: int | None = None
        """While history is rewritten: the txid up to which it has to stay as it is. Behind it segments are joined."""
        self._failures: dict[str, tuple[int, float]] = {}
        """How often each kind of job has failed in a row, and when last, on the steady clock."""

    def look(self, current: Manifest) -> None:
        """Start a job where the manifest needs one, none is running, and none is held off."""
        if self.running is not None or self._holds:
            return
        job = self._job(current)
        if job is not None:
            self._task = self._spawn(self._run(current, job))

    async def keep_up(self, current: Manifest) -> None:
        """Wait a moment for the job that is at work where compaction has fallen far behind the ships."""
        if self._task is not None and self._at_work and compaction.is_behind(current):
            await asyncio.wait([self._task], timeout=KEEP_UP_S)

    @property
    def running(self) -> "asyncio.Task[None] | None":
        """Return the job under way, None without one."""
        return self._task if self._task is not None and not self._task.done() else None

    async def stop(self) -> None:
        """End the job that is running: its work is lost, and is done again when it is due."""
        async with self.held():
            return

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Run the block without any job: the one that is running is ended, and ships start none."""
        self._holds += 1
        try:
            tasks = [task for task in (self._task, self._lander) if task is not None]
            self._task = self._lander = None
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            yield
        finally:
            self._holds -= 1

    def _job(self, current: Manifest) -> "_Job | None":
        """Return what is due most. What has failed lately waits, and lets the others go on."""
        if self.rewriting_up_to is not None:
            behind = compaction.choose_join(current, above=self.rewriting_up_to)
            if behind is None or not self._may("joined"):
                return None
            return _Job("joined", lambda: self._join(current, behind))
        if compaction.snapshot_due(current) and self._may("snapshot"):
            return _Job("snapshot", self._snapshot)
        to_join = compaction.choose_join(current)
        if to_join is not None and self._may("joined"):
            return _Job("joined", lambda: self._join(current, to_join))
        roll = compaction.choose_roll(current)
        if roll is not None and self._may("rolled"):
            return _Job("rolled", lambda: self._roll(current, roll))
        return None

    def _may(self, outcome: str) -> bool:
        failures, at_s = self._failures.get(outcome, (0, 0.0))
        pause_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** (failures - 1)) if failures else 0.0
        return self._clock.monotonic_s() >= at_s + pause_s

    async def _run(self, current: Manifest, job: "_Job") -> None:
        label = f"{current.db}/{current.branch_id}"
        try:
            async with self._slots:
                self._at_work = True
                await job.work()
        except FencedError:
            return  # the ship that comes next says so to those who wait
        except MemoturnError as error:
            self._note_failure(job)
            _log.warning(
                "compaction failed; it is tried again", job=job.outcome, branch=label, error=str(error)
            )
        except Exception:  # noqa: BLE001 - the boundary of one branch's job: others must go on
            self._note_failure(job)
            _log.exception("compaction failed unexpectedly", job=job.outcome, branch=label)
        else:
            self._failures.pop(job.outcome, None)
            if self._lander is None or self._lander.done():
                self._lander = self._spawn(self._land_later())
            self._metrics.compactions[job.outcome].inc()
        finally:
            self._at_work = False

    async def _land_later(self) -> None:
        """Let what was made land without a ship, where none comes for a while: after a burst of writes."""
        await self._clock.sleep(LAND_S)
        self._land()

    def _note_failure(self, job: "_Job") -> None:
        failures, _ = self._failures.get(job.outcome, (0, 0.0))
        self._failures[job.outcome] = failures + 1, self._clock.monotonic_s()
        self._metrics.compactions["failed"].inc()

    async def _join(self, current: Manifest, to_join: Join) -> None:
        uuid, inputs = current.db, to_join.inputs
        keys = [layout.object_key(uuid, ref) for ref in inputs]
        recent = self._archive.recent
        blobs = await recent.fetch(keys)

        def work() -> Joined:
            parts = []
            for key, ref, blob in zip(keys, inputs, blobs, strict=True):
                with named_damage(key):
                    parts.append(segment.decode(blob, name_hash=ref.hash))
            return join(parts, inputs, Writer(current.branch_id, self._epoch, self._randomness))

        output = await self._executor.run(work)
        put_s = self._clock.monotonic_s()
        key = layout.object_key(uuid, output.ref)
        await self._store.put(key, output.data)
        self._attach(self.fresh(put_s, lambda m: compaction.joined(m, inputs, output.ref, epoch=self._epoch)))
        recent.drop(keys)
        recent.keep(key, output.data)
        self._metrics.compacted_bytes.inc(output.ref.size_bytes)

    async def _roll(self, current: Manifest, roll: Roll) -> None:
        put_s = self._clock.monotonic_s()
        page = await self._archive.write_page(current.db, current.branch_id, roll.snapshots, roll.segments)
        self._attach(self.fresh(put_s, lambda m: compaction.rolled(m, roll, page, epoch=self._epoch)))

    def fresh(self, put_s: float, change: Transition, *, within_s: float = REUSE_S) -> Transition:
        """Return `change` for as long as the object that it names, put at `put_s`, is surely there."""

        def checked(current: Manifest) -> Manifest:
            if self._clock.monotonic_s() - put_s > within_s:
                return current
            return change(current)

        return checked
