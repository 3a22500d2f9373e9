import apsw
import pytest

from memoturnd.errors import ForbiddenError, InvalidRequestError
from memoturnd.seams.profile import Seen, Work, Written
from memoturnd.surfaces import sql


def batch(*stmts):
    return sql.parse_batch({"stmts": [stmt if isinstance(stmt, dict) else {"q": stmt} for stmt in stmts]})


async def run(profile, *stmts, **options):
    return (await sql.run(profile, batch(*stmts), **options)).value


@pytest.fixture
async def table(profile):
    await run(profile, "CREATE TABLE t(a UNIQUE, b)", "INSERT INTO t VALUES (1, 'x'), (2, 'y')")
    profile.works.clear()
    return profile


# ---- parsing


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("the body", []),
        ("stmts", {}),
        ("stmts", {"stmts": {}}),
        (r"stmts\[0\]", {"stmts": ["SELECT 1"]}),
        (r"stmts\[0\].q", {"stmts": [{}]}),
        (r"stmts\[1\].q", {"stmts": [{"q": ""}, {"q": 1}]}),
        (r"stmts\[0\].q", {"stmts": [{"q": "SELECT 1\0"}]}),
        (r"stmts\[0\].params", {"stmts": [{"q": "", "params": {}}]}),
        (r"stmts\[0\].params\[1\]", {"stmts": [{"q": "", "params": [1, 2**63]}]}),
        (r"stmts\[0\].params\[0\]", {"stmts": [{"q": "", "params": [{"$base64": "?"}]}]}),
        (r"stmts\[0\].params\[0\]", {"stmts": [{"q": "", "params": [{"$base64": 1}]}]}),
        (r"stmts\[0\].params\[0\]", {"stmts": [{"q": "", "params": [{"$base64": "é"}]}]}),
    ],
)
def test_a_wrong_field_is_named(name, payload):
    with pytest.raises(InvalidRequestError, match=f"^{name}"):
        sql.parse_batch(payload)


async def test_values_map_both_ways(profile):
    params = [
        None,
        1,
        -(2**63),
        1.5,
        "é\0",
        True,
        False,
        {"$base64": "AP8="},
        {"b": 1, "a": []},
        [1, "x"],
        {"$base64": "", "x": 1},
    ]
    marks = ", ".join("?" * len(params))

    (result,) = await run(profile, {"q": f"SELECT {marks}, typeof(?8)", "params": params})

    assert result["rows"] == [
        [
            None,
            1,
            -(2**63),
            1.5,
            "é\0",
            1,
            0,
            {"$base64": "AP8="},
            '{"a":[],"b":1}',
            '[1,"x"]',
            '{"$base64":"","x":1}',
            "blob",
        ]
    ]


async def test_infinity_has_no_json_and_becomes_null(profile):
    assert (await run(profile, "SELECT 9e999, -9e999"))[0]["rows"] == [[None, None]]


# ---- results


async def test_columns_are_there_without_rows_too(table):
    results = await run(table, "SELECT a, b AS c, a FROM t WHERE 0", "SELECT a FROM t ORDER BY a")

    assert results == [
        {"columns": ["a", "c", "a"], "rows": [], "rows_affected": 0},
        {"columns": ["a"], "rows": [[1], [2]], "rows_affected": 0},
    ]


@pytest.mark.parametrize(
    ("statement", "affected"),
    [
        ("INSERT INTO t VALUES (3, 'z')", 1),
        ("INSERT INTO t VALUES (3, 'z'), (4, 'w') RETURNING a", 2),
        ("WITH x(v) AS (VALUES (7), (8), (9)) INSERT INTO t SELECT v, v FROM x", 3),
        ("UPDATE t SET b = 'q'", 2),
        ("DELETE FROM t", 2),
        ("UPDATE t SET b = 1 WHERE 0", 0),
        ("INSERT OR IGNORE INTO t VALUES (1, 'again')", 0),
    ],
)
async def test_changed_rows_are_counted_and_move_the_txid(table, statement, affected):
    before = table.txid
    written = await sql.run(table, batch(statement))

    assert written.value[0]["rows_affected"] == affected
    assert table.txid == before + (affected > 0)


