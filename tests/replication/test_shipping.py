"""What an acknowledgement means, who shares an upload, and what a failing store can and cannot do to a branch."""

import asyncio

import pytest
from harness import node_on
from profiles import BY_HAND, everything, keys, manifest_of, put, restored, retained

import memoturnd.node
from memoturnd.core import layout, manifest
from memoturnd.core.durability import Durability
from memoturnd.core.manifest import Checkpoint
from memoturnd.core.register import remove_branch
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    FencedError,
    NotDurableError,
    OverloadedError,
    StoreUnavailableError,
)
from memoturnd.replication import swap
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.object_store import ObjectMissingError
from memoturnd.stores.faulty import SWAPS, Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore

SWAP = {"put_if_match"}
SEGMENTS = "/segments/"


@pytest.fixture
def store():
    return FaultyStore(MemoryStore(), SystemClock())


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Let durable writes wait for a quarter of a second, and swaps try again at once."""
    monkeypatch.setattr(memoturnd.node, "DURABLE_WAIT_S", 0.25)
    monkeypatch.setattr(swap, "_BACKOFF_S", 0.0005)


class Held:
    """Holds calls of one operation on the inner store until they are let go."""

    def __init__(self, store, operation, key=""):
        self.reached, self.go, self.calls = asyncio.Event(), asyncio.Event(), 0
        call = getattr(store.inner, operation)

        async def held(name, *args):
            if key in name:
                self.calls += 1
                self.reached.set()
                await self.go.wait()
            return await call(name, *args)

        setattr(store.inner, operation, held)


async def started(node, *values):
    """Return profile `a` with one durable write."""
    await node.databases.create("a")
    profile = await node.profile("a")
    await profile.write(put("x", "0"), durability=Durability.DURABLE)
    return profile


# ---- what an acknowledgement means


async def test_durable_write_is_acknowledged_only_after_the_manifest_landed(store, tmp_path):
    """Guard: memoturnd.replication.shipper.Shipper._ship_next says `_landed` behind `_swap`."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        held = Held(store, "put_if_match")
        writing = asyncio.ensure_future(profile.write(put("x", "1"), durability=Durability.DURABLE))
        await held.reached.wait()
        await asyncio.sleep(0.02)
        assert not writing.done()
        assert profile.durable_txid == 2
        assert (await manifest_of(store.inner, profile)).head_txid == 2

        held.go.set()

        written = await writing
        assert (written.txid, written.durable_txid, written.durable) == (3, 3, True)
        standing = await manifest_of(store.inner, profile)
        assert standing.head_txid == 3
        assert await restored(store.inner, standing, 3, tmp_path / "r") == {"x": "1"}


async def test_segment_is_in_the_store_before_a_manifest_names_it(store, tmp_path):
    """Guard: the order of `_put` and `_swap` in Shipper._ship_next."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        held = Held(store, "put", SEGMENTS)
        writing = asyncio.ensure_future(profile.write(put("x", "1"), durability=Durability.DURABLE))
        await held.reached.wait()
        await asyncio.sleep(0.02)

        standing = await manifest_of(store.inner, profile)
        assert standing.head_txid == 2
        assert await restored(store.inner, standing, 2, tmp_path / "r") == {"x": "0"}
        held.go.set()
        await writing


async def test_local_write_is_acknowledged_without_the_store_and_says_so(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        held = Held(store, "put")

        written = await profile.write(put("x", "1"))

        assert (written.txid, written.durable_txid, written.durable) == (3, 2, False)
        held.go.set()
        assert await node.branches.sync("a", "main", 3) == 3


async def test_node_may_make_every_write_durable(store, tmp_path):
    async with node_on(tmp_path / "n", store, DURABILITY="durable", **BY_HAND) as node:
        profile = await started(node)

        assert (await profile.write(put("x", "1"))).durable


async def test_durable_write_that_cannot_be_shipped_is_applied_and_says_not_to_repeat_it(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        fault = Fault(FaultKind.STATUS_500, {"put"}, times=None)
        store.faults.append(fault)

        with pytest.raises(NotDurableError, match="do not repeat"):
            await profile.write(put("x", "1"), durability=Durability.DURABLE)

        assert (await profile.read(everything)).value == {"x": "1"}
        assert profile.durable_txid == 2
        store.faults.clear()
        assert await node.branches.sync("a", "main") == 3


# ---- sharing an upload


async def test_concurrent_durable_writes_share_one_upload(store, tmp_path):
    """Guard: all waiters up to a ship's txid are answered by its one swap, in Shipper._landed."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        store.counts.clear()
        held = Held(store, "put", SEGMENTS)
        first = asyncio.ensure_future(profile.write(put("first", "1"), durability=Durability.DURABLE))
        await held.reached.wait()
        later = [
            asyncio.ensure_future(profile.write(put(f"k{n}", "1"), durability=Durability.DURABLE))
            for n in range(20)
        ]
        for _ in range(5000):
            if len(profile.owned.shipper._waiters) == 21:
                break
            await asyncio.sleep(0.001)
        held.go.set()

        written = await asyncio.gather(first, *later)

        assert all(w.durable for w in written)
        assert store.counts["put"] == 2
        assert store.counts["put_if_match"] == 2
        standing = await manifest_of(store, profile)
        assert retained(standing) == list(range(1, standing.head_txid + 1))


