import contextlib

import apsw
import pytest

from memoturnd.engine import guard, schema
from memoturnd.engine.connection import check_library, open_connection
from memoturnd.errors import ConfigurationError, ForbiddenError, InvalidRequestError, InvariantError


def opened(path=":memory:", *, read_only=False, sync="normal"):
    return open_connection(str(path), read_only=read_only, sync=sync, cache_kib=256)


@pytest.fixture
def conn():
    conn = opened()
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("COMMIT")
    conn.execute("CREATE TABLE t(a, b)")
    conn.execute("INSERT INTO t VALUES (1, 2)")
    conn.execute("INSERT INTO __memoturn_kv(ns, k, v, expires_at) VALUES ('n', 'k', x'01', NULL)")
    yield conn
    assert conn.execute("SELECT count(*) FROM __memoturn_kv").get == 1
    assert conn.execute("SELECT count(*) FROM __memoturn_meta").get == 1
    conn.close()


def run(conn, sql, *, read_only=False, params=None):
    with conn.user_statements(read_only) as seen:
        return seen.execute(sql, params).fetchall()


def test_old_libraries_are_refused_by_name():
    check_library(3_051_003)
    with pytest.raises(ConfigurationError, match=r"SQLite 3\.51\.2 .* apsw 3\.51\.3"):
        check_library(3_051_002)


def test_a_writer_never_checkpoints_behind_our_back(tmp_path):
    path = tmp_path / "p.db"
    conn = opened(path)
    conn.execute("CREATE TABLE t(a)")
    for _ in range(1200):
        conn.execute("INSERT INTO t VALUES (randomblob(4000))")
    conn.close()

    assert (tmp_path / "p.db-wal").stat().st_size > 1200 * 4096
    assert path.stat().st_size <= 4096


@pytest.mark.parametrize(("sync", "level"), [("normal", 1), ("full", 2)])
def test_the_policy_is_set(tmp_path, sync, level):
    conn = opened(tmp_path / "p.db", sync=sync)

    assert conn.pragma("page_size") == 4096
    assert conn.pragma("journal_mode") == "wal"
    assert conn.pragma("synchronous") == level
    assert conn.pragma("cache_size") == -256
    assert conn.pragma("temp_store") == 2
    assert conn.pragma("trusted_schema") == 0
    assert conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    assert conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1) == 1
    assert conn.config(apsw.SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, -1) == 0
    assert conn.pragma("wal_autocheckpoint") == 0
    assert conn.execute("SELECT vec_length(x'0000803f')").get == 1
    conn.close()


@pytest.mark.parametrize("sync", ["normal", "full"])
def test_a_new_file_is_set_to_its_log_without_an_fsync_where_commits_do_without_one(
    tmp_path, monkeypatch, sync
):
    statements = []

    def hook(conn):
        conn.set_profile(lambda sql, _ns: statements.append(sql))

    monkeypatch.setattr(apsw, "connection_hooks", [hook])
    opened(tmp_path / "p.db", sync=sync).close()
    at_first = [sql for sql in statements if "synchronous" in sql or "journal_mode" in sql]
    statements.clear()
    opened(tmp_path / "p.db", sync=sync).close()
    later = [sql for sql in statements if "synchronous" in sql or "journal_mode" in sql]

    assert later == ["PRAGMA journal_mode=WAL", f"PRAGMA synchronous={sync}"]
    without = ["PRAGMA synchronous=off", "PRAGMA journal_mode=memory"] if sync == "normal" else []
    assert at_first == without + later


def test_a_reader_sees_the_wal_and_cannot_write(tmp_path):
    writer = opened(tmp_path / "p.db")
    writer.execute("CREATE TABLE t(a)")
    writer.execute("INSERT INTO t VALUES (1)")
    reader = opened(tmp_path / "p.db", read_only=True)

    assert reader.execute("SELECT a FROM t").get == 1
    with pytest.raises(apsw.ReadOnlyError):
        reader.execute("INSERT INTO t VALUES (2)")
    reader.close()
    writer.close()


def test_a_reader_does_not_make_the_file(tmp_path):
    with pytest.raises(apsw.CantOpenError):
        opened(tmp_path / "none.db", read_only=True)

    assert list(tmp_path.iterdir()) == []


def test_internal_statements_pass_and_the_guard_leaves_no_cycle(conn):
    assert conn.execute("SELECT txid FROM __memoturn_meta").get == 0
    with conn.user_statements(False):
        pass
    assert conn.execute("SELECT txid FROM __memoturn_meta").get == 0


