"""A large state is read in ranges: bounded requests, bounded memory, every byte that is used proven."""

import asyncio
import random
import tracemalloc

import pytest
from chains import PAGE_SIZE, Chain, RangeStore

from memoturnd.core import layout, manifest, segment
from memoturnd.core.assembly import Part, assemble
from memoturnd.errors import ConflictError, CorruptionError, DiskFullError, StoreUnavailableError
from memoturnd.replication import new_file, ranged
from memoturnd.replication import restore as restoring
from memoturnd.replication.restore import Restored, Start, restore, round_entry
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.executor import InlineExecutor, PoolExecutor
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore

HEAD, RANGE = 4096, 24 * 1024


@pytest.fixture
def small_bounds(monkeypatch):
    """Make objects of some KiB large."""
    monkeypatch.setattr(restoring, "WHOLE_BYTES", 0)
    monkeypatch.setattr(restoring, "RANGE_BYTES", RANGE)
    monkeypatch.setattr(restoring, "_GAP_BYTES", 512)
    monkeypatch.setattr(restoring, "_KEPT_BYTES", 8000)
    monkeypatch.setattr(ranged, "HEAD_BYTES", HEAD)


@pytest.fixture
def executor():
    executor = PoolExecutor(4)
    yield executor
    executor.close()


async def turn():
    await asyncio.sleep(0)


async def filled(store):
    """Return a chain whose file grows, shrinks and grows again: large and small rounds, a snapshot in parts."""
    chain = Chain(store)
    chain.commit(range(1, 301), 300)
    await chain.ship()
    for n in range(20):
        chain.commit({1 + n % 7: chain.page(), 40 + 3 * n: chain.page()}, 300)
    await chain.ship()
    chain.commit({1: chain.page()}, 120)
    await chain.ship()
    await chain.snapshot(50)
    chain.commit({1: chain.page(), 250: chain.page()}, 400)
    chain.commit(range(200, 401), 400)
    await chain.ship()
    chain.commit({2: chain.page()}, 400)
    await chain.ship()
    return chain


async def restored(chain, txid, path, *, store=None, executor=None, start=None):
    return await restore(
        store or chain.store,
        chain.standing,
        txid,
        path,
        executor=executor or InlineExecutor(),
        fsync=False,
        start=start,
    )


@pytest.mark.usefixtures("small_bounds")
async def test_every_txid_is_the_same_through_ranges(tmp_path, executor):
    chain = await filled(MemoryStore())
    path = tmp_path / "x.db"
    for txid, file in chain.states.items():
        result = await restored(chain, txid, path, executor=executor)

        assert path.read_bytes() == file
        assert (result.at.txid, result.size_bytes) == (txid, len(file))
        assert f"{result.hashes.checksum:016x}" == (await round_entry(chain.store, chain.standing, txid))[1]


@pytest.mark.usefixtures("small_bounds")
async def test_requests_are_bounded_in_size_and_number(tmp_path, executor):
    chain = await filled(MemoryStore())
    store = RangeStore(chain.store, pause=turn)

    await restored(chain, chain.txid, tmp_path / "x.db", store=store, executor=executor)

    sizes = {layout.object_key("d1", ref): ref.size_bytes for ref in chain.standing.objects}
    whole = [sizes[key] for key, _, length in store.reads if length is None]
    assert whole
    assert max(whole) <= HEAD
    assert max(length for _, start, length in store.reads if length is not None and start) <= RANGE
    assert all(length == HEAD for _, start, length in store.reads if length is not None and not start)
    assert store.most == ranged.PARALLEL_GETS == 8


@pytest.mark.usefixtures("small_bounds")
async def test_only_blocks_that_are_wanted_are_read(tmp_path):
    """All but one page of the large base have been overwritten since."""
    store = RangeStore(MemoryStore())
    chain = Chain(store)
    chain.commit(range(1, 1001), 1000)
    await chain.ship()
    chain.commit([n for n in range(1, 1001) if n != 500], 1000)
    await chain.ship()
    base = layout.object_key("d1", chain.standing.segments[0])

    await restored(chain, 2, tmp_path / "x.db")

    assert (tmp_path / "x.db").read_bytes() == chain.file
    read = [(start, length) for key, start, length in store.reads if key == base]
    tables = 116 + 40 + 12 * 1000 + 12 * 63 + 8
    assert read[:2] == [(0, HEAD), (HEAD, tables - HEAD)]
    assert len(read) == 3
    assert read[2][1] < 16 * PAGE_SIZE + 100


