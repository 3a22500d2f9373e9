"""Compaction of a live branch: beside ships, one job at a time, and whatever it meets stays with it."""

import asyncio
import time

import pytest
from harness import node_on
from profiles import BY_HAND, everything, manifest_of, put, restored

from memoturnd.core import compaction, layout
from memoturnd.core.durability import Durability
from memoturnd.replication.compactor import Compactor
from memoturnd.stores.memory import MemoryStore


@pytest.fixture
async def life(tmp_path):
    """Yield (store, node, branch) with one durable write."""
    store = MemoryStore()
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        branch = await node.profile("a")
        await branch.write(put("x", "0"), durability=Durability.DURABLE)
        yield store, node, branch


async def settled(branch):
    shipper = branch.owned.shipper
    await shipper.ship()
    while (job := shipper.compactor.running) is not None:
        await asyncio.wait([job])
        await shipper.ship()


async def grow(branch, rounds):
    for n in range(rounds):
        await branch.write(put(f"k{n % 40}", "v" * 500 + str(n)), durability=Durability.DURABLE)


async def test_joined_segments_restore_every_round_and_replace_their_inputs(life):
    store, _, branch = life
    await grow(branch, 60)
    await settled(branch)

    current = await manifest_of(store, branch)
    assert any(ref.max > ref.min for ref in current.segments)
    assert len(current.segments) < 20
    assert (await branch.read(everything)).value["k19"].endswith("59")


async def test_damaged_segment_stops_only_the_joins_and_ships_go_on(life, monkeypatch):
    store, node, branch = life
    monkeypatch.setattr(compaction, "PAGE_ENTRIES", 8)
    await grow(branch, compaction.JOIN_SEGMENTS - 2)
    current = await manifest_of(store, branch)
    key = layout.object_key(current.db, current.segments[-1])
    data = bytearray((await store.get(key)).data)
    data[len(data) // 2] ^= 1
    await store.put(key, bytes(data))
    branch.services.archive.recent.drop([key])  # so that the join reads what the store has

    await grow(branch, 60)
    await settled(branch)

    failed = node.metrics.compactions["failed"]._value.get()
    assert 1 <= failed <= 3, "a job that fails waits before it is tried again"
    current = await manifest_of(store, branch)
    assert current.head_txid == branch.txid
    assert current.snapshots, "snapshots go on"
    assert current.pages, "and so do history pages"


async def test_two_jobs_of_a_branch_never_run_at_once(life, monkeypatch):
    _, _, branch = life
    running = most = 0
    original = Compactor._join

    async def counted(self, *args):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.002)
        await original(self, *args)
        running -= 1

    monkeypatch.setattr(Compactor, "_join", counted)
    await grow(branch, 120)
    await settled(branch)

    assert most == 1


async def test_writes_do_not_wait_for_a_compaction_that_hangs(life, monkeypatch):
    _, _, branch = life
    hangs = asyncio.Event()

    async def hang(self, *_):
        hangs.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(Compactor, "_join", hang)
    await grow(branch, 2 * compaction.JOIN_SEGMENTS)
    assert hangs.is_set()
    async with asyncio.timeout(5):
        await grow(branch, 20)
        assert await branch.close(), "closing ends it"


class Slow:
    """An executor whose work takes a moment longer than the caller may be willing to wait."""

    def __init__(self, inner):
        self.inner = inner

    async def run(self, work):
        def later():
            time.sleep(0.1)
            return work()

        return await self.inner.run(later)


async def test_snapshot_that_is_stopped_while_it_checkpoints_leaves_every_commit_restorable(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        for n in range(3):
            await profile.write(put("x", str(n)), durability=Durability.DURABLE)
        shipper = profile.owned.shipper
        quick, shipper._executor = shipper._executor, Slow(shipper._executor)
        job = asyncio.create_task(shipper._snapshot_beside_writes())
        await asyncio.sleep(0.03)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        shipper._executor = quick

        txids = [(await profile.write(put("x", value))).txid for value in "ab"]
        await shipper.ship()

        assert shipper.surprises == 0
        standing = await manifest_of(store, profile)
        assert await restored(store, standing, txids[0], tmp_path / "restored") == {"x": "a"}


async def test_burst_is_compacted_to_the_end_although_nothing_is_written_any_more(tmp_path, monkeypatch):
    monkeypatch.setattr("memoturnd.replication.compactor.LAND_S", 0.02)
    store = MemoryStore()
    async with node_on(tmp_path / "n", store, SHIP_INTERVAL_MS="10") as node:
        await node.databases.create("a")
        branch = await node.profile("a")
        await grow(branch, 60)

        async with asyncio.timeout(10):
            while True:
                await asyncio.sleep(0.05)
                current = await manifest_of(store, branch)
                due = compaction.choose_join(current) or compaction.snapshot_due(current)
                if (
                    not due
                    and not branch.owned.shipper._notes
                    and branch.owned.shipper.compactor.running is None
                ):
                    break

        assert len(current.segments) < 15
        assert current.head_txid == branch.txid
