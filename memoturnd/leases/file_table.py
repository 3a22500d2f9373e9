"""The table behind the leases of one machine's processes: a SQLite file, and one lock file per node.

{folder}/leases.db           who owns what; safe against the death of any process at any moment
{folder}/nodes/{node id}     held by flock for as long as the node's process lives
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw

from memoturnd.errors import ConfigurationError, RetryableError
from memoturnd.seams.leases import LiveNode, Owner, Placed

BUSY_TIMEOUT_MS: Final = 2000
"""How long a transaction waits for those of other processes, each of which takes some 50 us."""
OPENINGS: Final = 200
OPEN_AGAIN_S: Final = 0.01
"""How often the file is tried to be opened while others make it, and the pause between."""
KEPT_CHANGES: Final = 10_000
"""How far back it is known which branches were given back: a watch that is further behind reads everything again."""
_PRUNE_EVERY: Final = 500
_SCHEMA = """
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counters VALUES ('change', 0), ('pruned', 0);
CREATE TABLE IF NOT EXISTS nodes (
    node_id TEXT PRIMARY KEY, address TEXT NOT NULL, load REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS owners (
    branch_id TEXT PRIMARY KEY, database TEXT NOT NULL, branch TEXT NOT NULL,
    node_id TEXT, epoch INTEGER NOT NULL, change INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS owners_by_change ON owners (change);
CREATE INDEX IF NOT EXISTS owners_by_node ON owners (node_id);
CREATE TABLE IF NOT EXISTS sync_sets (
    branch_id TEXT PRIMARY KEY, epoch INTEGER NOT NULL, members TEXT NOT NULL
) WITHOUT ROWID;
"""
_OWNERS = (
    "SELECT o.branch_id, o.database, o.branch, o.node_id, n.address, o.epoch "
    "FROM owners o LEFT JOIN nodes n ON n.node_id = o.node_id"
)


class NodeLocks:
    """The lock files of the nodes in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "nodes"

    def take(self, node_id: str) -> int | None:
        """Hold a node's file, and return its descriptor; None while anybody holds it or just looks at it."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self._folder / node_id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return None
        except BaseException:
            os.close(file)
            raise
        return file

    def is_alive(self, node_id: str) -> bool:
        """Return whether a process holds the node's file. The file stays for ever: another of its name could be held beside it."""
        try:
            file = os.open(self._folder / node_id, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise RetryableError(
                f"cannot tell whether node {node_id} is there ({error.strerror}); check {self._folder}"
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False


class Table:
    """One connection to the table. Its calls block for microseconds, and for BUSY_TIMEOUT_MS where others write.

    Raises ConfigurationError where the file cannot be opened.
    """

    def __init__(self, folder: Path, *, to_read: bool = False) -> None:
        self._path = folder / "leases.db"
        self._begin = "BEGIN" if to_read else "BEGIN IMMEDIATE"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._connection = self._open_beside_others()
        except (apsw.Error, OSError) as error:
            raise ConfigurationError(
                f"cannot use the lease table {self._path} ({error}); check that its folder can be written; while no "
                "node runs the file may be removed"
            ) from error

    def _open_beside_others(self) -> apsw.Connection:
        """Open the file while others may be making it: SQLite does not wait for whoever changes the journal's mode."""
        for _ in range(OPENINGS - 1):
            try:
                return self._open()
            except apsw.BusyError:
                time.sleep(OPEN_AGAIN_S)
        return self._open()

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path))
        try:
            connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            connection.execute("PRAGMA journal_mode = WAL")
            # A commit that power loss takes was of processes that are dead: epochs in manifests go on from there.
            connection.execute("PRAGMA synchronous = NORMAL")
            if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
                connection.execute(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def transaction(self) -> Iterator[apsw.Connection]:
        """Give the connection inside of a transaction. Raises RetryableError."""
        connection = self._connection
        try:
            # As statements: apsw's own transactions keep the interpreter locked while they wait for another process.
            connection.execute(self._begin)
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except apsw.Error as error:
            raise RetryableError(
                f"the lease table {self._path} does not answer ({error}); try again, then check its disk"
            ) from error

    def version(self) -> int:
        """Return what is another number whenever another connection has changed anything. Raises RetryableError."""
        with self.transaction() as connection:
            return int(connection.execute("PRAGMA data_version").get)

    def close(self) -> None:
        """Close the file; later calls raise RetryableError."""
        self._connection.close()


def count_up(connection: apsw.Connection) -> int:
    """Return the number of the next change; changes to be forgotten go now and then."""
    number = int(
        connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'change' RETURNING value").get
    )
    if number % _PRUNE_EVERY == 0 and (before := number - KEPT_CHANGES) > 0:
        connection.execute("DELETE FROM owners WHERE node_id IS NULL AND change < ?", (before,))
        connection.execute("UPDATE counters SET value = ? WHERE name = 'pruned'", (before,))
    return number


def counter(connection: apsw.Connection, name: str) -> int:
    """Return where a counter stands."""
    return int(connection.execute("SELECT value FROM counters WHERE name = ?", (name,)).get)


def put_owner(connection: apsw.Connection, branch_id: str, database: str, branch: str, node_id: str) -> int:
    """Make a node the owner of a branch, under a new epoch, which is returned."""
    epoch = count_up(connection)
    connection.execute(
        "INSERT OR REPLACE INTO owners VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
        (branch_id, database, branch, node_id, epoch),
    )
    return epoch


def drop_owner(connection: apsw.Connection, branch_id: str, node_id: str, epoch: int) -> bool:
    """Let a branch have no owner, if that node owns it under that epoch; return whether it did."""
    connection.execute(
        "UPDATE owners SET node_id = NULL, change = ?1 WHERE branch_id = ?2 AND node_id = ?3 AND epoch = ?4",
        (count_up(connection), branch_id, node_id, epoch),
    )
    return connection.changes() > 0


def drop_node(connection: apsw.Connection, node_id: str) -> None:
    """Forget a node and all that it owned."""
    owned = connection.execute("SELECT branch_id FROM owners WHERE node_id = ?", (node_id,)).fetchall()
    for (branch_id,) in owned:
        connection.execute(
            "UPDATE owners SET node_id = NULL, change = ? WHERE branch_id = ?",
            (count_up(connection), branch_id),
        )
    connection.execute("DELETE FROM nodes WHERE node_id = ?", (node_id,))


def set_load(connection: apsw.Connection, node_id: str, load: float) -> None:
    """Note the part of a node's capacity in use."""
    connection.execute("UPDATE nodes SET load = ? WHERE node_id = ?", (load, node_id))


def owner_in(connection: apsw.Connection, branch_id: str) -> Owner | None:
    """Return who is noted as the owner, dead or alive."""
    row = connection.execute(_OWNERS + " WHERE o.branch_id = ?", (branch_id,)).fetchone()
    return None if row is None else placed_of(row).owner


def owners_in(connection: apsw.Connection) -> list[Placed]:
    """Return everything that has an owner, dead or alive."""
    return [placed_of(row) for row in connection.execute(_OWNERS + " WHERE o.node_id IS NOT NULL")]


def owners_since(connection: apsw.Connection, change: int) -> list[Placed]:
    """Return what changed its owner after a change, in order."""
    return [
        placed_of(r) for r in connection.execute(_OWNERS + " WHERE o.change > ? ORDER BY o.change", (change,))
    ]


def owned_by(connection: apsw.Connection, node_id: str) -> list[Placed]:
    """Return what a node owns."""
    return [placed_of(row) for row in connection.execute(_OWNERS + " WHERE o.node_id = ?", (node_id,))]


def nodes_in(connection: apsw.Connection) -> list[LiveNode]:
    """Return the nodes that were not seen to end, dead or alive, by id."""
    return [
        LiveNode(*row)
        for row in connection.execute("SELECT node_id, address, load FROM nodes ORDER BY node_id")
    ]


def placed_of(row: tuple[object, ...]) -> Placed:
    """Return a row of `_OWNERS` as what it says."""
    branch_id, database, branch, node_id, address, epoch = row
    owner = None if node_id is None or address is None else Owner(str(node_id), str(address), int(str(epoch)))
    return Placed(str(branch_id), str(database), str(branch), owner)
