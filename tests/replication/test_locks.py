"""Which files the node may touch, and with which SQLite."""

import ast
import os
from pathlib import Path

import apsw
import pytest
from harness import node_on
from profiles import ProfileLog, get

import memoturnd
from memoturnd.core.durability import Durability
from memoturnd.engine.connection import check_library, open_connection
from memoturnd.errors import ConfigurationError
from memoturnd.replication.prove import hash_file, prove
from memoturnd.replication.snapshot import State, write_snapshot
from memoturnd.seams.executor import InlineExecutor
from memoturnd.stores.memory import MemoryStore

PACKAGE = Path(memoturnd.__file__).parent


@pytest.fixture
def log(tmp_path):
    log = ProfileLog(tmp_path / "main.db")
    yield log
    log.close()


# ---- locks


def locks_of(path):
    """Return this process's POSIX locks on a file, as the kernel lists them."""
    inode = f":{path.stat().st_ino}"
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sorted(
        (row[1], row[3], row[6], row[7])
        for row in rows
        if row[1] == "POSIX" and row[4] == str(os.getpid()) and row[5].endswith(inode)
    )


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the kernel does not list locks here")
async def test_capture_snapshot_and_proof_leave_sqlites_locks_alone(log):
    """Guard: memoturnd.replication.prove.read_file reads through SQLite's handle; nothing opens the file itself."""
    log.put("a", "x" * 9000)
    log.land()
    assert log.checkpoint()
    log.capture.checkpointed(2)
    log.put("b", "y")
    log.conn.execute("BEGIN IMMEDIATE")
    log.conn.execute("UPDATE __memoturn_meta SET at_ms = at_ms")
    files = [log.path, Path(f"{log.path}-shm")]
    before = [locks_of(path) for path in files]
    assert all(before), "SQLite holds locks on both files"

    log.read()
    await write_snapshot(
        MemoryStore(),
        InlineExecutor(),
        str(log.path),
        State(2, 1, 1, 4096),
        uuid="u",
        branch_id="b",
        nonce=bytes(16),
    )
    other = open_connection(str(log.path), read_only=True, sync="normal", cache_kib=64)
    prove(other, Path(f"{log.path}-wal"), page_size=4096, txid=2, checksum="0" * 16)
    hash_file(other, 4096)
    other.close()

    assert [locks_of(path) for path in files] == before
    log.conn.execute("ROLLBACK")


MAY_OPEN = {
    "__main__.py": "nothing of a profile",
    "config.py": "files of secrets",
    "auth/sources.py": "files of keys",
    "audit/ends.py": "the notes of audit chains",
    "audit/chains.py": "no file: its own method has the name",
    "audit/log.py": "the notes of audit objects",
    "audit/spool.py": "the spool of audit events",
    "datadir.py": "its lock and the boot id",
    "leases/file_table.py": "the locks of nodes",
    "leases/open.py": "no file: leases are opened by a method of that name",
    "disk.py": "folders",
    "metrics/process.py": "what the system says of this process, under /proc",
    "engine/incoming.py": "an imported file that is nobody's yet, with no connection on it",
    "engine/transfers.py": "files that are saved or imported, beside those of branches",
    "engine/files.py": "the marks `owner` and `clean`",
    "replication/apply.py": "a log that is being made, beside the one that is there",
    "replication/capture.py": "the log, which carries no locks",
    "replication/page_file.py": "a state that only a rewrite of history has, which SQLite sees through pages that are handed to it",
    "replication/rewrite.py": "a restored state that only a rewrite has, with no connection on it",
    "replication/tail_store.py": "pieces of other nodes' tails, which are no databases",
    "replication/prove.py": "the log, which carries no locks",
    "replication/new_file.py": "a new file beside the database's name, and a past state that nobody writes, to copy it",
    "replication/verify_states.py": "a restored state that only the verification has",
    "embedders/files.py": "the files of the local model",
    "engine/branch.py": "the memory for what is kept of a file, which is no file",
    "stores/aws_settings.py": "a certificate bundle",
    "surfaces/memory_index.py": "copies of arrays",
    "stores/local.py": "objects",
}
OPENING = {
    "open",
    "open_code",
    "read_bytes",
    "read_text",
    "write_bytes",
    "write_text",
    "copy",
    "copy2",
    "copyfile",
    "copytree",
    "mmap",
    "memmap",
    "fromfile",
}


def calls(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield name, node


def test_only_modules_that_were_looked_at_open_files():
    """An open and close of the database file or `-shm` in this process would drop SQLite's locks on it."""
    opening = {
        str(module.relative_to(PACKAGE))
        for module in PACKAGE.rglob("*.py")
        for name, _ in calls(module)
        if name in OPENING
    }

    assert opening <= set(MAY_OPEN), f"look at what {opening - set(MAY_OPEN)} opens, then list it"


def test_no_module_uses_another_copy_of_sqlite():
    for module in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {"sqlite3", "aiosqlite", "pysqlite3"} & {n.split(".")[0] for n in names}, module


def test_only_the_shipper_and_the_takeover_checkpoint():
    found = {
        str(module.relative_to(PACKAGE)): sum(name == "wal_checkpoint" for name, _ in calls(module))
        for module in PACKAGE.rglob("*.py")
    }

    assert {name for name, count in found.items() if count} == {
        "engine/incoming.py",  # an imported file that is nobody's yet
        "engine/past.py",  # a file that no live connection has
        "engine/replaying.py",  # a file that this node only reads, or has not taken over yet
        "engine/takeover.py",
        "replication/shipper.py",
    }


def test_capture_keeps_one_descriptor_and_it_is_the_logs(log):
    log.put("a", "1")
    log.land()
    descriptor = log.capture._fd
    log.put("b", "2")
    log.land()

    assert log.capture._fd == descriptor
    assert str(Path(f"/proc/self/fd/{descriptor}").readlink()) == f"{log.path}-wal"


# ---- the library


@pytest.mark.parametrize("version", [3_040_001, 3_051_002])
def test_sqlite_with_the_log_reset_bug_is_refused(version):
    """Guard: memoturnd.engine.connection.check_library, called when the module is imported."""
    with pytest.raises(ConfigurationError, match=r"3\.51\.3"):
        check_library(version)


def test_sqlite_in_use_is_without_the_log_reset_bug():
    check_library(apsw.SQLITE_VERSION_NUMBER)
    source = (PACKAGE / "engine" / "connection.py").read_text()
    assert source.count("\ncheck_library(") == 2, "the header's version and the library's are looked at"


async def test_vectors_of_the_extension_come_back_from_the_store(tmp_path):
    """Guard: sqlite-vec is loaded into every connection, in memoturnd.engine.connection._configure."""

    def make(conn, _now_ms):
        conn.execute("CREATE VIRTUAL TABLE vectors USING vec0(e float[2])")
        conn.execute("INSERT INTO vectors(rowid, e) VALUES (1, '[1, 0]'), (2, '[0, 1]')")
        return None, True

    def nearest(conn, _now_ms):
        return conn.execute(
            "SELECT rowid FROM vectors WHERE e MATCH '[0, 0.9]' ORDER BY distance LIMIT 1"
        ).get

    store = MemoryStore()
    async with node_on(tmp_path / "n", store) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(make, durability=Durability.DURABLE)
    async with node_on(tmp_path / "another disk", store) as node:
        profile = await node.profile("a")
        assert (await profile.read(nearest)).value == 2
        assert (await profile.read(get("x"))).value is None
