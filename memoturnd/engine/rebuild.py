"""A lost catalog made anew from the object store: databases and branches from the registers, the rest from the export.

Registers are the truth for what was written; where the catalog says something else it is made to follow. What is
damaged, and what stands against each other, is reported and left out, and holds up nothing else. May be repeated, and
run beside nodes that serve.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import msgspec

from memoturnd.core import database_settings, export, layout, names
from memoturnd.core import register as registers
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.engine.coupons import Coupons
from memoturnd.errors import (
    AlreadyExistsError,
    CorruptionError,
    DatabaseNotFoundError,
    NotFoundError,
)
from memoturnd.replication import few_at_once
from memoturnd.replication.archive import BRANCHES, Archive
from memoturnd.replication.export_log import ExportLog
from memoturnd.seams.catalog import (
    COLLECT,
    ERASE,
    MAIN,
    RETENTION,
    BranchRow,
    Catalog,
    Chore,
    Database,
    Tenant,
)
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore
from memoturnd.stores.repeat import PatientReads

DATABASE: Final = "database"
TENANT: Final = "tenant"
_CHUNK: Final = 256
_SHOWN_LIMIT: Final = 1000
LOST: Final = (
    "usage that was counted since the last export, and all counters of limits",
    "answers kept under an Idempotency-Key by routes of the control plane and of branches: such a request that is sent again takes effect again",
    "the list of nodes, until each reports itself",
    "requests that were under way",
    "never-written databases, tenants, tokens and quotas that were made or changed within the last second or so, before they were exported",
    "work that was due (collection, retention, re-embedding): everything is looked at once, within the maintenance interval",
)
"""What a rebuilt catalog does not have."""


class _Unwritten(msgspec.Struct):
    """The body of a never-written database in the export."""

    tenant: str
    name: str
    main_branch_id: str
    created_at: int


class Change(msgspec.Struct):
    """A change in an object of `v1/_catalog/changes/`, as earlier releases exported never-written databases."""

    op: str
    name: str
    uuid: str
    main_branch_id: str
    created_at: int


@dataclass(slots=True)
class Report:
    """What a rebuild found. Counts are of what came back, or would; `there` of what the catalog had already."""

    came_back: Counter[str] = field(default_factory=Counter)
    there: Counter[str] = field(default_factory=Counter)
    damaged: list[tuple[str, str]] = field(default_factory=list)
    """Keys of objects that cannot be read, and why; the first thousand."""
    conflicts: list[str] = field(default_factory=list)
    """What could not be entered because something else has its place; the first thousand."""
    problems: int = 0

    def damage(self, key: str, error: Exception) -> None:
        """Note an object that cannot be read."""
        self.problems += 1
        if len(self.damaged) < _SHOWN_LIMIT:
            self.damaged.append((key, str(error)))

    def conflict(self, said: str) -> None:
        """Note something that has no place."""
        self.problems += 1
        if len(self.conflicts) < _SHOWN_LIMIT:
            self.conflicts.append(said)


class Rebuild:
    """One rebuild of a catalog. With `is_dry` nothing is changed."""

    def __init__(
        self,
        store: ObjectStore,
        archive: Archive,
        catalog: Catalog,
        *,
        clock: Clock,
        randomness: Randomness,
        due_in_ms: int,
        is_dry: bool = False,
    ) -> None:
        self.report = Report()
        self._store: ObjectStore = PatientReads(
            store, clock
        )  # of thousands of reads any lost one would lose all
        self._archive = archive
        self._catalog = catalog
        self._clock = clock
        self._randomness = randomness
        self._due_in_ms = due_in_ms
        self._is_dry = is_dry
        self._written: set[str] = set()
        self._tenants: set[str] = set()

    async def run(self) -> Report:
        """Make the catalog anew, and return what was found. Raises StoreUnavailableError, RetryableError."""
        kinds = self._catalog.exported_kinds
        states = {kind: await self._exported(kind) for kind in kinds}
        if not self._is_dry:
            newest = max((entry.change for state in states.values() for entry in state.values()), default=0)
            await self._catalog.advance_changes(newest)
        tenants = export.present(states.pop(TENANT))
        await self._restore(TENANT, tenants)
        self._tenants.update(tenants)
        async for chunk in self._registers():
            await self._enter_all(chunk)
        unwritten = export.present(states.pop(DATABASE))
        await self._enter_unwritten({**await self._old_unwritten(), **unwritten})
        for kind, state in states.items():
            await self._restore(kind, export.present(state))
        await self._look_for_lost()
        if not self._is_dry:
            for uuid in await Coupons(self._store, self._clock, self._randomness).databases_waiting():
                await self._catalog.schedule(Chore(ERASE, uuid), self._clock.now_ms())
        return self.report

    # ---- databases that were written

    async def _registers(self) -> AsyncIterator[list[Register]]:
        """Give the registers that can be read, by uuid, some at a time."""
        uuids: list[str] = []
        async for info in self._store.list(f"{layout.ROOT}/"):
            uuid = layout.registered_uuid(info.key)
            if uuid is not None:
                uuids.append(uuid)
            if len(uuids) == _CHUNK:
                yield await self._read_registers(uuids)
                uuids = []
        yield await self._read_registers(uuids)

    async def _read_registers(self, uuids: list[str]) -> list[Register]:
        found: dict[str, Register] = {}

        async def read(uuid: str) -> None:
            key = layout.register_key(uuid)
            try:
                found[uuid] = registers.decode_of((await self._store.get(key)).data, uuid=uuid)
            except ObjectMissingError:
                return  # it was purged since it was listed
            except CorruptionError as error:
                self.report.damage(key, error)
            self._written.add(uuid)

        await few_at_once.together(uuids, read)
        return [found[uuid] for uuid in uuids if uuid in found]

    async def _enter_all(self, chunk: list[Register]) -> None:
        """Enter databases, several at a time; of two with one name the one with the lower uuid comes first."""
        first: list[Register] = []
        second: list[Register] = []
        called: set[tuple[str, str]] = set()
        for found in chunk:
            (second if (found.tenant, found.name) in called else first).append(found)
            called.add((found.tenant, found.name))
        for tenant in sorted({found.tenant for found in chunk} - self._tenants):
            await self._ensure_tenant(tenant, min(f.created_at for f in chunk if f.tenant == tenant))
        await few_at_once.together(first, self._enter)
        for found in second:
            await self._enter(found)

    async def _enter(self, found: Register) -> None:
        """Let the catalog have what a register says."""
        if not self._is_dry:  # the lost catalog knew what is due
            await self._catalog.schedule(Chore(COLLECT, found.uuid), self._due_ms())
        if found.state not in {"live", "deleted"}:
            return
        try:
            branches = await self._archive.all(BRANCHES, found)
            main_branch_id = branches[MAIN].id
        except (CorruptionError, KeyError) as error:
            self.report.damage(layout.register_key(found.uuid), error)
            return
        database = Database(
            found.name,
            found.uuid,
            main_branch_id,
            found.created_at,
            written=True,
            tenant=found.tenant,
            deleted_at=found.deleted_at if found.state == "deleted" else None,
            settings=database_settings.encode(registers.levels(found)),
        )
        if await self._enter_database(database) and found.state == "live":
            await self._enter_branches(found.uuid, branches)

    async def _enter_database(self, database: Database) -> bool:
        """Enter a written database, or let its row follow its register; False where another one has its name."""
        catalog, kind = self._catalog, "databases" if database.deleted_at is None else "deleted databases"
        known = await self._known(database.uuid)
        is_same = known is not None and (known.deleted_at is None) is (database.deleted_at is None)
        if known is not None and known.settings != database.settings and not self._is_dry:
            await catalog.set_settings(database.uuid, database.settings)
        if is_same and known is not None and known.written:
            self.report.there[kind] += 1
            return True
        try:
            if self._is_dry:
                await self._refuse_taken(database)
            elif known is None:
                await catalog.restore_database(database)
            else:
                await self._follow(database)
        except AlreadyExistsError:
            standing = await catalog.get_database(database.qualified_name)
            self.report.conflict(
                f"database {database.qualified_name} ({database.uuid}, created at {database.created_at}) is left out: "
                f"its name is that of {standing.uuid}, created at {standing.created_at}; to have this one instead, "
                "delete that one and rebuild again"
            )
            return False
        self.report.came_back[kind] += 1
        return True

    async def _known(self, uuid: str) -> Database | None:
        try:
            return await self._catalog.get_database_by_uuid(uuid)
        except DatabaseNotFoundError:
            return None

    async def _refuse_taken(self, database: Database) -> None:
        if database.deleted_at is not None:
            return
        with suppress(DatabaseNotFoundError):
            if (await self._catalog.get_database(database.qualified_name)).uuid != database.uuid:
                raise AlreadyExistsError(database.name)

    async def _follow(self, database: Database) -> None:
        """Let a row follow its register. Raises AlreadyExistsError when the name is another's by now."""
        if database.deleted_at is None:
            await self._catalog.undelete_database(database.uuid)
        else:
            await self._catalog.delete_database(database.uuid, at_ms=database.deleted_at)
        await self._catalog.mark_written(database.uuid)

    async def _enter_branches(self, uuid: str, branches: dict[str, RegisteredBranch]) -> None:
        rows = {row.name: row for row in await self._catalog.list_branches(uuid)}
        alive = {name: b for name, b in branches.items() if not registers.is_deleted_name(name)}
        for name, row in rows.items():
            if not self._is_dry and (name not in alive or alive[name].id != row.branch_id):
                await self._catalog.delete_branch(uuid, name, branch_id=row.branch_id)
        for name, branch in alive.items():
            if not self._is_dry:
                await self._catalog.schedule(Chore(RETENTION, uuid, branch.id), self._due_ms())
            if name == MAIN:
                continue
            known = rows.get(name)
            if known is not None and known.branch_id == branch.id:
                self.report.there["branches"] += 1
                continue
            self.report.came_back["branches"] += 1
            if not self._is_dry:
                await self._enter_branch(uuid, name, branch)

    async def _enter_branch(self, uuid: str, name: str, branch: RegisteredBranch) -> None:
        row = BranchRow(
            uuid, branch.id, name, branch.parent, branch.fork_txid, branch.created_at, branch.expires_at
        )
        with suppress(AlreadyExistsError):  # a node that serves was faster
            await self._catalog.put_branch(row)

    async def _look_for_lost(self) -> None:
        """Report databases that the catalog takes for written and that have no register: they are gone for good."""
        tenants = [tenant.name async for tenant in self._all_tenants()]
        for tenant in tenants:
            after = ""
            while rows := await self._catalog.list_databases(tenant=tenant, after=after):
                after = rows[-1].name
                for row in rows:
                    if (
                        row.written
                        and row.uuid not in self._written
                        and not await self._is_registered(row.uuid)
                    ):
                        self.report.conflict(
                            f"database {row.qualified_name} ({row.uuid}) is in the catalog, and the object store has "
                            "nothing of it: delete it, or check which store this is"
                        )

    async def _all_tenants(self) -> AsyncIterator[Tenant]:
        after = ""
        while rows := await self._catalog.list_tenants(after=after):
            after = rows[-1].name
            for row in rows:
                yield row

    async def _is_registered(self, uuid: str) -> bool:
        try:
            await self._store.get(layout.register_key(uuid))
        except ObjectMissingError:
            return False
        return True

    # ---- what was exported

    async def _exported(self, kind: str) -> dict[str, export.Entry]:
        log = ExportLog(self._store, kind, clock=self._clock, randomness=self._randomness)
        state = await log.state()
        for key in sorted(log.damaged):
            self.report.damage(key, CorruptionError("an object of the catalog's export"))
        return state

    async def _old_unwritten(self) -> dict[str, bytes]:
        """Return the never-written databases that an earlier release exported, by uuid."""
        found: dict[str, bytes] = {}
        async for info in self._store.list(layout.catalog_changes_prefix()):
            try:
                data = (await self._store.get(info.key)).data
                changes = msgspec.json.decode(data, type=list[Change])
            except ObjectMissingError:
                continue
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                self.report.damage(info.key, error)
                continue
            for change in changes:
                if change.op == "created":
                    body = _Unwritten(
                        names.DEFAULT_TENANT, change.name, change.main_branch_id, change.created_at
                    )
                    found[change.uuid] = msgspec.json.encode(body)
                else:
                    found.pop(change.uuid, None)
        return found

    async def _enter_unwritten(self, exported: dict[str, bytes]) -> None:
        """Enter what was created and not written since: what is registered is known better."""

        async def one(item: tuple[str, bytes]) -> None:
            uuid, data = item
            if uuid in self._written:
                return
            body = msgspec.json.decode(data, type=_Unwritten)
            database = Database(body.name, uuid, body.main_branch_id, body.created_at, tenant=body.tenant)
            await self._ensure_tenant(body.tenant, body.created_at)
            if await self._known(uuid) is not None:
                self.report.there["never-written databases"] += 1
                return
            try:
                if self._is_dry:
                    await self._refuse_taken(database)
                else:
                    await self._catalog.create_database(database)
            except AlreadyExistsError:
                self.report.conflict(
                    f"never-written database {database.qualified_name} ({uuid}) is left out: its name is taken"
                )
                return
            self.report.came_back["never-written databases"] += 1

        await few_at_once.together(sorted(exported.items()), one)

    async def _restore(self, kind: str, exported: dict[str, bytes]) -> None:
        """Enter what the export has of a kind, where the catalog lacks it."""
        name = f"{kind.removesuffix('s')}s"

        async def one(item: tuple[str, bytes]) -> None:
            try:
                is_new = await self._catalog.restore_exported(kind, *item, is_dry=self._is_dry)
            except (msgspec.MsgspecError, KeyError, NotFoundError) as error:
                self.report.conflict(f"{kind} {item[0]} is left out: {error}")
                return
            (self.report.came_back if is_new else self.report.there)[name] += 1

        await few_at_once.together(sorted(exported.items()), one)

    async def _ensure_tenant(self, name: str, created_at: int) -> None:
        if name in self._tenants:
            return
        self._tenants.add(name)
        try:
            await self._catalog.get_tenant(name)
        except NotFoundError:
            self.report.came_back["tenants"] += 1
            if not self._is_dry:
                with suppress(AlreadyExistsError):
                    await self._catalog.create_tenant(name, created_at)

    def _due_ms(self) -> int:
        return self._clock.now_ms() + self._due_in_ms
