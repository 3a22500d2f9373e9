"""What the lists of the guard hold and refuse, and what may run on the event loop."""

import time
from types import SimpleNamespace

import apsw
import pytest

from memoturnd.engine import budget, guard, schema
from memoturnd.engine.connection import open_connection
from memoturnd.engine.guard import FUNCTIONS, OverBudgetError, UserStatements
from memoturnd.errors import ForbiddenError, MemoturnError, OverloadedError, RequestTimeoutError
from memoturnd.seams.clock import SystemClock
from memoturnd.surfaces import sql

SMALL = SimpleNamespace(is_large=False)
REFUSED_FUNCTIONS = {
    "fts3_tokenizer",
    "fts5",
    "geopoly_area",
    "geopoly_bbox",
    "geopoly_blob",
    "geopoly_ccw",
    "geopoly_contains_point",
    "geopoly_debug",
    "geopoly_group_bbox",
    "geopoly_json",
    "geopoly_overlap",
    "geopoly_regular",
    "geopoly_svg",
    "geopoly_within",
    "geopoly_xform",
    "load_extension",
    "matchinfo",
    "offsets",
    "optimize",
    "rtreecheck",
    "rtreedepth",
    "rtreenode",
    "sqlite_log",
    "vec_debug",
}


@pytest.fixture
def conn():
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    conn.execute("BEGIN")
    schema.create(conn)
    conn.execute("COMMIT")
    conn.execute("CREATE TABLE t(a, b)")
    conn.execute("INSERT INTO t VALUES (1, 2)")
    yield conn
    conn.close()


def run(conn, text, *params, read_only=False):
    batch = sql.parse_batch({"stmts": [{"q": text, "params": list(params)}]})
    return sql.run_batch(conn, batch, read_only=read_only)[0][0]["rows"]


class StoppedClock(SystemClock):
    """A clock that stands still, so that no test depends on how busy the machine is."""

    def monotonic_s(self):
        return 0.0


def on_loop(conn, text, *params, large=False):
    return budget.within_steps(
        conn, StoppedClock(), SimpleNamespace(is_large=large), lambda: run(conn, text, *params)
    )


# ---- functions


def test_every_function_of_this_sqlite_is_listed_or_refused(conn):
    found = {name for (name, *_) in conn.execute("PRAGMA function_list")}

    assert {name for name in found - FUNCTIONS if not guard.is_reserved(name)} == REFUSED_FUNCTIONS
    # Not every build has these; FTS5 and SQLite take the others from operators.
    assert FUNCTIONS - found <= {"regexp", "soundex"}


@pytest.mark.parametrize("name", sorted(REFUSED_FUNCTIONS))
def test_a_function_that_is_not_listed_is_refused_in_every_place(conn, name):
    arity = next(n for (found, _, _, _, n, _) in conn.execute("PRAGMA function_list") if found == name)
    call = f"{name.upper()}({', '.join(['1'] * abs(arity))})"
    for text in (f"SELECT {call}", f"INSERT INTO t VALUES (1, {call})", f"SELECT 1 FROM t ORDER BY {call}"):
        with pytest.raises(ForbiddenError, match=f"{name}\\(\\) is not available"):
            run(conn, text)


@pytest.mark.parametrize(
    "text",
    [
        "CREATE VIEW v AS SELECT load_extension('x')",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT load_extension('x'); END",
        "CREATE TABLE v(a DEFAULT (load_extension('x')))",
        "CREATE TABLE v(a CHECK (load_extension('x')))",
    ],
)
def test_a_function_that_hides_in_the_schema_is_refused_when_it_is_called(conn, text):
    uses = ["SELECT * FROM v", "INSERT INTO t VALUES (1, 1)", "INSERT INTO v DEFAULT VALUES"]
    refused = 0
    for step in [text, *uses]:
        try:
            run(conn, step)
        except MemoturnError as error:
            refused += "load_extension()" in str(error)  # some steps find no such table
    assert refused


