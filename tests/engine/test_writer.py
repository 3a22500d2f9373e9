"""The commit queue of one branch, over a real file: what shares a round, where it runs, and who is told what."""

import asyncio
import threading

import apsw
import pytest

from memoturnd.engine import schema, writer
from memoturnd.engine.budget import LOOP_STEPS, Deadlines, within_deadline, within_steps
from memoturnd.engine.connection import open_connection
from memoturnd.engine.guard import OverBudgetError
from memoturnd.engine.writer import MAX_GROUP, Writer, WriterSettings
from memoturnd.errors import (
    FencedError,
    OverloadedError,
    RequestTimeoutError,
    StoreUnavailableError,
)
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.executor import PoolExecutor
from memoturnd.seams.profile import Work

COUNT = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {}) "


class Rig:
    """A writer's target, and everything else that a writer is given."""

    is_large = False

    def __init__(self, folder, **settings):
        folder.mkdir(exist_ok=True)
        self.conn = open_connection(str(folder / "main.db"), read_only=False, sync="normal", cache_kib=64)
        self.gate = asyncio.Lock()
        self.txid, self.at_ms, self.ceiling, self.log_syncs = 0, 0, 1000, False
        self.clock = SystemClock()
        self.executor = PoolExecutor(1)
        self.metrics = Metrics()
        self.commits = []
        self.tasks = set()
        self.raised = []
        self.writer = Writer(
            self,
            epoch=1,
            start_txid=0,
            raise_ceiling=self.raise_ceiling,
            committed=lambda: self.commits.append(self.txid),
            settings=WriterSettings(
                **({"depth": 256, "deadlines": self.deadlines(0.3), "inline": True} | settings)
            ),
            clock=self.clock,
            executor=self.executor,
            user_executor=self.executor,
            metrics=self.metrics,
            spawn=self.spawn,
        )

    def deadlines(self, timeout_s):
        return Deadlines(self.clock, timeout_s, threading.Event())

    async def prepare(self):
        await self.write(make_tables)
        self.commits.clear()
        return self

    def spawn(self, work):
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def raise_ceiling(self):
        self.raised.append(self.ceiling)
        self.ceiling += 1000

    async def write(self, op, work=Work.POINT):
        return await self.writer.submit(op, work)

    def rows(self):
        return [value for (value,) in self.conn.execute("SELECT v FROM t ORDER BY rowid")]

    async def close(self):
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.executor.close()
        self.conn.close()


@pytest.fixture
async def rig(tmp_path):
    rig = await Rig(tmp_path).prepare()
    yield rig
    await rig.close()


@pytest.fixture
async def pooled(tmp_path):
    """A rig whose COMMIT fsyncs, so that every round runs in the pool."""
    rig = await Rig(tmp_path / "pooled", inline=False).prepare()
    yield rig
    await rig.close()


def make_tables(conn, _now_ms):
    schema.create(conn)
    conn.execute("CREATE TABLE t(v)")
    return None, True


def insert(value, *, ran=None):
    def op(conn, now_ms):
        if ran is not None:
            ran.append(threading.current_thread() is threading.main_thread())
        conn.execute("INSERT INTO t VALUES (?)", (value,))
        return value, True

    return op


def fail(_conn, _now_ms):
    raise KeyError("mine")


def held_up(op):
    """Return the op, made to wait in its round, and the events that say that it runs and let it go on."""
    started, go_on = threading.Event(), threading.Event()

    def slow(conn, now_ms):
        started.set()
        assert go_on.wait(5)
        return op(conn, now_ms)

    return slow, started, go_on


def insert_counted(steps, ran=None):
    """Insert one row that takes about `steps` SQLite steps to compute."""

    def op(conn, _now_ms):
        if ran is not None:
            ran.append(threading.current_thread() is threading.main_thread())
        conn.execute(f"INSERT INTO t {COUNT.format(steps // 10)} SELECT count(*) FROM n")
        return conn.last_insert_rowid(), True

    return op


# ---- sharing a round


async def test_concurrent_writes_share_one_txid_and_one_commit(rig):
    results = await asyncio.gather(*(rig.write(insert(n)) for n in range(40)))

    assert results == [(n, 2) for n in range(40)]
    assert rig.commits == [2]
    assert rig.rows() == list(range(40))


async def test_round_takes_at_most_sixty_four_writes_in_order(rig):
    results = await asyncio.gather(*(rig.write(insert(n)) for n in range(2 * MAX_GROUP + 1)))

    assert [txid for _, txid in results] == [2] * MAX_GROUP + [3] * MAX_GROUP + [4]
    assert rig.rows() == list(range(2 * MAX_GROUP + 1))
    assert MAX_GROUP == 64


async def test_writes_that_arrive_while_a_round_is_in_the_pool_share_the_next(pooled):
    slow, started, go_on = held_up(insert("first"))
    first = asyncio.ensure_future(pooled.write(slow))
    await asyncio.to_thread(started.wait, 5)
    rest = asyncio.gather(*(pooled.write(insert(n)) for n in range(20)))
    await asyncio.sleep(0)
    go_on.set()

    assert await first == ("first", 2)
    rest = await rest
    assert {txid for _, txid in rest} == {3}


