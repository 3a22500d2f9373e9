from concurrent.futures import ThreadPoolExecutor

import apsw
import pytest

from memoturnd.core import wal
from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.errors import ConflictError, CorruptionError, InvariantError


@pytest.fixture
def conn(tmp_path):
    conn = open_connection(str(tmp_path / "p.db"), read_only=False, sync="normal", cache_kib=256)
    yield conn
    conn.close()


@pytest.fixture
def made(conn):
    conn.execute("BEGIN IMMEDIATE")
    schema.create(conn)
    conn.execute("COMMIT")
    return conn


def test_the_meta_table_is_on_page_2_of_an_empty_file(made):
    assert made.execute("SELECT rootpage FROM sqlite_schema WHERE name = '__memoturn_meta'").get == 2
    assert schema.read_meta(made) == schema.Meta(schema.SCHEMA_VERSION, 0, 0, 0)


def test_a_file_that_is_not_empty_is_refused(conn):
    conn.execute("CREATE TABLE other(a)")
    conn.execute("BEGIN")
    with pytest.raises(InvariantError, match="page 2"):
        schema.create(conn)
    conn.execute("ROLLBACK")


def test_creating_takes_a_transaction(conn):
    with pytest.raises(InvariantError, match="transaction"):
        schema.create(conn)


def copied(path, *, txid=5, sync="normal"):
    conn = open_connection(str(path), read_only=False, sync=sync, cache_kib=64)
    schema.create_as_commit(conn, txid=txid, at_ms=9, epoch=3)
    return conn


def test_a_copied_schema_is_what_the_statements_make_and_one_commit(made, tmp_path):
    conn = copied(tmp_path / "copied.db")

    assert schema.read_meta(conn) == (schema.SCHEMA_VERSION, 5, 9, 3)
    assert conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = '__memoturn_meta'").get == 2
    assert objects(conn) == objects(made)
    for (name,) in made.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
        if name not in ("__memoturn_meta", "__memoturn_memory_terms"):
            rows = f"SELECT * FROM {name}"
            assert conn.execute(rows).fetchall() == made.execute(rows).fetchall(), name
    assert conn.pragma("integrity_check") == "ok"
    assert conn.pragma("journal_mode") == "wal"
    log = (tmp_path / "copied.db-wal").read_bytes()
    header = wal.parse_header(log)
    [round_] = wal.committed_rounds(log[wal.HEADER_SIZE_BYTES :], header.start, header)
    assert 2 in round_.pages
    conn.close()


@pytest.mark.parametrize(("sync", "level"), [("normal", 1), ("full", 2)])
def test_only_the_first_commit_of_a_file_goes_without_an_fsync_and_only_where_others_do(
    tmp_path, sync, level
):
    conn = open_connection(str(tmp_path / "p.db"), read_only=False, sync=sync, cache_kib=64)
    levels = []
    conn.set_wal_hook(lambda *_: apsw.SQLITE_OK)
    conn.set_profile(lambda sql, _ns: levels.append(sql) if "synchronous" in sql else None)

    schema.create_as_commit(conn, txid=1, at_ms=1, epoch=1)

    assert conn.pragma("synchronous") == level
    assert any(sql.endswith(("=0", "(0)", " 0")) for sql in levels) == (sync == "normal")
    conn.close()


def test_a_file_that_is_not_empty_takes_no_copy(made):
    with pytest.raises(InvariantError, match="not empty"):
        schema.create_as_commit(made, txid=1, at_ms=1, epoch=1)

    assert schema.read_meta(made).txid == 0


def test_a_copy_that_fails_changes_nothing_and_the_next_one_works(tmp_path):
    conn = open_connection(str(tmp_path / "p.db"), read_only=False, sync="normal", cache_kib=64)
    conn.pragma("max_page_count", 8)
    with pytest.raises(apsw.FullError):
        schema.create_as_commit(conn, txid=1, at_ms=1, epoch=1)
    assert schema.read_meta(conn) == schema.EMPTY
    assert conn.pragma("synchronous") == 1
    conn.pragma("max_page_count", 1000)

    schema.create_as_commit(conn, txid=2, at_ms=1, epoch=1)

    assert schema.read_meta(conn).txid == 2
    conn.close()


def test_threads_copy_at_once_each_its_own_stamp(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "_TEMPLATES", [])

    def make(txid):
        conn = copied(tmp_path / f"{txid}.db", txid=txid)
        found = schema.read_meta(conn).txid
        conn.close()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(make, range(1, 61))) == list(range(1, 61))
    assert len(schema._TEMPLATES) <= 4


def test_a_profile_that_begins_behind_lost_commits_leaves_nothing_to_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "_TEMPLATES", [])

    def made_at(txid):
        conn = copied(tmp_path / f"{len(list(tmp_path.iterdir()))}.db", txid=txid)
        found = conn.serialize("main")
        conn.close()
        return found

    first = made_at(1)
    made_at(65_537)

    assert made_at(1) == first


def test_every_reserved_object_has_the_reserved_prefix(made):
    names = [name for (name,) in made.execute("SELECT name FROM sqlite_schema")]

    assert all(name.startswith(("__memoturn_", "sqlite_autoindex___memoturn_")) for name in names)
    assert made.pragma("page_count") <= 44


