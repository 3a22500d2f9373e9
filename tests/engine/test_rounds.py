"""Group commit without a queue: what a round does with ops that fail, and with ops that end its transaction."""

import apsw
import pytest
from disk import files_cannot_grow_beyond, little_memory, log_size_bytes

from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.engine.rounds import run_round, translate
from memoturnd.errors import (
    DiskFullError,
    InvariantError,
    RequestTimeoutError,
    RetryableError,
)


@pytest.fixture
def conn(tmp_path):
    conn = open_connection(str(tmp_path / "main.db"), read_only=False, sync="normal", cache_kib=32)
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("CREATE TABLE t(v UNIQUE)")
    conn.execute("CREATE TABLE strict(v)")
    conn.execute("CREATE TRIGGER veto BEFORE INSERT ON strict BEGIN SELECT raise(ROLLBACK, 'vetoed'); END")
    conn.execute("COMMIT")
    yield conn
    conn.close()


def insert(value):
    def op(conn, _now_ms):
        conn.execute("INSERT INTO t VALUES (?)", (value,))
        return value, True

    return op


def look(conn, _now_ms):
    return conn.execute("SELECT count(*) FROM t").get, False


def rows(conn):
    return [value for (value,) in conn.execute("SELECT v FROM t ORDER BY rowid")]


def run(conn, *ops, txid=1):
    commits = []
    conn.set_commit_hook(lambda: commits.append(1) is not None)
    try:
        round_ = run_round(conn, ops, txid=txid, now_ms=5000 + txid, epoch=3)
    finally:
        conn.set_commit_hook(None)
    assert not conn.in_transaction
    assert len(commits) == int(round_.committed)
    return round_


def errors(round_):
    return [type(outcome.error) if outcome.error else None for outcome in round_.outcomes]


# ---- all is well


def test_ops_share_one_commit_and_one_txid(conn):
    round_ = run(conn, *(insert(n) for n in range(64)), txid=7)

    assert round_.committed
    assert [outcome.value for outcome in round_.outcomes] == rows(conn) == list(range(64))
    assert schema.read_meta(conn) == (schema.SCHEMA_VERSION, 7, 5007, 3)


def test_ops_see_what_the_ones_before_them_wrote(conn):
    round_ = run(conn, insert("a"), look, insert("b"), look)

    assert [outcome.value for outcome in round_.outcomes] == ["a", 1, "b", 2]
    assert [outcome.changed for outcome in round_.outcomes] == [True, False, True, False]


def test_round_without_any_change_commits_nothing(conn):
    round_ = run(conn, look, look)

    assert not round_.committed
    assert schema.read_meta(conn).txid == 0


# ---- one fails, alone


def constraint(conn, _now_ms):
    conn.execute("INSERT INTO t VALUES ('doomed')")
    conn.execute("INSERT INTO t VALUES ('doomed')")
    return None, True


def own_error(conn, _now_ms):
    conn.execute("INSERT INTO t VALUES ('doomed')")
    raise KeyError("mine")


@pytest.mark.parametrize(("culprit", "error"), [(constraint, apsw.ConstraintError), (own_error, KeyError)])
def test_failed_op_is_undone_alone(conn, culprit, error):
    round_ = run(conn, insert("a"), culprit, insert("b"))

    assert errors(round_) == [None, error, None]
    assert rows(conn) == ["a", "b"]


def test_failed_op_alone_in_its_round_commits_nothing(conn):
    round_ = run(conn, constraint)

    assert (round_.committed, errors(round_)) == (False, [apsw.ConstraintError])
    assert rows(conn) == []


def test_round_of_failed_ops_commits_nothing(conn):
    round_ = run(conn, constraint, own_error)

    assert not round_.committed
    assert (rows(conn), schema.read_meta(conn).txid) == ([], 0)


# ---- SQLite rolls the whole round back underneath


def interrupted(conn, _now_ms):
    conn.set_progress_handler(lambda: True, 10)
    try:
        conn.execute(
            "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
        )
    finally:
        conn.set_progress_handler(None)
    return None, True


def or_rollback(conn, _now_ms):
    conn.execute("INSERT INTO t VALUES ('doomed')")
    conn.execute("INSERT OR ROLLBACK INTO t VALUES ('doomed')")
    return None, True


def raise_rollback(conn, _now_ms):
    conn.execute("INSERT INTO strict VALUES (1)")
    return None, True


def full(conn, _now_ms):
    limit = conn.execute("PRAGMA max_page_count").get
    pages = conn.execute("PRAGMA page_count").get
    conn.execute(f"PRAGMA max_page_count={pages + 3}")
    try:
        conn.execute("INSERT INTO t VALUES (randomblob(100000))")
    finally:
        conn.execute(f"PRAGMA max_page_count={limit}")
    return None, True


def io_error(conn, _now_ms):
    with files_cannot_grow_beyond(log_size_bytes(conn)):
        conn.execute("INSERT INTO t VALUES (randomblob(500000))")  # spills over the small cache
    return None, True


def no_memory(conn, _now_ms):
    with little_memory(20_000):
        conn.execute("INSERT INTO t VALUES (randomblob(2000000))")
    return None, True


def plain_rollback(conn, _now_ms):
    conn.execute("ROLLBACK")
    return None, True


def commit_midway(conn, _now_ms):
    conn.execute("INSERT INTO t VALUES ('doomed')")
    conn.execute("ROLLBACK")
    conn.execute("INSERT INTO missing VALUES (1)")
    return None, True