@pytest.mark.usefixtures("small_bounds")
async def test_few_small_objects_are_held_until_they_are_written(tmp_path):
    """The others are read once more."""
    store = RangeStore(MemoryStore())
    chain = Chain(store)
    chain.commit(range(1, 161), 160)
    await chain.ship()
    for n in range(40):
        chain.commit(range(1 + 4 * n, 5 + 4 * n), 160)
        await chain.ship()

    await restored(chain, chain.txid, tmp_path / "x.db")

    assert (tmp_path / "x.db").read_bytes() == chain.file
    again = {key for key, _, length in store.reads if length is not None}
    small = {layout.object_key("d1", ref): ref.size_bytes for ref in chain.standing.segments[1:]}
    held = [size for key, size in small.items() if key not in again]
    assert held
    assert sum(held) <= 8000


async def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch, executor):
    """64 MiB that do not compress, in requests of 256 KiB."""
    monkeypatch.setattr(restoring, "RANGE_BYTES", 256 * 1024)
    store = RangeStore(MemoryStore(), pause=turn)
    chain = Chain(store, page_size=4096)
    chain.commit(range(1, 16_385), 16_384)
    await chain.ship()
    await chain.snapshot(4096)
    chain.commit({7: chain.page()}, 16_384)
    await chain.ship()
    tracemalloc.start()
    try:
        await restored(chain, 2, tmp_path / "x.db", executor=executor)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (tmp_path / "x.db").read_bytes() == chain.file
    per_page = 16_384 * (12 + 8 + 8)
    assert peak < 8 * 256 * 1024 + 6 * 1024 * 1024 + per_page


# ---- damage


@pytest.mark.usefixtures("small_bounds")
async def test_any_damaged_byte_that_is_used_is_detected_and_named(tmp_path):
    chain = await filled(MemoryStore())
    path = tmp_path / "x.db"
    plan = manifest.restore_plan(chain.standing, chain.txid)
    for ref, used in zip(plan, await bytes_used(chain, plan), strict=True):
        key = layout.object_key("d1", ref)
        good = (await chain.store.get(key)).data
        for at in random.Random(ref.hash).sample(range(len(good)), 80):
            damaged = bytearray(good)
            damaged[at] ^= 0x10
            await chain.store.put(key, bytes(damaged))
            if at in used:
                with pytest.raises(CorruptionError, match=ref.hash):
                    await restored(chain, chain.txid, path)
                assert not list(tmp_path.iterdir())
            else:
                await restored(chain, chain.txid, path)
                assert path.read_bytes() == chain.file
                path.unlink()
        await chain.store.put(key, good)


