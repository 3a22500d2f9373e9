"""The embedded catalog: one SQLite file, used inline on the event loop because every call is a few microseconds.

A database's row number is the change number of its creation (AUTOINCREMENT: never used again), so that a
provision is one small insert. Deletions draw from the same sequence. A deletion is recorded only when its
creation was already handed out by `unwritten_changes`, and dropped once a caller asks for what comes after
it, so `deletions` stays as small as one round of export.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import apsw

from memoturnd.core import names
from memoturnd.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    ConfigurationError,
    CorruptionError,
    DatabaseNotFoundError,
    DiskFullError,
    RetryableError,
)
from memoturnd.seams.catalog import (
    COLLECT,
    MAIN,
    RETENTION,
    BranchRow,
    Chore,
    ClaimedChore,
    Database,
    KnownRequest,
    RequestKey,
)

SCHEMA_VERSION = 3
BUSY_TIMEOUT_MS = 1000
CHECKPOINT_PAGES = 1000

_CHORES = """
CREATE TABLE chores(
  kind TEXT NOT NULL,
  db_uuid TEXT NOT NULL,
  branch_id TEXT NOT NULL,
  due_at INTEGER NOT NULL,
  claimed INTEGER NOT NULL DEFAULT 0,
  again_at INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(kind, db_uuid, branch_id)
) WITHOUT ROWID;
CREATE INDEX chores_due ON chores(due_at);
"""
_REQUESTS = """
CREATE TABLE requests(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  scope TEXT NOT NULL,
  route TEXT NOT NULL,
  principal TEXT NOT NULL,
  key TEXT NOT NULL,
  digest BLOB NOT NULL,
  at INTEGER NOT NULL,
  facts BLOB NOT NULL,
  answer BLOB,
  UNIQUE(scope, route, principal, key)
);
"""
_OF_REQUEST = "scope = ? AND route = ? AND principal = ? AND key = ?"
# A catalog of the first version: every database that was written is looked at once.
_MIGRATE_1 = f"""
{_CHORES}
INSERT INTO chores(kind, db_uuid, branch_id, due_at)
  SELECT '{COLLECT}', uuid, '', 0 FROM databases WHERE written
  UNION ALL SELECT '{RETENTION}', uuid, main_branch_id, 0 FROM databases WHERE written
  UNION ALL SELECT '{RETENTION}', db_uuid, branch_id, 0 FROM branches;
