"""The commit queue of one branch: concurrent writes share rounds, and rounds run one at a time.

Writes that arrive in one turn of the event loop share a transaction. A round of bounded ops runs on the
loop itself, where it costs less than a hop to a thread; a round with heavy work, or one whose COMMIT
fsyncs, runs in the pool, and the writes that arrive meanwhile share the next. User statements run alone:
first on the loop within a small budget of SQLite steps, then, if that was not enough, again in the pool
under a deadline.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import apsw

from memoturnd.engine import schema
from memoturnd.engine.budget import Deadlines, within_deadline, within_steps
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.guard import OverBudgetError
from memoturnd.engine.rounds import Outcome, Round, run_round, translate
from memoturnd.errors import MemoturnError, OverloadedError, RetryableError
from memoturnd.metrics import Metrics
from memoturnd.replication.open_branch import OpenBranch
from memoturnd.seams.clock import Clock
from memoturnd.seams.executor import Executor
from memoturnd.seams.profile import Work, WriteOp

MAX_GROUP = 64
_IN_POOL = frozenset({Work.HEAVY, Work.OPAQUE})

Tasks = Callable[[Coroutine[Any, Any, None]], object]


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """Bounds of a commit queue."""

    depth: int
    deadlines: Deadlines
    inline: bool
    """Whether COMMIT returns without an fsync, so that bounded rounds may run on the event loop."""


@dataclass(slots=True)
class _Entry:
    op: WriteOp[Any]
    work: Work
    future: "asyncio.Future[tuple[Any, int]]"


class NotRunError(RetryableError):
    """The branch stopped before the write had its round: nothing was applied, and it may be sent again at once."""


class Writer:
    """Commits the rounds of one branch under `epoch`, from `start_txid` + 1 on."""

    def __init__(
        self,
        target: OpenBranch,
        *,
        epoch: int,
        start_txid: int,
        raise_ceiling: Callable[[], Awaitable[None]],
        committed: Callable[[], None],
        settings: WriterSettings,
        clock: Clock,
        executor: Executor,
        user_executor: Executor,
        metrics: Metrics,
        spawn: Tasks,
        may_commit: Callable[[], bool] | None = None,
    ) -> None:
        """`may_commit` is asked before each round; where it says no, it has stopped this queue."""
        self._may_commit = may_commit
        self.epoch = epoch
        self.next_txid = start_txid + 1
        self._target = target
        self._raise_ceiling = raise_ceiling
        self._committed = committed
        self._settings = settings
        self._clock = clock
        self._executor = executor
        self._user_executor = user_executor
        self._metrics = metrics
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Entry] = deque()
        self._scheduled = False
        self._draining = False
        self._stopped: MemoturnError | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, op: WriteOp[Any], work: Work) -> "asyncio.Future[tuple[Any, int]]":
        """Queue a write; the future gives (value, txid) or the op's error. Raises OverloadedError when full."""
        if self._stopped is not None:
            raise self._stopped
        if len(self._queue) >= self._settings.depth:
            self._metrics.shed["write_queue"].inc()
            raise OverloadedError(
                f"{self._settings.depth} writes to this profile are waiting already; the write was not applied: "
                "try again"
            )
        future: asyncio.Future[tuple[Any, int]] = self._loop.create_future()
        is_next = not self._queue
        self._queue.append(_Entry(op, work, future))
        if not self._scheduled and not self._draining:
            if work is Work.USER and is_next:
                self._turn()  # nobody may share its round, so that nothing is gained by waiting for others
            else:
                self._scheduled = True
                self._loop.call_soon(self._turn)
        return future

    def stop(self, error: MemoturnError) -> None:
        """Refuse new writes and fail the queued ones; a round under way still ends."""
        self._stopped = error
        while self._queue:
            self._fail(self._queue.popleft(), error)

    # ---- on the event loop

    def _turn(self) -> None:
        """Run one round here if it may run here, else hand over to the pool."""
        self._scheduled = False
        if self._draining or not self._queue:
            return
        if self._may_commit is not None and not self._may_commit():
            return
        if not self._may_run_here():
            self._draining = True
            self._spawn(self._drain())
            return
        if self._queue[0].work is Work.USER:
            entry = self._queue.popleft()
            if not self._try_here(entry):
                self._queue.appendleft(entry)
                self._draining = True
                self._spawn(self._drain())
                return
        else:
            batch = self._take()
            self._finish(batch, self._round([entry.op for entry in batch], self._target.conn))
        if self._queue:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _may_run_here(self) -> bool:
        return (
            self._settings.inline
            and not self._target.gate.locked()
            and self._queue[0].work not in _IN_POOL
            and self.next_txid < self._target.ceiling
            and not self._target.log_syncs
        )

    def _take(self) -> list[_Entry]:
        """Return the next round's entries: a user write alone, else up to 64 others of the same kind of place."""
        first = self._queue.popleft()
        batch = [first]
        heavy = first.work is Work.HEAVY
        while self._queue and len(batch) < MAX_GROUP and not first.work.is_users:
            work = self._queue[0].work
            if work.is_users or (work is Work.HEAVY) != heavy:
                break
            batch.append(self._queue.popleft())
        return batch

    def _try_here(self, entry: _Entry) -> bool:
        """Run a user write within the loop's budget; False when it was rolled back for taking longer."""
        conn = self._target.conn
        over = False

        def op(conn: ProfileConnection, now_ms: int) -> tuple[Any, bool]:
            nonlocal over
            try:
                return within_steps(conn, self._clock, self._target, lambda: entry.op(conn, now_ms))
            except OverBudgetError:
                over = True
                raise

        round_ = self._round([op], conn)
        if over:
            return False
        self._finish([entry], round_)
        return True

    async def commit(self, op: WriteOp[Any]) -> Any:
        """Run one op as a round of its own, now; only while nothing else can reach the branch (opening it).

        Returns the op's value, raises its error.
        """
        round_ = await self._executor.run(lambda: self._round([op], self._target.conn))
        if round_.committed:
            self.note_commit(round_.now_ms, 1)
        (outcome,) = round_.outcomes
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    async def create(self) -> None:
        """Make the profile's tables in its empty file, as a round of its own, now; only while opening the branch.

        Raises what a write raises that the disk refuses.
        """
        conn, txid, now_ms = self._target.conn, self.next_txid, self.round_time_ms()
        try:
            await self._executor.run(
                lambda: schema.create_as_commit(conn, txid=txid, at_ms=now_ms, epoch=self.epoch)
            )
        except apsw.Error as error:
            raise translate(error) from error
        self.note_commit(now_ms, 1)

    def round_time_ms(self) -> int:
        """Return the wall time for the next round: never before that of the last one."""
        return max(self._clock.now_ms(), self._target.at_ms)

    def _round(self, ops: list[WriteOp[Any]], conn: ProfileConnection) -> Round:
        now_ms = self.round_time_ms()
        started_s = self._clock.monotonic_s()
        txid, before = self.next_txid, self._target.txid
        lost_after = before if txid > before + 1 else None
        try:
            round_ = run_round(conn, ops, txid=txid, now_ms=now_ms, epoch=self.epoch, lost_after=lost_after)
        except Exception as error:  # noqa: BLE001 - a round must answer everybody who waits for it
            round_ = Round(tuple(Outcome(error=error) for _ in ops), committed=False, now_ms=now_ms)
        self._metrics.commit_seconds.observe(self._clock.monotonic_s() - started_s)
        return round_

    def note_commit(self, now_ms: int, requests: int) -> None:
        """Move on behind a committed round."""
        self._target.txid, self._target.at_ms = self.next_txid, now_ms
        self._target.log_syncs = False
        self.next_txid += 1
        self._metrics.commit_rounds.inc()
        self._metrics.commit_group_requests.observe(requests)
        self._committed()

    def _finish(self, batch: list[_Entry], round_: Round) -> None:
        if round_.committed:
            self.note_commit(round_.now_ms, len(batch))
        txid = self._target.txid
        for entry, outcome in zip(batch, round_.outcomes, strict=True):
            if entry.future.done():
                continue
            if outcome.error is not None:
                entry.future.set_exception(outcome.error)
            else:
                entry.future.set_result((outcome.value, txid))

    # ---- in the pool

    async def _drain(self) -> None:
        """Run rounds in the pool until the queue is empty."""
        try:
            while self._queue:
                if self.next_txid >= self._target.ceiling:  # an owner's manifest is told from one given back
                    self._metrics.txid_ceiling_waits.inc()
                    await self._raise_ceiling()
                async with self._target.gate:
                    if not self._queue or (self._may_commit is not None and not self._may_commit()):
                        break
                    batch = self._take()
                    await self._run_in_pool(batch)
        except MemoturnError as error:  # the ceiling could not be raised
            while self._queue:
                self._fail(self._queue.popleft(), error)
        finally:
            self._draining = False
            if self._queue and not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._turn)

    async def _run_in_pool(self, batch: list[_Entry]) -> None:
        conn = self._target.conn
        ops = [entry.op for entry in batch]
        executor = self._executor
        if batch[0].work.is_users:
            ops, executor = [self._limited(ops[0])], self._user_executor
        try:
            round_ = await executor.run(lambda: self._round(ops, conn))
        except BaseException as error:
            for entry in batch:
                self._fail(entry, error)
            raise
        self._finish(batch, round_)

    def _limited(self, op: WriteOp[Any]) -> WriteOp[Any]:
        deadlines = self._settings.deadlines

        def limited(conn: ProfileConnection, now_ms: int) -> tuple[Any, bool]:
            return within_deadline(conn, deadlines, lambda: op(conn, now_ms))

        return limited

    @staticmethod
    def _fail(entry: _Entry, error: BaseException) -> None:
        if not entry.future.done():
            if isinstance(error, asyncio.CancelledError):
                entry.future.cancel()
            else:
                entry.future.set_exception(error)
