"""What keeps the catalog's databases safe beyond the node's disk, and brings them back.

A written database is described by its own `database.json`. One that was created and never written exists
only in the catalog: its creation is exported as a small immutable object under `v1/_catalog/changes/` within
a second. A node that starts with an empty catalog on a store that has data rebuilds it from both.
"""

from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import structlog

from memoturnd.core import layout, names, register
from memoturnd.core.register import Register
from memoturnd.engine.services import Services
from memoturnd.errors import AlreadyExistsError, CorruptionError, NotFoundError
from memoturnd.replication.archive import BRANCHES
from memoturnd.seams.catalog import COLLECT, MAIN, RETENTION, BranchRow, Chore, Database, Export

EXPORT_S = 1.0
_BATCH = 1000
_COMPACT_OBJECTS = 100
_log = structlog.get_logger(__name__)


class Change(msgspec.Struct, frozen=True):
    """One exported change: `op` is `created` or `deleted`; `created_at` is unix ms."""

    op: str
    name: str
    uuid: str
    main_branch_id: str
    created_at: int
    tenant: str = names.DEFAULT_TENANT


class CatalogExport:
    """Exports never-written databases, and rebuilds a lost catalog."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._keys: list[str] = []

    async def export(self) -> int:
        """Export what changed since the last call and return how many changes that were."""
        total = 0
        while pending := await self._services.catalog.pending_exports(_BATCH):
            await self._put([_change(row) for row in pending if row.kind == "database"])
            await self._services.catalog.exported([row.change for row in pending])
            total += len(pending)
        if len(self._keys) > _COMPACT_OBJECTS:
            await self._compact()
        return total

    async def _put(self, rows: list[Change]) -> None:
        now_ms = self._services.clock.now_ms()
        key = f"{layout.catalog_changes_prefix()}{now_ms:013d}-{self._services.randomness.hex(8)}.json"
        await self._services.store.put(key, msgspec.json.encode(rows))
        self._keys.append(key)

    async def _compact(self) -> None:
        """Write every never-written database that still exists anew, then drop what that replaces."""
        waiting = [*(await self._unwritten()).values()]
        replaced, self._keys = self._keys, []
        for start in range(0, len(waiting), _BATCH):
            await self._put(waiting[start : start + _BATCH])
        for key in replaced:
            await self._services.store.delete(key)

    async def start(self, *, doubtful: bool) -> int:
        """Rebuild the catalog where it is empty, or `doubtful`, and return how many databases came back.

        A catalog is doubtful after the machine went down under it: its last rows may not have reached the
        disk, while the objects that belong to them did. So is one of which no start was ever finished.
        """
        restored = 0
        if doubtful or await self._services.catalog.is_empty():
            restored = await self._rebuild()
        async for info in self._services.store.list(layout.catalog_changes_prefix()):
            self._keys.append(info.key)
        return restored

    async def _rebuild(self) -> int:
        restored, deleted = 0, set()
        async for found in self._registers():
            # The lost catalog knew what is due; now everything is looked at once.
            await self._schedule(Chore(COLLECT, found.uuid))
            if found.state == "live":
                restored += await self._restore_database(found)
            else:
                deleted.add(found.uuid)
        return restored + await self._rebuild_unwritten(deleted)

    async def _schedule(self, chore: Chore) -> None:
        services = self._services
        await services.catalog.schedule(chore, services.clock.now_ms() + services.agenda.interval_ms)

    async def _restore_database(self, found: Register) -> bool:
        """Enter a registered database and its branches where the catalog lacks them; True for a new database."""
        catalog = self._services.catalog
        branches = await self._services.archive.all(BRANCHES, found)
        if MAIN not in branches:
            return False
        main_id = branches[MAIN].id
        database = Database(
            found.name, found.uuid, main_id, found.created_at, written=True, tenant=found.tenant
        )
        created = True
        try:
            await self._enter(database)
        except AlreadyExistsError:
            created = False
            if (await catalog.get_database(database.qualified_name)).uuid != found.uuid:
                _log.error(
                    "database left out of the catalog: its name is taken", name=found.name, uuid=found.uuid
                )
                return False
            await catalog.mark_written(found.uuid)
        for name, branch in branches.items():
            if register.is_deleted_name(name):
                continue
            await self._schedule(Chore(RETENTION, found.uuid, branch.id))
            if name == MAIN:
                continue
            row = BranchRow(
                found.uuid,
                branch.id,
                name,
                branch.parent,
                branch.fork_txid,
                branch.created_at,
                branch.expires_at,
            )
            with suppress(AlreadyExistsError):
                await catalog.put_branch(row)
        return created

    async def _rebuild_unwritten(self, deleted: set[str]) -> int:
        """Enter what was created and not written since; what is registered as deleted, does not come back."""
        waiting = await self._unwritten()
        restored = 0
        for change in waiting.values():
            if change.uuid in deleted:
                continue
            try:
                await self._enter(
                    Database(
                        change.name,
                        change.uuid,
                        change.main_branch_id,
                        change.created_at,
                        tenant=change.tenant,
                    )
                )
                restored += 1
            except AlreadyExistsError:
                continue  # it was written after its export: its register has it already
        return restored

    async def _enter(self, database: Database) -> None:
        """Enter a database, and its tenant where that is lost as well. Raises AlreadyExistsError."""
        catalog = self._services.catalog
        try:
            await catalog.create_database(database)
        except NotFoundError:
            with suppress(AlreadyExistsError):
                await catalog.create_tenant(database.tenant, database.created_at)
            await catalog.create_database(database)

    async def _unwritten(self) -> dict[str, Change]:
        """Return the databases that the export knows of as created and not written since, by uuid."""
        waiting: dict[str, Change] = {}
        async for info in self._services.store.list(layout.catalog_changes_prefix()):
            blob = await self._services.store.get(info.key)
            for change in _changes(info.key, blob.data):
                if change.op == "created":
                    waiting[change.uuid] = change
                else:
                    waiting.pop(change.uuid, None)
        return waiting

    async def _registers(self) -> AsyncIterator[Register]:
        async for info in self._services.store.list(f"{layout.ROOT}/"):
            if info.key.endswith("/database.json"):
                blob = await self._services.store.get(info.key)
                try:
                    yield register.decode(blob.data)
                except CorruptionError as error:
                    _log.error("database left out of the catalog", key=info.key, error=str(error))


def _change(row: Export) -> Change:
    if row.body is None:
        return Change("deleted", "", row.id, "", 0)
    return msgspec.convert({**msgspec.json.decode(row.body), "op": "created", "uuid": row.id}, Change)


def _changes(key: str, data: bytes) -> list[Change]:
    """Return the changes in an exported object; a damaged one is logged, and does not hold up the others."""
    try:
        return msgspec.json.decode(data, type=list[Change])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _log.error("exported databases left out of the catalog", key=key, error=str(error))
        return []