RESERVED = [
    "SELECT * FROM __memoturn_kv",
    "SELECT count(*) FROM __MEMOTURN_KV",
    'SELECT k FROM "__Memoturn_kv"',
    "SELECT k FROM [__memoturn_kv]",
    "SELECT k FROM `__memoturn_kv`",
    "SELECT k FROM main.__memoturn_kv",
    "SELECT (SELECT max(k) FROM __memoturn_kv)",
    "SELECT * FROM __memoturn_memories_fts('x')",
    "SELECT * FROM __memoturn_memories_fts_data",
    "SELECT * FROM pragma_table_info('__memoturn_kv')",
    "PRAGMA table_info(__memoturn_kv)",
    "WITH x AS (SELECT k FROM __memoturn_kv) SELECT * FROM x",
    "DELETE FROM __memoturn_kv",
    "UPDATE __memoturn_kv SET k = 'x'",
    "INSERT INTO __memoturn_kv(ns, k, v, expires_at) VALUES ('a', 'b', x'', NULL)",
    "WITH x AS (SELECT 1) INSERT INTO __memoturn_kv SELECT 'a', 'b', x'', NULL FROM x",
    "INSERT INTO __memoturn_kv(ns, k, v, expires_at) VALUES ('a', 'b', x'', NULL) RETURNING k",
    "REPLACE INTO __memoturn_meta VALUES (1, 1, 99, 0, 0)",
    "INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts) VALUES ('rebuild')",
    "DROP TABLE __memoturn_kv",
    "DROP INDEX __memoturn_kv_expiry",
    "ALTER TABLE __memoturn_kv RENAME TO x",
    "ALTER TABLE __memoturn_kv ADD COLUMN x",
    "ALTER TABLE t RENAME TO __memoturn_x",
    'ALTER TABLE t RENAME TO "__MEMOTURN_x"',
    "CREATE TABLE __memoturn_x(a)",
    'CREATE TABLE "__Memoturn_x"(a)',
    "CREATE VIEW __memoturn_v AS SELECT 1",
    "CREATE INDEX __memoturn_i ON t(a)",
    "CREATE INDEX i ON __memoturn_kv(v)",
    "CREATE TRIGGER tr AFTER INSERT ON __memoturn_kv BEGIN SELECT 1; END",
    "CREATE TRIGGER __memoturn_tr AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE TABLE x AS SELECT * FROM __memoturn_kv",
    "CREATE VIRTUAL TABLE __memoturn USING fts5(a)",
    "CREATE VIRTUAL TABLE __memoturn_f USING fts5(a)",
    "CREATE VIRTUAL TABLE f USING fts5(summary, content='__memoturn_memories')",
    "REINDEX __memoturn_kv",
    "REINDEX __memoturn_messages",
    "REINDEX",
    "ANALYZE __memoturn_kv",
]


@pytest.mark.parametrize("sql", RESERVED)
def test_reserved_names_are_out_of_reach_however_spelled(conn, sql):
    with pytest.raises(ForbiddenError, match="reserved"):
        run(conn, sql)


ESCAPES = [
    "ATTACH '/tmp/other.db' AS o",
    "ATTACH ':memory:' AS o",
    "DETACH main",
    "VACUUM",
    "VACUUM INTO '/tmp/copy.db'",
    "PRAGMA main.writable_schema=ON",
    "PRAGMA writable_schema",
    "PRAGMA journal_mode",
    "PRAGMA journal_mode=DELETE",
    "PRAGMA wal_checkpoint(TRUNCATE)",
    "PRAGMA wal_autocheckpoint=1",
    "PRAGMA locking_mode=EXCLUSIVE",
    "PRAGMA user_version=7",
    "PRAGMA foreign_keys=ON",
    "PRAGMA query_only=0",
    "SELECT * FROM pragma_journal_mode",
    "SELECT load_extension('x')",
    "SELECT fts3_tokenizer('simple')",
    "SELECT sqlite_log(1, 'x')",
    "CREATE VIRTUAL TABLE v USING fts5vocab('__memoturn_memories_fts', 'row')",
    "CREATE VIRTUAL TABLE v USING fts5vocab(t, row)",
    "CREATE VIRTUAL TABLE v USING dbstat",
    "CREATE VIRTUAL TABLE v USING rtree(a, b, c)",
    "CREATE VIRTUAL TABLE temp.v USING fts5(a)",
    "CREATE TEMP TABLE x(a)",
    "CREATE TEMP TABLE x AS SELECT 1",
    "CREATE TEMP VIEW x AS SELECT 1",
    "CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE TABLE temp.x(a)",
    "CREATE TABLE temp.x AS SELECT 1",
    "CREATE VIEW temp.x AS SELECT 1",
    "CREATE TRIGGER temp.x AFTER INSERT ON t BEGIN SELECT 1; END",
    "CREATE TRIGGER temp.x AFTER INSERT ON main.t BEGIN SELECT 1; END",
]


