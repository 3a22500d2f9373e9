"""Random batches of a user's SQL against a whole node, and what must hold whatever they are.

    python tests/fuzz/sql_rules.py [--seed SEED] [--seconds SECONDS]

A run goes on until its time ends or a rule is broken, and prints the seed of each history; with --seed it begins
there.
"""

import argparse
import asyncio
import hashlib
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "support")]

import apsw
from harness import node_on
from sql_statements import PRAGMAS, Statements

from memoturnd.engine import changes
from memoturnd.engine.guard import RESERVED_PREFIX
from memoturnd.errors import MemoturnError
from memoturnd.http.envelope import status_of
from memoturnd.seams.profile import Work
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import kv, memories, sql, turns

BATCHES = 400
"""Batches of one history."""
_SETTINGS_EVERY = 20
_RESTORE_EVERY = 100
SECRETS = ("zanzibar", "__memoturn_memory_sessions_active")
"""What stands in reserved tables, or is the name of an object of ours, and in no statement."""
_START = (
    "CREATE TABLE t(a, b, c)",
    "CREATE TABLE s(id INTEGER PRIMARY KEY AUTOINCREMENT, a)",
    "INSERT INTO t VALUES (1, 'x', NULL), (2, 'y', x'00')",
    "INSERT INTO s(a) VALUES (1), (2)",
    "CREATE VIRTUAL TABLE f USING fts5(body)",
    "INSERT INTO f VALUES ('the quick brown fox')",
    "CREATE VIRTUAL TABLE v USING vec0(e float[2])",
    "INSERT INTO v(rowid, e) VALUES (1, '[1, 2]')",
)
# Not read: those which do something when they are read.
_ACTING = frozenset(
    {"wal_checkpoint", "optimize", "incremental_vacuum", "integrity_check", "quick_check", "shrink_memory",
     "foreign_key_check", "table_list", "page_count", "freelist_count", "schema_version", "data_version", "lock_status",
     "stats", "function_list", "module_list", "vdbe_trace", "parser_trace", "database_list"}
)  # fmt: skip
_LIMITS = sorted(name for name in dir(apsw) if name.startswith("SQLITE_LIMIT_"))
_CONFIGS = (
    *(
        "DEFENSIVE",
        "TRUSTED_SCHEMA",
        "NO_CKPT_ON_CLOSE",
        "ENABLE_LOAD_EXTENSION",
        "WRITABLE_SCHEMA",
        "ENABLE_TRIGGER",
    ),
    *("ENABLE_VIEW", "ENABLE_FKEY", "LEGACY_ALTER_TABLE", "DQS_DDL", "DQS_DML", "RESET_DATABASE"),
)


class BrokenRuleError(Exception):
    """Something that no user's SQL may bring about."""


def reserved_content(conn):
    """Return what is in the reserved tables, and how they are made; the meta row's txid and time, and what rounds note of changes, aside."""
    ours = conn.execute(
        "SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema"
        " WHERE lower(name) LIKE '\\_\\_memoturn\\_%' ESCAPE '\\' OR lower(tbl_name) LIKE '\\_\\_memoturn\\_%' ESCAPE '\\'",
        can_cache=False,
    ).fetchall()
    content = {"schema": repr(ours)}
    for type_, name, *_ in ours:
        if type_ == "table" and name != "__memoturn_changes":
            columns = "schema_version" if name == "__memoturn_meta" else "*"
            rows = conn.execute(f'SELECT {columns} FROM main."{name}"', can_cache=False).fetchall()
            content[name] = repr(sorted(map(repr, rows)))
    return content


def users_content(conn):
    """Return every row of every table that is not ours, whole."""
    tables = conn.execute(
        "SELECT name, sql FROM main.sqlite_schema WHERE type = 'table' ORDER BY name", can_cache=False
    ).fetchall()
    content = {}
    for name, text in tables:
        if name.lower().startswith(RESERVED_PREFIX) or (text or "").lower().startswith("create virtual"):
            continue
        quoted = name.replace('"', '""')
        rows = conn.execute(f'SELECT * FROM main."{quoted}"', can_cache=False)
        content[name] = hashlib.sha256(repr(sorted(repr(row) for row in rows)).encode()).hexdigest()
    return content


