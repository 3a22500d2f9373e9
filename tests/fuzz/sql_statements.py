"""Statements that a user of SQL might send, nasty ones before all: a grammar, and what damages its sentences.

Names of the user's tables and reserved names are mixed in every spelling that SQLite knows; every pragma,
module and function of this SQLite has its turn, whatever the guard says about it.
"""

from random import Random

import apsw

_OTHER_PRAGMAS = (
    "foreign_key_check",
    "lock_status",
    "stats",
    "vdbe_trace",
    "parser_trace",
    "incremental_vacuum",
)
_CONN = apsw.Connection(":memory:")
PRAGMAS = sorted({name for (name,) in _CONN.execute("PRAGMA pragma_list")} | set(_OTHER_PRAGMAS))
ARITY = {name: narg for (name, _, _, _, narg, _) in _CONN.execute("PRAGMA function_list")}
FUNCTIONS = [
    *sorted(ARITY),
    *("vec_f32", "vec_distance_l2", "vec_slice", "vec_to_json", "vec_quantize_binary", "vec_debug"),
    *("sqlite_rename_table", "sqlite_drop_column", "sqlite_fail", "readfile", "writefile", "edit", "zipfile"),
    *(
        "__memoturn_matches",
        "eval",
        "sha3",
        "regexp",
        "fts5",
        "matchinfo",
        "sqlite_offset",
        "generate_series",
    ),
]
MODULES = [
    *sorted({name for (name,) in _CONN.execute("PRAGMA module_list")}),
    *("vec0", "vec_each", "json_each", "json_tree", "carray", "csv", "fsdir", "sqlite_stmt", "sqlite_dbpage"),
]
_CONN.close()

USERS = (*(("t", "s") * 4), *(("u", "f", "v") * 2), "w", "fx", "vw", "a b", "Ü", "t2")
SHADOWS = ("f_data", "f_content", "f_config", "v_chunks", "v_rowids", "v_vector_chunks00", "v_info")
SYSTEM = (
    *(
        "sqlite_schema",
        "sqlite_master",
        "sqlite_temp_master",
        "sqlite_sequence",
        "sqlite_stat1",
        "sqlite_stat4",
    ),
    *("dbstat", "sqlite_stmt", "pragma_table_info", "pragma_journal_mode", "pragma_table_list", "carray"),
)
COLUMNS = (
    *(("a", "rowid") * 8),
    "a",
    "b",
    "c",
    "id",
    "rowid",
    "body",
    "e",
    "k",
    "rank",
    "*",
    "oid",
    "summary",
    "txid",
    "content",
)
RESERVED = (
    *(
        "kv",
        "memories",
        "meta",
        "memories_fts",
        "memories_fts_data",
        "memories_topic",
        "messages",
        "idempotency",
    ),
    *("memory_sessions", "lineage", "models", "memory_vectors_1", "x", ""),
)
_FILES = (
    "escaped.db",
    "/tmp/escaped.db",
    ":memory:",
    "",
    "file:escaped.db?mode=rwc",
    "main.db",
    "../escaped.db",
)
_HOSTILE = (
    *(
        "__memoturn_kv",
        "writable_schema",
        "x'00'",
        "1e999",
        "-9223372036854775808",
        "'",
        '"',
        "`",
        "[",
        "/*",
        "--",
    ),
    *(
        "\N{FULLWIDTH LOW LINE}",
        "\N{KELVIN SIGN}",
        "\N{ZERO WIDTH SPACE}",
        "\ufeff",
        "\u202e",
        "\U0001f600",
        ";",
        "?1",
        ":x",
    ),
    *(
        "zeroblob(1e9)",
        "randomblob(99999999)",
        "printf('%.*c', 99999999, 'x')",
        "CAST(x'ff' AS TEXT)",
        "char(0)",
    ),
)
_MADE_AGAIN = (
    "CREATE TABLE IF NOT EXISTS t(a, b, c)",
    "CREATE TABLE IF NOT EXISTS s(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
    "CREATE TABLE IF NOT EXISTS u(id INTEGER PRIMARY KEY, a REFERENCES t(a))",
    "CREATE VIRTUAL TABLE IF NOT EXISTS f USING fts5(body)",
    "CREATE VIRTUAL TABLE IF NOT EXISTS v USING vec0(e float[2])",
    "DROP TRIGGER IF EXISTS g0",
    "DROP TRIGGER IF EXISTS g1",
    "DROP TRIGGER IF EXISTS g2",
    "DROP TRIGGER IF EXISTS g3",
)
Statement = tuple[str, list[object]]