async def test_ddl_moves_the_txid_and_an_explained_one_does_not(table):
    before = table.txid
    assert (await run(table, "CREATE TABLE u(a)"))[0] == {"columns": [], "rows": [], "rows_affected": 0}
    assert table.txid == before + 1
    await run(table, "EXPLAIN CREATE TABLE v(a)")
    assert table.txid == before + 1


async def test_triggers_do_not_inflate_the_count_and_views_still_change(table):
    await run(
        table,
        "CREATE TABLE log(n)",
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN INSERT INTO log VALUES (new.a), (new.a); END",
        "CREATE VIEW v AS SELECT a FROM t",
        "CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN INSERT INTO log VALUES (new.a); END",
    )
    before = table.txid

    assert (await run(table, "INSERT INTO t VALUES (9, 9)"))[0]["rows_affected"] == 1
    await run(table, "INSERT INTO v VALUES (5)")

    assert table.txid == before + 2
    assert (await run(table, "SELECT count(*) FROM log"))[0]["rows"] == [[3]]


async def test_an_empty_batch_is_an_empty_answer(profile):
    assert await run(profile) == []


# ---- reads and writes


async def test_reads_run_as_reads(table):
    answer = await sql.run(table, batch("SELECT 1", "values (2)", "PRAGMA table_info(t)"))

    assert isinstance(answer, Seen)
    assert table.works == [("read", Work.USER)]


async def test_a_write_that_starts_like_a_read_becomes_a_write(table):
    answer = await sql.run(table, batch("SELECT 1", "WITH x AS (SELECT 9) INSERT INTO t SELECT 9, 9 FROM x"))

    assert isinstance(answer, Written)
    assert table.works == [("read", Work.USER), ("write", Work.USER)]
    assert (await run(table, "SELECT count(*) FROM t"))[0]["rows"] == [[3]]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO t VALUES (3, 3)",
        "WITH x AS (SELECT 3) INSERT INTO t SELECT 3, 3 FROM x",
        "UPDATE t SET a = 9 RETURNING a",
        "CREATE TABLE u(a)",
    ],
)
async def test_a_credential_that_may_only_read_writes_nothing(table, statement):
    with pytest.raises(ForbiddenError, match="only read"):
        await run(table, "SELECT 1", statement, may_write=False)

    assert table.works == [("read", Work.USER)]
    assert (await run(table, "SELECT count(*) FROM t"))[0]["rows"] == [[2]]


# ---- errors


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("SELEC 1", 'near "SELEC": syntax error'),
        ("SELECT * FROM missing", "no such table: missing"),
        ("INSERT INTO t VALUES (1, 1)", "UNIQUE constraint failed"),
        ("INSERT INTO t VALUES (1)", "2 columns but 1 values"),
        ({"q": "SELECT ?", "params": []}, "bindings"),
        ({"q": "SELECT ?", "params": [1, 2]}, "bindings"),
        ("SELECT zeroblob(40000000)", "too big"),
        ("SELECT CAST(x'ff' AS TEXT)", "utf-8"),
        ("SELECT json('{')", "malformed JSON"),
        ("INSERT INTO t VALUES (3, 3) RETURNING json('{')", "malformed JSON"),
        ("UPDATE sqlite_schema SET sql = ''", "may not be modified"),
        ("BEGIN", "transaction control"),
        ("", "no statement"),
        (" -- only a comment", "no statement"),
        (";", "no statement"),
        ("INSERT INTO t VALUES (3, 3); DELETE FROM t", "more than one statement"),
        ("SELECT 1; SELECT 2", "more than one statement"),
        ({"q": "SELECT ?; SELECT ?", "params": [1]}, "more than one statement"),
        ({"q": "SELECT ?; SELECT ?", "params": [1, 2]}, "more than one statement"),
    ],
)
async def test_an_error_names_the_statement_and_undoes_the_batch(table, statement, message):
    with pytest.raises(InvalidRequestError, match=message) as caught:
        await run(table, "INSERT INTO t VALUES (8, 8)", statement)

    assert str(caught.value).startswith("stmts[1]")
    assert (await run(table, "SELECT count(*) FROM t"))[0]["rows"] == [[2]]