def test_the_meta_row_is_written_and_read(made):
    schema.write_meta(made, 2**53 - 1, 1_700_000_000_000, 7)

    assert schema.read_meta(made) == (schema.SCHEMA_VERSION, 2**53 - 1, 1_700_000_000_000, 7)


def test_a_file_without_tables_reads_as_empty_and_one_without_the_row_as_corrupt(conn):
    assert schema.read_meta(conn) == schema.EMPTY
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("DELETE FROM __memoturn_meta")
    with pytest.raises(CorruptionError, match="meta row"):
        schema.read_meta(conn)
    conn.execute("ROLLBACK")


def test_deleted_text_leaves_the_full_text_index(made):
    insert = "INSERT INTO __memoturn_memories_fts(rowid, summary, keywords) VALUES (1, 'zyzzyva', '')"
    delete = (
        "INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts, rowid, summary, keywords)"
        " VALUES ('delete', 1, 'zyzzyva', '')"
    )
    made.execute(insert)
    assert (
        made.execute("SELECT count(*) FROM __memoturn_memories_fts_data WHERE instr(block, 'zyzzyva')").get
        == 1
    )

    made.execute(delete)

    assert (
        made.execute("SELECT count(*) FROM __memoturn_memories_fts_data WHERE instr(block, 'zyzzyva')").get
        == 0
    )


def test_a_newer_version_is_refused_with_the_next_step():
    schema.check_version(schema.EMPTY)
    with pytest.raises(ConflictError, match=r"version \d+, .* upgrade the node"):
        schema.check_version(schema.Meta(schema.SCHEMA_VERSION + 1, 0, 0, 0))


def test_migrations_run_from_the_files_version_on(made):
    def add_one(conn):
        conn.execute("CREATE TABLE __memoturn_one(a)")

    def add_two(conn):
        conn.execute("CREATE TABLE __memoturn_two(a)")

    before, known = schema.SCHEMA_VERSION, schema.MIGRATIONS
    made.execute("BEGIN")
    assert schema.migrate(made, schema.read_meta(made)) is False
    assert schema.migrate(made, schema.read_meta(made), migrations=(*known, add_one)) is True
    assert schema.read_meta(made).schema_version == before + 1
    assert schema.migrate(made, schema.read_meta(made), migrations=(*known, add_one, add_two)) is True
    assert schema.migrate(made, schema.read_meta(made), migrations=(*known, add_one, add_two)) is False
    made.execute("COMMIT")

    assert schema.read_meta(made).schema_version == before + 2
    assert made.table_exists("main", "__memoturn_two")


def objects(conn):
    return set(conn.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema"))


@pytest.mark.parametrize("vectors", [0, 3])
def test_a_file_of_version_1_becomes_what_a_new_one_is(conn, made, tmp_path, vectors):
    old = open_connection(str(tmp_path / "old.db"), read_only=False, sync="normal", cache_kib=256)
    old.execute("BEGIN")
    schema.create_anywhere(old, version=1)
    for rid in range(vectors):
        old.execute("INSERT INTO __memoturn_memory_vectors VALUES (?, zeroblob(8))", (rid,))
    assert schema.migrate(old, schema.read_meta(old)) is True
    old.execute("COMMIT")

    assert schema.read_meta(old).schema_version == schema.SCHEMA_VERSION
    made_on_use = {o for o in objects(old) if o[1] == "__memoturn_memory_vectors_1"}
    assert objects(old) - made_on_use == objects(made)
    assert len(made_on_use) == (1 if vectors else 0)
    assert old.execute("SELECT id, name, dimensions FROM __memoturn_models").fetchall() == (
        [(1, "", 2)] if vectors else []
    )
    if vectors:
        assert old.execute("SELECT count(*) FROM __memoturn_memory_vectors_1").get == vectors
    assert schema.replaced_txid(old) == 0
    old.close()


def test_versions_of_a_topic_are_counted_from_what_version_1_knew_of_it(tmp_path):
    old = open_connection(str(tmp_path / "old.db"), read_only=False, sync="normal", cache_kib=256)
    old.execute("BEGIN")
    schema.create_anywhere(old, version=1)
    rows = [
        ("a", "fact", "t", 1, "b", 5),  # stored first and again later, and superseded last
        ("b", "fact", "t", 2, None, None),
        ("c", "fact", "t", 1, "d", 2),
        ("d", "fact", "t", 2, "a", 2),
        ("e", "instruction", "t", 1, None, None),
        ("f", "fact", "gone", 1, None, 3),
        ("g", "event", None, 1, None, None),
        ("h", "event", None, 1, None, None),
    ]
    old.executemany(
        "INSERT INTO __memoturn_memories(id, type, topic_key, summary, content, created_at, superseded_by,"
        " superseded_at) VALUES (?, ?, ?, '', 'null', ?, ?, ?)",
        rows,
    )
    schema.migrate(old, schema.read_meta(old))

    assert dict(old.execute("SELECT id, version FROM __memoturn_memories")) == {
        "a": 3, "b": 4, "c": 1, "d": 2, "e": 1, "f": 1, "g": 1, "h": 1,
    }  # fmt: skip
    old.execute("COMMIT")
    old.close()


def test_a_migration_takes_a_transaction(made):
    with pytest.raises(InvariantError, match="transaction"):
        schema.migrate(made, schema.read_meta(made))


def test_the_number_of_migrations_fits_the_version():
    assert len(schema.MIGRATIONS) + 1 == schema.SCHEMA_VERSION