ROLLING_BACK = {
    "interrupt": (interrupted, RequestTimeoutError),
    "OR ROLLBACK": (or_rollback, apsw.ConstraintError),
    "RAISE(ROLLBACK)": (raise_rollback, apsw.ConstraintError),
    "full": (full, DiskFullError),
    "I/O error": (io_error, RetryableError),
    "out of memory": (no_memory, RetryableError),
    "ROLLBACK without an error": (plain_rollback, InvariantError),
    "ROLLBACK, then an error": (commit_midway, apsw.SQLError),
}


@pytest.mark.parametrize("name", ROLLING_BACK)
def test_others_are_replayed_without_the_op_that_ended_the_transaction(conn, name):
    """Guard: the look at `conn.in_transaction` after each op, in memoturnd.engine.rounds._attempt."""
    culprit, error = ROLLING_BACK[name]
    run(conn, insert("before"))

    round_ = run(conn, insert("a"), culprit, insert("b"), look, txid=2)

    assert round_.committed
    assert errors(round_) == [None, error, None, None]
    assert [outcome.value for outcome in round_.outcomes] == ["a", None, "b", 3]
    assert rows(conn) == ["before", "a", "b"]
    assert schema.read_meta(conn).txid == 2


@pytest.mark.parametrize("name", ROLLING_BACK)
def test_op_that_ended_the_transaction_alone_leaves_nothing(conn, name):
    culprit, error = ROLLING_BACK[name]

    round_ = run(conn, culprit)

    assert (round_.committed, errors(round_)) == (False, [error])
    assert (rows(conn), schema.read_meta(conn).txid) == ([], 0)
    assert run(conn, insert("next")).committed


def test_several_ops_that_end_the_transaction_leave_the_others(conn):
    round_ = run(conn, interrupted, insert("a"), or_rollback, insert("b"), full, raise_rollback)

    assert [error is None for error in errors(round_)] == [False, True, False, True, False, False]
    assert rows(conn) == ["a", "b"]


def test_replayed_op_that_fails_the_second_time_fails_alone(conn):
    runs = []

    def fickle(conn, now_ms):
        runs.append(now_ms)
        return insert("fickle" if len(runs) == 1 else "a")(conn, now_ms)

    round_ = run(conn, insert("a"), fickle, or_rollback)

    assert errors(round_) == [None, apsw.ConstraintError, apsw.ConstraintError]
    assert rows(conn) == ["a"]
    assert len(set(runs)) == 1


# ---- the commit itself


def test_commit_that_fails_fails_all_and_leaves_nothing(conn):
    """Guard: `roll_back` behind a COMMIT that raised, in memoturnd.engine.rounds.run_round."""
    run(conn, insert("before"))

    with files_cannot_grow_beyond(log_size_bytes(conn)):
        round_ = run_round(conn, [insert("a"), insert("b")], txid=2, now_ms=2, epoch=3)

    assert not round_.committed
    assert errors(round_) == [RetryableError, RetryableError]
    assert not conn.in_transaction
    assert (rows(conn), schema.read_meta(conn).txid) == (["before"], 1)
    assert run(conn, insert("c"), txid=2).committed
    assert rows(conn) == ["before", "c"]


def test_commit_that_is_refused_fails_all_but_the_one_that_had_its_own_error(conn):
    conn.set_commit_hook(lambda: True)
    try:
        round_ = run_round(conn, [insert("a"), own_error, insert("b")], txid=1, now_ms=2, epoch=3)
    finally:
        conn.set_commit_hook(None)

    assert errors(round_) == [apsw.ConstraintError, KeyError, apsw.ConstraintError]
    assert (rows(conn), conn.in_transaction) == ([], False)


def test_commit_that_raises_any_other_error_leaves_no_transaction_open(conn):
    def hook():
        raise MemoryError

    conn.set_commit_hook(hook)
    try:
        round_ = run_round(conn, [insert("a")], txid=1, now_ms=2, epoch=3)
    finally:
        conn.set_commit_hook(None)

    assert errors(round_) == [RetryableError]
    assert (rows(conn), conn.in_transaction) == ([], False)


def test_round_on_a_database_that_another_connection_writes_fails_and_can_be_tried_again(conn):
    other = apsw.Connection(conn.filename)
    other.execute("BEGIN IMMEDIATE")
    try:
        assert errors(run(conn, insert("a"), insert("b"))) == [RetryableError, RetryableError]
    finally:
        other.execute("ROLLBACK")
        other.close()
    assert run(conn, insert("a")).committed


# ---- what callers see


@pytest.mark.parametrize(
    ("error", "seen", "says"),
    [
        (apsw.FullError("x"), DiskFullError, "disk is full"),
        (apsw.InterruptError("x"), RequestTimeoutError, "deadline"),
        (apsw.NoMemError("x"), RetryableError, "out of memory"),
        (MemoryError(), RetryableError, "out of memory"),
        (apsw.IOError("x"), RetryableError, "check the data directory"),
        (apsw.CantOpenError("x"), RetryableError, "check the data directory"),
        (apsw.ReadOnlyError("x"), RetryableError, "check the data directory"),
        (apsw.BusyError("x"), RetryableError, "check the data directory"),
    ],
)
def test_errors_of_the_disk_say_what_to_do(error, seen, says):
    translated = translate(error)

    assert type(translated) is seen
    assert says in str(translated)
    assert translated.__cause__ is error


def test_other_errors_stay_what_they_are():
    error = apsw.ConstraintError("UNIQUE")

    assert translate(error) is error