@pytest.mark.parametrize("name", sorted(guard._ALTERING))
def test_what_alter_table_calls_can_be_called_by_nobody_else(conn, name):
    for arguments in ("", "1", "1, 2, 3", "1, 2, 3, 4, 5, 6, 7"):
        for text in (f"SELECT {name}({arguments})", f"CREATE TABLE y AS SELECT {name}({arguments})"):
            with pytest.raises(MemoturnError):
                run(conn, text)


# ---- tables


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT * FROM sqlite_stat4", "not available"),
        ("CREATE TABLE x AS SELECT * FROM sqlite_stat4", "not available"),
        ("SELECT * FROM carray(0, 1)", "not available"),
        ("SELECT * FROM pragma_journal_mode", "not available"),
        ("SELECT * FROM pragma_database_list", "not available"),
        ("CREATE TABLE x AS SELECT * FROM pragma_cache_size", "not available"),
        ("SELECT * FROM pragma_integrity_check('t')", "not available"),
        ("PRAGMA page_size = 512", "only be read"),
        ("PRAGMA quick_check(t)", "not allowed"),
        ("PRAGMA table_list", "not allowed"),
        ("SELECT * FROM pragma_table_list", "not available"),
        ("PRAGMA user_version = 7", "only be read"),
        ("PRAGMA foreign_keys(1)", "only be read"),
        ("PRAGMA main.encoding('UTF-16')", "only be read"),
        ("PRAGMA index_info(sqlite_autoindex___memoturn_memories_1)", "reserved"),
        ("PRAGMA hard_heap_limit=1", "not allowed"),
        ("PRAGMA temp_store_directory='/'", "not allowed"),
        ("UPDATE sqlite_sequence SET seq = 1", "kept by SQLite"),
        ("DELETE FROM SQLITE_SEQUENCE", "kept by SQLite"),
        ("INSERT INTO sqlite_stat1 VALUES ('a', 'b', 'c')", "kept by SQLite"),
        ("WITH x AS (SELECT 1) DELETE FROM sqlite_stat4", "kept by SQLite"),
        ("ANALYZE", "reserved"),
        ("ANALYZE main", "reserved"),
        ("ALTER TABLE f RENAME TO __memoturn", "reserved"),
        ("ALTER TABLE f RENAME TO '__MemoTurn'", "reserved"),
        ("CREATE VIRTUAL TABLE __memoturn USING fts5(x)", "reserved"),
        ("CREATE VIRTUAL TABLE x USING fts5(x, content=[__memoturn_kv])", "reserved"),
        ("ALTER TABLE t RENAME COLUMN a TO __memoturn_a", "reserved"),
        ("CREATE TABLE x AS SELECT k AS y FROM (SELECT 1 AS k) AS __memoturn_x", "reserved"),
        ("CREATE VIRTUAL TABLE x USING fts5vocab(f, row)", "not allowed"),
        ("CREATE VIRTUAL TABLE x USING json_each", "not allowed"),
    ],
)
def test_what_sqlite_keeps_for_all_and_what_the_authorizer_is_not_told_are_out_of_reach(conn, text, message):
    run(conn, "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT)")
    run(conn, "INSERT INTO s DEFAULT VALUES")
    run(conn, "CREATE VIRTUAL TABLE f USING fts5(x)")
    run(conn, "ANALYZE t")

    with pytest.raises(ForbiddenError, match=message):
        run(conn, text)


@pytest.mark.parametrize(
    "name", ["dbstat", "rtree", "fts3tokenize", "geopoly", "sqlite_stmt", "sqlite_dbpage", "generate_series"]
)
def test_modules_that_are_not_listed_are_not_there(conn, name):
    with pytest.raises(MemoturnError, match=r"no such (table|module)|not available"):
        run(conn, f"SELECT * FROM {name}")
    with pytest.raises(ForbiddenError, match="module"):
        run(conn, f"CREATE VIRTUAL TABLE x USING {name}(a, b, c)")


@pytest.mark.parametrize("name", sorted(guard.SHOWN_PRAGMAS))
def test_harmless_pragmas_can_be_read(conn, name):
    assert run(conn, f"PRAGMA {name}", read_only=True)
    assert run(conn, f"SELECT * FROM pragma_{name}", read_only=True)


