"""Rounds applied to a replica's file: SQLite must see the owner's state, byte for byte, at every txid."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from profiles import ProfileLog, everything
from wals import RealWal, parse

from memoturnd.core import segment
from memoturnd.core.pages import PageHashes
from memoturnd.core.segment import Kind
from memoturnd.core.wal import LogRound, encode_log
from memoturnd.engine.connection import open_connection
from memoturnd.errors import CorruptionError, DiskFullError
from memoturnd.replication.apply import GapError, follow, rounds_behind, write_log
from memoturnd.replication.capture import Cursor

SALTS = (0x01020304, 0xFFFFFFFE)

TRANSACTION = st.one_of(
    st.tuples(st.just("insert"), st.integers(1, 40), st.integers(1, 9000)),
    st.tuples(st.just("delete"), st.integers(0, 60)),
    st.tuples(st.just("update"), st.integers(1, 500)),
    st.tuples(st.just("table"), st.integers(0, 2)),
    st.tuples(st.just("drop"), st.integers(0, 2)),
    st.tuples(st.just("vacuum")),
)


def commit(owner, transaction):
    match transaction:
        case ("insert", rows, size):
            owner.commit(
                *[("INSERT INTO t(v) VALUES (randomblob(?))", (size,)) for _ in range(rows)],
            )
        case ("delete", below):
            owner.commit(
                ("DELETE FROM t WHERE id <= ?", (below,)), "INSERT INTO t(v) VALUES (randomblob(10))"
            )
        case ("update", size):
            owner.commit(
                ("UPDATE t SET v = randomblob(?)", (size,)), "INSERT INTO t(v) VALUES (randomblob(10))"
            )
        case ("table", n):
            owner.commit(
                f"CREATE TABLE IF NOT EXISTS extra{n}(v)", f"INSERT INTO extra{n} VALUES (randomblob(20000))"
            )
        case ("drop", n):
            owner.commit(f"DROP TABLE IF EXISTS extra{n}", "INSERT INTO t(v) VALUES (randomblob(10))")
        case ("vacuum",):
            owner.conn.execute("VACUUM")
            owner.states.append(owner.conn.serialize("main"))


def opened(path):
    return open_connection(str(path), read_only=False, sync="normal", cache_kib=64)


def state_of(path):
    """Return what SQLite sees in a file, having checked it."""
    conn = opened(path)
    try:
        assert conn.execute("PRAGMA integrity_check", can_cache=False).get == "ok"
        return conn.serialize("main")
    finally:
        conn.close()


def checkpointed(path):
    """Move the log into the file, as is done before the next one is put beside it."""
    conn = opened(path)
    frames, done = conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    conn.close()
    assert frames == done


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(
    transactions=st.lists(TRANSACTION, min_size=1, max_size=12), at_once=st.integers(1, 5), seed=st.integers()
)
def test_replica_is_its_owner_byte_for_byte_behind_every_applied_round(tmp_path, transactions, at_once, seed):
    folder = tmp_path / os.urandom(8).hex()
    folder.mkdir()
    owner = RealWal(folder / "owner.db")
    replica = folder / "replica.db"
    owner.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE INDEX i ON t(v)")
    owner.checkpoint()
    shutil.copy(owner.path, replica)
    begun = len(owner.states)
    try:
        for transaction in transactions:
            commit(owner, transaction)
        rounds = parse(owner.log)[1]
        assert len(rounds) == len(owner.states) - begun
        for first in range(0, len(rounds), at_once):
            taken = rounds[first : first + at_once]
            write_log(
                Path(f"{replica}-wal"),
                [LogRound(r.db_size_pages, r.pages.items()) for r in taken],
                page_size=4096,
                salts=(seed & 0xFFFFFFFF, first),
                fsync=False,
            )
            assert state_of(replica) == owner.states[begun + first + len(taken) - 1]
            checkpointed(replica)
    finally:
        owner.close()


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_log_that_was_made_reads_back_as_the_rounds_it_was_made_of(tmp_path, page_size):
    owner = RealWal(tmp_path / "db", page_size=page_size)
    owner.commit("CREATE TABLE t(v)")
    for n in range(4):
        owner.commit(("INSERT INTO t VALUES (randomblob(?))", (700 * 9**n,)))
    owner.close()
    rounds = parse(owner.log)[1]

    made = b"".join(
        encode_log(
            [LogRound(r.db_size_pages, r.pages.items()) for r in rounds],
            page_size=page_size,
            salt1=7,
            salt2=2**32 - 1,
        )
    )

    header, read = parse(made)
    assert header.page_size == page_size
    assert [(r.db_size_pages, r.pages) for r in read] == [(r.db_size_pages, r.pages) for r in rounds]


# ---- segments, as they are pushed


class Owner(ProfileLog):
    """A profile whose rounds are captured and encoded as a node does."""

    def segment(self):
        batch = self.read()
        data, _ = segment.encode(
            Kind.SEGMENT,
            batch.rounds,
            page_size=4096,
            prev_txid=batch.prev_txid,
            epoch=1,
            checksum_before=batch.checksum_before,
        )
        self.capture.landed(batch)
        return segment.decode(data)


@pytest.fixture
def owner(tmp_path):
    log = Owner(tmp_path / "owner.db")
    yield log
    log.close()


@pytest.fixture
def replica(tmp_path, owner):
    """A copy of the owner's file as of its first round, and its page hashes."""
    owner.segment()
    assert owner.checkpoint()
    path = tmp_path / "replica.db"
    shutil.copy(owner.path, path)
    owner.capture.checkpointed(owner.txid)
    return path, owner.capture.hashes.duplicate()


