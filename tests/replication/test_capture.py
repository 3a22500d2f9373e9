"""What capture may touch, when it may look, and that it never guesses."""

import asyncio
import os
from pathlib import Path

import pytest
from harness import node_on
from profiles import (
    BY_HAND,
    ProfileLog,
    checkpoint_behind_the_back,
    everything,
    keys,
    manifest_of,
    put,
    restored,
    retained,
)

import memoturnd
from memoturnd.core.durability import Durability
from memoturnd.core.pages import PageHashes
from memoturnd.engine.connection import open_connection
from memoturnd.errors import StoreUnavailableError
from memoturnd.replication import shipper as shipping
from memoturnd.replication import swap
from memoturnd.replication.capture import MAX_BATCH_BYTES, Capture, Cursor, SurpriseError
from memoturnd.seams.clock import SystemClock
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


@pytest.fixture
def log(tmp_path):
    log = ProfileLog(tmp_path / "main.db")
    yield log
    log.close()


# ---- the log is never checkpointed behind capture's back


def test_no_connection_checkpoints_by_itself(log):
    """Guards: wal_autocheckpoint(0) and NO_CKPT_ON_CLOSE in memoturnd.engine.connection._configure."""
    before = log.path.stat().st_size
    writer = open_connection(str(log.path), read_only=False, sync="normal", cache_kib=64)
    for n in range(40):
        writer.execute("INSERT INTO __memoturn_kv(ns, k, v) VALUES ('t', ?, randomblob(200000))", (f"k{n}",))
    log_size_bytes = Path(f"{log.path}-wal").stat().st_size
    assert log_size_bytes > 1500 * 4096
    assert log.path.stat().st_size == before

    log.conn.close()
    writer.close()  # the last connection

    assert log.path.stat().st_size == before
    assert Path(f"{log.path}-wal").stat().st_size == log_size_bytes


