"""A restored file is whole and proven, or it is not there; one damaged branch leaves the others alone."""

import asyncio
import os
import threading

import apsw
import pytest
from disk import files_cannot_grow_beyond
from harness import node_on
from profiles import BY_HAND, everything, keys, manifest_of, put, restored, retained

from memoturnd.core import layout, manifest, segment
from memoturnd.core.assembly import Part, assemble
from memoturnd.core.durability import Durability
from memoturnd.core.pages import PageHashes
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    DiskFullError,
    StoreUnavailableError,
)
from memoturnd.replication import new_file
from memoturnd.replication import restore as restoring
from memoturnd.replication.ranged import fetch
from memoturnd.replication.restore import restore, round_entry
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.executor import InlineExecutor, PoolExecutor
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore
from memoturnd.stores.timed import TimedStore


@pytest.fixture
def store():
    return FaultyStore(MemoryStore(), SystemClock())


async def filled(store, folder):
    """Return the manifest of a branch with txids 1 to 6 in three segments, and a snapshot of txid 4."""
    async with node_on(folder, store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        for n in range(2, 7):
            await profile.write(put("n", str(n)))
            if n in {2, 4, 6}:
                await profile.owned.shipper.ship()
            if n == 4:
                await profile.owned.shipper.snapshot()
        return await manifest_of(store, profile)


@pytest.fixture
async def standing(store, tmp_path):
    standing = await filled(store, tmp_path / "n")
    store.counts.clear()
    return standing


async def restore_to(store, standing, txid, path, *, executor=None):
    return await restore(store, standing, txid, path, executor=executor or InlineExecutor(), fsync=False)


async def test_every_retained_txid_restores_to_its_own_state(store, standing, tmp_path):
    assert retained(standing) == list(range(1, standing.head_txid + 1))
    for txid in retained(standing):
        state = await restored(store, standing, txid, tmp_path / "r")
        assert state == ({"n": str(txid)} if txid > 1 else {})


async def test_restored_file_says_what_it_is(store, standing, tmp_path):
    path = tmp_path / "x.db"

    result = await restore_to(store, standing, 5, path)

    assert (result.at.txid, result.size_bytes) == (5, path.stat().st_size)
    assert f"{result.hashes.checksum:016x}" == (await round_entry(store, standing, 5))[1]
    assert (path.stat().st_mode & 0o777) == 0o600


async def test_restore_of_a_large_branch_runs_in_the_pool(store, standing, tmp_path, monkeypatch):
    monkeypatch.setattr(restoring, "_INLINE_BYTES", 10)
    threads = []

    class Watching(PoolExecutor):
        async def run(self, work):
            return await super().run(lambda: threads.append(threading.current_thread().name) or work())

    executor = Watching(1)

    await restore_to(store, standing, 6, tmp_path / "x.db", executor=executor)

    executor.close()
    assert [name.startswith("sqlite") for name in threads] == [True]


async def test_txid_that_was_never_committed_is_refused_without_reading(store, standing, tmp_path):
    with pytest.raises(ConflictError):
        await restore_to(store, standing, 99, tmp_path / "x.db")
    assert not store.counts


# ---- damage


async def damage(store, key, how):
    data = (await store.inner.get(key)).data
    if how == "missing":
        await store.inner.delete(key)
    elif how == "short":
        await store.inner.put(key, data[: len(data) // 2])
    elif how == "empty":
        await store.inner.put(key, b"")
    elif how == "another's":
        others = [k for k in await keys(store.inner, "/segments/") if k != key]
        await store.inner.put(key, (await store.inner.get(others[0])).data)
    else:
        flipped = bytearray(data)
        flipped[len(data) // 3] ^= 4
        await store.inner.put(key, bytes(flipped))


@pytest.mark.parametrize("how", ["missing", "short", "empty", "flipped", "another's"])
async def test_damaged_object_is_named_and_no_file_appears(store, standing, tmp_path, how):
    """Guards: segment.decode against the name's hash, and ObjectMissingError in memoturnd.replication.ranged."""
    plan = manifest.restore_plan(standing, 6)
    for ref in plan:
        key = layout.object_key(standing.db, ref)
        good = (await store.inner.get(key)).data
        await damage(store, key, how)

        with pytest.raises(CorruptionError, match=ref.hash):
            await restore_to(store, standing, 6, tmp_path / "r" / "x.db")

        await store.inner.put(key, good)
    assert not (tmp_path / "r").exists() or not list((tmp_path / "r").iterdir())


@pytest.mark.parametrize("kind", [FaultKind.BIT_FLIP, FaultKind.SHORT_READ])
async def test_bytes_damaged_on_the_way_are_corrupt_and_right_the_next_time(store, standing, tmp_path, kind):
    path = tmp_path / "x.db"
    store.faults.append(Fault(kind, {"get"}, key="/segments/"))

    with pytest.raises(CorruptionError):
        await restore_to(store, standing, 6, path)
    assert not path.exists()

    assert (await restore_to(store, standing, 6, path)).at.txid == 6


async def test_store_that_does_not_answer_is_no_corruption(store, standing, tmp_path):
    store.faults.append(Fault(FaultKind.STATUS_503, {"get"}, times=None))
    with pytest.raises(StoreUnavailableError):
        await restore_to(store, standing, 6, tmp_path / "x.db")

    store.faults[:] = [Fault(FaultKind.LATENCY, {"get"}, times=None, latency_s=5)]
    with pytest.raises(StoreUnavailableError, match=r"took over 0\.05 s"):
        await restore_to(TimedStore(store, 0.05), standing, 6, tmp_path / "x.db")


async def test_parts_whose_rolling_checksum_does_not_continue_are_corrupt(store, standing):
    """Guard: the comparison with `entry.checksum` in memoturnd.core.assembly.assemble."""
    refs = [ref for ref in standing.segments if ref.max <= 4]
    blobs = await fetch(store, [layout.object_key(standing.db, ref) for ref in refs])
    parts = [Part(ref.hash, segment.decode(blob), ref.end) for ref, blob in zip(refs, blobs, strict=True)]
    assert assemble(parts, 4).at.txid == 4

    with pytest.raises(CorruptionError, match=f"chain breaks at txid 3 in {refs[1].hash}"):
        assemble([parts[1]], 4)
    wrong = segment.encode(
        segment.Kind.SEGMENT,
        [segment.Round(3, 1, 12345, 3, {3: b"x" * 4096}, {3: 1})],
        page_size=4096,
        prev_txid=2,
        epoch=1,
        checksum_before=PageHashes().checksum,
    )[0]
    with pytest.raises(CorruptionError, match="chain breaks at txid 3 in wrong"):
        assemble([parts[0], Part("wrong", segment.decode(wrong), 3)], 3)


async def test_objects_that_do_not_reach_the_txid_are_corrupt(store, standing, tmp_path):
    """As where a manifest promises more of an object than there is."""
    short = standing.segments[-1]
    lying = manifest.replace(
        standing, segments=(*standing.segments[:-1], manifest.replace(short, max=7)), head_txid=7
    )
    await store.inner.put(
        layout.object_key(standing.db, lying.segments[-1]),
        (await store.inner.get(layout.object_key(standing.db, short))).data,
    )

    with pytest.raises(CorruptionError, match="do not hold txid 7"):
        await restore_to(store, lying, 7, tmp_path / "x.db")


async def test_damaged_branch_is_an_error_and_the_node_serves_the_others(store, tmp_path):
    async with node_on(tmp_path / "n", store) as node:
        for name in ("bad", "good"):
            await node.databases.create(name)
            await (await node.profile(name)).write(put("x", name), durability=Durability.DURABLE)
        bad = await manifest_of(store, await node.profile("bad"))
    await damage(store, layout.object_key(bad.db, bad.segments[0]), "flipped")

    async with node_on(tmp_path / "another disk", store) as node:
        profile = await node.profile("bad")
        for _ in range(2):
            with pytest.raises(CorruptionError, match=bad.segments[0].hash):
                await profile.read(everything)
            with pytest.raises(CorruptionError, match=bad.segments[0].hash):
                await profile.write(put("x", "2"))
        good = await node.profile("good")
        assert (await good.read(everything)).value == {"x": "good"}
        assert (await good.write(put("y", "1"), durability=Durability.DURABLE)).durable
        assert not profile.files.main.exists()


# ---- half a file


async def test_file_appears_under_its_name_only_when_it_is_whole(store, standing, tmp_path, monkeypatch):
    """Guard: the temporary name and the rename in memoturnd.replication.new_file."""
    path, seen = tmp_path / "r" / "x.db", []
    path.parent.mkdir()
    write = os.pwritev

    def watched(fd, images, at):
        seen.append(sorted(p.name for p in path.parent.iterdir()))
        return write(fd, images, at)

    monkeypatch.setattr(new_file.os, "pwritev", watched)

    await restore_to(store, standing, 6, path)

    assert seen
    assert all(names == ["x.db.restoring"] for names in seen)
    assert [p.name for p in path.parent.iterdir()] == ["x.db"]


async def test_restore_that_breaks_off_half_way_leaves_nothing_under_the_name(
    store, standing, tmp_path, monkeypatch
):
    path = tmp_path / "x.db"
    with monkeypatch.context() as patch:
        patch.setattr(new_file.os, "pwritev", broken_write)
        with pytest.raises(DiskFullError, match="make room"):
            await restore_to(store, standing, 6, path)
    assert not path.exists()

    await restore_to(store, standing, 6, path)

    assert apsw.Connection(str(path)).execute("PRAGMA integrity_check").get == "ok"


def broken_write(_fd, _images, _at):
    raise OSError(28, "No space left on device")


async def test_short_write_is_a_full_disk(store, standing, tmp_path, monkeypatch):
    """Guard: the count that pwritev returns, in memoturnd.replication.new_file."""
    monkeypatch.setattr(new_file.os, "pwritev", lambda _fd, images, _at: sum(map(len, images)) - 1)

    with pytest.raises(DiskFullError):
        await restore_to(store, standing, 6, tmp_path / "x.db")
    assert not (tmp_path / "x.db").exists()


async def test_node_without_room_says_so_and_serves_once_there_is(store, tmp_path):
    async with node_on(tmp_path / "n", store) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(put("x", "v" * 50_000), durability=Durability.DURABLE)
    async with node_on(tmp_path / "another disk", store) as node:
        profile = await node.profile("a")
        with files_cannot_grow_beyond(30_000), pytest.raises(DiskFullError):
            await profile.read(everything)
        assert (await profile.read(everything)).value == {"x": "v" * 50_000}


async def test_leftovers_of_another_file_are_gone_before_a_restore(store, tmp_path):
    """A log left beside a file that is gone would be played onto the restored one."""
    disk = tmp_path / "n"
    async with node_on(disk, store) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1"), durability=Durability.DURABLE)
        files = profile.files
    assert files.wal.stat().st_size > 0
    files.main.unlink()  # as where the process ended while it deleted the folder
    async with node_on(tmp_path / "another disk", store) as node:
        other = await node.profile("a")
        await other.write(put("x", "2"), durability=Durability.DURABLE)

    async with node_on(disk, store) as node:
        profile = await node.profile("a")
        assert (await profile.read(everything)).value == {"x": "2"}
        assert (await profile.write(put("y", "3"), durability=Durability.DURABLE)).durable


async def test_fetch_reads_many_objects_a_few_at_a_time(store, tmp_path):
    running, most = 0, 0
    call = store.inner.get

    async def get(key):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return await call(key)

    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        for n in range(30):
            await profile.write(put("n", str(n)))
            await profile.owned.shipper.ship()
        standing = await manifest_of(store, profile)
        store.inner.get = get

        blobs = await fetch(store, [layout.object_key(standing.db, ref) for ref in standing.segments])

    assert [segment.decode(blob).rounds[-1].txid for blob in blobs] == [ref.max for ref in standing.segments]
    assert 1 < most <= 8