"""

_MIGRATIONS = (_MIGRATE_1, _REQUESTS)
"""`_MIGRATIONS[n]` takes a catalog from version n + 1 to n + 2."""

_SCHEMA = f"""{_CHORES}
{_REQUESTS}
CREATE TABLE databases(
  change INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  uuid TEXT NOT NULL UNIQUE,
  main_branch_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  written INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX databases_unwritten ON databases(change) WHERE written = 0;
CREATE TABLE deletions(
  change INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  uuid TEXT NOT NULL,
  main_branch_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  written INTEGER NOT NULL
);
CREATE TABLE handed_out(change INTEGER NOT NULL);
INSERT INTO handed_out VALUES (0);
CREATE TABLE branches(
  db_uuid TEXT NOT NULL REFERENCES databases(uuid) ON DELETE CASCADE,
  name TEXT NOT NULL,
  branch_id TEXT NOT NULL,
  parent TEXT NOT NULL,
  fork_txid INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  PRIMARY KEY(db_uuid, name)
) WITHOUT ROWID;
CREATE INDEX branches_due ON branches(expires_at) WHERE expires_at IS NOT NULL;
"""

_DATABASE = "name, uuid, main_branch_id, created_at, written"
_BRANCH = "db_uuid, branch_id, name, parent, fork_txid, created_at, expires_at"
_INSERT_DATABASE = f"INSERT INTO databases({_DATABASE}) VALUES (?, ?, ?, ?, ?)"
_GET_DATABASE = f"SELECT {_DATABASE} FROM databases WHERE name = ?"
_LIST_DATABASES = f"""
  SELECT {_DATABASE} FROM databases
  WHERE name >= ? AND name > ? AND name < ? AND (NOT ? OR instr(name, '/') = 0) ORDER BY name LIMIT ?"""
_NEXT_WRITTEN = f"""
  SELECT {_DATABASE} FROM databases WHERE uuid > ? AND written ORDER BY uuid LIMIT 1"""
# One answer from two tables. Each arm stops by itself at the limit, so a long history costs nothing.
_CHANGES = f"""
  SELECT * FROM (SELECT change, 'created', {_DATABASE} FROM databases
                 WHERE written = 0 AND change > ?1 ORDER BY change LIMIT ?2)
  UNION ALL
  SELECT * FROM (SELECT change, 'deleted', {_DATABASE} FROM deletions
                 WHERE change > ?1 ORDER BY change LIMIT ?2)
  ORDER BY 1 LIMIT ?2"""
# A claimed chore keeps the end of its claim in due_at, and what it is scheduled for meanwhile in again_at.
_SCHEDULE = """
  INSERT INTO chores(kind, db_uuid, branch_id, due_at) VALUES (?1, ?2, ?3, ?4)
  ON CONFLICT DO UPDATE SET
    due_at = CASE WHEN claimed THEN due_at ELSE min(due_at, ?4) END,
    again_at = CASE WHEN claimed THEN min(coalesce(again_at, ?4), ?4) END"""
_ABOVE_ALL_TEXT = "\U0010ffff"


class SqliteCatalog:
    """A catalog in the file `path`, made on opening, or in memory for `:memory:`.

    Raises ConfigurationError when the file cannot be opened or is newer than this release, CorruptionError
    when it is damaged. Every method raises RetryableError when SQLite cannot serve it now, DiskFullError
    when the disk is full.
    """

    def __init__(
        self, path: Path | Literal[":memory:"], *, sync: Literal["normal", "full"] = "normal"
    ) -> None:
        self._path = path
        try:
            self._connection = _open(path, sync)
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise CorruptionError(
                f"the catalog {path} is not a readable SQLite file ({error}); move it away and restore a copy",
            ) from error
        except apsw.Error as error:
            raise ConfigurationError(
                f"cannot open the catalog {path} ({error}); check that its folder exists and is writable",
            ) from error
        self._run = self._connection.execute

    async def create_database(self, database: Database) -> None:
        """Insert one database. Raises AlreadyExistsError when the name (or the uuid) is taken."""
        with self._translated():
            try:
                self._run(
                    _INSERT_DATABASE,
                    (
                        database.qualified_name,
                        database.uuid,
                        database.main_branch_id,
                        database.created_at,
                        database.written,
                    ),
                )
            except apsw.ConstraintError as error:
                raise AlreadyExistsError(
                    f"database {database.qualified_name} already exists: use another name"
                ) from error

    async def get_database(self, name: str) -> Database:
        """Return the database. Raises DatabaseNotFoundError."""
        with self._translated():
            for row in self._run(_GET_DATABASE, (name,)):
                return _database(*row)
        raise DatabaseNotFoundError(f"no database {name}: create it first")

    async def get_database_by_uuid(self, uuid: str) -> Database:
        """Return the database. Raises DatabaseNotFoundError."""
        with self._translated():
            for row in self._run(f"SELECT {_DATABASE} FROM databases WHERE uuid = ?", (uuid,)):
                return _database(*row)
        raise DatabaseNotFoundError(f"no database has the id {uuid}")

    async def list_databases(
        self, *, tenant: str = names.DEFAULT_TENANT, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[Database]:
        """Return up to `limit` of a tenant's databases ordered by name, with names starting `prefix` and above `after`."""
        first, above = names.qualified(tenant, prefix), names.qualified(tenant, after)
        with self._translated():
            rows = self._run(
                _LIST_DATABASES,
                (first, above, first + _ABOVE_ALL_TEXT, tenant == names.DEFAULT_TENANT, max(0, limit)),
            )
            return [_database(*row) for row in rows]

    async def is_empty(self) -> bool:
        """Return whether no tenant has a database."""
        with self._translated():
            return not self._run("SELECT EXISTS (SELECT 1 FROM databases)").get

    async def written_after(self, uuid: str) -> Database | None:
        """Return the written database with the next higher uuid, after the highest the lowest; None without one."""
        with self._translated():
            for lowest in (uuid, ""):
                for row in self._run(_NEXT_WRITTEN, (lowest,)):
                    return _database(*row)
        return None

    async def mark_written(self, uuid: str) -> None:
        """Record that the database has its `database.json`."""
        with self._translated():
            self._run("UPDATE databases SET written = 1 WHERE uuid = ?", (uuid,))

    async def delete_database(self, uuid: str) -> None:
        """Remove the database and its branch rows; no error when it is already gone."""
        with self._translated(), self._connection:
            for change, *values in self._run(
                f"SELECT change, {_DATABASE} FROM databases WHERE uuid = ?", (uuid,)
            ):
                self._run("DELETE FROM databases WHERE change = ?", (change,))
                self._record_deletion(change, values)

    def _record_deletion(self, created: int, values: list[Any]) -> None:
        if created > self._connection.execute("SELECT change FROM handed_out").get:
            return  # nobody has heard of it
        self._run("UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'databases'")
        self._run(
            f"INSERT INTO deletions(change, {_DATABASE}) "
            "VALUES ((SELECT seq FROM sqlite_sequence WHERE name = 'databases'), ?, ?, ?, ?, ?)",
            values,
        )

    async def put_branch(self, row: BranchRow) -> None:
        """Insert a branch.

        Raises AlreadyExistsError when the database has a branch of that name (main always exists),
        DatabaseNotFoundError when there is no such database.
        """
        if row.name == MAIN:
            raise AlreadyExistsError(f"branch {MAIN} always exists: use another name")
        values = (
            row.db_uuid,
            row.branch_id,
            row.name,
            row.parent,
            row.fork_txid,
            row.created_at,
            row.expires_at,
        )
        with self._translated():
            try:
                self._run(f"INSERT INTO branches({_BRANCH}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
            except apsw.ConstraintError as error:
                if _extended_result(error) == apsw.SQLITE_CONSTRAINT_FOREIGNKEY:
                    raise DatabaseNotFoundError(f"no database {row.db_uuid}: create it first") from error
                raise AlreadyExistsError(f"branch {row.name} already exists: use another name") from error

    async def get_branch(self, db_uuid: str, name: str) -> BranchRow:
        """Return the branch. Raises BranchNotFoundError."""
        with self._translated():
            for row in self._run(
                f"SELECT {_BRANCH} FROM branches WHERE db_uuid = ? AND name = ?", (db_uuid, name)
            ):
                return BranchRow(*row)
        raise BranchNotFoundError(f"no branch {name}: list the branches to see what exists")

    async def list_branches(self, db_uuid: str) -> list[BranchRow]:
        """Return the branches of a database other than main, ordered by name."""
        with self._translated():
            rows = self._run(f"SELECT {_BRANCH} FROM branches WHERE db_uuid = ? ORDER BY name", (db_uuid,))
            return [BranchRow(*row) for row in rows]

    async def delete_branch(self, db_uuid: str, name: str, *, branch_id: str | None = None) -> None:
        """Remove a branch row, with `branch_id` only that branch's; no error when it is already gone."""
        with self._translated():
            self._run(
                "DELETE FROM branches WHERE db_uuid = ?1 AND name = ?2 AND branch_id = coalesce(?3, branch_id)",
                (db_uuid, name, branch_id),
            )

    async def due_branches(self, now_ms: int, *, limit: int = 100) -> list[BranchRow]:
        """Return burners whose `expires_at` is at or before `now_ms`, oldest first, by index."""
        with self._translated():
            rows = self._run(
                f"SELECT {_BRANCH} FROM branches WHERE expires_at <= ? ORDER BY expires_at LIMIT ?",
                (now_ms, max(0, limit)),
            )
            return [BranchRow(*row) for row in rows]

    async def schedule(self, chore: Chore, due_ms: int) -> None:
        """Let the chore be due at `due_ms`, or earlier where it is already; one under way is due again then."""
        with self._translated():
            self._run(_SCHEDULE, (chore.kind, chore.db_uuid, chore.branch_id, due_ms))

    async def claim_due(self, now_ms: int, *, until_ms: int, limit: int = 10) -> list[ClaimedChore]:
        """Take what is due at `now_ms`, oldest first, by index. Nobody else gets it before `until_ms`."""
        with self._translated():
            due: list[Any] = self._run(
                "SELECT kind, db_uuid, branch_id, due_at, attempts FROM chores WHERE due_at <= ? "
                "ORDER BY due_at LIMIT ?",
                (now_ms, max(0, limit)),
            ).fetchall()
            if not due:  # the usual answer, which writes nothing
                return []
            with self._connection:
                for kind, db_uuid, branch_id, _, _ in due:
                    self._run(
                        "UPDATE chores SET due_at = ?, claimed = 1, attempts = attempts + 1 "
                        "WHERE kind = ? AND db_uuid = ? AND branch_id = ?",
                        (until_ms, kind, db_uuid, branch_id),
                    )
        return [
            ClaimedChore(Chore(kind, db_uuid, branch_id), due_at, until_ms, attempts + 1)
            for kind, db_uuid, branch_id, due_at, attempts in due
        ]

    async def finish(self, claimed: ClaimedChore, *, next_ms: int | None, failed: bool = False) -> None:
        """End a claim: the chore is due at `next_ms` again, or when it was scheduled meanwhile, else never."""
        chore = claimed.chore
        key = (chore.kind, chore.db_uuid, chore.branch_id, claimed.until)
        ours = "WHERE kind = ? AND db_uuid = ? AND branch_id = ? AND due_at = ? AND claimed"
        with self._translated(), self._connection:
            row = self._run(f"SELECT again_at FROM chores {ours}", key).fetchone()
            if row is None:
                return
            wanted = [at for at in (row[0], next_ms) if at is not None]
            if not wanted:
                self._run(f"DELETE FROM chores {ours}", key)
                return
            attempts = claimed.attempts if failed else 0
            self._run(
                f"UPDATE chores SET due_at = ?, claimed = 0, again_at = NULL, attempts = ? {ours}",
                (min(wanted), attempts, *key),
            )

    async def unwritten_changes(self, since: int, *, limit: int = 1000) -> list[tuple[int, str, Database]]:
        """Return (change number, `created` or `deleted`, database) after change `since`, in order.

        Passing `since` confirms that everything up to it is exported: there is one caller. A database that
        came and went, or was written, before anybody asked does not appear.
        """
        with self._translated(), self._connection:
            self._run("DELETE FROM deletions WHERE change <= ?", (since,))
            rows: list[Any] = self._run(_CHANGES, (since, max(0, limit))).fetchall()
            if rows:
                self._run("UPDATE handed_out SET change = max(change, ?)", (rows[-1][0],))
        return [(change, kind, _database(*values)) for change, kind, *values in rows]

    async def find_request(self, key: RequestKey, since_ms: int) -> KnownRequest | None:
        """Return a request that began at or after `since_ms`, None where there is none."""
        with self._translated():
            for row in self._run(
                f"SELECT digest, facts, answer FROM requests WHERE {_OF_REQUEST} AND at >= ?",
                (*key, since_ms),
            ):
                return KnownRequest(*row)
        return None

    async def begin_request(
        self, key: RequestKey, digest: bytes, facts: bytes, at_ms: int, *, keep: int
    ) -> None:
        """Note that a request begins, in place of an older one of its key; the newest `keep` are kept."""
        with self._translated(), self._connection:
            self._run(
                "INSERT OR REPLACE INTO requests(scope, route, principal, key, digest, at, facts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, digest, at_ms, facts),
            )
            self._run("DELETE FROM requests WHERE seq <= ?", (self._connection.last_insert_rowid() - keep,))

    async def finish_request(self, key: RequestKey, answer: bytes) -> None:
        """Keep the answer of a request that began."""
        with self._translated():
            self._run(f"UPDATE requests SET answer = ? WHERE {_OF_REQUEST}", (answer, *key))

    async def forget_request(self, key: RequestKey) -> None:
        """Let go of a request that has changed nothing."""
        with self._translated():
            self._run(f"DELETE FROM requests WHERE {_OF_REQUEST}", key)

    async def ping(self) -> None:
        """Raise RetryableError when the catalog does not answer."""
        with self._translated():
            self._run("SELECT count(*) FROM handed_out").fetchall()

    async def close(self) -> None:
        """Close the file; later calls raise RetryableError."""
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except apsw.FullError as error:
            raise DiskFullError(
                f"no room to write the catalog {self._path}; free space on its disk"
            ) from error
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raise CorruptionError(
                f"the catalog {self._path} is damaged ({error}); stop the node and restore a copy",
            ) from error
        except apsw.Error as error:
            raise RetryableError(
                f"the catalog {self._path} does not answer ({error}); try again, then check its disk",
            ) from error


def _open(path: Path | Literal[":memory:"], sync: str) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        connection.transaction_mode = "IMMEDIATE"
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {sync}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        _settle_schema(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _settle_schema(connection: apsw.Connection, path: Path | Literal[":memory:"]) -> None:
    with connection:
        version = connection.execute("PRAGMA user_version").get
        if version == SCHEMA_VERSION:
            return
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"the catalog {path} has schema version {version}, this release knows {SCHEMA_VERSION}: "
                "start the newer release that wrote it",
            )
        if version:
            for migration in _MIGRATIONS[version - 1 :]:
                connection.execute(migration)
        elif connection.execute("SELECT count(*) FROM sqlite_schema").get:
            raise ConfigurationError(f"{path} is a SQLite file of something else: move it away")
        else:
            connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _database(name: str, uuid: str, main_branch_id: str, created_at: int, written: int) -> Database:
    tenant, plain = names.split_qualified(name)
    return Database(plain, uuid, main_branch_id, created_at, bool(written), tenant)


def _extended_result(error: apsw.Error) -> int:
    result: int = cast("Any", error).extendedresult  # missing in the type stubs
    return result
