"""What a node takes of other nodes' tails, gives out, and lets go of."""

import pytest
from harness import HandClock
from profiles import ProfileLog

from memoturnd.core import segment
from memoturnd.core.tails import Push, longest, packed, unpacked
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    FencedError,
    NotFoundError,
    OverloadedError,
)
from memoturnd.metrics import Metrics
from memoturnd.replication.tail_store import TailStore
from memoturnd.seams.executor import InlineExecutor


def store_in(folder, *, limit_bytes=10**9, fsync=False):
    return TailStore(
        folder,
        fsync=fsync,
        limit_bytes=limit_bytes,
        clock=HandClock(),
        executor=InlineExecutor(),
        metrics=Metrics(),
    )


@pytest.fixture
def log(tmp_path):
    return ProfileLog(tmp_path / "owner.db")


def piece(log, epoch, key=None):
    """Commit once more, and return the round as the owner under `epoch` sends it."""
    if key is not None:
        log.commit(
            lambda conn: conn.execute("INSERT INTO __memoturn_kv(ns, k, v) VALUES ('t', ?, 'v')", (key,))
        )
    capture = log.capture
    batch = capture.read(head_txid=log.txid, log_frames=log.frames)
    capture.landed(batch)
    return segment.encode(
        segment.Kind.SEGMENT,
        batch.rounds,
        page_size=4096,
        prev_txid=batch.prev_txid,
        epoch=epoch,
        checksum_before=batch.checksum_before,
    )[0]


def push(epoch, durable=0, *, begins=False):
    return Push("0" * 32, "b", epoch, durable, begins)


async def test_what_was_pushed_is_read_also_after_a_restart(tmp_path, log):
    store = store_in(tmp_path / "tails", fsync=True)
    pieces = [piece(log, 3), piece(log, 3, "x"), piece(log, 3, "y")]
    for n, data in enumerate(pieces):
        await store.push(push(3, begins=n == 0), data)
    again = store_in(tmp_path / "tails")
    assert again.size_bytes == store.size_bytes == sum(map(len, pieces))
    assert await again.read("b", 4) == pieces
    await store_in(tmp_path / "tails").push(push(4), b"")  # what the read noted lets nobody below in


async def test_nobody_below_the_highest_epoch_is_answered(tmp_path, log):
    store = store_in(tmp_path / "tails")
    await store.push(push(3, begins=True), piece(log, 3))
    await store.read("b", 5)
    late = piece(log, 3, "x")
    for holder in (store, store_in(tmp_path / "tails")):
        for begins in (True, False):
            with pytest.raises(FencedError):
                await holder.push(push(3, begins=begins), late)
            with pytest.raises(FencedError):
                await holder.push(push(4, begins=begins), b"")
        with pytest.raises(FencedError):
            await holder.read("b", 4)
        with pytest.raises(FencedError):
            await holder.forget("b", 4)
    assert len(await store.read("b", 5)) == 1


async def test_only_a_beginning_is_taken_of_an_unknown_branch_or_under_a_new_epoch(tmp_path, log):
    store = store_in(tmp_path / "tails")
    first = piece(log, 3)
    with pytest.raises(ConflictError):
        await store.push(push(3), first)
    with pytest.raises(NotFoundError):
        await store.read("b", 9)
    await store.push(push(3, begins=True), first)
    with pytest.raises(ConflictError):
        await store.push(push(4), piece(log, 4, "x"))


async def test_piece_that_does_not_follow_is_refused(tmp_path, log):
    store = store_in(tmp_path / "tails")
    await store.push(push(3, begins=True), piece(log, 3))
    piece(log, 3, "lost on the way")
    third = piece(log, 3, "x")
    with pytest.raises(ConflictError):
        await store.push(push(3), third)
    await store.push(push(3, durable=2), third)  # what it follows on is in object storage


async def test_damaged_pieces_and_those_of_others_are_refused(tmp_path, log):
    store = store_in(tmp_path / "tails")
    data = piece(log, 3)
    for wrong in (data[:-1], data[:50] + b"x" + data[51:], b"x"):
        with pytest.raises(CorruptionError):
            await store.push(push(3, begins=True), wrong)
    with pytest.raises(CorruptionError):
        await store.push(push(4, begins=True), data)
    assert len(store) == 0