async def test_ships_that_are_asked_for_at_once_share_one_upload(store, tmp_path):
    """Guard: `_lock` in memoturnd.replication.shipper.Shipper.ship."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        await profile.write(put("x", "1"))
        store.counts.clear()
        store.faults.append(Fault(FaultKind.LATENCY, {"put"}, times=None, latency_s=0.02))

        shipped = await asyncio.gather(*(profile.owned.shipper.ship() for _ in range(5)))

        assert shipped == [3] * 5
        assert (store.counts["put"], store.counts["put_if_match"]) == (1, 1)


async def test_commits_during_an_upload_wait_for_the_next_one(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        held = Held(store, "put", SEGMENTS)
        first = asyncio.ensure_future(profile.write(put("x", "1"), durability=Durability.DURABLE))
        await held.reached.wait()
        second = asyncio.ensure_future(profile.write(put("x", "2"), durability=Durability.DURABLE))
        await asyncio.sleep(0.02)
        held.go.set()

        assert (await first).durable_txid >= 3
        assert (await second).durable_txid == 4
        assert held.calls == 2


# ---- half-shipped


async def test_segment_without_a_manifest_entry_is_nothing_and_is_sent_again_as_it_is(store, tmp_path):
    """Guard: `_prepared` in Shipper._ship_next keeps the bytes of a segment until its swap has landed."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        await profile.write(put("x", "1"))
        store.faults.append(Fault(FaultKind.STATUS_500, SWAP, times=None))
        with pytest.raises(StoreUnavailableError):
            await profile.owned.shipper.ship()
        orphan = [key for key in await keys(store, SEGMENTS) if f"{3:016d}-" in key]
        standing = await manifest_of(store, profile)
        assert (len(orphan), standing.head_txid) == (1, 2)
        assert await restored(store, standing, 2, tmp_path / "r") == {"x": "0"}
        with pytest.raises(ConflictError):
            manifest.restore_plan(standing, 3)

        store.faults.clear()
        await profile.write(put("x", "2"))
        await profile.owned.shipper.ship()

        standing = await manifest_of(store, profile)
        assert [layout.object_key(standing.db, ref) for ref in standing.segments][1:2] == orphan
        assert len(await keys(store, SEGMENTS)) == len(standing.segments) == 3
        assert await restored(store, standing, 3, tmp_path / "r") == {"x": "1"}
        assert await restored(store, standing, 4, tmp_path / "r") == {"x": "2"}


