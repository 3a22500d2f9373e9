"""Rewinds, which lose nothing; and leaving: what must be in the store before a file or a lease is let go."""

import asyncio
import threading
import time

import apsw
import pytest
from harness import node_on
from profiles import BY_HAND, Cable, everything, keys, manifest_of, put, restored, retained

import memoturnd.node
from memoturnd.core.durability import Durability
from memoturnd.engine import branching
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    NotDurableError,
    RetryableError,
    StoreUnavailableError,
)
from memoturnd.leases.local import LocalLeases
from memoturnd.replication import swap
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.profile import Work
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


@pytest.fixture
def store():
    return FaultyStore(MemoryStore(), SystemClock())


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(swap, "_BACKOFF_S", 0.0005)


async def started(node, **values):
    await node.databases.create("a")
    profile = await node.profile("a")
    for key, value in values.items():
        await profile.write(put(key, value))
    return profile


# ---- rewind


async def test_rewind_is_a_new_commit_and_what_came_after_stays_restorable(store, tmp_path):
    """Guard: memoturnd.engine.branching.Branching._rewind commits the old state as the next txid."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1", y="2", z="3")
        before = (await manifest_of(store, profile)).segments

        rewound = await node.branches.rewind("a", "main", "2")

        assert (rewound.rewound_to, rewound.txid, rewound.undo_txid, rewound.durable_txid) == (2, 5, 4, 5)
        assert (await profile.read(everything)).value == {"x": "1"}
        await profile.write(put("w", "4"), durability=Durability.DURABLE)
        standing = await manifest_of(store, profile)

    assert retained(standing) == [1, 2, 3, 4, 5, 6]
    assert set(before) <= set(standing.segments), "a rewind takes nothing out of the chain"
    expected = {
        3: {"x": "1", "y": "2"},
        4: {"x": "1", "y": "2", "z": "3"},
        5: {"x": "1"},
        6: {"x": "1", "w": "4"},
    }
    for txid, state in expected.items():
        assert await restored(store, standing, txid, tmp_path / "r") == state


async def test_rewind_ships_the_tail_first(store, tmp_path):
    """Guard: `owned.shipper.ship()` at the beginning of Branching.rewind."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1")
        await profile.owned.shipper.ship()
        await profile.write(put("x", "tail"))
        store.faults.append(Fault(FaultKind.STATUS_503, {"put"}, times=None))

        with pytest.raises(StoreUnavailableError):
            await node.branches.rewind("a", "main", "2")

        assert (await profile.read(everything)).value == {"x": "tail"}
        assert profile.txid == 3
        store.faults.clear()
        await node.branches.rewind("a", "main", "2")
        standing = await manifest_of(store, profile)
    assert await restored(store, standing, 3, tmp_path / "r") == {"x": "tail"}


