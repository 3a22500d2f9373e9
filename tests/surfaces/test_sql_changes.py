"""Which tables a user's statement changed, as the change feed tells it."""

import pytest

from memoturnd.core.changes import parse, shown
from memoturnd.engine import schema
from memoturnd.engine.connection import open_connection
from memoturnd.surfaces.sql import parse_batch, run_batch


@pytest.fixture
def conn(tmp_path):
    conn = open_connection(str(tmp_path / "main.db"), read_only=False, sync="normal", cache_kib=112)
    conn.execute("BEGIN")
    schema.create(conn)
    run(
        conn,
        "CREATE TABLE t(a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
        "INSERT INTO t(b) VALUES (1)",
        "CREATE TABLE log(b)",
        "CREATE TABLE watched(a)",
        "CREATE TRIGGER tr AFTER INSERT ON watched BEGIN INSERT INTO log VALUES (new.a); END",
        "CREATE VIRTUAL TABLE words USING fts5(text)",
        "CREATE VIEW v AS SELECT * FROM t",
    )
    conn.noted.clear()
    yield conn
    conn.close()


def run(conn, *statements):
    return run_batch(conn, parse_batch({"stmts": [{"q": q} for q in statements]}), read_only=False)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("INSERT INTO t(b) VALUES (2)", {"put": ["t"]}),
        ("REPLACE INTO T VALUES (1, 2)", {"put": ["t"]}),
        ("UPDATE t SET b = 3", {"put": ["t"]}),
        ("UPDATE t SET b = 3 WHERE a = 99", None),
        ("DELETE FROM t", {"put": ["t"]}),
        ("SELECT * FROM t", None),
        ("EXPLAIN DELETE FROM t", None),
        ("INSERT INTO watched VALUES (1)", {"put": ["log", "watched"]}),
        ("INSERT INTO words VALUES ('a b')", {"put": ["words"]}),
        ("CREATE TABLE u AS SELECT * FROM t", {"put": ["u"]}),
        ("CREATE TABLE IF NOT EXISTS t(a)", None),
        ("CREATE VIRTUAL TABLE w2 USING fts5(text)", {"put": ["w2"]}),
        ("DROP TABLE words", {"deleted": ["words"]}),
        ("DROP TABLE log", {"deleted": ["log"]}),
        ("CREATE INDEX i ON t(b)", {"put": ["t"]}),
        ("DROP VIEW v", {"deleted": ["v"]}),
        ("ALTER TABLE log ADD COLUMN c", {"put": ["log"], "more": True}),
        ("ALTER TABLE log RENAME TO log2", {"put": ["log"], "more": True}),
    ],
)
def test_statement_tells_its_tables(conn, statement, told):
    _, changed = run(conn, statement)

    assert changed == (told is not None)
    change = shown(parse(conn.noted.line(1, 1)), None)
    found = {} if change is None else change["changes"]
    merged = {key: value for entry in found for key, value in entry.items()}
    assert merged == ({} if told is None else {"surface": "sql", **told})


def test_second_write_to_a_virtual_table_tells_it_alone(conn):
    run(conn, "INSERT INTO words VALUES ('a')")
    conn.noted.clear()

    run(conn, "DELETE FROM words", "INSERT INTO words VALUES ('b')")

    [entry] = shown(parse(conn.noted.line(1, 1)), None)["changes"]
    assert entry == {"surface": "sql", "put": ["words"]}
