"""A snapshot holds exactly the file at its txid, in parts where it is large, and nobody waits for it."""

import asyncio
import os
import tracemalloc

import apsw
import pytest
from chains import RangeStore
from harness import node_on
from profiles import BY_HAND, ProfileLog, everything, keys, manifest_of, put, restored

from memoturnd.core import compaction, layout, manifest, pages, segment
from memoturnd.core.assembly import Part, assemble
from memoturnd.core.durability import Durability
from memoturnd.core.pages import PageHashes, page_hash
from memoturnd.core.segment import Kind, Round
from memoturnd.errors import CorruptionError, StoreUnavailableError
from memoturnd.metrics import Metrics
from memoturnd.replication import snapshot
from memoturnd.replication.compactor import Compactor
from memoturnd.replication.prove import hash_file
from memoturnd.replication.restore import restore
from memoturnd.replication.snapshot import State, write_snapshot
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.executor import InlineExecutor, PoolExecutor
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore

PAGE = 4096


@pytest.fixture
def log(tmp_path):
    """Return a profile of about 60 pages, wholly checkpointed at txid 2."""
    log = ProfileLog(tmp_path / "main.db")
    log.put("a", os.urandom(200_000))
    log.land()
    assert log.checkpoint()
    log.capture.checkpointed(2)
    yield log
    log.close()


@pytest.fixture
def parts_of_16(monkeypatch):
    monkeypatch.setattr(snapshot, "PART_PAGES", 16)


async def snapshot_of(log, store, **more):
    state = State(log.txid, log.at_ms, 1, PAGE)
    return await write_snapshot(
        store, InlineExecutor(), str(log.path), state, uuid="d1", branch_id="b1", nonce=bytes(16), **more
    )


async def file_in(store, refs):
    """Return the file that snapshot objects hold together, each proven against its name."""
    parts = []
    for ref in refs:
        data = (await store.get(layout.object_key("d1", ref))).data
        parts.append(Part(ref.hash, segment.decode(data, name_hash=ref.hash), ref.end))
    made = assemble(parts, refs[0].max)
    file = bytearray(made.at.db_size_pages * PAGE)
    for part, indexes in zip(parts, made.wanted(len(parts)), strict=True):
        for pgno, image in part.tables.numbered_images(indexes.tolist()):
            at = (pgno - 1) * PAGE
            file[at : at + PAGE] = image
    return bytes(file)