@pytest.mark.parametrize("sql", ESCAPES)
def test_other_files_settings_and_temporary_objects_are_forbidden(conn, sql):
    with pytest.raises(ForbiddenError):
        run(conn, sql)


@pytest.mark.parametrize(
    "sql",
    ["BEGIN", "BEGIN IMMEDIATE", "COMMIT", "END", "ROLLBACK", "SAVEPOINT x", "RELEASE x", "ROLLBACK TO x"],
)
def test_transaction_control_is_an_invalid_request(conn, sql):
    with pytest.raises(InvalidRequestError, match="transaction control"):
        run(conn, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE sqlite_master SET sql = 'x'",
        "DELETE FROM sqlite_schema",
        "DELETE FROM sqlite_temp_schema",
        "INSERT INTO sqlite_master VALUES ('a', 'b', 'c', 1, 'd')",
    ],
)
def test_the_schema_table_is_not_written_nor_read_but_by_its_view(conn, sql):
    with pytest.raises(ForbiddenError, match="sqlite_schema"):
        run(conn, "SELECT count(*) FROM sqlite_master")
    with pytest.raises(apsw.SQLError, match="may not be modified"):
        run(conn, sql)


def test_views_and_triggers_that_name_reserved_tables_are_refused_and_an_older_one_reaches_no_further(conn):
    view = "CREATE VIEW v AS SELECT * FROM __memoturn_kv"
    trigger = "CREATE TRIGGER tr AFTER INSERT ON t BEGIN DELETE FROM __memoturn_kv; END"
    for made in (view, trigger):
        with pytest.raises(ForbiddenError, match="reserved"):
            run(conn, made)
        conn.execute(made)

    with pytest.raises(ForbiddenError, match="__memoturn_kv"):
        run(conn, "SELECT * FROM v")
    with pytest.raises(ForbiddenError, match="__memoturn_kv"):
        run(conn, "INSERT INTO t VALUES (3, 4)")


def test_foreign_keys_cannot_reach_into_reserved_tables(conn):
    with pytest.raises(ForbiddenError, match="reserved"):
        run(conn, "CREATE TABLE child(k REFERENCES __memoturn_kv(k) ON DELETE CASCADE)")
    with pytest.raises(ForbiddenError, match="reserved"):
        run(conn, "ALTER TABLE t ADD COLUMN k REFERENCES __memoturn_kv(k)")

    assert conn.pragma("foreign_keys") == 0


ALLOWED = [
    "SELECT * FROM t",
    "SELECT '__memoturn_kv', \"a\" FROM t",
    "INSERT INTO t VALUES (3, 4) RETURNING a",
    "WITH x AS (SELECT 5) INSERT INTO t SELECT 6, * FROM x",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT sum(i) FROM n",
    "CREATE TABLE x(id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT DEFAULT 'd' CHECK (length(body) > 0))",
    "CREATE TABLE x AS SELECT * FROM t",
    "CREATE UNIQUE INDEX i ON t(a) WHERE a > 1",
    "ALTER TABLE t ADD COLUMN c",
    "ALTER TABLE t RENAME TO u",
    "ALTER TABLE t DROP COLUMN b",
    "DROP TABLE t",
    "ANALYZE t",
    "REINDEX t",
    "PRAGMA table_info(t)",
    "SELECT name FROM pragma_table_info('t')",
    "PRAGMA index_list(t)",
    "EXPLAIN QUERY PLAN SELECT * FROM t",
    "SELECT json_extract('{\"a\":1}', '$.a'), upper('x'), datetime(0), vec_length(x'0000803f')",
    "SELECT * FROM json_each('[1,2]')",
]


@pytest.mark.parametrize("sql", ALLOWED)
def test_ordinary_statements_pass(conn, sql):
    run(conn, sql)


