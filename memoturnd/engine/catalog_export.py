"""What the catalog knows and no `database.json` says, kept safe in the object store: the export under `v1/_catalog/`.

Never-written databases, tenants, tokens, revocations and quotas: whatever changes one of them notes it in the
catalog's outbox, in the same transaction; within a second it is in the object store (memoturnd.replication.export_log).
Every node exports, and two that export the same do no harm. A node whose embedded catalog is lost rebuilds it by itself.
"""

import asyncio
from collections import defaultdict

import structlog

from memoturnd.core import export
from memoturnd.core.export import Entry
from memoturnd.engine.rebuild import Rebuild, Report
from memoturnd.engine.services import Services
from memoturnd.errors import CorruptionError
from memoturnd.replication.export_log import ExportLog
from memoturnd.seams.catalog import EXPORTED_AT_ONCE

EXPORT_S = 1.0
_BATCH = 1000
_log = structlog.get_logger(__name__)


class CatalogExport:
    """Exports what changed in the catalog, and reads it back."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._logs: dict[str, ExportLog] = {}
        self._running = asyncio.Lock()
        self._begun = 0
        self._ended = 0

    async def export(self) -> int:
        """Export what changed, join objects where there are many, and return how many changes that were."""
        async with self._running:
            total = await self._run()
            for log in self._logs.values():
                await log.join_some()
        return total

    async def now(self) -> None:
        """Return once everything that the catalog had when this was called is in the object store.

        Those who wait at the same time share the work. Raises RetryableError, StoreUnavailableError: it may be
        exported all the same, and is with the next export.
        """
        wanted = self._begun + 1  # one that begins from here on
        async with self._running:
            if self._ended < wanted:
                await self._run()

    async def _run(self) -> int:
        self._begun += 1
        number, total = self._begun, 0
        catalog, clock = self._services.catalog, self._services.clock
        while changes := await catalog.pending_exports(_BATCH):
            by_kind: defaultdict[str, list[Entry]] = defaultdict(list)
            now_ms = clock.now_ms()
            for change in changes:
                by_kind[change.kind].append(Entry(change.change, change.id, change.body, now_ms))
            for kind, entries in by_kind.items():
                await self._log_of(kind).append(entries)
            await catalog.exported([change.change for change in changes])
            total += len(changes)
            if len(changes) < EXPORTED_AT_ONCE:
                break  # what has come meanwhile goes with the next second's, in one object
        self._ended = number
        return total

    async def read(self, kind: str) -> dict[str, bytes]:
        """Return what the export has of a kind, by id, as JSON: for when the catalog does not answer.

        A repeated call reads only what is new. Raises StoreUnavailableError, RetryableError, CorruptionError where some of
        it is damaged.
        """
        log = self._log_of(kind)
        state = await log.state()
        if log.damaged:
            raise CorruptionError(f"the catalog's export cannot be read whole: {min(log.damaged)} is damaged")
        return export.present(state)

    def _log_of(self, kind: str) -> ExportLog:
        log = self._logs.get(kind)
        if log is None:
            services = self._services
            log = self._logs[kind] = ExportLog(
                services.store, kind, clock=services.clock, randomness=services.randomness
            )
        return log

    async def start(self, *, doubtful: bool) -> int:
        """Rebuild the catalog where it is empty, or `doubtful`, and return how many databases came back.

        A catalog is doubtful after the machine went down under it: its last rows may not have reached the
        disk, while the objects that belong to them did. So is one of which no start was ever finished.
        """
        if not doubtful and not await self._services.catalog.is_empty():
            return 0
        report = await self.rebuild()
        for key, error in report.damaged:
            _log.error("left out of the catalog: it cannot be read", key=key, error=error)
        for said in report.conflicts:
            _log.error("left out of the catalog", error=said)
        return report.came_back["databases"] + report.came_back["never-written databases"]

    async def rebuild(self) -> Report:
        """Make the catalog follow the object store; see Rebuild."""
        services = self._services
        return await Rebuild(
            services.store,
            services.archive,
            services.catalog,
            clock=services.clock,
            randomness=services.randomness,
            due_in_ms=services.agenda.interval_ms,
        ).run()
