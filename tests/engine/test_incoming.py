"""Files from outside: what comes in comes in exactly, and what must not is refused."""

import sqlite3
import struct
import time
from contextlib import closing

import apsw
import pytest

from memoturnd.engine import families, incoming, schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    MemoturnError,
    RequestTimeoutError,
)
from memoturnd.surfaces import collections, timeline_queries


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path


def prepare(folder, path, *, expired=lambda: False):
    received = folder / "work" / "received.db"
    received.write_bytes(path.read_bytes())
    ready = folder / "work" / "ready.db"
    ready.unlink(missing_ok=True)
    return incoming.prepare(received, ready, now_ms=5000, expired=expired), ready


def opened(path):
    return closing(open_connection(str(path), read_only=True, sync="normal", cache_kib=64))


def foreign(path, *statements):
    """A database made by the standard library's SQLite."""
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        for statement in statements:
            conn.execute(statement)
    return path


def ours(path, *statements, txid=7):
    """A file as an export writes it, with what a hand that knows its way could change."""
    conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=64)
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("INSERT INTO __memoturn_kv(ns, k, v, expires_at) VALUES ('n', 'k', x'01', NULL)")
    schema.write_meta(conn, txid, 1, 3)
    conn.execute("COMMIT")
    conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    conn.execute("PRAGMA ignore_check_constraints=1")
    for statement in statements:
        conn.execute(statement).fetchall()
    incoming.empty_log(conn)
    conn.close()
    incoming.forget_log(path)
    return path


def refusal(folder, path, kind=InvalidRequestError):
    with pytest.raises(MemoturnError) as caught:
        prepare(folder, path)
    assert type(caught.value) is kind, caught.value
    assert not (folder / "work" / "ready.db").exists()
    return str(caught.value)


RICH = (
    "CREATE TABLE plain(a, b TEXT NOT NULL)",
    "CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID",
    "CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, twice AS (id * 2))",
    "CREATE INDEX plain_b ON plain(lower(b)) WHERE a > 1",
    "CREATE VIEW seen AS SELECT a FROM plain",
    "CREATE TRIGGER copied AFTER INSERT ON plain BEGIN INSERT OR IGNORE INTO keyed VALUES (new.b, new.a); END",
    "CREATE VIRTUAL TABLE words USING fts5(text)",
    "INSERT INTO plain VALUES (1, 'x'), (2, 'y'), (3, 'z')",
    "DELETE FROM plain WHERE a = 1",
    "INSERT INTO counted(id) VALUES (41)",
    "INSERT INTO words VALUES ('the quick fox')",
    "ANALYZE",
)


@pytest.mark.parametrize("setting", [
    "page_size=4096", "page_size=1024", "page_size=65536", "auto_vacuum=1", "journal_mode=wal",
])  # fmt: skip
def test_foreign_database_comes_in_with_everything_in_it(folder, setting):
    path = foreign(folder / "a.db", f"PRAGMA {setting}", *RICH, "PRAGMA user_version=12")

    txid, ready = prepare(folder, path)

    assert txid == 1
    with opened(ready) as conn:
        assert conn.execute("SELECT rowid, a, b FROM plain").fetchall() == [(2, 2, "y"), (3, 3, "z")]
        assert conn.execute("SELECT * FROM keyed").fetchall() == [("x", 1), ("y", 2), ("z", 3)]
        assert conn.execute("SELECT id, twice FROM counted").fetchall() == [(41, 82)]
        assert conn.execute("SELECT seq FROM sqlite_sequence").get == 41
        assert conn.execute("SELECT text FROM words WHERE words MATCH 'fox'").get == "the quick fox"
        assert conn.execute("SELECT a FROM seen").fetchall() == [(2,), (3,)]
        assert conn.execute("PRAGMA user_version").get == 12
        assert conn.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'copied'").get == 1
        assert conn.execute("PRAGMA integrity_check").get == "ok"