class Statements:
    """An endless supply of statements, the same for the same seed."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        self._depth = 0

    def batch(self) -> list[Statement]:
        """Return one to five statements, each with its parameters."""
        if self.rng.random() < 0.2:
            return [(text, []) for text in self.rng.sample(_MADE_AGAIN, 3)]
        return [self.statement() for _ in range(self.rng.choice((1, 1, 1, 1, 1, 2, 3)))]

    def statement(self) -> Statement:
        """Return a statement, damaged now and then."""
        rng = self.rng
        self._depth = 0
        text = rng.choice(_KINDS)(self)
        if rng.random() < 0.06:
            text = rng.choice(("EXPLAIN ", "EXPLAIN QUERY PLAN ")) + text
        if rng.random() < 0.1:
            text = self._damaged(text)
        params: list[object] = []
        if "?" in text and rng.random() < 0.9:
            params = [self._param() for _ in range(text.count("?"))]
        return text, params

    def _param(self) -> object:
        return self.rng.choice(
            (None, 0, 1, -1, 2**63 - 1, 1.5, "", "x", "[1, 2]", "__memoturn_kv", {"$base64": "AAA="}, [1], {"a": None},
             {"$base64": "AACAPwAAAEA="}, "x" * 100_000, "\0")
        )  # fmt: skip

    # ---- names

    def any_name(self) -> str:
        """Return a table's name: mostly the user's, or else one that no user should reach."""
        pick = self.rng.random()
        if pick < 0.78:
            return self._spelt(self.rng.choice(USERS))
        if pick < 0.92:
            return self._spelt("__memoturn_" + self.rng.choice(RESERVED))
        return self._spelt(self.rng.choice((*SYSTEM, *SHADOWS, "__memoturn")))

    def users_name(self) -> str:
        """Return the name of a table that a user makes, or in one case of eight any."""
        return self._spelt(self.rng.choice(USERS)) if self.rng.random() < 0.95 else self.any_name()

    def _spelt(self, name: str) -> str:
        rng = self.rng
        if rng.random() < 0.15:
            name = "".join(rng.choice((c.upper(), c.lower())) for c in name)
        if rng.random() < 0.03:
            name = name.replace("_", "\N{FULLWIDTH LOW LINE}", 1)
        if rng.random() < 0.3 or not name.isidentifier():
            left, right = rng.choice(('""', "[]", "``", "''"))
            name = f"{left}{name}{right}"
        if rng.random() < 0.06:
            schema = rng.choice(("main", "MAIN", '"main"', "temp", "other", "sqlite_master"))
            name = f"{schema}{rng.choice(('.', ' . ', '/**/.'))}{name}"
        return name

    def column(self) -> str:
        """Return a column's name."""
        return self.rng.choice(COLUMNS)

    # ---- expressions

    def expr(self) -> str:
        """Return an expression."""
        rng = self.rng
        self._depth += 1
        if self._depth > 12:
            return "1"
        pick = rng.random()
        if pick < 0.6:
            return rng.choice(
                ("1", "0", "NULL", "'x'", "x'01'", "2.5", "'[1, 2]'", self.column(), self.column(), "a", "a")
            )
        if pick < 0.63:
            return "?"
        if pick < 0.7:
            return f"{self.expr()} {rng.choice(('+', '||', '=', 'IS', 'LIKE', 'GLOB', '->>', 'MATCH', 'IN', '<', 'AND', 'REGEXP'))} {self.expr()}"
        if pick < 0.88:
            name = rng.choice(FUNCTIONS)
            arity = ARITY.get(name, -1) if rng.random() < 0.9 else -1
            arguments = ", ".join(
                self.expr() for _ in range(arity if arity >= 0 else rng.choice((0, 1, 1, 2, 2, 3)))
            )
            over = rng.choice((" OVER ()", f" OVER (ORDER BY {self.column()})", " FILTER (WHERE 1)"))
            return f"{name}({arguments}){over if rng.random() < 0.15 else ''}"
        if pick < 0.92:
            return f"(SELECT {self.expr()} FROM {self.any_name()} LIMIT 3)"
        if pick < 0.95:
            return f"CASE WHEN {self.expr()} THEN {self.expr()} ELSE {self.expr()} END"
        if pick < 0.97:
            return f"CAST({self.expr()} AS {rng.choice(('TEXT', 'BLOB', 'INTEGER', 'REAL'))})"
        return rng.choice(_HOSTILE)

    def select(self) -> str:
        """Return a SELECT, with whatever a SELECT may have."""
        rng = self.rng
        source = rng.choice(
            (*((self.any_name(),) * 9), f"{self.users_name()} JOIN {self.any_name()}",
             f"json_each({self.expr()})", f"pragma_{rng.choice(PRAGMAS)}", f"pragma_table_info({self.any_name()})",
             f"{rng.choice(MODULES)}({self.expr()})", f"({self._inner()})", rng.choice(MODULES))
        )  # fmt: skip
        text = f"SELECT {rng.choice(('', 'DISTINCT '))}{self.expr()}, {self.column()} FROM {source}"
        if rng.random() < 0.4:
            text += f" WHERE {self.expr()}"
        if rng.random() < 0.15:
            text += f" GROUP BY {self.column()} HAVING {self.expr()}"
        if rng.random() < 0.2:
            text += f" ORDER BY {self.expr()}"
        if rng.random() < 0.15:
            text += f" {rng.choice(('UNION', 'UNION ALL', 'EXCEPT', 'INTERSECT'))} SELECT {self.expr()}, 1"
        if rng.random() < 0.3:
            text += f" LIMIT {rng.choice(('1', '5', '-1', '(SELECT 3)'))}"
        return text

    def _inner(self) -> str:
        return "SELECT 1 AS a, 2 AS b" if self._depth > 8 else self.select()

    def with_clause(self) -> str:
        """Return a WITH clause, recursive and endless ones among them."""
        rng = self.rng
        name = rng.choice(("x", "t", "__memoturn_kv", "sqlite_schema"))
        body = rng.choice(
            (self._inner(), "VALUES (1, 2)", f"SELECT 1, 1 UNION ALL SELECT a + 1, 1 FROM {name} WHERE a < 5",
             f"SELECT 1, 1 UNION ALL SELECT a + 1, zeroblob(100000) FROM {name}", f"SELECT * FROM {self.any_name()}")
        )  # fmt: skip
        return f"WITH {rng.choice(('', 'RECURSIVE '))}{name}(a, b) AS ({body}) "

    # ---- statements

    def read(self) -> str:
        """Return a read."""
        return (self.with_clause() if self.rng.random() < 0.2 else "") + self.select()

    def insert(self) -> str:
        """Return an INSERT of any form."""
        rng = self.rng
        how = rng.choice(
            ("INSERT", "INSERT", "REPLACE", "INSERT OR IGNORE", "INSERT OR ROLLBACK", "INSERT OR FAIL")
        )
        rows = rng.choice((f"VALUES ({self.expr()})", f"VALUES ({self.expr()}, {self.expr()})", "DEFAULT VALUES",
                           self.select(), "VALUES ('optimize')", "VALUES ('rebuild')", "VALUES ('integrity-check')"))  # fmt: skip
        columns = rng.choice(
            ("", "(a)", "(a)", f"({self.column()})", "(a, b)", "(f)", "(f, rank)", "(rowid, e)", "(v, e)")
        )
        text = f"{how} INTO {self.any_name()}{columns} {rows}"
        if rng.random() < 0.4:
            text = rng.choice(("INSERT INTO t VALUES (1, ?, 'z')", f"INSERT INTO t(a) VALUES ({self.expr()})",
                               "INSERT INTO f VALUES ('a fox')", "INSERT INTO v(e) VALUES ('[3, 4]')",
                               f"INSERT INTO s(a) VALUES ({self.expr()})"))  # fmt: skip
        if rng.random() < 0.15:
            text += f" ON CONFLICT DO {rng.choice(('NOTHING', f'UPDATE SET a = {self.expr()}'))}"
        return self._cte(text + self._returning())

    def update(self) -> str:
        """Return an UPDATE, with FROM now and then."""
        rng = self.rng
        how = rng.choice(("UPDATE", "UPDATE OR REPLACE", "UPDATE OR ROLLBACK", "UPDATE OR IGNORE"))
        source = f" FROM {self.any_name()}" if rng.random() < 0.2 else ""
        where = f" WHERE {self.expr()}" if rng.random() < 0.6 else ""
        return self._cte(
            f"{how} {self.any_name()} SET {self.column()} = {self.expr()}{source}{where}{self._returning()}"
        )

    def delete(self) -> str:
        """Return a DELETE."""
        where = f" WHERE {self.expr()}" if self.rng.random() < 0.7 else ""
        return self._cte(f"DELETE FROM {self.any_name()}{where}{self._returning()}")

    def _cte(self, text: str) -> str:
        return (self.with_clause() if self.rng.random() < 0.15 else "") + text

    def _returning(self) -> str:
        return f" RETURNING {self.expr()}" if self.rng.random() < 0.2 else ""

    def create(self) -> str:
        """Return a CREATE of anything."""
        rng = self.rng
        temp = rng.choice(("", "", "", "", "TEMP "))
        there = rng.choice(("", "IF NOT EXISTS "))
        return rng.choice(
            (lambda: f"CREATE {temp}TABLE {there}{self.users_name()}({self._columns()}){self._options()}",
             lambda: f"CREATE {temp}TABLE {there}{self.users_name()} AS {self.select()}",
             lambda: f"CREATE {temp}VIEW {there}{self.users_name()} AS {self.read()}",
             lambda: f"CREATE {rng.choice(('', 'UNIQUE '))}INDEX {there}{self._spelt('i' + str(rng.randrange(3)))}"
                     f" ON {self.any_name()}({self.expr()})",
             self._virtual, self._virtual, self._trigger, self._trigger)
        )()  # fmt: skip

    def _columns(self) -> str:
        rng = self.rng
        columns = ["id INTEGER PRIMARY KEY" + rng.choice(("", " AUTOINCREMENT")), "a", "b TEXT"]
        columns.append(
            rng.choice(("c", f"c DEFAULT ({self.expr()})", f"c CHECK ({self.expr()})", f"c REFERENCES {self.any_name()}",
                        f"c AS ({self.expr()}) STORED", f"c REFERENCES {self.any_name()} ON DELETE CASCADE",
                        "c COLLATE nocase UNIQUE ON CONFLICT ROLLBACK"))
        )  # fmt: skip
        return ", ".join(columns)

    def _options(self) -> str:
        return self.rng.choice(("", "", " STRICT", " WITHOUT ROWID"))

    def _virtual(self) -> str:
        rng = self.rng
        module = rng.choice(("fts5", "fts5", "vec0", "vec0", rng.choice(MODULES), "fts5vocab"))
        arguments = rng.choice(
            ("body", "a, b", "e float[2]", "e float[2], a text partition key, +b text", "e bit[8], c integer",
             f"body, content={self.any_name()}", f"body, content={self.any_name()}, content_rowid='id'",
             "body, content='', contentless_delete=1", "body, tokenize='porter unicode61'", "body, tokenize='trigram'",
             f"body, tokenize=\"unicode61 separators '{rng.choice(_HOSTILE)}'\"", "e float[8192], chunk_size=4096",
             f"{self.any_name()}, row", f"{self.any_name()}, 'col'", "body, prefix='1 2 3', detail=none", "")
        )  # fmt: skip
        return f"CREATE VIRTUAL TABLE {self.users_name()} USING {module}({arguments})"

    def _trigger(self) -> str:
        rng = self.rng
        when = rng.choice(("BEFORE", "AFTER", "INSTEAD OF"))
        event = rng.choice(("INSERT", "UPDATE", "DELETE", "UPDATE OF a"))
        body = rng.choice((self.insert, self.update, self.delete, self.read))()
        body = rng.choice((body, body, "SELECT RAISE(ROLLBACK, 'no')", "SELECT RAISE(IGNORE)"))
        return f"CREATE TRIGGER {self._spelt('g' + str(rng.randrange(4)))} {when} {event} ON {self.any_name()} BEGIN {body}; END"

    def drop(self) -> str:
        """Return a DROP."""
        kind = self.rng.choice(("TABLE", "TABLE", "INDEX", "VIEW", "TRIGGER"))
        name = self.any_name() if kind != "TRIGGER" else self._spelt(f"g{self.rng.randrange(4)}")
        return f"DROP {kind} {self.rng.choice(('', 'IF EXISTS '))}{name}"

    def alter(self) -> str:
        """Return an ALTER TABLE."""
        change = self.rng.choice(
            (f"RENAME TO {self.any_name()}", f"RENAME {self.column()} TO {self.any_name()}", f"ADD COLUMN {self.column()}",
             f"DROP COLUMN {self.column()}", f"ADD COLUMN z DEFAULT {self.expr()}",
             f"ADD COLUMN y CHECK ({self.expr()})", f"ADD COLUMN q REFERENCES {self.any_name()}",
             "ALTER COLUMN a SET NOT NULL", "ADD CHECK (a > 0)", "DROP CONSTRAINT x")
        )  # fmt: skip
        return f"ALTER TABLE {self.any_name()} {change}"

    def pragma(self) -> str:
        """Return a PRAGMA, read or set or called."""
        rng = self.rng
        name = "".join(rng.choice((c.upper(), c)) for c in rng.choice(PRAGMAS))
        name = f"{rng.choice(('', '', 'main.', 'temp.', 'MAIN . '))}{name}"
        value = rng.choice(
            (
                "0",
                "1",
                "ON",
                "OFF",
                "DELETE",
                "TRUNCATE",
                "EXCLUSIVE",
                "'UTF-16'",
                "-1",
                "4096",
                self.any_name(),
            )
        )
        return rng.choice((f"PRAGMA {name}", f"PRAGMA {name}={value}", f"PRAGMA {name}({value})"))

    def control(self) -> str:
        """Return what controls transactions, files, or the whole database."""
        rng = self.rng
        return rng.choice(
            ("BEGIN", "BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "COMMIT", "END", "ROLLBACK", "SAVEPOINT op", "RELEASE op",
             "ROLLBACK TO op", "SAVEPOINT x", "VACUUM", f"VACUUM INTO '{rng.choice(_FILES)}'", "VACUUM main", "REINDEX",
             f"REINDEX {self.any_name()}", "ANALYZE", f"ANALYZE {self.any_name()}", "DETACH main", "ANALYZE sqlite_schema",
             f"ATTACH '{rng.choice(_FILES)}' AS other", "ATTACH ? AS temp2", f"ATTACH {self.expr()} AS x", "DETACH other",
             "SELECT load_extension('/lib/x86_64-linux-gnu/libm.so.6')", "", " -- nothing", ";;")
        )  # fmt: skip

    def bomb(self) -> str:
        """Return what would take long, or much memory."""
        return self.rng.choice(
            ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
             "WITH RECURSIVE n(i, b) AS (SELECT 1, zeroblob(30000000) UNION ALL SELECT i + 1, b FROM n LIMIT 9) SELECT hex(b) FROM n",
             "SELECT replace(zeroblob(900000), x'00', zeroblob(900000))",
             "SELECT group_concat(a.name, b.name) FROM sqlite_schema a, sqlite_schema b, sqlite_schema c",
             "SELECT count(*) FROM t a, t b, t c, t d, t e, t f, t g, t h",
             "SELECT printf('%*d', 2147483647, 1)", f"SELECT {'(' * 900}1{')' * 900}",
             f"SELECT {' || '.join(['hex(zeroblob(9000))'] * 200)}", f"SELECT {','.join(['1'] * 3000)}",
             "INSERT INTO t(a) SELECT randomblob(60000) FROM sqlite_schema", "SELECT '' LIKE '" + "%_" * 500 + "'")
        )  # fmt: skip

    # ---- damage

    def _damaged(self, text: str) -> str:
        rng = self.rng
        tokens = text.split(" ")
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(tokens))
            match rng.randrange(6):
                case 0:
                    del tokens[at : at + 1]
                case 1:
                    tokens.insert(at, rng.choice(_HOSTILE))
                case 2:
                    tokens.insert(at, tokens[rng.randrange(len(tokens))])
                case 3:
                    tokens[at] = self.any_name()
                case 4:
                    tokens.insert(at, rng.choice(("/* __memoturn_ */", "--\n", "\t", "\f", ";", "\n;")))
                case _:
                    tokens += rng.choice(_KINDS)(self).split(" ")
            tokens = tokens or ["SELECT"]
        return " ".join(tokens)


_KINDS = (
    *((Statements.read,) * 6),
    *((Statements.insert,) * 6),
    *((Statements.create,) * 6),
    *(
        (
            Statements.update,
            Statements.delete,
            Statements.drop,
            Statements.alter,
            Statements.pragma,
            Statements.control,
        )
        * 2
    ),
    Statements.bomb,
)
