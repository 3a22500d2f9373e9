"""Databases: created as a catalog row, registered in object storage with their first write, deleted whole.

A deletion frees the name at once. What was written stays for a while, and goes with the collector.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from memoturnd.core import names
from memoturnd.core.limits import owner_of
from memoturnd.core.register import Register, RegisteredBranch, finish_import, mark_deleted
from memoturnd.engine.branch import Branch
from memoturnd.engine.last_ship import ship_last
from memoturnd.engine.ownership import BranchRef
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import (
    AlreadyExistsError,
    CorruptionError,
    DatabaseNotFoundError,
)
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import COLLECT, MAIN, Chore, Database

_REGISTERS_KEPT = 256
_PARALLEL_SHIPS = 16


class Registers:
    """The `database.json` files that this node has used lately, at most 256."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._files: OrderedDict[str, SwapFile[Register]] = OrderedDict()

    def get(self, uuid: str) -> SwapFile[Register]:
        """Return the register of a database as a compare-and-swap file."""
        file = self._files.get(uuid)
        if file is None:
            file = self._files[uuid] = self._services.register_file(uuid)
            if len(self._files) > _REGISTERS_KEPT:
                self._files.popitem(last=False)
        self._files.move_to_end(uuid)
        return file

    def borrow(self, uuid: str) -> SwapFile[Register]:
        """Return the register without keeping it, for whoever visits many databases once."""
        return self._files.get(uuid) or self._services.register_file(uuid)

    def forget(self, uuid: str) -> None:
        """Drop the register of a deleted database."""
        self._files.pop(uuid, None)

    async def ensure(self, database: Database) -> SwapFile[Register]:
        """Return the register, creating it at the database's first write.

        An import that was cut off when it had its row in the catalog is finished: the rest was there before.
        Raises DatabaseNotFoundError for a database that is being deleted, CorruptionError when the object
        store does not have the register of a database that was written before.
        """
        file = self.get(database.uuid)
        known = await file.load()
        if known is None:
            if database.written:
                raise CorruptionError(
                    f"the object store has no {file.key}, although database {database.name} was written; "
                    "check that MEMOTURN_OBJECT_STORE is the store it was written to"
                )
            main = RegisteredBranch(id=database.main_branch_id, created_at=database.created_at)
            new = Register(
                uuid=database.uuid,
                tenant=database.tenant,
                name=database.name,
                created_at=database.created_at,
                branches={MAIN: main},
            )
            await file.create(new)
            known = await file.load()
        if known is not None and known.state == "importing":
            known = await file.update(finish_import)
        if known is not None and known.state == "live" and not database.written:
            await self._services.catalog.mark_written(database.uuid)
        if known is None or known.state != "live":
            raise DatabaseNotFoundError(f"database {database.name} is being deleted")
        return file


class Databases:
    """Create, look up, list and delete databases, by their qualified names (memoturnd.core.names)."""

    def __init__(self, services: Services, tiers: Tiers, registers: Registers) -> None:
        self._services = services
        self._tiers = tiers
        self._registers = registers

    async def create(self, name: str, *, uuid: str | None = None) -> Database:
        """Create a database: one catalog row, no file; `uuid` (32 hex digits) is random unless given.

        Raises AlreadyExistsError, InvalidRequestError, OverloadedError where its owner may have no more.
        """
        tenant, plain = names.split_qualified(name)
        return await self._insert(names.tenant(tenant), names.new_database(plain), uuid)

    async def get(self, name: str) -> Database:
        """Return the database. Raises DatabaseNotFoundError."""
        return await self._services.catalog.get_database(name)

    async def list(
        self, prefix: str = "", after: str = "", limit: int = 1000, *, tenant: str = names.DEFAULT_TENANT
    ) -> list[Database]:
        """Return up to `limit` of a tenant's databases ordered by name, with names starting `prefix` and above `after`."""
        return await self._services.catalog.list_databases(
            tenant=tenant, prefix=prefix, after=after, limit=limit
        )

    async def ensure_profile(self, name: str) -> Database:
        """Return the database of a profile, creating it where absent. Raises InvalidRequestError, OverloadedError."""
        tenant, plain = names.split_qualified(name)
        try:
            return await self.get(name)
        except DatabaseNotFoundError:
            pass
        try:
            return await self._insert(tenant, plain)
        except AlreadyExistsError:  # somebody else was faster
            return await self.get(name)

    async def _insert(self, tenant: str, name: str, uuid: str | None = None) -> Database:
        randomness = self._services.randomness
        database = Database(
            name,
            uuid or randomness.hex(16),
            randomness.hex(8),
            self._services.clock.now_ms(),
            tenant=tenant,
        )
        caps = await self._services.accounts.caps(owner_of(database.qualified_name))
        await self._services.catalog.create_database(database, caps)
        return database

    async def delete(self, name: str) -> None:
        """Delete a database with all its branches. Its objects go once its grace has passed.

        May be repeated after a failure until it succeeds. Raises DatabaseNotFoundError, StoreUnavailableError.
        """
        services = self._services
        database = await self.get(name)
        rows = await services.catalog.list_branches(database.uuid)
        refs = [BranchRef(database, database.main_branch_id, MAIN)]
        refs += [BranchRef(database, row.branch_id, row.name) for row in rows]
        branches = [self._tiers.get(ref) for ref in refs]
        register = self._registers.get(database.uuid)
        if await register.load(fresh=True) is not None:
            await self._ship_last(branches)
        destroyed: list[Branch] = []
        try:
            for branch in branches:
                await branch.destroy()
                destroyed.append(branch)
            if register.cached is not None:
                now_ms = services.clock.now_ms()
                await services.catalog.schedule(Chore(COLLECT, database.uuid), now_ms)
                await register.update(lambda r: mark_deleted(r, at_ms=now_ms))
            # First as one that can be looked up: with that its tokens are known to be from before.
            await services.catalog.delete_database(database.uuid, at_ms=services.clock.now_ms())
            await services.catalog.forget_database(database.uuid)
        finally:
            self._registers.forget(database.uuid)
            for branch in destroyed:  # should the database be there after all, they are restored
                await self._tiers.forget(branch)

    async def _ship_last(self, branches: Sequence[Branch]) -> None:
        """Ship what is local only, a few branches at a time. Raises the first RetryableError."""
        gate = asyncio.Semaphore(_PARALLEL_SHIPS)

        async def one(branch: Branch) -> None:
            async with gate:
                await ship_last(branch)

        outcomes = await asyncio.gather(*map(one, branches), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
