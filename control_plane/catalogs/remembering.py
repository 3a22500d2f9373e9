"""A catalog that a node can do without for a while: what it was told lately, it still knows when nobody answers.

Only lookups of one database or branch are answered so, only while the catalog does not answer, and never what was
deleted through this node. What another node deletes meanwhile is not known here: its objects are marked in the
bucket, so that nobody takes such a branch over any more.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Final, Generic, TypeVar

from control_plane.catalogs.backend import Backend
from control_plane.catalogs.catalog import SqlCatalog
from memoturnd.errors import BranchNotFoundError, DatabaseNotFoundError, RetryableError
from memoturnd.seams.catalog import BranchRow, Cap, Database

KNOWN_ROWS: Final = 50_000
"""Databases that are remembered, and branches; some 500 bytes each."""
GONE_ROWS: Final = 10_000
_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class Latest(Generic[_Key, _Value]):
    """A mapping that drops what was used longest ago, beyond `most` entries."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows: OrderedDict[_Key, _Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: _Key) -> bool:
        return key in self._rows

    def get(self, key: _Key) -> _Value | None:
        """Return the value, None where there is none."""
        return self._rows.get(key)

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value as the latest."""
        self._rows[key] = value
        self._rows.move_to_end(key)
        if len(self._rows) > self._most:
            self._rows.popitem(last=False)

    def drop(self, key: _Key) -> _Value | None:
        """Remove an entry, and return its value; None where there is none."""
        return self._rows.pop(key, None)


class RememberingCatalog(SqlCatalog):
    """A catalog that remembers. `remembered` is called for each lookup that was answered from memory."""

    def __init__(
        self, backend: Backend, *, remembered: Callable[[], None] = lambda: None, most: int = KNOWN_ROWS
    ) -> None:
        super().__init__(backend)
        self._remembered = remembered
        self._databases: Latest[str, Database] = Latest(most)
        self._names: Latest[str, str] = Latest(most)
        self._branches: Latest[tuple[str, str], BranchRow] = Latest(most)
        self._gone: Latest[str, None] = Latest(GONE_ROWS)

    @property
    def known_rows(self) -> int:
        """How many databases and branches are remembered."""
        return len(self._databases) + len(self._branches)

    async def get_database(self, name: str) -> Database:
        """Return the database. Raises DatabaseNotFoundError."""
        try:
            database = await super().get_database(name)
        except DatabaseNotFoundError:
            if (known := self._databases.drop(name)) is not None:
                self._names.drop(known.uuid)
            raise
        except RetryableError as error:
            return self._known(self._databases.get(name), error)
        self._keep(database)
        return database

    async def get_database_by_uuid(self, uuid: str) -> Database:
        """Return the database, deleted or not. Raises DatabaseNotFoundError."""
        try:
            database = await super().get_database_by_uuid(uuid)
        except DatabaseNotFoundError:
            self._drop(uuid)
            raise
        except RetryableError as error:
            name = self._names.get(uuid)
            return self._known(None if name is None else self._databases.get(name), error)
        self._keep(database)
        return database

    async def get_branch(self, db_uuid: str, name: str) -> BranchRow:
        """Return the branch. Raises BranchNotFoundError."""
        key = (db_uuid, name)
        try:
            row = await super().get_branch(db_uuid, name)
        except BranchNotFoundError:
            self._branches.drop(key)
            raise
        except RetryableError as error:
            return self._known(self._branches.get(key), error)
        if row.branch_id not in self._gone and db_uuid not in self._gone:
            self._branches.put(key, row)
        return row

    async def mark_written(self, uuid: str) -> None:
        """Record that the database has its `database.json`: it has, whatever the catalog answers."""
        name = self._names.get(uuid)
        known = None if name is None else self._databases.get(name)
        if known is not None and known.uuid == uuid:
            self._databases.put(known.qualified_name, replace(known, written=True))
        await super().mark_written(uuid)

    async def delete_database(self, uuid: str, *, at_ms: int) -> None:
        """Mark the database as deleted, here at once, whatever the catalog answers."""
        self._bury(uuid)
        await super().delete_database(uuid, at_ms=at_ms)

    async def forget_database(self, uuid: str) -> None:
        """Remove the database, here at once, whatever the catalog answers."""
        self._bury(uuid)
        await super().forget_database(uuid)

    async def undelete_database(self, uuid: str, caps: Sequence[Cap] = ()) -> Database:
        """Give a deleted database its name back; one that is live is returned."""
        database = await super().undelete_database(uuid, caps)
        self._gone.drop(uuid)
        return database

    async def delete_branch(self, db_uuid: str, name: str, *, branch_id: str | None = None) -> None:
        """Remove a branch row, here at once, whatever the catalog answers."""
        known = self._branches.drop((db_uuid, name))
        for gone in {branch_id, None if known is None else known.branch_id} - {None}:
            self._gone.put(str(gone), None)
        await super().delete_branch(db_uuid, name, branch_id=branch_id)

    async def put_branch(self, row: BranchRow) -> None:
        """Insert a branch; one that was deleted may come back."""
        await super().put_branch(row)
        self._gone.drop(row.branch_id)

    def _known(self, row: _Value | None, error: RetryableError) -> _Value:
        """Return what is remembered; where nothing is, raise the error that the catalog answered with."""
        if row is None:
            raise error
        self._remembered()
        return row

    def _keep(self, database: Database) -> None:
        if database.deleted_at is not None:
            self._drop(database.uuid)
        elif database.uuid not in self._gone:
            self._databases.put(database.qualified_name, database)
            self._names.put(database.uuid, database.qualified_name)

    def _drop(self, uuid: str) -> None:
        name = self._names.drop(uuid)
        known = None if name is None else self._databases.get(name)
        if name is not None and known is not None and known.uuid == uuid:
            self._databases.drop(name)

    def _bury(self, uuid: str) -> None:
        self._gone.put(uuid, None)
        self._drop(uuid)
