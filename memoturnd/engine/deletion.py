"""Deleting branches and databases, and taking a branch's deletion back.

A deletion is a change of the register: the name is free at once, and id and manifest stay for a while. The
manifest says that it is deleted too, so that whoever owns the branch elsewhere commits no more. The
collector lets go of both once the grace has passed (memoturnd.replication.collector).
"""

from dataclasses import dataclass

from memoturnd.core import manifest as transitions
from memoturnd.core import register as registers
from memoturnd.core.manifest import Manifest, Parent
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.engine.last_ship import ship_last
from memoturnd.engine.ownership import BranchRef
from memoturnd.engine.registers import Registers
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    ConflictError,
    RetryableError,
)
from memoturnd.replication.archive import BRANCHES, update_names
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import COLLECT, ERASE, BranchRow, Chore, Database


@dataclass(frozen=True, slots=True)
class DeletedBranch:
    """A deleted branch that can still come back. Times are unix ms; `until` is when it goes for good."""

    name: str
    branch_id: str
    parent: str
    fork_txid: int
    created_at: int
    expires_at: int | None
    deleted_at: int
    until: int


class Deletion:
    """Deletes branches softly. One call per database at a time."""

    def __init__(self, services: Services, tiers: Tiers, files: Registers) -> None:
        self._services = services
        self._tiers = tiers
        self._registers = files

    async def delete(self, database: Database, row: BranchRow) -> None:
        """Delete a branch that the catalog has. May be repeated until it succeeds. Raises StoreUnavailableError."""
        services = self._services
        branch = self._tiers.get(BranchRef(database, row.branch_id, row.name))
        now_ms = services.clock.now_ms()
        if row.expires_at is None or now_ms < row.expires_at:
            await ship_last(branch)
        await branch.destroy()
        try:
            await self._delete_stored(database, row, branch.manifests, now_ms)
        finally:
            await self._tiers.forget(branch)  # should it be there after all, it is restored
        await services.catalog.delete_branch(database.uuid, row.name, branch_id=row.branch_id)
        services.departures.note([row.branch_id])

    async def _delete_stored(
        self, database: Database, row: BranchRow, manifest: SwapFile[Manifest], now_ms: int
    ) -> None:
        services, uuid = self._services, database.uuid
        file = self._registers.get(uuid)
        register = await file.load(fresh=True)
        if register is None:
            return
        known = await services.archive.find(BRANCHES, register, row.name)
        if known is not None and known.id == row.branch_id:
            made = await self._is_made(register, row, known, manifest, now_ms)
            entry = registers.replace(known, is_new=not made)
            due_ms = now_ms + services.graces.of(entry)
            await services.catalog.schedule(Chore(COLLECT, uuid), due_ms)
            await update_names(
                services.archive,
                BRANCHES,
                file,
                lambda r: registers.delete_branch(r, row.name, entry, at_ms=now_ms),
            )
        if await manifest.load(fresh=True) is not None:
            await manifest.update(lambda m: transitions.delete(m, at_ms=now_ms))

    async def _is_made(
        self,
        register: Register,
        row: BranchRow,
        known: RegisteredBranch,
        manifest: SwapFile[Manifest],
        now_ms: int,
    ) -> bool:
        """Return whether the branch has a manifest; where it has none, see to it that it never gets one."""
        if await manifest.load(fresh=True) is None:
            parent = await self._services.archive.find(BRANCHES, register, known.parent)
            grave = transitions.tombstone(
                db=register.uuid,
                branch_id=row.branch_id,
                branch=row.name,
                parent=Parent(parent.id, known.parent, known.fork_txid) if parent is not None else None,
                at_ms=now_ms,
            )
            if await manifest.create(grave):
                return False
        current = await manifest.load()
        return current is not None and (current.deleted_at is None or not known.is_new)

    async def waiting(self, database: Database) -> list[DeletedBranch]:
        """Return the deleted branches that can still come back, by name and id."""
        services = self._services
        register = await self._registers.get(database.uuid).load(fresh=True)
        if register is None:
            return []
        now_ms = services.clock.now_ms()
        found = []
        for key, entry in (await services.archive.all(BRANCHES, register)).items():
            if not registers.is_deleted_name(key) or entry.deleted_at is None or entry.is_new:
                continue
            until = entry.deleted_at + services.graces.of(entry)
            if entry.expires_at is not None:
                until = min(until, entry.expires_at)
            if until > now_ms:
                found.append(_deleted(registers.plain_name(key), entry, entry.deleted_at, until))
        return sorted(found, key=lambda branch: (branch.name, branch.branch_id))

    async def undelete(self, database: Database, name: str) -> BranchRow:
        """Bring back the branch that was deleted last under `name`; what is there again already is finished.

        Raises BranchNotFoundError where none waits, AlreadyExistsError where the name is taken by now,
        ConflictError for a burner whose time has passed.
        """
        services, file = self._services, self._registers.get(database.uuid)
        if await file.load(fresh=True) is None:
            raise _none_deleted(database, name)
        register = await update_names(services.archive, BRANCHES, file, lambda r: r)
        branches = await services.archive.all(BRANCHES, register)
        entry = branches.get(name)
        if entry is None:
            entry = self._last_deleted(database, branches, name)

            def bring_back(current: Register) -> Register:
                if current.branch_runs != register.branch_runs:
                    raise RetryableError(f"the branches of {database.name} changed meanwhile; try again")
                gone = current.branches.get(registers.deleted_name(name, entry.id), entry)
                if gone is None:
                    raise _none_deleted(database, name)
                return registers.undelete_branch(current, name, entry)

            await file.update(bring_back)
        elif not await self._is_half_back(database, entry):
            raise AlreadyExistsError(
                f"branch {name} of {database.name} exists: delete or keep it, the one deleted before can wait"
            )
        manifest = services.manifest_file(database.uuid, entry.id)
        await manifest.update(transitions.undelete)
        services.agenda.changed(database.uuid, entry.id)
        row = BranchRow(
            database.uuid, entry.id, name, entry.parent, entry.fork_txid, entry.created_at, entry.expires_at
        )
        await services.catalog.delete_branch(database.uuid, name, branch_id=entry.id)
        await services.catalog.put_branch(row)
        # An erasure that was asked for meanwhile has not looked at it.
        await services.catalog.schedule(Chore(ERASE, database.uuid), services.clock.now_ms())
        return row

    async def _is_half_back(self, database: Database, entry: RegisteredBranch) -> bool:
        """Return whether an undeletion was cut off before the manifest followed the register."""
        current = await self._services.manifest_file(database.uuid, entry.id).load()
        return current is not None and current.deleted_at is not None and not entry.is_new

    def _last_deleted(
        self, database: Database, branches: dict[str, RegisteredBranch], name: str
    ) -> RegisteredBranch:
        deleted = [
            branch
            for key, branch in branches.items()
            if registers.is_deleted_name(key) and registers.plain_name(key) == name and not branch.is_new
        ]
        if not deleted:
            raise _none_deleted(database, name)
        last = max(deleted, key=lambda branch: branch.deleted_at or 0)
        if last.expires_at is not None and last.expires_at <= self._services.clock.now_ms():
            raise ConflictError(f"branch {name} of {database.name} was a burner whose time has passed")
        return last


def _deleted(name: str, entry: RegisteredBranch, deleted_at: int, until: int) -> DeletedBranch:
    return DeletedBranch(
        name, entry.id, entry.parent, entry.fork_txid, entry.created_at, entry.expires_at, deleted_at, until
    )


def _none_deleted(database: Database, name: str) -> BranchNotFoundError:
    return BranchNotFoundError(
        f"no deleted branch {name} of {database.name} waits to be undeleted: there was none, or its grace has passed"
    )