async def test_write_that_fails_fails_alone(rig):
    results = await asyncio.gather(
        rig.write(insert("a")), rig.write(fail), rig.write(insert("b")), return_exceptions=True
    )

    assert results[0] == ("a", 2)
    assert isinstance(results[1], KeyError)
    assert results[2] == ("b", 2)
    assert rig.commits == [2]


async def test_write_that_changes_nothing_takes_no_txid(rig):
    await rig.write(insert("a"))

    assert await rig.write(lambda conn, _: (conn.execute("SELECT count(*) FROM t").get, False)) == (1, 2)
    assert rig.commits == [2]


async def test_wall_time_of_rounds_never_goes_back(rig):
    rig.at_ms = rig.clock.now_ms() + 60_000
    seen = []

    await rig.write(lambda conn, now_ms: (seen.append(now_ms), True))

    assert seen == [rig.at_ms]


# ---- user statements


async def test_user_statements_are_alone_in_their_round(rig):
    results = await asyncio.gather(
        rig.write(insert("a")),
        rig.write(insert("b")),
        rig.write(insert("user"), Work.USER),
        rig.write(insert("c")),
        rig.write(insert("user too"), Work.USER),
    )

    assert [txid for _, txid in results] == [2, 2, 3, 4, 5]


async def test_small_user_statement_runs_once_on_the_loop(rig):
    ran = []

    await rig.write(insert_counted(LOOP_STEPS // 10, ran), Work.USER)

    assert ran == [True]
    assert rig.commits == [2]


async def test_user_statement_over_budget_is_rolled_back_and_run_again_in_the_pool(rig):
    """Guard: OverBudgetError in Writer._try_here; the first run must leave nothing."""
    ran = []

    value, txid = await rig.write(insert_counted(20 * LOOP_STEPS, ran), Work.USER)

    assert ran == [True, False]
    assert (value, txid) == (1, 2)
    assert rig.rows() == [20 * LOOP_STEPS // 10]
    assert rig.commits == [2]


async def test_over_budget_statement_gives_the_result_that_it_gives_in_the_pool(rig, pooled):
    for size in (1000, 20 * LOOP_STEPS):
        here = await rig.write(insert_counted(size), Work.USER)
        there = await pooled.write(insert_counted(size), Work.USER)
        assert here == there
    assert rig.rows() == pooled.rows()


async def test_writes_behind_an_over_budget_statement_keep_their_order(rig):
    results = await asyncio.gather(
        rig.write(insert("before")),
        rig.write(insert_counted(20 * LOOP_STEPS), Work.USER),
        rig.write(insert("after")),
    )

    assert [txid for _, txid in results] == [2, 3, 4]
    assert rig.rows() == ["before", 20 * LOOP_STEPS // 10, "after"]


async def test_user_statement_past_its_deadline_is_stopped_and_leaves_nothing(rig):
    endless = insert_counted(10**12)

    with pytest.raises(RequestTimeoutError, match=r"0\.3 s"):
        await rig.write(endless, Work.USER)

    assert (rig.rows(), rig.commits) == ([], [])
    assert await rig.write(insert("next")) == ("next", 2)


async def test_opaque_statements_run_in_the_pool_alone_and_under_their_deadline(rig):
    here = threading.current_thread()
    ran = []

    def noted(conn, now_ms):
        ran.append((threading.current_thread() is here, conn.guard.on_loop))
        return insert("opaque")(conn, now_ms)

    results = await asyncio.gather(
        rig.write(insert("a")), rig.write(noted, Work.OPAQUE), rig.write(insert("b")), rig.write(insert("c"))
    )

    assert [txid for _, txid in results] == [2, 3, 4, 4]
    assert len(ran) == 1
    assert not ran[0][1]
    with pytest.raises(RequestTimeoutError, match=r"0\.3 s"):
        await rig.write(insert_counted(10**12), Work.OPAQUE)
    assert rig.rows() == ["a", "opaque", "b", "c"]


async def test_user_statement_with_an_error_of_its_own_is_told_it_at_once(rig):
    with pytest.raises(apsw.SQLError, match="no such table"):
        await rig.write(lambda conn, _: (conn.execute("INSERT INTO missing VALUES (1)"), True), Work.USER)
    assert rig.commits == []


async def test_budget_on_the_loop_is_counted_in_steps_and_lifted_afterwards(rig):
    with pytest.raises(OverBudgetError):
        within_steps(
            rig.conn,
            rig.clock,
            rig,
            lambda: rig.conn.execute(COUNT.format(10**9) + "SELECT count(*) FROM n").get,
        )
    assert rig.conn.execute(COUNT.format(50_000) + "SELECT count(*) FROM n").get == 50_000


async def test_deadline_in_the_pool_is_lifted_afterwards(rig):
    with pytest.raises(RequestTimeoutError):
        within_deadline(
            rig.conn,
            rig.deadlines(0.02),
            lambda: rig.conn.execute(COUNT.format(10**12) + "SELECT count(*) FROM n").get,
        )
    assert rig.conn.execute(COUNT.format(50_000) + "SELECT count(*) FROM n").get == 50_000


# ---- where rounds run


async def test_bounded_writes_run_on_the_loop_and_heavy_ones_in_the_pool(rig):
    ran = []

    await asyncio.gather(
        rig.write(insert("a", ran=ran)),
        rig.write(insert("heavy", ran=ran), Work.HEAVY),
        rig.write(insert("b", ran=ran)),
    )

    assert (ran[0], ran[1]) == (True, False)
    assert rig.rows() == ["a", "heavy", "b"]


async def test_rounds_run_in_the_pool_where_commit_fsyncs(pooled):
    ran = []

    await asyncio.gather(pooled.write(insert("a", ran=ran)), pooled.write(insert("b", ran=ran), Work.USER))

    assert ran == [False, False]


async def test_round_that_starts_the_log_anew_runs_in_the_pool(rig):
    rig.log_syncs, ran = True, []

    await rig.write(insert("a", ran=ran))

    assert ran == [False]


async def test_no_round_runs_while_the_gate_is_held(rig):
    await rig.gate.acquire()
    writing = asyncio.ensure_future(rig.write(insert("a")))
    await asyncio.sleep(0.02)
    assert rig.rows() == []

    rig.gate.release()

    assert await writing == ("a", 2)


# ---- bounds


async def test_full_queue_refuses_the_next_write_and_keeps_the_others(rig):
    waiting = [rig.writer.submit(insert(n), Work.POINT) for n in range(256)]

    with pytest.raises(OverloadedError, match="256 writes") as refused:
        rig.writer.submit(insert("too many"), Work.POINT)

    assert refused.value.retry_after_s >= 1
    assert len(rig.writer) == 256
    await asyncio.gather(*waiting)
    assert rig.rows() == list(range(256))
    assert await rig.write(insert("again")) == ("again", 6)


async def test_ceiling_is_raised_before_a_txid_above_it_is_used(rig):
    rig.ceiling = 2

    results = [await rig.write(insert(n)) for n in range(3)]

    assert [txid for _, txid in results] == [2, 3, 4]
    assert rig.raised == [2]


async def test_writes_fail_and_nothing_is_committed_when_the_ceiling_cannot_be_raised(rig):
    rig.ceiling = 1

    async def refuse():
        raise StoreUnavailableError("no store")

    rig.writer._raise_ceiling = refuse
    results = await asyncio.gather(rig.write(insert("a")), rig.write(insert("b")), return_exceptions=True)

    assert [type(r) for r in results] == [StoreUnavailableError] * 2
    assert (rig.rows(), rig.commits) == ([], [])
    rig.writer._raise_ceiling = rig.raise_ceiling
    assert await rig.write(insert("c")) == ("c", 2)


# ---- callers that go away, owners that lose the branch


async def test_cancelled_callers_do_not_break_the_round_for_the_others(rig):
    writes = [asyncio.ensure_future(rig.write(insert(n))) for n in range(4)]
    await asyncio.sleep(0)
    writes[1].cancel()

    results = await asyncio.gather(*writes, return_exceptions=True)

    assert [r for r in results if not isinstance(r, BaseException)] == [(0, 2), (2, 2), (3, 2)]
    assert isinstance(results[1], asyncio.CancelledError)
    assert await rig.write(insert("next")) == ("next", 3)


async def test_cancelled_caller_of_a_round_in_the_pool_leaves_it_whole(pooled):
    slow, started, go_on = held_up(insert("slow"))
    caller = asyncio.ensure_future(pooled.write(slow))
    other = asyncio.ensure_future(pooled.write(insert("other")))
    await asyncio.to_thread(started.wait, 5)
    caller.cancel()
    go_on.set()

    assert await other == ("other", 2)
    assert caller.cancelled()
    assert pooled.rows() == ["slow", "other"]
    assert not pooled.gate.locked()


async def test_stopped_writer_fails_what_waits_and_refuses_what_comes(rig):
    waiting = rig.writer.submit(insert("a"), Work.POINT)
    error = FencedError("somebody else")

    rig.writer.stop(error)

    with pytest.raises(FencedError):
        await waiting
    with pytest.raises(FencedError):
        rig.writer.submit(insert("b"), Work.POINT)
    await asyncio.sleep(0.01)
    assert (rig.rows(), rig.commits) == ([], [])


async def test_error_that_no_round_expects_is_told_to_everybody_in_it(rig, monkeypatch):
    def broken(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr(writer, "run_round", broken)
    results = await asyncio.gather(rig.write(insert("a")), rig.write(insert("b")), return_exceptions=True)
    monkeypatch.undo()

    assert [type(r) for r in results] == [ZeroDivisionError] * 2
    assert await rig.write(insert("c")) == ("c", 2)