@pytest.mark.parametrize("make", [
    lambda path: foreign(path, "PRAGMA page_size=8192", "PRAGMA auto_vacuum=2", *RICH),
    lambda path: foreign(path, "CREATE TABLE t(a)"),
    ours,
    lambda path: ours(path, "CREATE TABLE t(a)", "INSERT INTO t VALUES (1)"),
])  # fmt: skip
def test_file_is_built_as_a_profile_is(folder, make):
    txid, ready = prepare(folder, make(folder / "a.db"))

    with opened(ready) as conn:
        meta = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = '__memoturn_meta'").get
        assert (meta, conn.execute("PRAGMA page_size").get) == (2, 4096)
        assert conn.execute("PRAGMA auto_vacuum").get == 0
        assert conn.execute("PRAGMA journal_mode").get == "wal"
        assert schema.read_meta(conn) == schema.Meta(schema.SCHEMA_VERSION, txid, 5000, 0)
    assert ready.with_name("ready.db-wal").stat().st_size == 0


def test_database_with_reserved_bytes_on_each_page_comes_in(folder):
    """As the SQLite of Apple's systems writes it."""
    path = folder / "a.db"
    conn = apsw.Connection(str(path))
    conn.reserve_bytes("main", 16)
    conn.execute("CREATE TABLE t(a)")
    conn.execute("INSERT INTO t VALUES (1)")
    conn.close()
    assert path.read_bytes()[20] == 16

    _, ready = prepare(folder, path)

    with opened(ready) as conn:
        assert (conn.execute("SELECT a FROM t").get, conn.execute("PRAGMA integrity_check").get) == (1, "ok")