async def test_what_is_durable_goes_and_the_rest_stays(tmp_path, log):
    store = store_in(tmp_path / "tails")
    pieces = [piece(log, 3), piece(log, 3, "x"), piece(log, 3, "y")]
    for n, data in enumerate(pieces):
        await store.push(push(3, begins=n == 0), data)
    await store.push(push(3, durable=2), b"")
    assert await store.read("b", 3) == pieces[2:]
    assert store.size_bytes == len(pieces[2])
    await store.forget("b", 3)
    assert (len(store), store.size_bytes, list((tmp_path / "tails").iterdir())) == (0, 0, [])


async def test_what_an_owner_left_that_its_successor_never_read_is_kept_aside(tmp_path, log):
    store = store_in(tmp_path / "tails")
    await store.push(push(3, begins=True), piece(log, 3))
    await store.push(push(4, durable=70_000, begins=True), b"")
    (held,) = store.held()
    assert held.is_stranded
    assert store.size_bytes > 0
    assert await store.read("b", 5) == []
    (again,) = store_in(tmp_path / "tails").held()
    assert again.is_stranded


async def test_what_is_kept_aside_goes_by_its_own_age(tmp_path, log):
    store = store_in(tmp_path / "tails")
    await store.push(push(3, begins=True), piece(log, 3))
    await store.push(push(4, durable=70_000, begins=True), b"")
    written_ms = next((tmp_path / "tails" / "b").glob("*.stranded")).stat().st_mtime_ns // 1_000_000
    await store.drop_stranded(written_ms - 1)
    assert store.size_bytes > 0
    await store.drop_stranded(written_ms + 1)
    assert store.size_bytes == 0
    assert [path.name for path in (tmp_path / "tails" / "b").iterdir()] == ["state"]


async def test_what_landed_goes_and_what_nobody_read_is_kept_aside(tmp_path, log):
    store = store_in(tmp_path / "tails")
    await store.push(push(3, begins=True), piece(log, 3))
    await store.push(push(4, begins=True), piece(log, 4, "x"))
    (held,) = store.held()
    assert held.epoch == 0
    await store.drop_pieces("b", heard_s=held.heard_s - 1)
    assert store.held() == [held]
    await store.drop_pieces("b", heard_s=held.heard_s)
    (held,) = store.held()
    assert held.is_stranded
    assert held.last_txid == 0
    assert len(list((tmp_path / "tails" / "b").glob("*.stranded"))) == 1


async def test_what_is_sent_again_takes_the_place_of_what_it_holds(tmp_path, log):
    store = store_in(tmp_path / "tails")
    begun = log.capture.beside_it()
    await store.push(push(3, begins=True), piece(log, 3))
    await store.push(push(3), piece(log, 3, "x"))
    log.capture = begun
    whole = piece(log, 3, "y")
    await store.push(push(3, begins=True), whole)
    assert await store.read("b", 3) == [whole]
    assert store.size_bytes == len(whole)


async def test_no_more_is_taken_than_the_bound(tmp_path, log):
    data = piece(log, 3)
    store = store_in(tmp_path / "tails", limit_bytes=len(data) + 10)
    await store.push(push(3, begins=True), data)
    with pytest.raises(OverloadedError):
        await store.push(push(3), piece(log, 3, "x"))
    await store.push(push(3, durable=1), b"")
    assert store.size_bytes == 0


def test_longest_way_is_found_through_pieces_that_overlap(log):
    one, two, three = (segment.decode(piece(log, 3, key)) for key in (None, "x", "y"))
    assert longest(0, 0, [three, one, two]) == [one, two, three]
    assert longest(1, one.checksum_after, [three, two, one]) == [two, three]
    assert longest(1, one.checksum_after + 1, [one, two, three]) == []
    assert longest(0, 0, [one, three]) == [one]
    log.capture = log.new_capture(
        log.capture.cursor._replace(txid=0, position=None), type(log.capture.hashes)()
    )
    whole = segment.decode(piece(log, 3))
    assert longest(0, 0, [one, two, whole]) == [whole]
    assert longest(2, two.checksum_after, [whole]) == [whole]
    assert longest(2, two.checksum_after ^ 1, [whole]) == []


def test_bodies_of_tails_are_packed():
    assert unpacked(packed([b"", b"ab"])) == [b"", b"ab"]
    for cut in (packed([b"ab"])[:-1], packed([b"ab"])[:3]):
        with pytest.raises(CorruptionError):
            unpacked(cut)
