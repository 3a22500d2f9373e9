"""Deleting whole databases, and taking a deletion back.

A deletion is a change of the register, which a compare-and-swap decides: `live` to `deleted`, and back, until the
collector begins to delete the objects (`purging`), which is final. The catalog follows: a deleted database gives up
its name at once, and gets it back before anything else of it comes back. Each step may be the last of a process, and
repeating the whole does the rest.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn
from weakref import WeakValueDictionary

from memoturnd.core import manifest as manifests
from memoturnd.core import register as registers
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.engine.branch import Branch
from memoturnd.engine.last_ship import ship_last
from memoturnd.engine.ownership import BranchRef
from memoturnd.engine.registers import Registers
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import AlreadyExistsError, ConflictError, DatabaseNotFoundError
from memoturnd.replication import few_at_once
from memoturnd.replication.archive import BRANCHES
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import COLLECT, ERASE, MAIN, BranchRow, Cap, Chore, Database
from memoturnd.seams.object_store import ObjectMissingError

_ATTEMPTS = 4


class DatabaseDeletion:
    """Deletes databases softly, and undeletes them; one of both per database at a time on this node."""

    def __init__(self, services: Services, tiers: Tiers, files: Registers) -> None:
        self._services = services
        self._tiers = tiers
        self._registers = files
        self._running: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def delete(self, database: Database) -> None:
        """Delete a database with all its branches. It can be undeleted until its grace has passed.

        May be repeated after a failure until it succeeds. Raises StoreUnavailableError.
        """
        async with self._running.setdefault(database.uuid, asyncio.Lock()):
            await self._delete(database)

    async def _delete(self, database: Database) -> None:
        services = self._services
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
            for _ in range(_ATTEMPTS):
                await self._mark_deleted(database, register)
                await services.catalog.delete_database(database.uuid, at_ms=services.clock.now_ms())
                standing = await register.load(fresh=True)
                if standing is None or standing.state != "live":
                    break  # else somebody has brought it back in between, and came first
        finally:
            self._registers.forget(database.uuid)
            for branch in destroyed:  # should the database be there after all, they are restored
                await self._tiers.forget(branch)
        services.departures.note(branch.branch_id for branch in branches)

    async def _mark_deleted(self, database: Database, register: SwapFile[Register]) -> None:
        """Let the register say that the database is deleted. One that was never written gets one that does."""
        now_ms = self._services.clock.now_ms()
        if register.cached is None:
            main = RegisteredBranch(id=database.main_branch_id, created_at=database.created_at)
            grave = Register(
                uuid=database.uuid,
                tenant=database.tenant,
                name=database.name,
                created_at=database.created_at,
                state="deleted",
                deleted_at=now_ms,
                branches={MAIN: main},
            )
            await self._services.catalog.schedule(Chore(COLLECT, database.uuid), now_ms)
            if await register.create(grave):
                await self._services.catalog.mark_written(database.uuid)
                return
            await register.load()
        if register.cached is not None and register.cached.state in {"importing", "live"}:
            await self._services.catalog.schedule(Chore(COLLECT, database.uuid), now_ms)
            with suppress(ObjectMissingError):  # the collector has let it go by now
                await register.update(lambda r: registers.mark_deleted(r, at_ms=now_ms))

    async def _ship_last(self, branches: Sequence[Branch]) -> None:
        """Ship what is local only, a few branches at a time. Raises the first RetryableError."""
        await few_at_once.together(branches, ship_last)

    async def is_half_back(self, database: Database) -> bool:
        """Return whether a deletion or an undeletion of a database that has its name was cut off half way."""
        services = self._services
        register = await self._registers.borrow(database.uuid).load(fresh=True)
        if register is None or register.state != "live":
            return register is not None and register.state != "importing"
        main = await services.manifest_file(database.uuid, database.main_branch_id).load()
        return main is not None and main.deleted_at is not None

    async def undelete(self, database: Database, caps: Sequence[Cap] = ()) -> Database:
        """Bring back a deleted database with the branches that it had; what is there again already is finished.

        Branches that were deleted by themselves stay deleted. Raises DatabaseNotFoundError when its grace has
        passed, AlreadyExistsError when its name is taken, ConflictError when it is deleted again meanwhile,
        OverloadedError where its owner may have no more, StoreUnavailableError.
        """
        async with self._running.setdefault(database.uuid, asyncio.Lock()):
            try:
                return await self._undelete(database, caps)
            finally:
                self._registers.forget(database.uuid)

    async def _undelete(self, database: Database, caps: Sequence[Cap]) -> Database:
        services, uuid = self._services, database.uuid
        file = self._registers.get(uuid)
        register = await file.load(fresh=True)
        if register is None or register.state == "purging":
            await self._too_late(database)
        back = await services.catalog.undelete_database(uuid, caps)
        # Should this be cut off from here on, the collector brings the rest back.
        await services.catalog.schedule(Chore(COLLECT, uuid), services.clock.now_ms())
        try:
            register = await file.update(registers.undelete)
        except ObjectMissingError:
            await self._too_late(database)
        if register.state != "live":
            await self._too_late(database)
        branches = await self._bring_back(register)
        for name, branch in branches.items():
            services.agenda.changed(uuid, branch.id)
            if name != MAIN:
                await self._enter(uuid, name, branch)
        await services.catalog.mark_written(uuid)
        await services.catalog.schedule(Chore(ERASE, uuid), services.clock.now_ms())  # erasures go on
        await self._refuse_deleted_meanwhile(database, file)
        return back

    async def _bring_back(self, register: Register) -> dict[str, RegisteredBranch]:
        """Let every branch be written again that was not deleted by itself, and return them by name.

        Main comes last: where it is back, all are. Forks that were never made are left out.
        """
        branches = await self._services.archive.all(BRANCHES, register)
        back: dict[str, RegisteredBranch] = {}

        async def one(item: tuple[str, RegisteredBranch]) -> None:
            name, branch = item
            file = self._services.manifest_file(register.uuid, branch.id)
            current = await file.load()
            if current is not None and not manifests.is_tombstone(current):
                await file.update(manifests.undelete)
            elif branch.is_new:
                return
            back[name] = branch

        alive = [item for item in branches.items() if not registers.is_deleted_name(item[0])]
        await few_at_once.together([item for item in alive if item[0] != MAIN], one)
        await few_at_once.together([item for item in alive if item[0] == MAIN], one)
        return back

    async def _enter(self, uuid: str, name: str, branch: RegisteredBranch) -> None:
        row = BranchRow(
            uuid, branch.id, name, branch.parent, branch.fork_txid, branch.created_at, branch.expires_at
        )
        with suppress(AlreadyExistsError):
            await self._services.catalog.put_branch(row)

    async def _refuse_deleted_meanwhile(self, database: Database, file: SwapFile[Register]) -> None:
        """Raise ConflictError where the catalog has deleted it again: then so does the register."""
        standing = await self._services.catalog.get_database_by_uuid(database.uuid)
        if standing.deleted_at is not None:
            await file.load(fresh=True)
            await self._mark_deleted(database, file)
            raise ConflictError(f"database {database.qualified_name} was deleted again while it came back")

    async def _too_late(self, database: Database) -> NoReturn:
        await self._services.catalog.forget_database(database.uuid)
        raise DatabaseNotFoundError(
            f"no deleted database {database.qualified_name} waits to be undeleted: its grace has passed"
        )