def test_autoincrement_and_statistics_work_although_nobody_writes_their_tables(conn):
    run(conn, "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, v)")
    run(conn, "INSERT INTO s(v) VALUES (1), (2)")
    run(conn, "DELETE FROM s")
    run(conn, "ALTER TABLE s RENAME TO z")
    run(conn, "ANALYZE z")
    run(conn, "INSERT INTO z(v) VALUES (3)")

    assert run(conn, "SELECT name, seq FROM sqlite_sequence") == [["z", 3]]
    run(conn, "DROP TABLE z")
    assert run(conn, "SELECT count(*) FROM sqlite_sequence") == [[0]]
    assert run(conn, "SELECT count(*) FROM sqlite_stat1") == [[0]]


def test_columns_and_constraints_are_altered_as_usual(conn):
    run(conn, "CREATE TABLE x(a, b, c)")
    run(conn, "CREATE INDEX xi ON x(b)")
    run(conn, "CREATE VIEW xv AS SELECT b FROM x")
    run(conn, "ALTER TABLE x RENAME COLUMN b TO d")
    run(conn, "ALTER TABLE x DROP COLUMN c")
    run(conn, "ALTER TABLE x ADD COLUMN e DEFAULT 5 CHECK (e > 1)")

    run(conn, "INSERT INTO x(a, d) VALUES (1, 2)")
    assert run(conn, "SELECT * FROM x") == [[1, 2, 5]]
    assert run(conn, "SELECT * FROM xv") == [[2]]


# ---- the schema table

USERS = {"t", "i", "vw", "f", "f_data", "f_idx", "f_content", "f_docsize", "f_config", "sqlite_sequence", "s"}
SCHEMA_READS = [
    "SELECT name FROM sqlite_schema",
    "SELECT name FROM sqlite_master WHERE name IS NOT NULL ORDER BY rootpage",
    "SELECT NAME FROM SQLite_Schema",
    "SELECT name FROM main.sqlite_schema",
    'SELECT name FROM "main" . "sqlite_master"',
    "SELECT /* sqlite_schema */ name FROM MAIN.sqlite_schema -- sqlite_schema",
    "SELECT name FROM [sqlite_master]",
    "SELECT sqlite_master.name FROM sqlite_master",
    "SELECT x.name FROM `sqlite_schema` AS x JOIN sqlite_schema y ON x.name = y.name AND 'sqlite_schema' <> 'it''s'",
    "SELECT (SELECT name FROM sqlite_schema WHERE name = x.name) FROM sqlite_master x",
    "WITH q AS (SELECT * FROM sqlite_schema) SELECT name FROM q",
    "SELECT name FROM sqlite_schema UNION SELECT tbl_name FROM sqlite_master",
    "SELECT name FROM (SELECT * FROM sqlite_schema LIMIT -1)",
]


@pytest.fixture
def made(conn):
    run(conn, "CREATE INDEX i ON t(a)")
    run(conn, "CREATE VIEW vw AS SELECT 1")
    run(conn, "CREATE VIRTUAL TABLE f USING fts5(x)")
    run(conn, "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT)")
    yield conn
    assert conn.execute("SELECT count(*) FROM sqlite_temp_schema").get == 0


@pytest.mark.parametrize("text", SCHEMA_READS)
@pytest.mark.parametrize("read_only", [True, False])
def test_the_schema_table_shows_users_their_own_objects(made, text, read_only):
    made.execute(f"PRAGMA query_only={int(read_only)}")
    assert {name for (name,) in run(made, text, read_only=read_only)} == USERS

    assert made.execute("PRAGMA query_only").get == read_only
    made.execute("BEGIN")
    assert {name for (name,) in run(made, text, read_only=read_only)} == USERS
    made.execute("ROLLBACK")