async def test_cursor_moves_only_when_the_manifest_has_landed(store, tmp_path):
    """Guard: Shipper._ship_next calls Capture.landed behind `_swap`."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        for kind, operations in ((FaultKind.STATUS_500, {"put"}), (FaultKind.STATUS_500, SWAP)):
            await profile.write(put("x", kind.value))
            store.faults.append(Fault(kind, operations, times=None))
            with pytest.raises(StoreUnavailableError):
                await profile.owned.shipper.ship()
            assert profile.owned.capture.cursor.txid == profile.durable_txid == 2
            store.faults.clear()


# ---- bounds of the unshipped window


async def test_writes_wait_at_the_byte_bound_and_fail_without_being_applied(store, tmp_path):
    """Guard: the look at `crowded()` in memoturnd.engine.branch.Branch.write."""
    bounds = {"UNSHIPPED_MAX_BYTES": "100000", "UNSHIPPED_WAIT_S": "0.2"}
    async with node_on(tmp_path / "n", store, **(BY_HAND | bounds)) as node:
        profile = await started(node)
        store.faults.append(Fault(FaultKind.STATUS_503, {"put"}, times=None))
        for n in range(50):
            if profile.owned.shipper.crowded():
                break
            await profile.write(put(f"k{n}", "v" * 20_000))
        with pytest.raises(OverloadedError, match="not applied") as refused:
            await profile.write(put("never", "1"))
        before, txid = (await profile.read(everything)).value, profile.txid
        assert 100_000 < profile.owned.shipper.unshipped_bytes < 200_000
        assert refused.value.retry_after_s >= 1
        assert "never" not in before

        store.faults.clear()
        await profile.owned.shipper.ship()

        assert (await profile.write(put("now", "1"))).txid == txid + 1


async def test_writes_wait_at_the_age_bound_and_go_on_when_the_store_is_back(store, tmp_path):
    """Guard: `unshipped_age_s` in Shipper.crowded."""
    bounds = {"UNSHIPPED_MAX_AGE_S": "0.1", "UNSHIPPED_WAIT_S": "5", "SHIP_INTERVAL_MS": "20"}
    async with node_on(tmp_path / "n", store, **bounds) as node:
        profile = await started(node)
        store.faults.append(Fault(FaultKind.STATUS_503, {"put"}, times=None))
        await profile.write(put("x", "1"))
        await asyncio.sleep(0.15)
        waiting = asyncio.ensure_future(profile.write(put("x", "2")))
        await asyncio.sleep(0.1)
        assert not waiting.done()

        store.faults.clear()

        assert (await waiting).txid == 4
        assert profile.durable_txid >= 3


async def test_reads_go_on_while_writes_wait(store, tmp_path):
    bounds = {"UNSHIPPED_MAX_AGE_S": "0.05", "UNSHIPPED_WAIT_S": "0.2"}
    async with node_on(tmp_path / "n", store, **bounds) as node:
        profile = await started(node)
        store.faults.append(Fault(FaultKind.STATUS_503, {"put"}, times=None))
        await profile.write(put("x", "1"))
        await asyncio.sleep(0.06)
        waiting = asyncio.ensure_future(profile.write(put("x", "2")))

        assert (await profile.read(everything)).value == {"x": "1"}
        with pytest.raises(OverloadedError):
            await waiting
        store.faults.clear()


# ---- what the store answers


def str_id(value):
    return value.value if isinstance(value, FaultKind) else "+".join(sorted(value))


STRIKES = [
    (kind, operations)
    for kind in (
        FaultKind.LOST_REQUEST,
        FaultKind.LOST_REPLY,
        FaultKind.DELAYED,
        FaultKind.STATUS_409,
        FaultKind.STATUS_412,
        FaultKind.STATUS_500,
        FaultKind.STATUS_503,
        FaultKind.LATENCY,
    )
    for operations in ({"put"}, SWAP, {"put", "put_if_match", "get"})
    if not (kind is FaultKind.STATUS_412 and operations == {"put"})
]


@pytest.mark.parametrize(("kind", "operations"), STRIKES, ids=str_id)
async def test_no_fault_of_the_store_loses_a_write_or_applies_it_twice(store, tmp_path, kind, operations):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        for n in range(6):
            store.faults.append(Fault(kind, operations, times=1 + n % 3, latency_s=0.002))
            await profile.write(put(f"k{n}", str(n)))
            try:
                await profile.owned.shipper.ship()
            except StoreUnavailableError:
                assert profile.durable_txid < profile.txid
            if n % 2:
                await store.land()
        store.faults.clear()
        await store.land()
        assert await profile.owned.shipper.ship() == profile.txid == 8
        await store.land()
        standing = await manifest_of(store, profile)
        assert store.counts["delete"] == 0
        assert standing.head_txid == 8
        assert retained(standing) == list(range(1, 9))
        for txid in retained(standing)[1:]:
            expected = {"x": "0"} | {f"k{n}": str(n) for n in range(txid - 2)}
            assert await restored(store, standing, txid, tmp_path / "r") == expected


async def test_nothing_is_deleted_when_an_outcome_is_unknown(store, tmp_path):
    """A segment whose swap may still land must stay: nothing in shipping deletes."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        await profile.write(put("x", "1"))
        store.faults.append(Fault(FaultKind.DELAYED, SWAP, times=None))
        with pytest.raises(StoreUnavailableError):
            await profile.owned.shipper.ship()
        store.faults.clear()
        assert store.counts["delete"] == 0

        await store.land()  # one of the tries arrives after all

        standing = await manifest_of(store, profile)
        assert standing.head_txid == 3
        assert await restored(store, standing, 3, tmp_path / "r") == {"x": "1"}
        assert await profile.owned.shipper.ship() == 3
        assert len((await manifest_of(store, profile)).segments) == 2


