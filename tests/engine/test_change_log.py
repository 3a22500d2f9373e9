"""The part of a file that keeps what rounds changed: in order, whole, bounded, and honest about what it lacks."""

import pytest

from memoturnd.core import pages
from memoturnd.engine import changes, schema
from memoturnd.engine.connection import open_connection
from memoturnd.engine.rounds import run_round
from memoturnd.errors import ChangesGoneError


@pytest.fixture
def conn(tmp_path):
    conn = open_connection(str(tmp_path / "main.db"), read_only=False, sync="normal", cache_kib=112)
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("CREATE TABLE t(v UNIQUE)")
    conn.execute("COMMIT")
    yield conn
    conn.close()


def putting(*keys, fails=False):
    def op(conn, _now_ms):
        conn.execute("INSERT INTO t VALUES (?)", (keys[0],))
        conn.noted.put_all("kv", "ns", keys)
        if fails:
            raise RuntimeError
        return None, True

    return op


def commit(conn, txid, *keys, at_ms=None, lost_after=None):
    now_ms = 1000 * txid if at_ms is None else at_ms
    round_ = run_round(
        conn, [putting(*(keys or (f"k{txid}",)))], txid=txid, now_ms=now_ms, epoch=1, lost_after=lost_after
    )
    assert round_.committed


def after(conn, since, limit=10_000):
    return [change.txid for change in changes.read_after(conn, since, limit)]


def test_rounds_come_back_in_order_from_anywhere(conn):
    for txid in range(1, 301):
        commit(conn, txid)

    assert conn.execute("SELECT count(*) FROM __memoturn_changes").get > 5  # they moved, several times
    for since in (0, 1, 37, 150, 299, 300):
        assert after(conn, since) == list(range(since + 1, 301))
    assert after(conn, 10, limit=5) == [11, 12, 13, 14, 15]


def test_a_page_after_the_other_loses_and_repeats_nothing(conn):
    for txid in range(1, 200):
        commit(conn, txid, *(f"{txid}-{n}" for n in range(txid % 40 + 1)))

    found, since = [], 0
    while page := changes.read_after(conn, since, 7):
        found += page
        since = page[-1].txid
    assert [change.txid for change in found] == list(range(1, 200))
    assert [len(change.entries[0].put) for change in found] == [txid % 40 + 1 for txid in range(1, 200)]


def test_a_round_that_tells_nothing_is_not_there(conn):
    commit(conn, 1)
    run_round(
        conn, [lambda conn, _: (conn.execute("INSERT INTO t VALUES (0)"), True)], txid=2, now_ms=1, epoch=1
    )
    commit(conn, 3)

    assert schema.read_meta(conn).txid == 3
    assert after(conn, 0) == [1, 3]


def test_an_op_that_fails_is_not_told_of(conn):
    run_round(conn, [putting("a"), putting("b", fails=True), putting("c")], txid=1, now_ms=1, epoch=1)

    [change] = changes.read_after(conn, 0, 10)
    assert change.entries[0].put == ["a", "c"]


def test_a_round_that_is_rolled_back_leaves_nothing(conn):
    run_round(conn, [putting("a", fails=True)], txid=1, now_ms=1, epoch=1)
    commit(conn, 1, "b")

    [change] = changes.read_after(conn, 0, 10)
    assert change.entries[0].put == ["b"]


def test_what_is_kept_is_bounded_and_what_is_gone_is_said(conn):
    for txid in range(1, 400):
        commit(conn, txid, *(f"{txid}-{n}".ljust(60, "x") for n in range(20)))

    size_bytes = conn.execute("SELECT sum(octet_length(rounds)) FROM __memoturn_changes").get
    assert size_bytes <= changes.KEPT_BYTES + 2000
    floor = conn.execute("SELECT changes_after FROM __memoturn_lineage").get
    assert 0 < floor < 399
    assert after(conn, floor) == list(range(floor + 1, 400))
    for since in (0, floor - 1):
        with pytest.raises(ChangesGoneError, match=f"before txid {floor}"):
            changes.read_after(conn, since, 10)


def test_what_is_old_goes(conn):
    for txid in range(1, 100):
        commit(conn, txid)
    later = 1000 * 100 + changes.KEPT_MS
    for txid in range(100, 200):
        commit(conn, txid, at_ms=later + txid)

    floor = conn.execute("SELECT changes_after FROM __memoturn_lineage").get
    assert 90 < floor <= 110
    assert after(conn, floor) == list(range(floor + 1, 200))


def test_the_meta_page_stays_one_page_that_capture_reads(conn, tmp_path):
    for txid in range(1, 60):
        commit(conn, txid, *(f"{txid}-{n}".ljust(40, "x") for n in range(11)))
        conn.wal_checkpoint()
        image = (tmp_path / "main.db").read_bytes()[4096:8192]
        assert pages.parse_meta_page(image).txid == txid
        assert image[0] == 0x0D


def test_commits_that_were_lost_with_their_node_are_not_passed_over(conn):
    for txid in (1, 2, 3):
        commit(conn, txid)
    commit(conn, 1025, lost_after=3)
    commit(conn, 1026)

    assert after(conn, 2) == [3, 1025, 1026]
    assert after(conn, 3) == [1025, 1026]
    assert after(conn, 1025) == [1026]
    for since in (4, 700, 1024):
        with pytest.raises(ChangesGoneError, match="lost with their node"):
            changes.read_after(conn, since, 10)


def test_a_file_whose_first_commits_were_lost_says_so(tmp_path):
    conn = open_connection(str(tmp_path / "new.db"), read_only=False, sync="normal", cache_kib=112)
    schema.create_as_commit(conn, txid=1025, at_ms=1, epoch=2)

    assert after(conn, 0) == [1025]
    with pytest.raises(ChangesGoneError):
        changes.read_after(conn, 5, 10)
    conn.close()
    other = open_connection(str(tmp_path / "other.db"), read_only=False, sync="normal", cache_kib=112)
    schema.create_as_commit(other, txid=1, at_ms=1, epoch=1)
    assert after(other, 0) == []
    other.close()


@pytest.mark.parametrize("version", [1, 2])
def test_a_file_of_an_older_version_knows_nothing_of_before(tmp_path, version):
    conn = open_connection(str(tmp_path / "old.db"), read_only=False, sync="normal", cache_kib=112)
    conn.execute("BEGIN")
    schema.create_anywhere(conn, version=version)
    schema.write_meta(conn, 41, 1, 1)
    conn.execute("CREATE TABLE t(v)")
    conn.execute("COMMIT")
    run_round(
        conn,
        [lambda conn, _: (None, schema.migrate(conn, schema.read_meta(conn)))],
        txid=42,
        now_ms=1,
        epoch=1,
    )
    commit(conn, 43)

    assert after(conn, 41) == [43]
    with pytest.raises(ChangesGoneError, match="before txid 41"):
        changes.read_after(conn, 40, 10)
    conn.close()


def test_names_are_found_as_they_are_kept(conn):
    commit(conn, 1, 'a "quoted"\nkey')
    for txid in range(2, 80):
        commit(conn, txid)

    assert changes.mentions(conn, ['a "quoted"\nkey'])
    assert changes.mentions(conn, ["other", "k79"])
    assert not changes.mentions(conn, ["other"])
    conn.execute("BEGIN")
    changes.forget(conn, 79)
    conn.execute("COMMIT")
    assert not changes.mentions(conn, ["k79", 'a "quoted"\nkey'])
    with pytest.raises(ChangesGoneError):
        changes.read_after(conn, 78, 10)
    commit(conn, 80)
    assert after(conn, 79) == [80]