def applied(path, txid, hashes, *segments):
    proven = follow(txid, hashes, segments)
    write_log(Path(f"{path}-wal"), rounds_behind(txid, segments), page_size=4096, salts=SALTS, fsync=False)
    return proven


def test_pushed_segments_lead_to_the_owners_state_and_checksum(owner, replica):
    path, hashes = replica
    txid = 1
    for n in range(6):
        for m in range(n + 1):
            owner.put(f"k{n}-{m}", os.urandom(50 * 7**n % 60_000))
        pushed = owner.segment()
        proven = applied(path, txid, hashes, pushed)
        txid, hashes = proven.at.txid, proven.hashes

        assert (txid, hashes.checksum) == (owner.txid, owner.capture.hashes.checksum)
        assert len(hashes) == owner.conn.execute("PRAGMA page_count", can_cache=False).get
        assert state_of(path) == owner.conn.serialize("main")
        checkpointed(path)


def test_segments_of_which_the_first_rounds_are_here_already_are_applied_from_there(owner, replica):
    path, hashes = replica
    owner.put("a", "1")
    first = owner.segment()
    proven = applied(path, 1, hashes, first)
    checkpointed(path)
    owner.put("b", "2")
    second = owner.segment()
    joined = replace(second, prev_txid=1)  # as a compacted one says of itself

    applied(path, proven.at.txid, proven.hashes, joined)

    conn = opened(path)
    assert everything(conn) == {"a": "1", "b": "2"}
    conn.close()


def test_segment_that_does_not_follow_is_refused(owner, replica):
    _, hashes = replica
    owner.put("a", "1")
    first = owner.segment()
    owner.put("b", "2")
    second = owner.segment()

    with pytest.raises(GapError, match=r"do not follow on txid 1"):
        follow(1, hashes, [second])
    with pytest.raises(GapError, match=r"another state of txid 1"):
        follow(1, PageHashes(hashes.to_bytes()[:-8]), [first])
    with pytest.raises(GapError, match=r"do not follow on txid 3"):
        follow(3, hashes, [first])
    assert follow(1, hashes, [first, second]).at.txid == 3


def test_rounds_whose_pages_do_not_come_to_their_checksum_are_refused(owner, replica):
    _, hashes = replica
    owner.put("a", "1")
    pushed = owner.segment()
    wrong = replace(pushed, rounds=(pushed.rounds[0]._replace(checksum=5),))

    with pytest.raises(GapError, match=r"behind txid 2 the pages come to"):
        follow(1, hashes, [wrong])


def test_damaged_image_changes_nothing(owner, replica):
    path, hashes = replica
    before = state_of(path)
    owner.put("a", "1")
    pushed = owner.segment()
    damaged = replace(pushed, _data=pushed._data[:-40] + bytes(40))

    with pytest.raises(CorruptionError):
        applied(path, 1, hashes, damaged)

    assert not list(path.parent.glob("*.new"))
    assert state_of(path) == before


def test_disk_that_refuses_changes_nothing(owner, replica, monkeypatch):
    path, hashes = replica
    before = state_of(path)
    owner.put("a", "1")

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(DiskFullError, match="No space left"):
        applied(path, 1, hashes, owner.segment())
    monkeypatch.undo()

    assert not list(path.parent.glob("*.new"))
    assert state_of(path) == before


def test_new_owner_finds_a_tail_that_was_applied_in_its_log(owner, replica):
    """What a takeover needs that applies rounds nobody has shipped: capture takes them up as if committed here."""
    path, hashes = replica
    owner.put("a", "1")
    owner.put("b", "2")
    pushed = owner.segment()
    applied(path, 1, hashes, pushed)
    taker = open_connection(str(path), read_only=False, sync="normal", cache_kib=64)
    log = ProfileLog.__new__(ProfileLog)
    log.path = path
    capture = log.new_capture(Cursor(1, None), hashes)

    batch = capture.read(head_txid=3, log_frames=0)

    assert [(r.txid, r.checksum) for r in batch.rounds] == [(r.txid, r.checksum) for r in pushed.rounds]
    capture.landed(batch)
    taker.execute("BEGIN IMMEDIATE")
    taker.execute("INSERT INTO __memoturn_kv(ns, k, v) VALUES ('t', 'c', '3')")
    taker.execute("UPDATE __memoturn_meta SET txid = 4")
    taker.execute("COMMIT")
    batch = capture.read(head_txid=4, log_frames=0)
    assert [r.txid for r in batch.rounds] == [4]
    capture.close()
    taker.close()