def test_full_text_and_vector_tables_of_a_user_work(conn):
    run(conn, "CREATE VIRTUAL TABLE f USING fts5(body, tokenize='porter')")
    run(conn, "INSERT INTO f VALUES ('running dogs')")
    assert run(conn, "SELECT body FROM f WHERE f MATCH 'dog' ORDER BY rank") == [("running dogs",)]
    run(conn, "INSERT INTO f(f) VALUES ('optimize')")
    run(conn, "DELETE FROM f")
    run(conn, "DROP TABLE f")
    run(conn, "CREATE VIRTUAL TABLE v USING vec0(e float[2])")
    run(conn, "INSERT INTO v(rowid, e) VALUES (1, '[1, 2]'), (2, '[5, 5]')")
    assert run(conn, "SELECT rowid FROM v WHERE e MATCH '[5, 5]' AND k = 1") == [(2,)]
    run(conn, "DROP TABLE v")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (1, 1)",
        "WITH x AS (SELECT 1) INSERT INTO t SELECT 1, 1 FROM x",
        "INSERT INTO t VALUES (1, 1) RETURNING a",
        "UPDATE t SET a = 2",
        "DELETE FROM t",
        "CREATE TABLE x(a)",
        "DROP TABLE t",
        "ALTER TABLE t ADD COLUMN x",
        "ANALYZE t",
    ],
)
def test_read_only_blocks_refuse_every_write_and_say_that_it_was_one(conn, sql):
    seen = conn.user_statements(True)
    with pytest.raises(ForbiddenError, match="only reads"), seen:
        seen.execute(sql)

    assert seen.needs_write
    assert conn.execute("SELECT a, b FROM t").fetchall() == [(1, 2)]
    assert run(conn, "SELECT a FROM t", read_only=True) == [(1,)]


def test_a_cached_internal_statement_is_no_way_around_the_guard(conn):
    text = "SELECT k FROM __memoturn_kv"
    for _ in range(3):
        assert conn.execute(text).get == "k"

    with pytest.raises(ForbiddenError):
        run(conn, text)
    run(conn, "SELECT 1 FROM t")

    assert conn.execute(text).get == "k"


def test_user_statements_do_not_enter_the_cache(conn):
    before = conn.cache_stats()["size"]
    entries = len(conn.cache_stats(True)["entries"])
    for n in range(50):
        run(conn, f"SELECT {n}")

    assert (conn.cache_stats()["size"], len(conn.cache_stats(True)["entries"])) == (before, entries)


def test_the_block_tells_what_happened(conn):
    with conn.user_statements(False) as seen:
        seen.execute("INSERT INTO t VALUES (1, 1)")
        assert (seen.ddl, seen.denied) == (False, None)
        seen.execute("CREATE TABLE x(a)")
        assert seen.ddl

    denying = conn.user_statements(False)
    with pytest.raises(ForbiddenError), denying:
        denying.execute("SELECT * FROM __memoturn_kv")
    assert "__memoturn_kv" in denying.denied


def test_a_swallowed_refusal_still_ends_the_block(conn):
    with (
        pytest.raises(ForbiddenError),
        conn.user_statements(False) as seen,
        contextlib.suppress(apsw.AuthError),
    ):
        seen.execute("DROP TABLE __memoturn_kv")


def test_an_interrupt_passes_through_untranslated_and_drops_the_guard(conn):
    conn.set_progress_handler(lambda: True, 10)
    with pytest.raises(apsw.InterruptError):
        run(conn, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n")
    conn.set_progress_handler(None)

    assert conn.execute("SELECT count(*) FROM __memoturn_kv").get == 1


def test_an_interrupt_wins_over_an_earlier_refusal(conn):
    conn.set_progress_handler(lambda: True, 10)
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.raises(apsw.InterruptError))
        seen = stack.enter_context(conn.user_statements(False))
        with contextlib.suppress(apsw.AuthError):
            seen.execute("DROP TABLE __memoturn_kv")
        seen.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n")
    conn.set_progress_handler(None)


@pytest.mark.parametrize("sql", [sql for sql in ESCAPES if "temp" in sql.lower()])
def test_temporary_objects_are_refused_with_the_next_step(conn, sql):
    with pytest.raises(ForbiddenError, match="use a plain table"):
        run(conn, sql)


def test_long_values_are_limited_in_the_block_alone(conn):
    size = guard.USER_LENGTH_LIMIT_BYTES + 1
    with pytest.raises(apsw.TooBigError):
        run(conn, f"SELECT length(hex(zeroblob({size // 2 + 1})))")

    assert conn.execute(f"SELECT length(zeroblob({size}))").get == size


def test_blocks_do_not_nest(conn):
    with conn.user_statements(False), pytest.raises(InvariantError), conn.user_statements(False):
        pass
    run(conn, "SELECT 1")


def test_what_is_deleted_is_overwritten(tmp_path):
    path = tmp_path / "profile.db"
    conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=256)
    conn.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    conn.executemany("INSERT INTO t(v) VALUES (?)", [(b"the secret " * n,) for n in (1, 10, 1000)])
    conn.execute("DELETE FROM t")
    conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    conn.close()

    assert b"secret" not in path.read_bytes()