async def test_a_trailing_semicolon_and_comments_are_fine(table):
    assert (await run(table, "/* a */ SELECT 1;; -- b"))[0]["rows"] == [[1]]
    assert (await run(table, "SELECT 'a;b'"))[0]["rows"] == [["a;b"]]


async def test_what_may_not_be_touched_is_forbidden_by_place(table):
    for statement in (
        "SELECT * FROM __memoturn_kv",
        "DROP TABLE __memoturn_kv",
        "PRAGMA journal_mode",
        "VACUUM",
    ):
        with pytest.raises((ForbiddenError, InvalidRequestError), match=r"^stmts\[1\]"):
            await run(table, "SELECT 1", statement)
    with pytest.raises(ForbiddenError, match=r"^stmts\[0\].*reserved"):
        await run(table, "SELECT * FROM __memoturn_kv", may_write=False)


async def test_names_in_string_literals_are_just_text(table):
    assert (await run(table, "SELECT '__memoturn_kv'"))[0]["rows"] == [["__memoturn_kv"]]


async def test_more_rows_than_the_limit_is_an_error(profile):
    def counting(limit):
        return f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {limit}) SELECT i FROM n"

    assert len((await run(profile, counting(10_000)))[0]["rows"]) == 10_000
    with pytest.raises(InvalidRequestError, match="LIMIT"):
        await run(profile, counting(10_001))
    with pytest.raises(InvalidRequestError, match="LIMIT"):
        await run(profile, counting(9_000), counting(2_000))


async def test_more_bytes_than_the_limit_is_an_error(profile):
    with pytest.raises(InvalidRequestError, match="bytes"):
        await run(profile, "SELECT zeroblob(20000000)", "SELECT zeroblob(20000000)")


@pytest.mark.parametrize(
    "statement", ["INSERT OR ROLLBACK INTO t VALUES (1, 1)", "INSERT INTO guarded VALUES (1)"]
)
async def test_an_error_that_ends_the_transaction_is_still_the_users(table, statement):
    await run(
        table,
        "CREATE TABLE guarded(a)",
        "CREATE TRIGGER g BEFORE INSERT ON guarded BEGIN SELECT RAISE(ROLLBACK, 'never'); END",
    )

    with pytest.raises(InvalidRequestError, match=r"UNIQUE|never"):
        await run(table, "INSERT INTO t VALUES (8, 8)", statement)

    assert not table.conn.in_transaction
    assert (await run(table, "SELECT count(*) FROM t"))[0]["rows"] == [[2]]


@pytest.mark.parametrize("read_only", [True, False])
async def test_an_interrupt_passes_through(table, read_only):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"
    table.conn.set_progress_handler(lambda: True, 1000)
    with pytest.raises(apsw.InterruptError):
        sql.run_batch(table.conn, batch(endless), read_only=read_only)
    table.conn.set_progress_handler(None)

    assert table.count("__memoturn_kv") == 0


async def test_a_full_disk_passes_through(table):
    table.conn.pragma("max_page_count", table.conn.pragma("page_count"))
    with pytest.raises(apsw.FullError):
        await run(table, "INSERT INTO t VALUES (3, zeroblob(1000000))")
    table.conn.pragma("max_page_count", 2**30)


async def test_no_cursor_of_a_failed_batch_holds_the_database(table):
    with pytest.raises(InvalidRequestError):
        await run(table, "SELECT a FROM t UNION ALL SELECT json('{') FROM t")

    table.conn.execute("BEGIN IMMEDIATE")
    table.conn.execute("COMMIT")
    await run(table, "DROP TABLE t")