def test_what_is_read_of_the_schema_can_be_counted_searched_and_stored(made):
    assert run(made, "SELECT count(*), max(sql LIKE '%memoturn%') FROM sqlite_schema") == [[len(USERS), 0]]
    assert run(made, "SELECT type, name, tbl_name, sql FROM sqlite_schema WHERE name = ?", "i") == [
        ["index", "i", "t", "CREATE INDEX i ON t(a)"]
    ]
    run(made, "CREATE TABLE kept AS SELECT name, 'sqlite_schema' AS literal FROM sqlite_schema")
    run(made, "INSERT INTO kept SELECT name, 'x' FROM sqlite_master WHERE name = 't' RETURNING name")
    assert run(made, "SELECT count(*), min(literal) FROM kept") == [[len(USERS) + 1, "sqlite_schema"]]
    assert run(made, "EXPLAIN QUERY PLAN SELECT * FROM sqlite_schema")
    assert run(made, "SELECT 'sqlite_master'") == [["sqlite_master"]]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM 'sqlite_schema'",
        "SELECT * FROM main.'sqlite_master'",
        "SELECT * FROM main./**/sqlite_schema",
        "WITH sqlite_schema AS (SELECT * FROM main.sqlite_schema) SELECT name FROM sqlite_schema",
        "SELECT * FROM temp.sqlite_temp_master",
        "SELECT * FROM sqlite_temp_schema",
        "SELECT * FROM later",
        "INSERT INTO u VALUES (1)",
        "INSERT INTO t SELECT 1, 2 FROM later",
        "SELECT rowid FROM sqlite_schema",
        "UPDATE sqlite_schema SET sql = (SELECT sql FROM sqlite_schema)",
        "WITH x AS (SELECT name FROM sqlite_schema) DELETE FROM sqlite_schema",
        "SELECT json('{') FROM sqlite_schema",
    ],
)
def test_no_other_way_leads_to_the_schema_table(made, text):
    run(made, "CREATE VIEW later AS SELECT * FROM sqlite_schema")
    run(made, "CREATE TABLE u(a)")
    run(made, "CREATE TRIGGER g AFTER INSERT ON u BEGIN INSERT INTO t SELECT name, 1 FROM sqlite_schema; END")

    with pytest.raises(MemoturnError):
        run(made, text)


def test_a_schema_read_that_is_stopped_leaves_no_view(made):
    endless = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n, sqlite_schema"
    )
    for in_transaction in (False, True):
        if in_transaction:
            made.execute("BEGIN")
        with pytest.raises(OverBudgetError):
            on_loop(made, endless)
        deadlines = budget.Deadlines(SystemClock(), 0.02, budget.threading.Event())
        with pytest.raises(RequestTimeoutError):
            budget.within_deadline(made, deadlines, lambda: run(made, endless))
        assert made.execute("SELECT count(*) FROM sqlite_temp_schema").get == 0


# ---- reads


def test_a_read_is_what_sqlite_calls_one_too(conn, monkeypatch):
    monkeypatch.setattr(UserStatements, "judge", lambda *_: apsw.SQLITE_OK)
    seen = conn.user_statements(read_only=True)
    with pytest.raises(ForbiddenError, match="only reads"), seen:
        seen.execute("INSERT INTO t VALUES (5, 5)")

    assert seen.needs_write
    assert conn.execute("SELECT count(*) FROM t").get == 1


def test_what_was_allowed_for_writing_is_not_for_reading(conn):
    for _ in range(3):
        run(conn, "INSERT INTO t VALUES (5, 5)")
        with pytest.raises(sql._NeedsWriteError):
            run(conn, "INSERT INTO t VALUES (5, 5)", read_only=True)
    assert conn.execute("SELECT count(*) FROM t").get == 4


def test_remembered_verdicts_are_bounded(conn, monkeypatch):
    monkeypatch.setattr(guard, "_VERDICTS_LIMIT", 8)
    for memo in guard._FINE.values():
        memo.clear()
    for n in range(40):
        run(conn, f"CREATE TABLE t{n}(a)")
        run(conn, f"INSERT INTO t{n} VALUES (1)")
        run(conn, f"SELECT a FROM t{n}", read_only=True)
    run(conn, f"CREATE TABLE {'n' * 100}(a)")
    run(conn, f"SELECT a FROM {'n' * 100}", read_only=True)

    assert all(0 < len(memo) <= 8 for memo in guard._FINE.values())
    assert not any("n" * 100 in verdict for memo in guard._FINE.values() for verdict in memo)


