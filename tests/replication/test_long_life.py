"""A branch that lives long: what a ship, a fork and a restore cost does not grow with its history."""

import asyncio
import statistics
import time

import pytest
from harness import node_on

from memoturnd.core import layout, manifest
from memoturnd.engine.connection import open_connection
from memoturnd.replication.archive import CHECKPOINTS, PINS
from memoturnd.replication.restore import restore
from memoturnd.seams.executor import InlineExecutor
from memoturnd.stores.memory import MemoryStore

HEAD_LIMIT_BYTES = 64 * 1024


class CountingStore(MemoryStore):
    """Counts requests by method."""

    def __init__(self):
        super().__init__()
        self.gets = self.puts = 0

    async def get(self, key):
        self.gets += 1
        return await super().get(key)

    async def put(self, key, data):
        self.puts += 1
        await super().put(key, data)


def put(key, value):
    def op(conn, _now_ms):
        conn.execute("INSERT OR REPLACE INTO __memoturn_kv (ns, k, v) VALUES ('n', ?, ?)", (key, value))
        return None, True

    return op


async def live_at(node, store, branch, txid, path):
    """Return (rows of the key-value table at `txid`, objects read for it)."""
    current = await branch.manifests.load()
    before = store.gets
    reaching = await node._services.archive.reaching(current, txid)
    await restore(store, reaching, txid, path, executor=InlineExecutor(), fsync=False)
    gets = store.gets - before
    conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=256)
    try:
        return dict(conn.execute("SELECT k, v FROM __memoturn_kv").fetchall()), gets
    finally:
        conn.close()
        for leftover in path.parent.glob(path.name + "*"):
            leftover.unlink()


async def settled(branch):
    """Ship, and compact until nothing is due."""
    shipper = branch.owned.shipper
    await shipper.ship()
    while (job := shipper.compactor.running) is not None:
        await asyncio.wait([job])
        await shipper.ship()


@pytest.mark.parametrize("commits", [10_000, pytest.param(200_000, marks=pytest.mark.soak)])
async def test_ships_restores_and_manifest_do_not_grow_with_commits(tmp_path, commits):
    store = CountingStore()
    per_ship = 10
    async with node_on(tmp_path / "node", store, SHIP_INTERVAL_MS="60000", UNSHIPPED_MAX_AGE_S="600") as node:
        await node.databases.create("p")
        branch = await node.profile("p")
        txids, seconds = {}, []
        for n in range(commits):
            written = await branch.write(put(f"k{n % 100}", str(n)))
            if n % per_ship == per_ship - 1:
                started = time.perf_counter()
                await branch.owned.shipper.ship()
                seconds.append(time.perf_counter() - started)
                assert branch.manifests.size_bytes < HEAD_LIMIT_BYTES
            if n % (commits // 20) == 0:
                txids[written.txid] = n
        await settled(branch)

        for txid, n in txids.items():
            state, _ = await live_at(node, store, branch, txid, tmp_path / "past.db")
            assert state[f"k{n % 100}"] == str(n)
            assert len(state) == min(n + 1, 100)
        _, gets = await live_at(node, store, branch, branch.txid, tmp_path / "past.db")
        assert gets <= 13
        whole = await node._services.archive.whole(await branch.manifests.load())
        assert len(whole.objects) < 300
        tenth = len(seconds) // 10
        first, last = statistics.median(seconds[:tenth]), statistics.median(seconds[-tenth:])
        assert last < 3 * first, f"a ship took {first:.6f} s at first and {last:.6f} s in the end"


async def test_checkpoints_and_forks_by_the_thousand_leave_the_head_small(tmp_path):
    store = CountingStore()
    async with node_on(tmp_path / "node", store, SHIP_INTERVAL_MS="60000", UNSHIPPED_MAX_AGE_S="600") as node:
        await node.databases.create("p")
        branch = await node.profile("p")
        await branch.write(put("k", "v"))
        made = {}
        for n in range(1_000):
            if n % 10 == 0:
                await branch.write(put("k", str(n)))
            made[f"c{n}"] = (await node.branches.checkpoint("p", "main", f"c{n}")).txid
            assert branch.manifests.size_bytes < HEAD_LIMIT_BYTES
        for n in range(0, 1_000, 3):
            await node.branches.delete_checkpoint("p", "main", f"c{n}")
            del made[f"c{n}"]
        seconds = []
        for n in range(1_000):
            started = time.perf_counter()
            await node.branches.create("p", f"f{n}", at=f"c{3 * (n % 300) + 1}")
            seconds.append(time.perf_counter() - started)
            assert branch.manifests.size_bytes < HEAD_LIMIT_BYTES

        assert {c.name: c.txid for c in await node.branches.checkpoints("p", "main")} == made
        current = await branch.manifests.load(fresh=True)
        archive = node._services.archive
        assert len(await archive.all(PINS, current)) == 1_000
        assert (await archive.find(CHECKPOINTS, current, "c0")) is None
        register = (await store.get(layout.register_key(current.db))).data
        assert len(register) < HEAD_LIMIT_BYTES
        fork = await node.profile("p", "f999")
        forked = await fork.manifests.load()
        assert forked.head_txid == made[f"c{3 * (999 % 300) + 1}"]
        assert len(manifest.encode(forked)) < HEAD_LIMIT_BYTES
        first, last = statistics.median(seconds[:100]), statistics.median(seconds[-100:])
        assert last < 3 * first, f"a fork took {first:.6f} s at first and {last:.6f} s in the end"
        names = {row.name for row in await node.branches.list("p")}
        assert names == {f"f{n}" for n in range(1_000)}


@pytest.mark.soak
async def test_ten_thousand_forks_and_a_hundred_thousand_checkpoints(tmp_path):
    store = CountingStore()
    async with node_on(tmp_path / "node", store, SHIP_INTERVAL_MS="60000", UNSHIPPED_MAX_AGE_S="600") as node:
        await node.databases.create("p")
        branch = await node.profile("p")
        await branch.write(put("k", "v"))
        for n in range(100_000):
            await node.branches.checkpoint("p", "main", f"c{n}")
            assert branch.manifests.size_bytes < HEAD_LIMIT_BYTES
        seconds = []
        for n in range(10_000):
            started = time.perf_counter()
            await node.branches.create("p", f"f{n}")
            seconds.append(time.perf_counter() - started)
            assert branch.manifests.size_bytes < HEAD_LIMIT_BYTES
        first, last = statistics.median(seconds[:1000]), statistics.median(seconds[-1000:])
        assert last < 3 * first, f"a fork took {first:.6f} s at first and {last:.6f} s in the end"
        assert len(await node.branches.checkpoints("p", "main")) == 100_000