def test_export_comes_back_page_by_page_with_its_txid(folder):
    path = ours(
        folder / "a.db", "CREATE TABLE t(a)", "INSERT INTO t VALUES (1), (2)", "DELETE FROM t WHERE a = 1"
    )
    before = path.read_bytes()

    txid, ready = prepare(folder, path)

    assert txid == 7
    after = ready.read_bytes()
    changed = [n for n in range(len(before) // 4096) if before[4096 * n :][:4096] != after[4096 * n :][:4096]]
    assert len(before) == len(after)
    with opened(ready) as conn:
        lineage = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = '__memoturn_lineage'").get
    assert set(changed) <= {
        0,
        1,
        lineage - 1,
    }  # the header, the meta row, and how far the change feed reaches back


def test_export_that_somebody_vacuumed_into_other_pages_comes_back(folder):
    path = ours(folder / "a.db", "CREATE TABLE t(a)", "INSERT INTO t VALUES (1)")
    foreign(path, "PRAGMA page_size=16384", "VACUUM")
    assert struct.unpack(">H", path.read_bytes()[16:18]) == (16384,)

    txid, ready = prepare(folder, path)

    with opened(ready) as conn:
        assert (txid, conn.execute("SELECT a FROM t").get) == (7, 1)
        assert conn.execute("SELECT v FROM __memoturn_kv").get == b"\x01"


def test_export_of_a_profile_never_written_starts_at_1(folder):
    assert prepare(folder, ours(folder / "a.db", txid=0))[0] == 1


# ---- what is refused


@pytest.mark.parametrize("data", [b"", b"hello", b"SQLite format 3\x00", b"x" * 5000])
def test_what_is_no_database_is_refused(folder, data):
    (folder / "a.db").write_bytes(data)

    assert "not a SQLite database" in refusal(folder, folder / "a.db")


@pytest.mark.parametrize("at", [20, 100, 103, 4096, 4100, 8192])
def test_damaged_database_is_refused(folder, at):
    path = foreign(
        folder / "a.db", "CREATE TABLE t(a)", "CREATE INDEX i ON t(a)", "INSERT INTO t VALUES ('some text')"
    )
    data = bytearray(path.read_bytes())
    data[at : at + 16] = b"\xff" * 16
    path.write_bytes(data)

    refusal(folder, path)


def test_database_cut_off_anywhere_is_refused(folder):
    path = foreign(folder / "a.db", *RICH)
    data = path.read_bytes()
    for size in range(100, len(data), 4096 * 3 + 57):
        path.write_bytes(data[:size])
        refusal(folder, path)


def test_rows_that_break_a_constraint_are_refused(folder):
    path = foreign(
        folder / "a.db",
        "CREATE TABLE t(a CHECK (a > 0))",
        "PRAGMA ignore_check_constraints=1",
        "INSERT INTO t VALUES (-1)",
    )

    assert "damaged: CHECK constraint failed in t" in refusal(folder, path)


def test_utf_16_is_refused_with_the_way_out(folder):
    path = foreign(folder / "a.db", "PRAGMA encoding='UTF-16'", "CREATE TABLE t(a)")

    assert ".dump" in refusal(folder, path)


@pytest.mark.parametrize("statement", [
    "CREATE TABLE __memoturn_evil(a)",
    "CREATE TABLE __MEMOTURN_kv(a)",
    "CREATE VIEW __memoturn_v AS SELECT 1",
    "CREATE VIEW v AS SELECT * FROM __memoturn_kv",
    "CREATE TABLE t(a REFERENCES __memoturn_memories(id))",
    "CREATE TRIGGER tr AFTER INSERT ON u BEGIN DELETE FROM __memoturn_kv; END",
    'CREATE TRIGGER tr AFTER INSERT ON u BEGIN DELETE FROM "__Memoturn_kv"; END',
    "CREATE VIRTUAL TABLE f USING fts5(x, content='__memoturn_memories')",
])  # fmt: skip
def test_reserved_names_of_a_foreign_file_are_refused(folder, statement):
    path = foreign(folder / "a.db", "CREATE TABLE u(a)", statement)

    assert "__memoturn_" in refusal(folder, path, ForbiddenError).lower()


@pytest.mark.parametrize("statement", [
    "CREATE VIRTUAL TABLE f USING fts4(x)",
    "CREATE VIRTUAL TABLE f USING rtree(id, a, b)",
])  # fmt: skip
def test_virtual_tables_of_other_modules_are_refused(folder, statement):
    path = foreign(folder / "a.db", statement)

    assert "module" in refusal(folder, path, ForbiddenError)


def test_virtual_table_of_a_module_that_nobody_knows_is_refused(folder):
    path = foreign(
        folder / "a.db",
        "PRAGMA writable_schema=1",
        "INSERT INTO sqlite_schema VALUES ('table', 'e', 'e', 0, 'CREATE VIRTUAL TABLE e USING evil(x)')",
    )

    assert "module 'evil'" in refusal(folder, path, ForbiddenError)


@pytest.mark.parametrize("row", [
    "'table', 't', 't', 2, 'CREATE TABLE other(a)'",
    "'table', 't', 't', 2, 'CREATE TABLE t(a); DROP TABLE t'",
    "'table', 't', 't', 2, 'DROP TABLE t'",
    "'thing', 't', 't', 2, 'CREATE TABLE t(a)'",
    "'view', 't', 't', 0, 'CREATE TABLE t(a)'",
    "'table', 't', 't', 1, 'CREATE TABLE t(a)'",
    "'table', 't', 't', 99999, 'CREATE TABLE t(a)'",
    "'table', x'ff', 't', 2, 'CREATE TABLE t(a)'",
    "'table', 7, 't', 2, 'CREATE TABLE t(a)'",
    "'table', 't', 't', 2, NULL",
    "'trigger', 'tr', 'missing', 0, 'CREATE TRIGGER tr AFTER INSERT ON missing BEGIN SELECT 1; END'",
    "'index', 'i', 'missing', 2, 'CREATE INDEX i ON missing(a)'",
])  # fmt: skip
def test_schema_that_lies_is_refused(folder, row):
    path = foreign(
        folder / "a.db",
        "CREATE TABLE x(a)",
        "PRAGMA writable_schema=1",
        "DELETE FROM sqlite_schema",
        f"INSERT INTO sqlite_schema VALUES ({row})",
    )

    refusal(folder, path)


def test_absurd_schemas_are_refused(folder):
    many = foreign(folder / "a.db", "BEGIN", *(f"CREATE TABLE t{n}(a)" for n in range(2001)), "COMMIT")
    assert "2001 objects" in refusal(folder, many)

    long = foreign(
        folder / "b.db", "BEGIN", *(f"CREATE TABLE t{n}(a /*{'x' * 900_000}*/)" for n in range(5)), "COMMIT"
    )
    assert "bytes of SQL" in refusal(folder, long)


@pytest.mark.parametrize("statement", [
    "DROP TABLE __memoturn_kv",
    "CREATE TABLE __memoturn_more(a)",
    "CREATE INDEX mine ON __memoturn_kv(v)",
    "CREATE TRIGGER tr AFTER INSERT ON __memoturn_kv BEGIN SELECT 1; END",
    "ALTER TABLE __memoturn_kv ADD COLUMN w",
    "DROP INDEX __memoturn_kv_expiry",
])  # fmt: skip
def test_reserved_tables_that_somebody_rebuilt_are_refused(folder, statement):
    assert "not as Memoturn writes it" in refusal(folder, ours(folder / "a.db", statement))


@pytest.mark.parametrize("statement", [
    "UPDATE __memoturn_kv SET expires_at = 'soon'",
    "UPDATE __memoturn_kv SET v = 'text'",
    "UPDATE __memoturn_kv SET k = CAST(x'ff' AS TEXT)",
    "UPDATE __memoturn_kv SET meta = '{'",
    "UPDATE __memoturn_kv SET meta = '[1]'",
    "UPDATE __memoturn_kv SET meta = 'null'",
    "UPDATE __memoturn_kv SET tag = 'text'",
    "UPDATE __memoturn_kv SET tag = x'00'",
    "INSERT INTO __memoturn_messages VALUES (1, 's', 1, 'user', 'no json', 1)",
    "INSERT INTO __memoturn_messages VALUES (1, 's', 'one', 'user', '1', 1)",
    "INSERT INTO __memoturn_transcripts VALUES ('s', 1)",
    "INSERT INTO __memoturn_memory_origins VALUES (1, 's', 'one', 2)",
    "INSERT INTO __memoturn_models VALUES (2, 'm', 'many', 1)",
    "INSERT INTO __memoturn_memories(id, type, summary, content, created_at) VALUES ('m', 'fact', 's', '{', 1)",
    "INSERT INTO __memoturn_memories(id, type, summary, content, created_at) VALUES ('m', 'lie', 's', '1', 1)",
    "INSERT INTO __memoturn_memories(id, type, summary, content, created_at, version) VALUES ('m', 'fact', 's', '1', 1, 0)",
    "INSERT INTO __memoturn_memories(id, type, summary, content, created_at, version) VALUES ('m', 'fact', 's', '1', 1, 9223372036854775807)",
    "INSERT INTO __memoturn_memories(id, type, summary, content, created_at, importance) VALUES ('m', 'fact', 's', '1', 1, 1.5)",
    "INSERT INTO __memoturn_memories(id, type, summary, content, created_at, importance) VALUES ('m', 'fact', 's', '1', 1, -9e999)",
    "INSERT INTO __memoturn_memories(id, type, summary, content, created_at, pinned) VALUES ('m', 'fact', 's', '1', 1, 2)",
    "UPDATE __memoturn_meta SET txid = -1",
    "UPDATE __memoturn_meta SET txid = 9007199254740990",
    "UPDATE __memoturn_meta SET txid = 'x'",
    "UPDATE __memoturn_meta SET schema_version = 0",
    "DELETE FROM __memoturn_meta",
    "INSERT INTO __memoturn_meta VALUES (2, 1, 1, 1, 1, '')",
])  # fmt: skip
def test_rows_that_no_node_writes_are_refused(folder, statement):
    refusal(folder, ours(folder / "a.db", statement))


TURNS = (
    "INSERT INTO __memoturn_messages VALUES (1, 's', 1, 'user', '\"red fox\"', 1)",
    "INSERT INTO __memoturn_messages_fts(rowid, text) VALUES (1, 'red fox')",
    "INSERT INTO __memoturn_transcripts VALUES (x'00112233445566778899aabbccddeeff', 1)",
    "CREATE TABLE __memoturn_turn_vectors_0_2(mid INTEGER PRIMARY KEY, e BLOB NOT NULL)",
    "CREATE TABLE __memoturn_turn_vectors_7_1(mid INTEGER PRIMARY KEY, e BLOB NOT NULL)",
    "INSERT INTO __memoturn_turn_vectors_0_2 VALUES (1, x'0102030405060708')",
    "INSERT INTO __memoturn_memory_origins VALUES (1, 's', 1, 1)",
)


@pytest.mark.parametrize("more", [(), ("PRAGMA user_version=1", "CREATE TABLE t(a)")])
def test_turns_come_in_with_their_words_and_vectors(folder, more):
    _, ready = prepare(folder, ours(folder / "a.db", *TURNS, *more))

    with opened(ready) as conn:
        assert conn.execute("SELECT rowid FROM __memoturn_messages_fts('foxes')").get == 1
        assert conn.execute("SELECT mid FROM __memoturn_turn_vectors_0_2").get == 1
        assert conn.execute("SELECT count(*) FROM __memoturn_turn_vectors_7_1").get == 0
        assert conn.execute("SELECT to_seq FROM __memoturn_memory_origins").get == 1


@pytest.mark.parametrize("statement", [
    "INSERT INTO __memoturn_turn_vectors_0_2 VALUES (2, x'01020304')",
    "INSERT INTO __memoturn_turn_vectors_0_2 VALUES (2, x'000000000000807f')",
    "INSERT INTO __memoturn_turn_vectors_0_2 VALUES (2, x'')",
    "ALTER TABLE __memoturn_turn_vectors_0_2 RENAME TO __memoturn_turn_vectors_0_0",
    "ALTER TABLE __memoturn_turn_vectors_0_2 RENAME TO __memoturn_turn_vectors_00_2",
    "ALTER TABLE __memoturn_turn_vectors_0_2 RENAME TO __memoturn_turn_vectors_0",
    "CREATE TABLE __memoturn_turn_vectors_0_4(mid INTEGER PRIMARY KEY, e)",
])  # fmt: skip
def test_vectors_of_turns_come_in_only_as_they_are_made(folder, statement):
    refusal(folder, ours(folder / "a.db", *TURNS, statement))


VECTORS = (
    "INSERT INTO __memoturn_models VALUES (1, '', 2, 1)",
    "CREATE TABLE __memoturn_memory_vectors_1(rid INTEGER PRIMARY KEY, e BLOB NOT NULL)",
    "INSERT INTO __memoturn_memory_vectors_1 VALUES (1, x'0102030405060708')",
)


def test_tables_that_are_made_on_first_use_come_in(folder):
    _, ready = prepare(folder, ours(folder / "a.db", *VECTORS))

    with opened(ready) as conn:
        assert conn.execute("SELECT count(*) FROM __memoturn_memory_vectors_1").get == 1


@pytest.mark.parametrize("statement", [
    "INSERT INTO __memoturn_memory_vectors_1 VALUES (2, x'01020304')",
    "INSERT INTO __memoturn_memory_vectors_1 VALUES (2, x'000000000000c07f')",
    "INSERT INTO __memoturn_memory_vectors_1 VALUES (2, x'')",
    "UPDATE __memoturn_models SET dimensions = 3",
    "DELETE FROM __memoturn_models",
    "ALTER TABLE __memoturn_memory_vectors_1 ADD COLUMN f",
    "ALTER TABLE __memoturn_memory_vectors_1 RENAME TO __memoturn_memory_vectors_01",
    "CREATE INDEX __memoturn_more ON __memoturn_memory_vectors_1(e)",
])  # fmt: skip
def test_tables_that_are_made_on_first_use_come_in_only_as_they_are_made(folder, statement):
    refusal(folder, ours(folder / "a.db", *VECTORS, statement))


COLLECTION = (
    "INSERT INTO __memoturn_vector_collections VALUES ('c', 3, 1, 1, 2, 1, 1, 1)",
    families.VECTORS.create("3"),
    families.VECTOR_IDS.create("3_id", table="__memoturn_vectors_3"),
    "INSERT INTO __memoturn_vectors_3 VALUES (1, 'v', '{}', 0, NULL, x'00000000')",
)


def test_collections_of_vectors_come_in(folder):
    _, ready = prepare(folder, ours(folder / "a.db", *COLLECTION))

    with opened(ready) as conn:
        assert conn.execute("SELECT id FROM __memoturn_vectors_3").get == "v"


@pytest.mark.parametrize("statement", [
    "DELETE FROM __memoturn_vector_collections",
    "DROP TABLE __memoturn_vectors_3",
    "DROP INDEX __memoturn_vectors_3_id",
    "DELETE FROM __memoturn_vectors_3",
    "UPDATE __memoturn_vector_collections SET name = 'a b'",
    "UPDATE __memoturn_vector_collections SET dimensions = 2",
    "UPDATE __memoturn_vector_collections SET vectors = 2",
    "UPDATE __memoturn_vector_collections SET next_rid = 1",
    "UPDATE __memoturn_vector_collections SET next_rid = 9223372036854775807",
    "UPDATE __memoturn_vectors_3 SET metadata = '[]'",
    "UPDATE __memoturn_vectors_3 SET metadata = '{'",
    "UPDATE __memoturn_vectors_3 SET id = ''",
    "UPDATE __memoturn_vectors_3 SET exponent = 9223372036854775807",
    "UPDATE __memoturn_vectors_3 SET e = 'text'",
    "UPDATE __memoturn_vectors_3 SET e = x'0000c07f'",
    "UPDATE __memoturn_vectors_3 SET rid = 0",
    "CREATE TABLE __memoturn_vectors_4(a)",
])  # fmt: skip
def test_collections_of_vectors_come_in_only_as_they_are_written(folder, statement):
    refusal(folder, ours(folder / "a.db", *COLLECTION, statement))


def test_a_collection_whose_number_leaves_none_for_the_next_is_refused(folder):
    last = 2**63 - 1
    statements = [text.replace("_3", f"_{last}").replace("'c', 3", f"'c', {last}") for text in COLLECTION]

    refusal(folder, ours(folder / "a.db", *statements))


def test_answers_that_were_kept_elsewhere_stay_there(folder):
    kept = "INSERT INTO __memoturn_idempotency VALUES (?, 'b', 'r', '', 'k', x'00', 1, 1, 0, x'00')"
    _, ready = prepare(folder, ours(folder / "a.db", kept.replace("?", str(2**63 - 1))))

    with opened(ready) as conn:
        assert conn.execute("SELECT count(*) FROM __memoturn_idempotency").get == 0


TIMELINES = (
    *(family.create("") for family in families.TIMELINES),
    "INSERT INTO __memoturn_timelines VALUES (1, 't', 5, 4, 3, 2, 60, 1, 0), (2, NULL, 5, 1, 0, 0, NULL, NULL, 0)",
    "INSERT INTO __memoturn_timeline_keys VALUES (1, 1, 'a', 2, 1, 1, 7, 3), (2, 1, 'b', 1, 0, 0, NULL, NULL)",
    """INSERT INTO __memoturn_timeline_rows VALUES (1, 7, 1, 1, '{"n":1}'), (1, 7, 2, 2, 'null'), (1, 7, 3, 1, '3')""",
    "INSERT INTO __memoturn_timeline_young VALUES (1, 7, 3)",
    "INSERT INTO __memoturn_timeline_index VALUES (1, 7, 1), (2, 7, 2)",
)


def test_timelines_come_in(folder):
    _, ready = prepare(folder, ours(folder / "a.db", *TIMELINES))

    with opened(ready) as conn:
        timeline = timeline_queries.read_timeline(conn, 60_000, "t")
        assert (timeline["rows"], timeline["keys"], timeline["retention_rows"]) == (2, 2, 1)


@pytest.mark.parametrize("statement", [
    "DROP TABLE __memoturn_timeline_young",
    "DROP INDEX __memoturn_timelines_name",
    "DELETE FROM __memoturn_timelines",
    "DELETE FROM __memoturn_timeline_keys WHERE id = 2",
    "DELETE FROM __memoturn_timeline_rows WHERE seq = 2",
    "DELETE FROM __memoturn_timeline_index WHERE seq = 2",
    "INSERT INTO __memoturn_timeline_index VALUES (3, 7, 2)",
    "INSERT INTO __memoturn_timeline_young VALUES (2, 7, 2)",
    "UPDATE __memoturn_timeline_index SET at = 6 WHERE seq = 2",
    "UPDATE __memoturn_timelines SET name = 'a b' WHERE id = 1",
    "UPDATE __memoturn_timelines SET next_seq = 3",
    "UPDATE __memoturn_timelines SET next_seq = 9223372036854775807",
    "UPDATE __memoturn_timelines SET rows = 4",
    "UPDATE __memoturn_timelines SET keys = 1",
    "UPDATE __memoturn_timelines SET retention_s = -1",
    "UPDATE __memoturn_timelines SET retention_s = 9223372036854775807",
    "UPDATE __memoturn_timelines SET gone_at = -1",
    "UPDATE __memoturn_timelines SET id = 3 WHERE id = 1",
    "UPDATE __memoturn_timeline_keys SET key = '' WHERE id = 1",
    "UPDATE __memoturn_timeline_keys SET timeline_id = 2",
    "UPDATE __memoturn_timeline_keys SET rows = 3 WHERE id = 1",
    "UPDATE __memoturn_timeline_keys SET young = 0",
    "UPDATE __memoturn_timeline_keys SET hidden = 0",
    "UPDATE __memoturn_timeline_keys SET floor_seq = NULL",
    "UPDATE __memoturn_timeline_keys SET floor_seq = 4 WHERE id = 1",
    "UPDATE __memoturn_timeline_rows SET data = '{' WHERE seq = 1",
    "UPDATE __memoturn_timeline_rows SET data = '1e999' WHERE seq = 1",
    "UPDATE __memoturn_timeline_rows SET at = -1 WHERE seq = 1",
    "UPDATE __memoturn_timeline_rows SET data = x'00' WHERE seq = 1",
    "CREATE TABLE __memoturn_timeline_more(a)",
])  # fmt: skip
def test_timelines_come_in_only_as_they_are_written(folder, statement):
    refusal(folder, ours(folder / "a.db", *TIMELINES, statement))


DOCUMENTS = (
    "CREATE TABLE __memoturn_docs_a_2db(id TEXT NOT NULL PRIMARY KEY, doc TEXT NOT NULL)",
    """CREATE INDEX __memoturn_docix_a_2db__n_2em ON __memoturn_docs_a_2db((doc ->> '$."n"."m"'), id)""",
    """CREATE UNIQUE INDEX __memoturn_docix_a_2db__u ON __memoturn_docs_a_2db((doc ->> '$."u"'))""",
    """INSERT INTO __memoturn_docs_a_2db VALUES ('x', '{"_id":"x","u":1,"n":{"m":[18446744073709551615]}}')""",
)


def test_documents_and_their_indexes_come_in(folder):
    _, ready = prepare(folder, ours(folder / "a.db", *DOCUMENTS))

    with opened(ready) as conn:
        assert collections.read_indexes(conn, "a-b") == [
            {"path": "n.m", "unique": False},
            {"path": "u", "unique": True},
        ]
        assert collections.read_collections(conn) == [{"name": "a-b", "count": 1, "indexes": 2}]


@pytest.mark.parametrize("statement", [
    "INSERT INTO __memoturn_docs_a_2db VALUES ('y', '{}')",
    """INSERT INTO __memoturn_docs_a_2db VALUES ('y', '{"_id":"z"}')""",
    """INSERT INTO __memoturn_docs_a_2db VALUES ('1', '{"_id":1}')""",
    "INSERT INTO __memoturn_docs_a_2db VALUES ('y', '[]')",
    """INSERT INTO __memoturn_docs_a_2db VALUES ('y', '{"_id":"y","u":1e999}')""",
    """INSERT INTO __memoturn_docs_a_2db VALUES ('y', '{"_id":"y","v":18446744073709551616}')""",
    """INSERT INTO __memoturn_docs_a_2db VALUES ('y', '{"_id":"y","v":"\\ud800"}')""",
    """INSERT INTO __memoturn_docs_a_2db VALUES ('y', '{_id:"y"}')""",
    """INSERT INTO __memoturn_docs_a_2db VALUES ('y', jsonb('{"_id":"y"}'))""",
    "CREATE TABLE __memoturn_docs_A(id TEXT NOT NULL PRIMARY KEY, doc TEXT NOT NULL)",
    "CREATE TABLE __memoturn_docs_b(id TEXT NOT NULL PRIMARY KEY, doc TEXT NOT NULL, more)",
    "CREATE INDEX __memoturn_docix_a_2db__v ON __memoturn_docs_a_2db(doc)",
    "CREATE INDEX __memoturn_docix_a_2db__v ON __memoturn_kv(k)",
    "CREATE TRIGGER __memoturn_docix_a_2db__v AFTER INSERT ON __memoturn_docs_a_2db BEGIN SELECT 1; END",
])  # fmt: skip
def test_documents_that_no_node_writes_are_refused(folder, statement):
    refusal(folder, ours(folder / "a.db", *DOCUMENTS[:2], DOCUMENTS[3], statement))


def test_file_of_an_older_release_is_brought_up_to_date(folder):
    def older(path):
        conn = apsw.Connection(str(path))
        conn.execute("BEGIN")
        schema.create_anywhere(conn, version=1)
        conn.execute("INSERT INTO __memoturn_memory_vectors VALUES (7, x'0102030405060708')")
        conn.execute("INSERT INTO __memoturn_messages VALUES ('s', 3, 'user', '\"red\"', x'01020304', 1)")
        conn.execute("UPDATE __memoturn_meta SET txid = 5")
        conn.execute("COMMIT")
        conn.close()
        return path

    txid, ready = prepare(folder, older(folder / "a.db"))

    with opened(ready) as conn:
        assert schema.read_meta(conn) == schema.Meta(schema.SCHEMA_VERSION, txid, 5000, 0)
        assert conn.execute("SELECT rid FROM __memoturn_memory_vectors_1").get == 7
        assert conn.execute("SELECT seq FROM __memoturn_messages WHERE session_id = 's'").get == 3
        assert conn.execute("SELECT count(*) FROM __memoturn_turn_vectors_0_1").get == 1


def test_embedding_of_a_turn_that_an_older_release_never_wrote_is_refused(folder):
    path = folder / "a.db"
    conn = apsw.Connection(str(path))
    conn.execute("BEGIN")
    schema.create_anywhere(conn, version=1)
    conn.execute("INSERT INTO __memoturn_messages VALUES ('s', 1, 'user', '1', x'0102', 1)")
    conn.execute("COMMIT")
    conn.close()

    assert "no row of numbers" in refusal(folder, path)


def test_file_of_a_newer_release_is_refused(folder):
    path = ours(folder / "a.db", "UPDATE __memoturn_meta SET schema_version = 99")

    assert "upgrade" in refusal(folder, path, ConflictError)


def test_check_that_takes_too_long_is_given_up(folder):
    path = foreign(
        folder / "a.db",
        "CREATE TABLE t(a)",
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000) SELECT i FROM n",
    )

    with pytest.raises(RequestTimeoutError, match="took too long"):
        prepare(folder, path, expired=lambda: True)


def test_expensive_schema_is_given_up(folder):
    path = foreign(
        folder / "a.db",
        "CREATE TABLE t(a CHECK (length(hex(zeroblob(1000000 + a))) > 0))",
        "PRAGMA ignore_check_constraints=1",
        "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT i FROM n",
    )
    end_s = time.monotonic() + 0.2

    with pytest.raises(RequestTimeoutError, match="took too long"):
        prepare(folder, path, expired=lambda: time.monotonic() > end_s)
