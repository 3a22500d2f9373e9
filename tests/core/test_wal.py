import struct
from pathlib import Path

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wals import RealWal, apply_rounds, checksum, parse, resummed

from memoturnd.core import wal

QUICK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


@pytest.fixture
def make(tmp_path):
    made = []

    def build(name="db", **kinds):
        made.append(RealWal(tmp_path / name, **kinds))
        return made[-1]

    yield build
    for database in made:
        database.close()


@pytest.fixture
def small(make):
    """Three commits on 512-byte pages, so that every byte can be looked at."""
    database = make(page_size=512)
    database.commit("CREATE TABLE t(v)")
    database.commit("INSERT INTO t VALUES (randomblob(900))")
    database.commit("INSERT INTO t VALUES (randomblob(300))", "DELETE FROM t WHERE rowid = 1")
    return database


def frames_end(rounds):
    return [round_.end.frame for round_ in rounds]


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_rounds_of_a_real_log_rebuild_the_database_at_every_commit(make, page_size):
    database = make(page_size=page_size)
    database.commit("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "CREATE INDEX i ON t(v)")
    for n in range(5):
        database.commit(("INSERT INTO t(v) VALUES (randomblob(?))", (300 * 4**n,)))
    database.commit("DELETE FROM t WHERE id > 2")

    header, rounds = parse(database.log)

    assert header.page_size == page_size
    assert apply_rounds(database.states[0], rounds, page_size) == database.states[1:]


def test_round_of_thousands_of_frames_is_one_round(make):
    database = make(page_size=512)
    database.commit("CREATE TABLE t(v)", "INSERT INTO t VALUES (randomblob(700000))")

    _, rounds = parse(database.log)

    assert len(rounds) == 1
    assert rounds[0].end.frame > 1300
    assert apply_rounds(database.states[0], rounds, 512) == database.states[1:]


@QUICK
@given(
    transactions=st.lists(
        st.tuples(st.integers(1, 12), st.integers(1, 6000), st.booleans()), min_size=1, max_size=12
    )
)
def test_only_committed_transactions_make_rounds(tmp_path_factory, transactions):
    database = RealWal(tmp_path_factory.mktemp("wal") / "db", page_size=1024, cache_pages=4)
    try:
        database.commit("CREATE TABLE t(v)")
        for rows, size, kept in transactions:
            if kept:
                database.commit(*[("INSERT INTO t VALUES (randomblob(?))", (size,))] * rows)
            else:
                database.conn.execute("BEGIN")
                for _ in range(rows):
                    database.conn.execute("INSERT INTO t VALUES (randomblob(?))", (size,))
                database.conn.execute("ROLLBACK")

        _, rounds = parse(database.log)

        assert apply_rounds(database.states[0], rounds, 1024) == database.states[1:]
    finally:
        database.close()


def test_spilled_and_rolled_back_frames_leave_no_round(make):
    database = make(cache_pages=5)
    database.commit("CREATE TABLE t(v)")
    before = len(database.log)
    database.conn.execute("BEGIN")
    database.conn.execute("INSERT INTO t VALUES (randomblob(260000))")
    database.conn.execute("ROLLBACK")
    assert len(database.log) > before + 100_000

    _, rounds = parse(database.log)

    assert len(rounds) == 1


def test_log_torn_at_any_place_gives_the_rounds_before_the_tear(small):
    log = small.log
    _, whole = parse(log)
    ends = [wal.offset_of(round_.end, 512) for round_ in whole]
    assert len(log) == ends[-1]

    for size in range(0, len(log) + 1, 100):
        _, rounds = parse(log[:size])
        assert frames_end(rounds) == [r.end.frame for r, end in zip(whole, ends, strict=True) if end <= size]


def test_torn_tail_of_a_large_log_keeps_whole_rounds(make):
    database = make(page_size=512)
    database.commit("CREATE TABLE t(v)")
    for _ in range(4):
        database.commit("INSERT INTO t VALUES (randomblob(60000))")
    log = database.log
    _, whole = parse(log)

    for size in range(0, len(log), 7919):
        _, rounds = parse(log[:size])
        assert rounds == [r for r in whole if wal.offset_of(r.end, 512) <= size]


def test_frames_of_an_earlier_generation_are_no_rounds(make):
    database = make(page_size=512)
    database.commit("CREATE TABLE t(v)", "INSERT INTO t VALUES (randomblob(20000))")
    old_header, old_rounds = parse(database.log)
    size = len(database.log)
    database.checkpoint()
    base = database.path.read_bytes()

    database.commit("INSERT INTO t VALUES ('new')")

    header, rounds = parse(database.log)
    assert len(database.log) == size, "SQLite kept the old frames behind the new ones"
    assert header.start.salt1 == (old_header.start.salt1 + 1) & 0xFFFFFFFF
    assert frames_end(rounds) < frames_end(old_rounds)
    assert apply_rounds(base, rounds, 512) == database.states[-1:]


def test_log_after_a_complete_checkpoint_still_reads_until_the_next_write(small):
    _, before = parse(small.log)

    small.checkpoint()

    assert parse(small.log)[1] == before


def test_flipped_byte_stops_the_parse_at_its_frame(small):
    log = small.log
    header, whole = parse(log)
    step = wal.frame_size_bytes(512)

    for at in range(wal.HEADER_SIZE_BYTES, len(log)):
        damaged = bytearray(log)
        damaged[at] ^= 0x10
        _, rounds = parse(bytes(damaged))
        frame = (at - wal.HEADER_SIZE_BYTES) // step
        assert rounds == [r for r in whole if r.end.frame <= frame], f"byte {at}"
    assert header is not None


def test_flipped_byte_in_the_header_makes_it_none(small):
    for at in range(wal.HEADER_SIZE_BYTES):
        for bit in range(8):
            damaged = bytearray(small.log)
            damaged[at] ^= 1 << bit
            assert wal.parse_header(bytes(damaged)) is None


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(32), b"SQLite format 3\0" * 4])
def test_bytes_that_are_no_log_have_no_header(data):
    assert wal.parse_header(data) is None