async def test_long_unshipped_log_is_captured_round_by_round(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        for n in range(30):
            await profile.write(put(f"k{n}", os.urandom(200_000)))
        await profile.owned.shipper.ship()
        standing = await manifest_of(store, profile)
        assert profile.owned.shipper.surprises == 0

    assert retained(standing) == list(range(1, 32))


async def test_capture_waits_for_the_commit_under_way(tmp_path):
    """Guard: `source.gate` around Capture.read in memoturnd.replication.shipper.Shipper._prepare."""
    store = FaultyStore(MemoryStore(), SystemClock())
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1"))
        store.counts.clear()
        async with profile.gate:
            shipping_ = asyncio.ensure_future(profile.owned.shipper.ship())
            await asyncio.sleep(0.05)
            assert not store.counts
        assert await shipping_ == profile.txid


async def test_log_is_not_checkpointed_while_rounds_in_it_have_not_landed(tmp_path, monkeypatch):
    """Guard: the `durable_txid < source.txid` loop before the checkpoint in Shipper._tidy."""
    monkeypatch.setattr(shipping, "CHECKPOINT_LOG_BYTES", 4096)
    store = FaultyStore(MemoryStore(), SystemClock())
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        store.faults.append(Fault(FaultKind.LATENCY, {"put"}, times=None, latency_s=0.02))
        for n in range(8):
            await profile.write(put(f"k{n}", "v" * 5000))
            going = asyncio.ensure_future(profile.owned.shipper.ship())
            await asyncio.sleep(0.01)
            await profile.write(put(f"during{n}", "v" * 5000))
            await going
        await profile.owned.shipper.ship()
        assert profile.owned.shipper.surprises == 0
        standing = await manifest_of(store, profile)
        head = await profile.read(everything)

    assert retained(standing) == list(range(1, standing.head_txid + 1))
    assert await restored(store, standing, standing.head_txid, tmp_path / "r") == head.value


async def test_writers_are_held_for_one_ship_when_the_log_has_grown_long(tmp_path, monkeypatch):
    monkeypatch.setattr(shipping, "CHECKPOINT_LOG_BYTES", 4096)
    monkeypatch.setattr(shipping, "QUIESCE_LOG_BYTES", 8192)
    store = FaultyStore(MemoryStore(), SystemClock())
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        store.faults.append(Fault(FaultKind.LATENCY, {"put"}, times=None, latency_s=0.02))
        await profile.write(put("k", "v" * 9000))
        going = asyncio.ensure_future(profile.owned.shipper.ship())
        await asyncio.sleep(0.01)
        await profile.write(put("during", "v"))
        await going

        assert profile.durable_txid == profile.txid
        assert profile.files.main.stat().st_size > 4096, "the log is in the file"


# ---- the log restarts


def test_capture_follows_the_log_through_a_restart(log):
    log.put("a", "1" * 20000)
    assert log.land() == [1, 2]
    assert log.checkpoint()
    log.capture.checkpointed(2)

    log.put("b", "2")

    assert log.frames < 10, "SQLite has restarted the log"
    assert log.land() == [3]
    log.put("c", "3")
    assert log.land() == [4]


def test_capture_goes_on_where_a_reader_kept_the_log_from_restarting(log):
    log.put("a", "1")
    log.land()
    reader = open_connection(str(log.path), read_only=True, sync="normal", cache_kib=64)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM __memoturn_kv").fetchall()
    assert log.checkpoint()
    log.capture.checkpointed(2)

    log.put("b", "2")

    assert log.land() == [3]
    reader.close()


def test_log_that_restarted_behind_unlanded_rounds_is_a_surprise(log):
    """Guard: the raise at the end of memoturnd.replication.capture.Capture._start."""
    log.put("a", "1" * 20000)
    log.land()
    log.put("lost", "2")
    assert log.checkpoint()
    log.put("b", "3")

    with pytest.raises(SurpriseError, match="restarted"):
        log.read()


def test_checkpoint_of_rounds_that_have_not_landed_makes_the_next_log_a_surprise(log):
    """Guard: `txid == self.cursor.txid` in memoturnd.replication.capture.Capture.checkpointed."""
    log.put("a", "1")
    log.land()
    log.put("lost", "2" * 9000)
    assert log.checkpoint()
    log.capture.checkpointed(3)
    log.put("b", "3")

    with pytest.raises(SurpriseError, match="restarted"):
        log.read()


@pytest.mark.parametrize("how", ["deleted", "emptied", "gone"])
def test_missing_log_is_a_surprise(log, how):
    log.put("a", "1")
    log.land()
    log.put("b", "2")
    path = Path(f"{log.path}-wal")
    if how == "deleted":
        path.unlink()
    elif how == "emptied":
        os.truncate(path, 0)
    else:
        log.capture.close()
        path.unlink()

    with pytest.raises(SurpriseError):
        log.read()


def test_log_of_another_page_size_is_a_surprise(log):
    log.put("a", "1")
    other = Capture(f"{log.path}-wal", page_size=8192, cursor=Cursor(0, None), hashes=PageHashes())

    with pytest.raises(SurpriseError, match="header"):
        other.read(head_txid=2, log_frames=0)
    other.close()


def test_log_without_the_rounds_that_the_engine_committed_is_a_surprise(log):
    log.put("a", "1")

    log.land()

    with pytest.raises(SurpriseError, match="ends before txid 3"):
        log.capture.read(head_txid=3, log_frames=log.frames)


def test_commit_that_the_engine_did_not_make_is_a_surprise(log):
    """Guards: the meta page and the order of txids in Capture._batch."""
    log.land()
    log.conn.execute("CREATE TABLE foreign_commit(v)")
    log.put("a", "1")

    with pytest.raises(SurpriseError):
        log.read()


@pytest.mark.parametrize("txids", [[1], [2], [3, 3], [3, 5], [3, 2], [9]])
def test_txids_that_do_not_go_on_by_one_are_a_surprise(log, txids):
    """Guard: the order of txids in memoturnd.replication.capture.Capture._batch."""
    log.put("a", "1")
    assert log.land() == [1, 2]
    for txid in txids:
        log.put("b", str(txid), txid=txid)

    with pytest.raises(SurpriseError, match="the log goes from"):
        log.capture.read(head_txid=8, log_frames=log.frames)


def test_first_txid_of_a_new_owner_may_be_far_above_the_last(log):
    log.put("a", "1")
    log.land()
    log.put("b", "2", txid=70000)
    log.put("c", "3")

    assert log.land() == [70000, 70001]


def test_first_round_that_is_not_the_whole_file_is_a_surprise(log):
    log.put("a", "1")
    assert log.checkpoint()
    log.put("b", "2")

    with pytest.raises(SurpriseError, match="every page"):
        log.read()


async def test_restarted_log_leads_to_a_snapshot_and_never_to_a_guess(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1"), durability=Durability.DURABLE)
        await profile.write(put("lost", "2" * 9000))
        checkpoint_behind_the_back(profile)
        await profile.write(put("y", "3"))
        await profile.write(put("z", "4"), durability=Durability.DURABLE)
        assert profile.owned.shipper.surprises == 1
        head = (await profile.read(everything)).value
        await profile.write(put("after", "5"), durability=Durability.DURABLE)
        assert profile.owned.shipper.surprises == 1
        standing = await manifest_of(store, profile)

    assert retained(standing) == [1, 2, 5, 6]
    assert await restored(store, standing, 5, tmp_path / "r") == head
    assert await restored(store, standing, 6, tmp_path / "r") == head | {"after": "5"}


@pytest.mark.parametrize("operation", ["put", "put_if_match"])
async def test_snapshot_that_fails_to_land_leaves_no_hole_in_the_chain(tmp_path, monkeypatch, operation):
    """Guard: Capture.checkpointed; without it the next segment skips the rounds that only the file has."""
    monkeypatch.setattr(swap, "_BACKOFF_S", 0.001)
    store = FaultyStore(MemoryStore(), SystemClock())
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1"), durability=Durability.DURABLE)
        await profile.write(put("lost", "2" * 9000))
        checkpoint_behind_the_back(profile)
        await profile.write(put("y", "3" * 9000))
        store.faults.append(Fault(FaultKind.STATUS_503, {operation}, times=9))
        with pytest.raises(StoreUnavailableError):
            await profile.owned.shipper.ship()
        store.faults.clear()

        await profile.write(put("z", "4"))
        await profile.owned.shipper.ship()

        standing = await manifest_of(store, profile)
        head = (await profile.read(everything)).value

    assert set(head) == {"x", "lost", "y", "z"}
    assert await restored(store, standing, standing.head_txid, tmp_path / "r") == head


async def test_snapshot_behind_a_reader_waits_and_the_next_ship_makes_it(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1" * 9000), durability=Durability.DURABLE)
        reader = open_connection(str(profile.files.main), read_only=True, sync="normal", cache_kib=64)
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM __memoturn_kv").get == 1
        await profile.write(put("y", "2"))
        profile.owned.capture.cursor = profile.owned.capture.cursor._replace(
            position=profile.owned.capture.cursor.position._replace(salt1=0)
        )
        with pytest.raises(memoturnd.errors.RetryableError, match="reader"):
            await profile.owned.shipper.ship()
        reader.close()

        await profile.owned.shipper.ship()
        standing = await manifest_of(store, profile)

    assert await restored(store, standing, 3, tmp_path / "r") == {"x": "1" * 9000, "y": "2"}


# ---- what was rolled back, what is large


async def test_rolled_back_frames_in_the_log_are_never_shipped(tmp_path):
    """Guard: rounds end at commit frames alone, in memoturnd.core.wal.committed_rounds."""

    def spill_and_fail(conn, _now_ms):
        for n in range(40):
            conn.execute(
                "INSERT INTO __memoturn_kv(ns, k, v) VALUES ('t', ?, randomblob(20000))", (f"bad{n}",)
            )
        raise ValueError("no")

    store = MemoryStore()
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1"))
        size_bytes = profile.files.wal.stat().st_size
        with pytest.raises(ValueError, match="no"):
            await profile.write(spill_and_fail)
        assert profile.files.wal.stat().st_size > size_bytes + 200_000
        await profile.owned.shipper.ship()
        await profile.write(put("y", "2"))
        await profile.owned.shipper.ship()
        assert profile.owned.shipper.surprises == 0
        standing = await manifest_of(store, profile)

    assert retained(standing) == [1, 2, 3]
    assert await restored(store, standing, 3, tmp_path / "r") == {"x": "1", "y": "2"}


async def test_large_backlog_is_split_into_segments_of_whole_rounds(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        for n in range(5):
            await profile.write(put(f"k{n}", os.urandom(MAX_BATCH_BYTES // 3)))
        await profile.write(put("huge", os.urandom(2 * MAX_BATCH_BYTES)))
        await profile.owned.shipper.ship()
        standing = await manifest_of(store, profile)

    assert retained(standing) == list(range(1, 8))
    assert 3 <= len(standing.segments) <= 5
    assert len(await keys(store, "/segments/")) == len(standing.segments)


async def test_rewind_by_backup_is_captured_though_no_hook_tells_of_it(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("x", "1"))
        await node.branches.checkpoint("a", "main", "good")
        await profile.write(put("big", "2" * 300_000))
        await node.branches.rewind("a", "main", "good")
        await profile.write(put("more", "3" * 100_000))
        await profile.owned.shipper.ship()
        assert profile.owned.shipper.surprises == 0
        standing = await manifest_of(store, profile)

    assert await restored(store, standing, 2, tmp_path / "r") == {"x": "1"}
    assert await restored(store, standing, 3, tmp_path / "r") == {"x": "1", "big": "2" * 300_000}
    assert await restored(store, standing, 4, tmp_path / "r") == {"x": "1"}
    assert await restored(store, standing, 5, tmp_path / "r") == {"x": "1", "more": "3" * 100_000}
