"""Operations that meet: forks, deletions, undos, writes, power cuts, long statements."""

import asyncio
import shutil
import time

import pytest
from harness import node_on

from memoturnd.core.durability import Durability
from memoturnd.core.revisions import rfc3339
from memoturnd.engine.branching import BranchCreated
from memoturnd.errors import AlreadyExistsError, ConflictError, InvalidRequestError, RequestTimeoutError
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.profile import Work
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


def put(value):
    def op(conn, _now_ms):
        conn.execute("INSERT OR REPLACE INTO __memoturn_kv (ns, k, v) VALUES ('n', 'k', ?)", (value,))
        return None, True

    return op


def get(conn, _now_ms):
    return conn.execute("SELECT v FROM __memoturn_kv WHERE k = 'k'").get


async def test_of_forks_with_one_name_exactly_one_is_made(tmp_path):
    slow = [Fault(FaultKind.LATENCY, {"put_if_match", "put_if_absent"}, times=None, latency_s=0.005)]
    async with node_on(tmp_path, FaultyStore(MemoryStore(), SystemClock(), slow)) as node:
        await node.databases.create("a")

        made = await asyncio.gather(
            *(node.branches.create("a", "f") for _ in range(4)), return_exceptions=True
        )

        assert sum(isinstance(m, BranchCreated) for m in made) == 1
        assert sum(isinstance(m, AlreadyExistsError) for m in made) == 3
        assert [row.name for row in await node.branches.list("a")] == ["f"]
        assert (await (await node.profile("a", "f")).read(lambda conn, _: 1)).value == 1


async def test_forks_with_other_names_do_not_hinder_each_other(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        await node.databases.create("a")

        made = await asyncio.gather(*(node.branches.create("a", f"f{i}") for i in range(20)))

        assert {m.branch for m in made} == {f"f{i}" for i in range(20)}
        assert len(await node.branches.list("a")) == 20


async def test_fork_made_while_its_name_is_deleted_is_whole_or_refused(tmp_path):
    slow = [
        Fault(FaultKind.LATENCY, {"put_if_match", "put_if_absent", "delete"}, times=None, latency_s=0.005)
    ]
    async with node_on(tmp_path, FaultyStore(MemoryStore(), SystemClock(), slow)) as node:
        await node.databases.create("a")
        await node.branches.create("a", "f")

        _, made = await asyncio.gather(
            node.branches.delete("a", "f"), node.branches.create("a", "f"), return_exceptions=True
        )

        names = [row.name for row in await node.branches.list("a")]
        assert names == (["f"] if isinstance(made, BranchCreated) else [])
        if names:
            assert (await (await node.profile("a", "f")).read(lambda conn, _: 1)).value == 1


async def test_undo_that_meets_a_write_is_refused(tmp_path):
    store = FaultyStore(MemoryStore(), SystemClock())
    async with node_on(tmp_path, store, SHIP_INTERVAL_MS="60000") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        first = await profile.write(put("1"))
        await profile.write(put("2"))
        await node.branches.rewind("a", "main", str(first.txid))
        store.faults.append(Fault(FaultKind.LATENCY, {"get"}, times=None, latency_s=0.05))

        undo = asyncio.create_task(node.branches.undo_rewind("a", "main"))
        await asyncio.sleep(0.02)
        await profile.write(put("3"))

        with pytest.raises(ConflictError):
            await undo
        assert (await profile.read(get)).value == "3"


async def test_txids_that_a_power_cut_took_are_not_used_again(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path / "a", store, SHIP_INTERVAL_MS="60000") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("1"), durability=Durability.DURABLE)
        before = {path: path.stat().st_size for path in (tmp_path / "a").rglob("main.db-wal")}
        acknowledged = await profile.write(put("2"))
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        (log,) = (tmp_path / "b").rglob("main.db-wal")
        with log.open("r+b") as file:  # the end of the log had not reached the disk
            file.truncate(next(iter(before.values())))

    async with node_on(tmp_path / "b", FaultyStore(store, None), boot_id="after the power cut") as node:
        written = await (await node.profile("a")).write(put("3"))
        assert written.txid > acknowledged.txid


async def test_long_user_statements_neither_hold_up_others_nor_the_stop(tmp_path):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    async with node_on(tmp_path, MemoryStore()) as node:
        for name in ("a", "b"):
            await node.databases.create(name)
        profile, other = await node.profile("a"), await node.profile("b")
        await profile.write(put("1"))
        reads = [
            asyncio.create_task(profile.read(lambda conn, _: conn.execute(endless).get, work=Work.USER))
            for _ in range(4)
        ]
        await asyncio.sleep(0.2)

        async with asyncio.timeout(3):
            assert (await profile.read(get, work=Work.HEAVY)).value == "1"
            await other.write(put("1"), durability=Durability.DURABLE)
            await profile.write(put("2"), work=Work.HEAVY)
        started_s = time.monotonic()
    assert time.monotonic() - started_s < 8
    for outcome in await asyncio.gather(*reads, return_exceptions=True):
        assert isinstance(outcome, RequestTimeoutError)


async def test_forks_and_rewinds_take_any_revision(tmp_path):
    async with node_on(tmp_path, MemoryStore(), SHIP_INTERVAL_MS="60000") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        txids, times = [], []
        for value in "123":
            txids.append((await profile.write(put(value))).txid)
            times.append(profile.at_ms)
            await asyncio.sleep(0.003)

        for name, at in (
            ("f1", rfc3339(times[0])),
            ("f2", str(times[1] + 1)),
            ("f3", "head~1"),
            ("f4", "head"),
        ):
            await node.branches.create("a", name, at=at)
        values = [
            (await (await node.profile("a", name)).read(get)).value for name in ("f1", "f2", "f3", "f4")
        ]
        back = await node.branches.rewind("a", "main", "head~2")

        assert values == ["1", "2", "2", "3"]
        assert (back.rewound_to, (await profile.read(get)).value) == (txids[0], "1")


async def test_bad_revision_is_refused_before_anything_is_shipped_or_made(tmp_path):
    async with node_on(tmp_path, MemoryStore(), SHIP_INTERVAL_MS="60000") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        written = await profile.write(put("1"))

        with pytest.raises(InvalidRequestError, match="head~N"):
            await node.branches.create("a", "f", at="yesterday noon")
        with pytest.raises(InvalidRequestError, match="head~N"):
            await node.branches.rewind("a", "main", "2026-11-24T09:30")

        assert (await node.branches.list("a"), profile.durable_txid < written.txid) == ([], True)