def settings_of(conn):
    """Return every setting of a connection and its file that a statement could change."""
    found = {
        name: conn.execute(f"PRAGMA main.{name}", can_cache=False).fetchall()
        for name in PRAGMAS
        if name not in _ACTING and not name.startswith(("table_", "index_"))
    }
    found |= {name: conn.limit(getattr(apsw, name)) for name in _LIMITS}
    found |= {
        name: conn.config(getattr(apsw, f"SQLITE_DBCONFIG_{name}"), -1)
        for name in _CONFIGS
        if hasattr(apsw, f"SQLITE_DBCONFIG_{name}")
    }
    found["databases"] = [
        name for _, name, _ in conn.execute("PRAGMA database_list", can_cache=False) if name != "temp"
    ]
    found["temporary"] = conn.execute("SELECT count(*) FROM sqlite_temp_schema", can_cache=False).get
    found["like"] = conn.execute("SELECT 'A' LIKE 'a'", can_cache=False).get
    return found


def open_files():
    """Return which files are open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return {name for name in found if name.startswith("/") and not name.startswith(("/dev", "/proc"))}


class History:
    """One node with one profile, and batches upon batches."""

    def __init__(self, seed, folder):
        self.seed = seed
        self.folder = Path(folder)
        self.statements = Statements(Random(seed))
        self.outcomes = Counter()
        self.last = []
        self.slowest_s = 0.0

    def broken(self, what):
        return BrokenRuleError(f"seed {self.seed}: {what}\nafter {self.last!r}")

    async def run(self, batches):
        """Run so many batches. Raises BrokenRuleError."""
        data, away = self.folder / "data", self.folder / "cwd"
        away.mkdir()
        home = Path.cwd()
        outside = {entry.name for entry in Path("/tmp").iterdir()}
        os.chdir(away)
        try:
            async with node_on(
                data, MemoryStore(), REQUEST_TIMEOUT="0.4", SHIP_INTERVAL_MS="50", WARM_AFTER_S="3600"
            ) as node:
                await self._prepare(node)
                for number in range(batches):
                    await self._batch(number)
                await self._restore()
        finally:
            os.chdir(home)
        if list(away.iterdir()):
            raise self.broken(f"files were made: {list(away.iterdir())}")
        if "escaped.db" in {entry.name for entry in Path("/tmp").iterdir()} - outside:
            raise self.broken("a file was made in /tmp")

    async def _prepare(self, node):
        self.node = node
        await node.databases.create("a")
        self.profile = profile = await node.profile("a")
        items = memories.parse_items(
            {"memories": [{"type": "fact", "topic_key": f"k{n}", "summary": f"{SECRETS[0]} {n}", "content": {"n": n}, "embedding": [1, n]}
                          for n in range(5)]}
        )  # fmt: skip
        await memories.ingest(profile, items)
        await profile.write(lambda conn, _: (kv.store(conn, "n", "k", SECRETS[0].encode(), None, None), True))
        parsed, _ = turns.parse_turns({"role": "user", "content": SECRETS[0]})
        await turns.append(profile, "session", parsed)
        for text in _START:
            await sql.run(profile, sql.parse_batch({"stmts": [{"q": text}]}))
        await profile.read(lambda *_: None, work=Work.HEAVY)
        self.reserved = reserved_content(profile.conn)
        self.told_txid = self.profile.txid
        self.settings = self._settings()
        self.files = self._names()
        self.opened = open_files()

    async def _batch(self, number):
        rng = self.statements.rng
        stmts = self.statements.batch()
        self.last = [*self.last[-3:], stmts]
        payload = {"stmts": [{"q": q, "params": params} for q, params in stmts]}
        before = self.profile.txid
        started_s = time.perf_counter()
        try:
            batch = sql.parse_batch(payload)
            answer = await sql.run(self.profile, batch, may_write=rng.random() < 0.85)
            outcome, told = "taken", repr(answer.value)
        except MemoturnError as error:
            outcome, told = str(status_of(error)), str(error)
            if not 400 <= status_of(error) < 500:
                raise self.broken(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            raise self.broken(f"{type(error).__name__}: {error}") from error
        # A refusal may name the index that it is about.
        if any(secret in told for secret in (SECRETS if outcome == "taken" else SECRETS[:1])):
            raise self.broken(f"a secret was told: {told[:1000]}")
        self.outcomes[outcome] += 1
        self.slowest_s = max(self.slowest_s, time.perf_counter() - started_s)
        if outcome != "taken" and self.profile.txid != before:
            raise self.broken("a refused batch moved the txid")
        async with self.profile.gate:  # nothing else uses the connection meanwhile
            try:
                self._look(number)
            except apsw.Error as error:
                raise self.broken(f"what is ours cannot be read: {error}") from error
        if number % _RESTORE_EVERY == _RESTORE_EVERY - 1:
            await self._restore()

    def _look(self, number):
        conn = self.profile.conn
        if (
            conn.in_transaction
            or conn.guard.seen is not None
            or conn.guard.on_loop
            or conn.guard.budget is not None
        ):
            raise self.broken("something was left open")
        now = reserved_content(conn)
        if now != self.reserved:
            changed = {
                name: (self.reserved.get(name), text)
                for name, text in now.items()
                if text != self.reserved.get(name)
            }
            raise self.broken(f"a reserved table has changed: {changed}")
        self._look_at_changes(conn)
        meta = conn.execute("SELECT txid FROM __memoturn_meta").get
        if meta != self.profile.txid:
            raise self.broken(f"the meta row says {meta}, the branch {self.profile.txid}")
        if number % _SETTINGS_EVERY == 0:
            now = self._settings()
            changed = [
                (key, old[key], new[key])
                for old, new in zip(self.settings, now, strict=False)
                for key in old
                if old[key] != new[key]
            ]
            if changed:
                raise self.broken(f"settings have changed: {changed}")
            if self._names() != self.files:
                raise self.broken(f"files have changed: {self._names() ^ self.files}")
            strange = {name for name in open_files() - self.opened if not name.startswith(str(self.folder))}
            if strange:
                raise self.broken(f"files were opened: {strange}")

    def _look_at_changes(self, conn):
        """What rounds note of changes names tables alone, round by round."""
        for change in changes.read_after(conn, self.told_txid, self.profile.txid):
            if not self.told_txid < change.txid <= self.profile.txid:
                raise self.broken(f"changes go from txid {self.told_txid} to {change.txid}")
            if change.why is not None or {entry.surface for entry in change.entries} != {"sql"}:
                raise self.broken(f"changes of something else than tables: {change}")
            self.told_txid = change.txid

    async def _restore(self):
        """Ship, go cold, restore, and find everything as it was."""
        profile = self.profile
        async with profile.gate:
            users, txid = users_content(profile.conn), profile.txid
        await self.node.branches.sync("a", "main")
        if not await self.node.tiers.evict(profile):
            raise self.broken("the branch does not go cold")
        await profile.read(lambda *_: None, work=Work.HEAVY)
        conn = profile.conn
        if profile.txid != txid or users_content(conn) != users or reserved_content(conn) != self.reserved:
            raise self.broken("the restored state is another")
        if (found := conn.execute("PRAGMA integrity_check(3)", can_cache=False).fetchall()) != [("ok",)]:
            raise self.broken(f"the restored file is damaged: {found}")
        await profile.own()
        self.files = self._names()

    def _settings(self):
        return [settings_of(conn) for conn in (self.profile.conn, *self.profile._readers.idle)]

    def _names(self):
        return {
            str(path.relative_to(self.folder))
            for path in (self.folder / "data" / "dbs").rglob("*")
            if path.is_file()
        }


async def run_history(seed, batches=BATCHES):
    """Run one history and return what became of its batches. Raises BrokenRuleError."""
    with tempfile.TemporaryDirectory() as folder:
        history = History(seed, folder)
        await history.run(batches)
        return history


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    """Run histories until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--seconds", type=float, default=300)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else Random().randrange(2**32)
    until_s = time.monotonic() + arguments.seconds
    total = Counter()
    while time.monotonic() < until_s:
        history = asyncio.run(run_history(seed))
        total += history.outcomes
        say(f"seed {seed}: {dict(history.outcomes)}, slowest {history.slowest_s:.2f} s")
        seed += 1
    say(f"no rule was broken: {dict(total)}")


if __name__ == "__main__":
    main()
