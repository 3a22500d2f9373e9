"""What is due by the clock: burners that expire, and rows past their time in the branches that are open.

Expired branches come from an index by due time; expired rows, and rows of timelines past retention, are swept
only in branches that this node has open for writing, a few hundred rows to a commit. Reads never show what
has expired, swept or not.
"""

from collections.abc import Sequence

import structlog

from memoturnd.audit.acts import Acts
from memoturnd.core.placement import place
from memoturnd.engine.branching import Branching
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import DatabaseNotFoundError, MemoturnError, RetryableError
from memoturnd.seams.catalog import BranchRow
from memoturnd.surfaces import timelines
from memoturnd.surfaces.memories import sweep_expired

BURNER_S = 5.0
ANYBODYS_MS = 60_000
"""How long past its time a burner is left to the node whose part it is, where there are several."""
ROWS_S = 30.0
ROWS_PER_COMMIT = 500
COMMITS_PER_SWEEP = 40
"""Commits of one sweep of a branch, while nobody else uses it."""
_log = structlog.get_logger(__name__)


class Housekeeping:
    """The node's periodic work on data."""

    def __init__(self, services: Services, tiers: Tiers, branches: Branching, acts: Acts) -> None:
        self._acts = acts
        self._services = services
        self._tiers = tiers
        self._branches = branches

    async def delete_burners(self) -> int:
        """Delete the branches whose time has come, and return how many."""
        deleted = 0
        rows = await self._services.catalog.due_branches(self._services.clock.now_ms())
        for row in await self._own(rows):
            try:
                database = await self._services.catalog.get_database_by_uuid(row.db_uuid)
                await self._branches.drop(row)
                deleted += 1
                await self._acts.note(database.qualified_name, "branch.expired", branch=row.name)
            except DatabaseNotFoundError:
                continue
            except MemoturnError as error:
                _log.warning("burner not deleted; it is tried again", branch=row.name, error=str(error))
        return deleted

    async def _own(self, rows: Sequence[BranchRow]) -> Sequence[BranchRow]:
        """Return what this node is to delete: its share where there are others, and what has waited for long."""
        services = self._services
        if not rows or not services.leases.is_shared:
            return rows
        late_ms = services.clock.now_ms() - ANYBODYS_MS
        try:
            nodes = await services.leases.live_nodes()
        except RetryableError:
            nodes = ()  # nobody knows whose they are

        def is_own(row: BranchRow) -> bool:
            chosen = place(row.branch_id, nodes)
            return (chosen is not None and chosen.node_id == services.node_id) or (
                row.expires_at or 0
            ) <= late_ms

        return [row for row in rows if is_own(row)]

    async def sweep_rows(self) -> None:
        """Delete expired rows of the branches that are open for writing and not in use right now."""
        for branch in self._tiers.hot():
            if branch.owned is None or branch.users:
                continue
            swept = 0
            try:
                for _ in range(COMMITS_PER_SWEEP):
                    rows = await branch.sweep(_sweep)
                    swept += rows
                    if rows < ROWS_PER_COMMIT or branch.users:
                        break
            except MemoturnError as error:
                _log.warning("expired rows not swept", branch=str(branch.ref), error=str(error))
            if swept:
                name = branch.ref.database.qualified_name
                await self._acts.note(name, "rows.expired", branch=branch.ref.name, count=swept)


def _sweep(conn: ProfileConnection, now_ms: int) -> tuple[int, bool]:
    expired, any_expired = sweep_expired(conn, now_ms, ROWS_PER_COMMIT)
    removed, any_removed = timelines.sweep(conn, now_ms, ROWS_PER_COMMIT)
    return expired + removed, any_expired or any_removed