# ---- bounds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"SELECT {'(' * 3000}1{')' * 3000}", "Recursion limit"),
        (f"SELECT {'1+' * 1001}1", "depth"),
        (" UNION ALL ".join(["SELECT 1"] * 501), "too many terms"),
        (f"CREATE TABLE x({', '.join(f'c{n}' for n in range(2001))})", "too many columns"),
        (f"SELECT max({', '.join(['1'] * 128)})", "too many arguments"),
        (f"SELECT '' LIKE '{'%a' * 129}'", "too complex"),
        ("SELECT ?32767", "variable number"),
        ("SELECT replace(?, 'a', 'b')", "too big"),
        ("SELECT instr(?, 'b')", "too big"),
        ("SELECT trim(?)", "too big"),
        ("SELECT json_patch(?, '{}')", "too big"),
        ("SELECT JSONB_patch('{}', ?)", "too big"),
    ],
)
def test_statements_are_bounded(conn, text, message):
    size_bytes = (
        guard.SLOW_LENGTH_LIMIT_BYTES
        if "patch" in text or "trim" in text
        else guard.QUADRATIC_LENGTH_LIMIT_BYTES
    )
    params = ["x" * (size_bytes + 1)] if text.count("?") == 1 and "?3" not in text else []
    with pytest.raises(MemoturnError, match=message):
        run(conn, text, *params)


def test_triggers_set_each_other_off_so_deep_and_no_deeper(conn):
    for n in range(70):
        run(conn, f"CREATE TABLE c{n}(a)")
    for n in range(69):
        body = f"INSERT INTO c{n + 1} VALUES (1);"
        run(conn, f"CREATE TRIGGER g{n} AFTER INSERT ON c{n} BEGIN {body} END")

    with pytest.raises(MemoturnError, match="nested too deep"):
        run(conn, "INSERT INTO c0 VALUES (1)")
    run(conn, "INSERT INTO c30 VALUES (1)")


def test_a_schema_is_bounded_as_that_of_an_import_is(conn, monkeypatch):
    monkeypatch.setattr(
        sql.incoming, "OBJECTS_LIMIT", conn.execute("SELECT count(*) FROM sqlite_schema").get + 1
    )
    run(conn, "CREATE TABLE x(a)")

    with pytest.raises(MemoturnError, match="tables, indexes, views and triggers"):
        run(conn, "CREATE TABLE y(a)")
    run(conn, "EXPLAIN CREATE TABLE z(a)")
    run(conn, "DROP TABLE x")


def test_a_statement_that_takes_much_memory_is_stopped(conn, monkeypatch):
    monkeypatch.setattr(budget, "POOL_MEMORY_BYTES", 8 * 1024 * 1024)
    deadlines = budget.Deadlines(SystemClock(), 60, budget.threading.Event())
    greedy = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000000) SELECT i FROM n ORDER BY -i"

    with pytest.raises(OverloadedError, match="memory"):
        budget.within_deadline(conn, deadlines, lambda: run(conn, greedy))


def test_what_many_short_statements_take_together_is_counted(conn):
    many = sql.parse_batch({"stmts": [{"q": "SELECT 1"}] * 2000})
    with pytest.raises(OverBudgetError):
        budget.within_steps(conn, StoppedClock(), SMALL, lambda: sql.run_batch(conn, many, read_only=True))

    deadlines = budget.Deadlines(SystemClock(), -1, budget.threading.Event())
    with pytest.raises(MemoturnError, match="ran for over"):
        budget.within_deadline(conn, deadlines, lambda: sql.run_batch(conn, many, read_only=True))
    assert len(sql.run_batch(conn, many, read_only=True)[0]) == 2000


def test_the_slowest_calls_that_the_limits_allow_end_in_time(conn):
    """What cannot be interrupted has to be short: these are the worst that were found."""
    half = guard.QUADRATIC_LENGTH_LIMIT_BYTES // 2
    keys = guard.SLOW_LENGTH_LIMIT_BYTES // 24
    target, patch = ("{" + ",".join(f'"{letter}{n}":1' for n in range(keys)) + "}" for letter in "ab")
    for text, *params in (
        ("SELECT instr(zeroblob(?1), zeroblob(?2) || x'01')", 2 * half - 10, half - 10),
        ("SELECT length(json_patch(?, ?))", target, patch),
    ):
        started_s = time.thread_time()
        run(conn, text, *params)
        assert time.thread_time() - started_s < 30