@pytest.mark.parametrize("big_endian", [False, True])
def test_checksums_of_either_byte_order_are_read(small, tmp_path, big_endian):
    log = resummed(small.log, big_endian=big_endian)

    header, rounds = parse(log)

    assert header.big_endian is big_endian
    assert apply_rounds(small.states[0], rounds, 512) == small.states[1:]
    assert sqlite_reads(tmp_path / "other", small.path.read_bytes(), log) == 1


def sqlite_reads(path: Path, main: bytes, log: bytes) -> int:
    """Return how many rows SQLite itself sees in the database with this log."""
    path.write_bytes(main)
    Path(f"{path}-wal").write_bytes(log)
    conn = apsw.Connection(str(path))
    try:
        return conn.execute("SELECT count(*) FROM t").get
    finally:
        conn.close()


def test_parse_goes_on_from_the_end_of_any_round(small):
    log = small.log
    header, whole = parse(log)

    for index, round_ in enumerate(whole):
        rest = log[wal.offset_of(round_.end, 512) :]
        assert wal.committed_rounds(rest, round_.end, header) == whole[index + 1 :]


def test_parse_from_a_place_with_another_checksum_finds_nothing(small):
    header, whole = parse(small.log)
    rest = small.log[wal.offset_of(whole[0].end, 512) :]

    for field in ("salt1", "salt2", "checksum1", "checksum2"):
        moved = whole[0].end._replace(**{field: getattr(whole[0].end, field) ^ 1})
        assert wal.committed_rounds(rest, moved, header) == []


def test_frame_that_names_page_zero_stops_the_parse(small):
    log = bytearray(small.log)
    log[32:36] = bytes(4)

    assert parse(resummed(bytes(log), big_endian=False))[1] == []


@QUICK
@given(
    frames=st.integers(1, 4),
    page_size=st.sampled_from([512, 2048]),
    big_endian=st.booleans(),
    seed=st.binary(min_size=16, max_size=16),
)
def test_frame_checksum_equals_the_word_by_word_sum(frames, page_size, big_endian, seed):
    salts = struct.pack(">2I", 7, 9)
    head = struct.pack(">5I", 0x377F0683 if big_endian else 0x377F0682, 3007000, page_size, 0, 7) + salts[4:]
    sums = checksum(head, 0, 0, big_endian=big_endian)
    log = [head + struct.pack(">2I", *sums)]
    for number in range(1, frames + 1):
        front = struct.pack(">2I", number, number)
        page = (seed * (page_size // 16))[number:] + seed[:number]
        sums = checksum(front + page, *sums, big_endian=big_endian)
        log.append(front + salts + struct.pack(">2I", *sums) + page)

    _, rounds = parse(b"".join(log))

    assert len(rounds) == frames