async def test_undo_brings_the_state_back_and_twice_redoes_it(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1", y="2")
        await node.branches.rewind("a", "main", "2")

        assert (await node.branches.undo_rewind("a", "main")).txid == 5
        assert (await profile.read(everything)).value == {"x": "1", "y": "2"}
        await node.branches.undo_rewind("a", "main")
        assert (await profile.read(everything)).value == {"x": "1"}
        await profile.write(put("z", "3"))
        with pytest.raises(ConflictError, match="after its last rewind"):
            await node.branches.undo_rewind("a", "main")


async def test_rewind_to_a_damaged_past_changes_nothing(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1", y="2")
        store.faults.append(Fault(FaultKind.BIT_FLIP, {"get"}, key="/segments/"))

        with pytest.raises(CorruptionError):
            await node.branches.rewind("a", "main", "2")

        assert (await profile.read(everything)).value == {"x": "1", "y": "2"}
        assert profile.txid == 3
        assert not list(profile.files.folder.glob("past-*"))


async def test_rewind_that_sqlite_refuses_changes_nothing_and_says_so(store, tmp_path, monkeypatch):
    def refused(*_args):
        raise apsw.BusyError("locked")

    monkeypatch.setattr(branching, "_replay", refused)
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1", y="2")

        with pytest.raises(RetryableError):
            await node.branches.rewind("a", "main", "2")

        assert (profile.txid, (await profile.read(everything)).value) == (3, {"x": "1", "y": "2"})
        assert (await profile.write(put("z", "3"), durability=Durability.DURABLE)).txid == 4


async def test_rewind_whose_caller_leaves_is_a_commit_all_the_same(store, tmp_path, monkeypatch):
    """Guard: `note_commit` where the file stands at the new txid, in Branching._rewind."""
    replay, started_, go_on = branching._replay, threading.Event(), threading.Event()

    def held(*args):
        started_.set()
        assert go_on.wait(5)
        return replay(*args)

    monkeypatch.setattr(branching, "_replay", held)
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1", y="2")
        rewinding = asyncio.ensure_future(node.branches.rewind("a", "main", "2"))
        await asyncio.to_thread(started_.wait, 5)
        rewinding.cancel()
        await asyncio.sleep(0.01)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await rewinding

        assert profile.txid == 4
        written = await profile.write(put("z", "3"), durability=Durability.DURABLE)
        assert written.txid == 5
        assert profile.owned.shipper.surprises == 0
        standing = await manifest_of(store, profile)
    assert await restored(store, standing, 4, tmp_path / "r") == {"x": "1"}
    assert await restored(store, standing, 5, tmp_path / "r") == {"x": "1", "z": "3"}


async def test_rewind_that_is_committed_but_not_shipped_says_not_to_repeat_it(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1", y="2")
        await profile.owned.shipper.ship()
        store.faults.append(Fault(FaultKind.STATUS_503, {"put"}, times=None))

        with pytest.raises(NotDurableError, match="do not repeat it"):
            await node.branches.rewind("a", "main", "2")

        assert (await profile.read(everything)).value == {"x": "1"}
        store.faults.clear()
        assert await node.branches.sync("a", "main") == 4
        await node.branches.rewind("a", "main", "3")
        assert (await profile.read(everything)).value == {"x": "1", "y": "2"}


async def test_writes_go_on_around_a_rewind_and_each_is_before_or_after_it(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1")
        await profile.owned.shipper.ship()

        async def writing():
            for n in range(40):
                await profile.write(put(f"k{n}", "1"))
                await asyncio.sleep(0.0005)

        writer = asyncio.ensure_future(writing())
        await asyncio.sleep(0.005)
        rewound = await node.branches.rewind("a", "main", "2")
        await writer
        await profile.owned.shipper.ship()
        standing = await manifest_of(store, profile)
        head = (await profile.read(everything)).value

    assert retained(standing) == list(range(1, 44))
    assert await restored(store, standing, rewound.txid, tmp_path / "r") == {"x": "1"}
    assert head == {"x": "1"} | {f"k{t - 4}": "1" for t in range(rewound.txid + 1, 44)}


# ---- eviction


async def test_file_goes_with_its_log_only_when_all_of_it_is_shipped(store, tmp_path):
    """Guards: `ship` and the comparison with `durable_txid` in memoturnd.engine.branch.Branch.close."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1")
        store.faults.append(Fault(FaultKind.STATUS_503, {"put"}, times=None))

        assert not await node.tiers.evict(profile)

        assert profile.files.main.exists()
        assert profile.files.wal.exists()
        store.faults.clear()
        assert await node.tiers.evict(profile)
        assert not profile.files.folder.exists(), "the file, its -wal and its -shm"
        assert (await manifest_of(store, profile)).head_txid == 2
        assert (await profile.read(everything)).value == {"x": "1"}


async def test_commit_that_arrives_while_the_rest_is_shipped_keeps_the_file(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1")
        store.faults.append(Fault(FaultKind.LATENCY, {"put"}, latency_s=0.03))
        evicting = asyncio.ensure_future(node.tiers.evict(profile))
        await asyncio.sleep(0.01)
        await profile.write(put("x", "2"))

        assert not await evicting

        assert (await profile.read(everything)).value == {"x": "2"}


async def test_file_stays_while_somebody_reads(store, tmp_path):
    """Guard: `idle` in Branch.close."""
    reading, go_on = threading.Event(), threading.Event()

    def slow(conn, _now_ms):
        reading.set()
        assert go_on.wait(5)
        return everything(conn)

    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1")
        reader = asyncio.ensure_future(profile.read(slow, work=Work.HEAVY))
        await asyncio.to_thread(reading.wait, 5)

        assert not await node.tiers.evict(profile)

        go_on.set()
        assert (await reader).value == {"x": "1"}
        assert await node.tiers.evict(profile)


async def test_evicted_state_is_the_one_that_comes_back(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1")
        for n in range(6):
            await profile.write(put("n", str(n)))
            await profile.owned.shipper.ship()
        assert await node.tiers.evict(profile)
        assert len(await keys(store, "/snapshots/")) == 1, "many objects are made one on the way out"
        store.counts.clear()

        assert (await profile.read(everything)).value == {"x": "1", "n": "5"}

        assert store.counts["get"] == 2, "the manifest and the snapshot"


# ---- leaving


async def test_leaving_node_ships_then_gives_back_then_lets_the_lease_go(store, tmp_path, monkeypatch):
    """Guards: `give_back` in memoturnd.node.Node.drain, and its order in memoturnd.engine.takeover.give_back."""
    events = []
    release, swap_ = LocalLeases.release, store.inner.put_if_match

    async def released(self, lease):
        events.append("lease")
        await release(self, lease)

    async def swapped(key, data, etag):
        result = await swap_(key, data, etag)
        if key.endswith("manifest.json"):
            standing = memoturnd.core.manifest.decode(data)
            events.append((standing.head_txid, standing.txid_ceiling == standing.head_txid))
        return result

    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node, x="1", y="2")
        monkeypatch.setattr(LocalLeases, "release", released)
        store.inner.put_if_match = swapped

    assert events == [(3, False), (3, True), "lease"]
    assert (profile.files.folder / "clean").exists()
    async with node_on(tmp_path / "fresh", store) as node:
        profile = await node.profile("a")
        assert (await profile.write(put("z", "3"))).txid == 4, "no txid is skipped after a clean leave"


async def test_leaving_node_without_its_store_keeps_the_files_and_ends_in_time(tmp_path, monkeypatch):
    monkeypatch.setattr(memoturnd.node, "DRAIN_S", 0.3)
    cable = Cable(MemoryStore())
    async with node_on(tmp_path / "n", cable, **BY_HAND) as node:
        await started(node, x="1")
        cable.cut = True
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 3

    cable.cut = False
    async with node_on(tmp_path / "n", cable, **BY_HAND) as node:
        assert await node.branches.sync("a", "main") == 2
        assert (await (await node.profile("a")).read(everything)).value == {"x": "1"}


async def test_leaving_node_does_not_wait_for_a_store_that_hangs(store, tmp_path, monkeypatch):
    """Guard: DRAIN_S around the branches in Node.drain."""
    monkeypatch.setattr(memoturnd.node, "DRAIN_S", 0.3)
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await started(node, x="1")
        store.faults.append(Fault(FaultKind.LATENCY, {"put"}, times=None, latency_s=60))
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 3