# ---- the event loop


def test_time_on_the_loop_is_bounded_too(conn):
    class FastClock(SystemClock):
        """A clock that moves by a millisecond whenever it is looked at."""

        now_s = 0.0

        def monotonic_s(self):
            self.now_s += 0.001
            return self.now_s

    short = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100) SELECT max(i) FROM n"
    assert on_loop(conn, short) == [[100]]
    with pytest.raises(OverBudgetError):
        budget.within_steps(conn, FastClock(), SMALL, lambda: run(conn, short))


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a LIKE '%x%' FROM t",
        "SELECT a GLOB '*x*' FROM t",
        "SELECT replace(a, 'x', 'y') FROM t",
        "SELECT length(randomblob(10))",
        "SELECT length(zeroblob(70000))",
        "SELECT length(hex(?))",
        "INSERT INTO t VALUES (?, 1)",
        "SELECT group_concat(a) FROM t",
        "SELECT * FROM f WHERE f MATCH 'x'",
        "INSERT INTO f VALUES ('x')",
        "SELECT rowid FROM v WHERE e MATCH '[1, 2]' AND k = 1",
        "CREATE VIRTUAL TABLE g USING fts5(x)",
        "DROP TABLE f",
    ],
)
def test_what_one_step_could_make_long_is_for_the_pool(conn, text):
    run(conn, "CREATE VIRTUAL TABLE f USING fts5(x)")
    run(conn, "CREATE VIRTUAL TABLE v USING vec0(e float[2])")
    params = ["x" * 100_000] if "?" in text else []

    conn.execute("BEGIN")
    with pytest.raises(OverBudgetError):
        on_loop(conn, text, *params)
    conn.execute("ROLLBACK")
    run(conn, text, *params)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT count(*) FROM t",
        "CREATE TABLE x(a)",
        "DROP TABLE t",
        "CREATE INDEX i ON t(a)",
        "DROP INDEX old",
        "DROP VIEW seen",
        "DROP TRIGGER g",
        "ALTER TABLE t ADD COLUMN c",
    ],
)
def test_what_is_in_proportion_to_a_large_file_is_for_the_pool(conn, text):
    run(conn, "CREATE INDEX old ON t(b)")
    run(conn, "CREATE VIEW seen AS SELECT 1")
    run(conn, "CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END")
    before = conn.execute("SELECT count(*) FROM sqlite_schema").get
    with pytest.raises(OverBudgetError):
        on_loop(conn, text, large=True)
    assert conn.execute("SELECT count(*) FROM sqlite_schema").get == before
    on_loop(conn, text)


def test_emptying_a_table_of_a_large_file_is_counted_row_by_row(conn):
    run(
        conn,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) INSERT INTO t SELECT i, i FROM n",
    )

    conn.execute("BEGIN")
    with pytest.raises(OverBudgetError):
        on_loop(conn, "DELETE FROM t", large=True)
    assert not conn.in_transaction
    on_loop(conn, "DELETE FROM t")
    assert run(conn, "SELECT count(*) FROM t") == [[0]]


def test_ordinary_statements_stay_on_the_loop_beside_virtual_tables_too(conn):
    run(conn, "CREATE VIRTUAL TABLE f USING fts5(x)")

    for large in (False, True):
        on_loop(conn, "INSERT INTO t VALUES (?, ?)", "x" * 1000, 5, large=large)
        assert on_loop(conn, "SELECT b FROM t WHERE b = 5", large=large) == [[5]]
        on_loop(conn, "DELETE FROM t WHERE b = 5", large=large)


def test_a_virtual_table_is_known_once_it_is_there(conn):
    on_loop(conn, "SELECT 1 FROM t")
    run(conn, "CREATE VIRTUAL TABLE f USING fts5(x)")
    with pytest.raises(OverBudgetError):
        on_loop(conn, "SELECT * FROM f")
    run(conn, "DROP TABLE f")
    run(conn, "CREATE TABLE f(x)")
    on_loop(conn, "SELECT * FROM f")