async def test_small_file_is_one_object_as_it_always_was(log):
    store = MemoryStore()
    refs, known = await snapshot_of(log, store)

    file = log.path.read_bytes()
    images = {n + 1: file[n * PAGE : (n + 1) * PAGE] for n in range(len(file) // PAGE)}
    sums = {n: page_hash(n, image) for n, image in images.items()}
    whole = Round(2, log.at_ms, PageHashes().apply(sums, len(sums)), len(sums), images, sums)
    data, name = segment.encode(
        Kind.SNAPSHOT, [whole], page_size=PAGE, prev_txid=0, epoch=1, checksum_before=0
    )
    [ref] = refs
    assert (ref.hash, ref.first_page, ref.last_page, ref.rounds) == (name, 0, 0, 0)
    assert (await store.get(layout.object_key("d1", ref))).data == data
    assert known.to_bytes() == log.capture.hashes.to_bytes()


@pytest.mark.usefixtures("parts_of_16")
async def test_large_file_is_cut_into_parts_of_one_state(log):
    store = MemoryStore()
    refs, known = await snapshot_of(log, store)

    file = log.path.read_bytes()
    pages = len(file) // PAGE
    assert [(ref.first_page, ref.last_page) for ref in refs] == [
        (first, min(first + 15, pages)) for first in range(1, pages + 1, 16)
    ]
    assert {(ref.kind, ref.prev, ref.min, ref.max, ref.after, ref.rounds) for ref in refs} == {
        ("snapshot", 0, 2, 2, f"{known.checksum:016x}", 0)
    }
    assert await file_in(store, refs) == file
    for ref in refs:
        part = segment.decode((await store.get(layout.object_key("d1", ref))).data)
        assert [pgno for pgno, _ in part.pages] == list(range(ref.first_page, ref.last_page + 1))
        assert part.rounds[0].db_size_pages == pages


@pytest.mark.usefixtures("parts_of_16")
async def test_same_file_makes_the_same_objects_whether_its_hashes_are_known_or_not(log):
    store = MemoryStore()
    refs, _ = await snapshot_of(log, store)

    again, _ = await snapshot_of(log, store, known=log.capture.hashes_at(2))

    assert again == refs
    assert len(await keys(store)) == len(refs)


async def test_hashes_are_known_only_at_the_cursor(log):
    assert log.capture.hashes_at(2).to_bytes() == log.capture.hashes.to_bytes()
    assert log.capture.hashes_at(1) is None
    log.capture.hashes = PageHashes()
    assert log.capture.hashes_at(2) is None


@pytest.mark.usefixtures("parts_of_16")
async def test_lock_page_is_left_out(log, monkeypatch):
    """SQLite never writes the page at 1 GiB; here page 20 stands for it, which it did write."""
    monkeypatch.setattr(pages, "LOCK_BYTE", 19 * PAGE)
    store = MemoryStore()

    refs, known = await snapshot_of(log, store)

    file = bytearray(log.path.read_bytes())
    file[19 * PAGE : 20 * PAGE] = bytes(PAGE)
    assert await file_in(store, refs) == bytes(file)
    assert known[20] == 0
    part = segment.decode((await store.get(layout.object_key("d1", refs[1]))).data)
    assert [pgno for pgno, _ in part.pages] == [17, 18, 19, *range(21, 33)]


@pytest.mark.usefixtures("parts_of_16")
async def test_writers_go_on_and_the_snapshot_is_of_the_state_before(log):
    before = log.path.read_bytes()
    state = State(log.txid, log.at_ms, 1, PAGE)

    async def write_more():
        log.put("b", os.urandom(50_000))

    store = RangeStore(MemoryStore())
    call = store.inner.put

    async def put_slowly(key, data):
        await write_more()
        await call(key, data)

    store.inner.put = put_slowly
    refs, _ = await write_snapshot(
        store,
        InlineExecutor(),
        str(log.path),
        state,
        uuid="d1",
        branch_id="b1",
        nonce=bytes(16),
        known=log.capture.hashes_at(2),
    )

    assert await file_in(store, refs) == before
    assert log.conn.execute("SELECT v FROM __memoturn_kv").get is not None
    log.land()
    assert log.txid == 2 + len(refs)


@pytest.mark.usefixtures("parts_of_16")
@pytest.mark.parametrize("known", [True, False])
async def test_file_that_is_not_what_was_committed_is_not_taken_for_it(log, known):
    """A page that changed under the snapshot, or on the disk: what was shipped is right, the file is not."""
    store = MemoryStore()
    call = store.put
    hashes = log.capture.hashes_at(2) if known else None

    async def put_and_damage(key, data):
        with log.path.open("r+b") as file:
            file.seek(40 * PAGE + 100)
            file.write(b"damaged")
        await call(key, data)

    store.put = put_and_damage
    with pytest.raises(CorruptionError, match=r"page 41 of .*main\.db"):
        await snapshot_of(log, store, known=hashes)


async def test_page_that_was_never_written_is_zeros_whatever_the_file_has(log):
    hashes = log.capture.hashes_at(2)
    hashes.apply({30: 0}, len(hashes))
    store = MemoryStore()

    refs, _ = await snapshot_of(log, store, known=hashes)

    assert (await file_in(store, refs))[29 * PAGE : 30 * PAGE] == bytes(PAGE)


@pytest.mark.usefixtures("parts_of_16")
async def test_store_that_fails_half_way_is_told_and_the_next_try_is_right(log):
    store = FaultyStore(MemoryStore(), SystemClock(), [Fault(FaultKind.STATUS_503, {"put"}, skip=2)])

    with pytest.raises(StoreUnavailableError):
        await snapshot_of(log, store)

    refs, _ = await snapshot_of(log, store)
    assert await file_in(store, refs) == log.path.read_bytes()
    assert len(await keys(store.inner)) == len(refs)


async def test_memory_is_that_of_two_parts_and_puts_run_one_at_a_time(tmp_path, monkeypatch):
    """24 MiB in parts of 2 MiB, most of which does not compress."""
    log = ProfileLog(tmp_path / "main.db")
    for n in range(24):
        log.put(f"k{n}", os.urandom(1024 * 1024))
    log.land()
    assert log.checkpoint()
    known = log.capture.hashes_at(log.txid)
    monkeypatch.setattr(snapshot, "PART_PAGES", 512)
    running, most, sizes = 0, 0, []

    class Sink(MemoryStore):
        async def put(self, key, data):
            nonlocal running, most
            running += 1
            most = max(most, running)
            sizes.append(len(data))
            await asyncio.sleep(0.005)
            running -= 1

    executor = PoolExecutor(1)
    tracemalloc.start()
    try:
        await write_snapshot(
            Sink(),
            executor,
            str(log.path),
            State(log.txid, 1, 1, PAGE),
            uuid="d",
            branch_id="b",
            nonce=bytes(16),
            known=known,
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        executor.close()
        log.close()
    assert sum(sizes) > 24 * 1024 * 1024
    assert most == 1
    assert peak < 2 * max(sizes) + 4 * 1024 * 1024


# ---- in a node


@pytest.mark.usefixtures("parts_of_16")
async def test_parts_land_in_one_swap_and_are_restored_and_written_on(tmp_path):
    store = FaultyStore(MemoryStore(), SystemClock())
    big = "v" * 150_000
    async with node_on(tmp_path / "n", store, **BY_HAND) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("big", big), durability=Durability.DURABLE)
        store.counts.clear()
        await profile.owned.shipper.snapshot()
        assert store.counts["put_if_match"] == 1
        await profile.write(put("n", "1"), durability=Durability.DURABLE)
        standing = await manifest_of(store, profile)
    parts = standing.snapshots
    assert len(parts) > 2
    assert len(manifest.restore_plan(standing, standing.head_txid)) == len(parts) + 1
    assert await restored(store, standing, parts[0].max, tmp_path) == {"big": big}

    async with node_on(tmp_path / "another disk", store, **BY_HAND) as node:
        profile = await node.profile("a")
        assert (await profile.read(everything)).value == {"big": big, "n": "1"}
        await profile.write(put("m", "2"), durability=Durability.DURABLE)
        standing = await manifest_of(store, profile)
    assert await restored(store, standing, standing.head_txid, tmp_path) == {"big": big, "n": "1", "m": "2"}


async def test_no_job_is_started_while_another_is_being_ended(monkeypatch):
    """Two would read the file at once, and the second one checkpoints into it what the first must not see."""
    monkeypatch.setattr(compaction, "snapshot_due", lambda _current: True)
    started, ended = 0, 0

    async def job():
        nonlocal started, ended
        started += 1
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)  # a thread that is at work ends first
            ended += 1

    compactor = Compactor(
        None, None, epoch=1, attach=None, land=None, snapshot=job, slots=asyncio.Semaphore(2), executor=None,
        clock=SystemClock(), randomness=SystemRandomness(), metrics=Metrics(), spawn=asyncio.create_task,
    )  # fmt: skip
    standing = manifest.Manifest(db="d", branch_id="b", branch="main", created_at=1)
    compactor.look(standing)
    await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(compactor.stop())
        await asyncio.sleep(0.005)
        compactor.look(standing)
    assert (started, ended) == (1, 1)

    async with compactor.held():
        compactor.look(standing)
        assert compactor.running is None
    compactor.look(standing)
    await asyncio.sleep(0)
    assert started == 2
    await compactor.stop()


# ---- above 1 GiB


@pytest.mark.soak
async def test_file_above_one_gib_is_shipped_snapshotted_and_restored_around_the_lock_page(tmp_path):
    """A real SQLite file across the lock page, mostly zeros; every step that meets page 262,145."""
    log = ProfileLog(tmp_path / "main.db")
    log.conn.execute("PRAGMA synchronous=off")
    log.commit(lambda conn: conn.execute("CREATE TABLE big(v)"))
    log.land()
    assert log.checkpoint()
    log.capture.checkpointed(log.txid)
    for n in range(36):
        log.commit(lambda conn, n=n: conn.execute("INSERT INTO big VALUES(zeroblob(30000000))"))
        log.land()
        assert log.checkpoint()
        log.capture.checkpointed(log.txid)
    lock = pages.lock_page(PAGE)
    known = log.capture.hashes_at(log.txid)
    assert lock == 262_145 < len(known)
    assert known[lock] == 0
    assert known.to_bytes() == hash_file(log.conn, PAGE).to_bytes()

    store = MemoryStore()
    refs, _ = await snapshot_of(log, store, known=known)
    assert len(refs) == -(-len(known) // snapshot.PART_PAGES)
    log.commit(lambda conn: conn.execute("UPDATE big SET v = 'small' WHERE rowid = 36"))
    batch = log.read()
    [round_] = batch.rounds
    data, name = segment.encode(
        Kind.SEGMENT, batch.rounds, page_size=PAGE, prev_txid=batch.prev_txid, epoch=1, checksum_before=0
    )
    ref = snapshot.object_ref("segment", batch.rounds, batch.prev_txid, 1, "b1", len(data), name)
    await store.put(layout.object_key("d1", ref), data)
    standing = manifest.Manifest(
        db="d1", branch_id="b1", branch="main", created_at=1, snapshots=refs, segments=(ref,),
        head_txid=round_.txid, head_checksum=ref.after, txid_ceiling=round_.txid,
    )  # fmt: skip
    path = tmp_path / "restored.db"
    executor = PoolExecutor(2)
    for txid in (refs[0].max, round_.txid):
        result = await restore(store, standing, txid, path, executor=executor, fsync=False)
        assert f"{result.hashes.checksum:016x}" == (refs[0].after if txid == refs[0].max else ref.after)
        conn = apsw.Connection(str(path))
        assert conn.execute("PRAGMA integrity_check").get == "ok"
        assert conn.execute("SELECT count(*), sum(length(v)) FROM big").fetchall() == [
            (36, 36 * 30_000_000 if txid == refs[0].max else 35 * 30_000_000 + 5)
        ]
        conn.close()
    executor.close()
    log.close()