async def bytes_used(chain, plan):
    """Return for each object of a plan the places of the bytes that the state depends on."""
    blobs = await ranged.fetch(chain.store, [layout.object_key("d1", ref) for ref in plan])
    parts = [Part("", segment.decode(blob), ref.end) for ref, blob in zip(plan, blobs, strict=True)]
    made = assemble(parts, chain.txid)
    used = []
    for part, blob, indexes in zip(parts, blobs, made.wanted(len(parts)), strict=True):
        spans = [part.tables.span(n, n) for n in {index // 16 for index in indexes.tolist()}]
        places = {at for start, length in spans for at in range(start, start + length)}
        places.update(range(part.tables.span(0, 0)[0]))
        used.append(range(len(blob)) if len(blob) <= HEAD else places)
    return used


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("kind", [FaultKind.BIT_FLIP, FaultKind.SHORT_READ])
@pytest.mark.parametrize("skip", [0, 1, 2, 5, 11, 22])
async def test_ranges_damaged_on_the_way_are_corrupt_and_right_the_next_time(tmp_path, kind, skip):
    store = FaultyStore(MemoryStore(), SystemClock())
    chain = Chain(store)
    chain.commit(range(1, 1001), 1000)
    await chain.ship()
    path = tmp_path / "x.db"
    store.faults.append(Fault(kind, {"get_range"}, skip=skip))

    with pytest.raises(CorruptionError, match=chain.standing.segments[0].hash):
        await restored(chain, 1, path)
    assert not list(tmp_path.iterdir())

    await restored(chain, 1, path)
    assert path.read_bytes() == chain.file


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("how", ["missing", "short", "another's"])
async def test_object_that_is_not_the_one_that_was_put_is_named(tmp_path, how):
    chain = Chain(MemoryStore())
    for _ in range(2):
        chain.commit(range(1, 301), 300)
        await chain.ship()
    first, second = chain.standing.segments
    key = layout.object_key("d1", second)
    if how == "missing":
        await chain.store.delete(key)
    elif how == "short":
        await chain.store.put(key, (await chain.store.get(key)).data[:-5000])
    else:
        await chain.store.put(key, (await chain.store.get(layout.object_key("d1", first))).data)

    with pytest.raises(CorruptionError, match=second.hash):
        await restored(chain, 2, tmp_path / "x.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_bounds")
async def test_tables_of_another_object_of_the_same_size_are_refused(tmp_path):
    """Its own sums are right; what it holds is not what the manifest says."""
    chain, other = Chain(MemoryStore(), seed=1), Chain(MemoryStore(), seed=2)
    for each in (chain, other):
        each.commit(range(1, 301), 300)
        await each.ship()
    [ours], [theirs] = chain.standing.segments, other.standing.segments
    assert ours.size_bytes == theirs.size_bytes
    await chain.store.put(
        layout.object_key("d1", ours), (await other.store.get(layout.object_key("d1", theirs))).data
    )

    with pytest.raises(CorruptionError, match=f"{ours.hash} is damaged: its tables are of another object"):
        await restored(chain, 1, tmp_path / "x.db")


@pytest.mark.usefixtures("small_bounds")
async def test_store_that_stops_answering_half_way_is_no_corruption(tmp_path):
    store = FaultyStore(MemoryStore(), SystemClock())
    chain = await filled(store)
    store.faults.append(Fault(FaultKind.STATUS_503, {"get_range"}, skip=12, times=None))

    with pytest.raises(StoreUnavailableError):
        await restored(chain, chain.txid, tmp_path / "x.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_bounds")
async def test_restore_that_is_cancelled_leaves_nothing(tmp_path):
    chain = await filled(MemoryStore())
    reached = asyncio.Event()

    async def hang():
        if list(tmp_path.iterdir()):
            reached.set()
            await asyncio.sleep(60)

    running = asyncio.create_task(
        restored(chain, chain.txid, tmp_path / "x.db", store=RangeStore(chain.store, pause=hang))
    )
    await reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_bounds")
async def test_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    chain = await filled(MemoryStore())
    monkeypatch.setattr(new_file.os, "pwritev", lambda _fd, images, _at: sum(map(len, images)) - 1)

    with pytest.raises(DiskFullError):
        await restored(chain, chain.txid, tmp_path / "x.db")
    assert not list(tmp_path.iterdir())


# ---- forks and thinned objects


@pytest.mark.usefixtures("small_bounds")
async def test_fork_inside_an_object_does_not_see_the_rest_of_it(tmp_path):
    chain = await filled(MemoryStore())
    fork = manifest.fork(
        chain.standing, branch_id="b2", branch="f", txid=12, head_at=1, head_checksum="0" * 16,
        created_at=1, expires_at=None,
    )  # fmt: skip

    for txid in (1, 11, 12):
        await restore(chain.store, fork, txid, tmp_path / "x.db", executor=InlineExecutor(), fsync=False)
        assert (tmp_path / "x.db").read_bytes() == chain.states[txid]
    with pytest.raises(ConflictError):
        await restore(chain.store, fork, 13, tmp_path / "x.db", executor=InlineExecutor(), fsync=False)


@pytest.mark.parametrize("whole", [0, 10**9])
async def test_thinned_objects_restore_the_rounds_that_they_kept_and_no_other(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(restoring, "WHOLE_BYTES", whole)
    chain = Chain(MemoryStore())
    chain.commit(range(1, 101), 100)
    await chain.ship()
    chain.commit({1: chain.page(), 60: chain.page()}, 100)
    chain.commit({2: chain.page()}, 50)
    chain.commit({1: chain.page()}, 90)
    chain.commit({3: chain.page(), 60: chain.page()}, 90)
    chain.commit({2: chain.page()}, 95)
    ref = await chain.ship(keep={2, 4, 6})
    chain.commit({5: chain.page()}, 95)
    await chain.ship()
    assert ref.is_thinned

    for txid in (1, 2, 4, 6, 7):
        await restored(chain, txid, tmp_path / "x.db")
        assert (tmp_path / "x.db").read_bytes() == chain.states[txid]
        (tmp_path / "x.db").unlink()
    for txid in (3, 5):
        with pytest.raises(ConflictError, match=f"txid {txid} .* cannot be restored"):
            await restored(chain, txid, tmp_path / "x.db")
        with pytest.raises(ConflictError):
            await round_entry(chain.store, chain.standing, txid)
        assert not list(tmp_path.iterdir())
    assert (await round_entry(chain.store, chain.standing, 4))[0] == 1004


async def test_txid_inside_a_large_object_is_looked_up_in_its_head(monkeypatch):
    monkeypatch.setattr(ranged, "HEAD_BYTES", HEAD)
    store = RangeStore(MemoryStore())
    chain = Chain(store)
    chain.commit(range(1, 1001), 1000)
    chain.commit({1: chain.page()}, 1000)
    await chain.ship()

    assert (await round_entry(store, chain.standing, 1))[0] == 1001
    assert sum(length for _, _, length in store.reads) < 20_000


# ---- from an earlier state


async def started(chain, txid, path, **more):
    """Return a start at `txid`, restored to `path`."""
    return Start(path, await restored(chain, txid, path, **more))


@pytest.mark.parametrize("whole", [0, 10**9])
async def test_restore_from_an_earlier_state_reads_only_what_came_after(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(restoring, "WHOLE_BYTES", whole)
    store = RangeStore(MemoryStore())
    chain = Chain(store)
    chain.commit(range(1, 301), 300)
    await chain.ship()
    for step in range(6):
        chain.commit({1: chain.page(), 2 + step: chain.page()}, 300 - 10 * step if step < 4 else 310)
        await chain.ship()
    path = tmp_path / "x.db"
    for at in range(1, 8):
        start = await started(chain, at, tmp_path / "start.db")
        for txid in range(at, 8):
            store.reads.clear()
            result = await restored(chain, txid, path, start=start)

            assert path.read_bytes() == chain.states[txid]
            assert (result.at.txid, result.size_bytes) == (txid, len(chain.states[txid]))
            assert f"{result.hashes.checksum:016x}" == (await round_entry(store, chain.standing, txid))[1]
            assert (path.stat().st_mode & 0o777) == 0o600
            read = {key for key, _, _ in store.reads}
            after = [ref for ref in chain.standing.segments if at < ref.max <= txid]
            assert read == {layout.object_key("d1", ref) for ref in after}
        assert start.path.read_bytes() == chain.states[at]


async def test_start_in_the_middle_of_an_object_that_was_thinned_since(tmp_path):
    """What a kept round joins covers all that the rounds behind the start changed."""
    chain = Chain(MemoryStore())
    chain.commit(range(1, 41), 40)
    await chain.ship()
    for n in range(5):
        chain.commit({1: chain.page(), 9 + n: chain.page()}, 40)
    rounds, standing = list(chain.pending), chain.standing
    await chain.ship()
    start = await started(chain, 4, tmp_path / "start.db")
    chain.pending, chain.standing = rounds, standing
    await chain.ship(keep={3, 6})

    await restored(chain, 6, tmp_path / "x.db", start=start)

    assert (tmp_path / "x.db").read_bytes() == chain.states[6]


async def test_start_that_leads_nowhere_or_is_damaged_is_not_used(tmp_path):
    store = RangeStore(MemoryStore())
    chain = Chain(store)
    chain.commit(range(1, 41), 40)
    await chain.ship()
    old = await started(chain, 1, tmp_path / "old.db")
    chain.commit(range(1, 41), 40)
    chain.pending.clear()  # as where the log could not be followed: only a snapshot leads on
    await chain.snapshot(100)
    chain.commit({1: chain.page()}, 40)
    await chain.ship()
    new = await started(chain, 2, tmp_path / "new.db")
    (tmp_path / "cut.db").write_bytes((tmp_path / "new.db").read_bytes()[:-512])
    later = await started(chain, 3, tmp_path / "later.db")
    starts = [
        (old, 3),
        (Start(tmp_path / "gone.db", new.state), 3),
        (Start(tmp_path / "cut.db", new.state), 3),
        (later, 2),
    ]
    for start, txid in starts:
        store.reads.clear()
        await restored(chain, txid, tmp_path / "x.db", start=start)
        assert (tmp_path / "x.db").read_bytes() == chain.states[txid]
        assert any("/snapshots/" in key for key, _, _ in store.reads)


async def test_start_of_other_pages_than_it_says_breaks_the_chain(tmp_path):
    chain = Chain(MemoryStore())
    chain.commit(range(1, 41), 40)
    await chain.ship()
    chain.commit({1: chain.page()}, 40)
    await chain.ship()
    start = await started(chain, 1, tmp_path / "s.db")
    wrong = start.state.hashes.duplicate()
    wrong.apply({5: 1}, 40)

    with pytest.raises(CorruptionError, match="chain breaks at txid 2"):
        await restored(
            chain, 2, tmp_path / "x.db", start=Start(start.path, Restored(start.state.at, wrong, 40 * 512))
        )