async def test_branch_deleted_in_the_store_stops_its_writer(store, tmp_path):
    """A 404 on the swap is fatal: the branch must not come back by a write."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        await profile.write(put("x", "1"))
        register = node._services.register_file(profile.ref.database.uuid)
        await register.update(lambda r: remove_branch(r, "main", profile.ref.branch_id))
        await store.inner.delete(profile.manifests.key)

        with pytest.raises(FencedError, match="deleted"):
            await profile.owned.shipper.ship()

        with pytest.raises(ObjectMissingError):
            await manifest_of(store, profile)


async def test_manifest_that_the_store_lost_is_no_deletion(store, tmp_path):
    """The register still names the branch: the writer keeps its commits, and ships when the manifest is back."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        await profile.write(put("x", "1"))
        lost = await store.inner.get(profile.manifests.key)
        await store.inner.delete(profile.manifests.key)

        with pytest.raises(StoreUnavailableError, match="lost"):
            await profile.owned.shipper.ship()

        await store.inner.put(profile.manifests.key, lost.data)
        assert await profile.owned.shipper.ship() == 3


async def test_store_that_hangs_is_given_up_and_the_segment_sent_again(store, tmp_path, monkeypatch):
    monkeypatch.setattr(memoturnd.node, "STORE_TIMEOUT_S", 0.05)
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        held = Held(store, "put", SEGMENTS)
        await profile.write(put("x", "1"))

        with pytest.raises(StoreUnavailableError, match=r"took over 0\.05 s"):
            await profile.owned.shipper.ship()

        held.go.set()
        assert await profile.owned.shipper.ship() == 3


async def test_manifest_that_cannot_be_read_stops_shipping_and_says_so(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        good = await store.inner.get(profile.manifests.key)
        await store.inner.put(profile.manifests.key, good.data[:-10])
        await profile.write(put("x", "1"))

        with pytest.raises(CorruptionError, match="manifest"):
            await profile.owned.shipper.ship()
        assert (await profile.read(everything)).value == {"x": "1"}

        await store.inner.put(profile.manifests.key, good.data)
        assert await profile.owned.shipper.ship() == 3


# ---- a fence


async def fence(store, profile):
    """Raise the branch's epoch in the store, as another node's takeover does."""
    standing = await manifest_of(store.inner, profile)
    other = manifest.replace(standing, epoch=standing.epoch + 1, owner="other", commit_id="other")
    await store.inner.put(profile.manifests.key, manifest.encode(other))


async def test_fenced_writer_stops_at_once_and_answers_no_durable_write(store, tmp_path):
    """Guard: `_owned` in memoturnd.core.manifest.append_segments."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        await fence(store, profile)
        shipper, writer = profile.owned.shipper, profile.owned.writer

        with pytest.raises(FencedError, match="epoch"):
            await profile.write(put("x", "1"), durability=Durability.DURABLE)

        with pytest.raises(FencedError):
            writer.submit(put("x", "2"), None)
        assert shipper.stopped
        assert (await manifest_of(store, profile)).head_txid == 2


@pytest.mark.parametrize("use", ["checkpoint", "rewind", "undo", "fork", "sync", "write", "read"])
async def test_use_after_a_fence_recovers_first(store, tmp_path, use):
    """Whatever comes next must not go through the owner that was fenced."""
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        await node.branches.checkpoint("a", "main", "good")
        await profile.write(put("x", "1"))
        await fence(store, profile)
        with pytest.raises(FencedError):
            await profile.owned.shipper.ship()

        match use:
            case "checkpoint":
                assert (await node.branches.checkpoint("a", "main", "c")).txid == 2
                assert "c" in (await manifest_of(store, profile)).checkpoints
            case "rewind":
                rewound = await node.branches.rewind("a", "main", "good")
                assert rewound.durable_txid == rewound.txid
            case "undo":
                with pytest.raises(ConflictError):
                    await node.branches.undo_rewind("a", "main")
            case "fork":
                assert (await node.branches.create("a", "f")).fork_txid == 2
            case "sync":
                assert await node.branches.sync("a", "main") == 2
            case "write":
                assert (await profile.write(put("y", "1"), durability=Durability.DURABLE)).durable
            case "read":
                assert (await profile.read(everything)).value == {"x": "0"}

        names = [row.name for row in await node.branches.list("a") if row.name != "f"]
        assert len(names) == 1, "the commit of the fenced owner is kept"
        kept = await node.profile("a", names[0])
        assert (await kept.read(everything)).value == {"x": "1"}


async def test_change_that_rides_on_a_ship_lands_with_it(store, tmp_path):
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        profile = await started(node)
        await profile.write(put("x", "1"))
        store.counts.clear()

        await profile.owned.shipper.ship(
            then=lambda m: manifest.set_checkpoint(m, "c", Checkpoint(m.head_txid, 1))
        )

        assert (await manifest_of(store, profile)).checkpoints == {"c": Checkpoint(3, 1)}
        assert store.counts["put_if_match"] == 1
        assert sum(store.counts[operation] for operation in SWAPS) == 1
