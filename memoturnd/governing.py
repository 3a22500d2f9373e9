"""What policies do in the background, on every branch of a namespace and not only on those that are open.

    a policy changes   -> `govern`, a chore of the namespace, which has each of its branches looked at
    a branch changes   -> `retention`, a chore of the branch: its history is kept as long as the policy lets it
    it may be too old  -> `sweep`, a chore of the branch: memories go for their age or number, at most 500 at a time

Chores are kept by the catalog (memoturnd.engine.maintenance), so that what is due is found without walking databases.
"""

from collections.abc import AsyncIterator
from typing import Final

import structlog

from memoturnd.audit.acts import Acts
from memoturnd.core import names, policy
from memoturnd.core.manifest import Manifest
from memoturnd.core.policy import Rules
from memoturnd.core.policy_document import Change, PolicyDocument
from memoturnd.core.retention import Windows
from memoturnd.engine.branch import Branch
from memoturnd.engine.branching import Branching
from memoturnd.engine.services import Services
from memoturnd.errors import BranchNotFoundError, DatabaseNotFoundError
from memoturnd.policies import Policies, PolicyUnreadableError
from memoturnd.replication.retention import Retention
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import GOVERN, RETENTION, SWEEP, Chore, Database
from memoturnd.seams.profile import Work
from memoturnd.surfaces import memory_ages

MEMORIES_PER_PASS: Final = 500
PASS_AGAIN_S: Final = 60.0
"""Least time between two sweeps of a branch that has nothing more to remove."""
PASS_LATE_MAX_S: Final = 3600.0
"""Most that a sweep waits for more to come together: a part of the age that is asked, and this at most."""
PASS_LATE_PARTS: Final = 24
BASE_LATE_PARTS: Final = 4
"""History behind which there is no snapshot stays longer by so small a part of its window, or the maintenance interval."""
UNKNOWN_AGAIN_S: Final = 300.0
"""When a branch whose policy is not known is looked at again."""
CHANGE_ENDS_S: Final = 60.0
"""How long after it began a change of a policy has surely landed, or never will."""
_PAGE: Final = 500
_log = structlog.get_logger(__name__)


class Governing:
    """The background work of policies on one node."""

    def __init__(
        self,
        services: Services,
        branches: Branching,
        policies: Policies,
        retention: Retention,
        acts: Acts,
    ) -> None:
        self._acts = acts
        self._services = services
        self._branches = branches
        self._policies = policies
        self._retention = retention

    # ---- a policy changes

    async def change(
        self, tenant: str, namespace: str, change: Change, *, profile: str = ""
    ) -> PolicyDocument:
        """Change the policies of a namespace, or of one profile, and have what they hold for looked at.

        Raises what memoturnd.policies.Policies.change raises, and RetryableError while the catalog is down: nothing is
        changed then.
        """
        catalog, clock = self._services.catalog, self._services.clock
        chore = Chore(GOVERN, names.qualified(tenant, namespace), profile)
        await catalog.schedule(chore, clock.now_ms() + round(1000 * CHANGE_ENDS_S))  # should this node die
        document = await self._policies.change(tenant, namespace, change)
        await catalog.schedule(chore, clock.now_ms())
        return document

    async def spread(self, chore: Chore) -> None:
        """Do the chore of a namespace: have each branch of its profiles looked at."""
        catalog, now_ms = self._services.catalog, self._services.clock.now_ms()
        async for database in self._governed(chore):
            rows = await catalog.list_branches(database.uuid)
            for branch_id in (database.main_branch_id, *(row.branch_id for row in rows)):
                await catalog.schedule(Chore(RETENTION, database.uuid, branch_id), now_ms)

    async def _governed(self, chore: Chore) -> AsyncIterator[Database]:
        """Yield the databases of a namespace, or of one profile, that were written."""
        catalog = self._services.catalog
        tenant, namespace = names.split_qualified(chore.db_uuid)
        prefix, profile = f"{namespace}{names.PROFILE_SEPARATOR}", chore.branch_id
        if profile:
            try:
                found = await catalog.get_database(names.qualified(tenant, prefix + profile))
            except DatabaseNotFoundError:
                return
            yield found
            return
        after = prefix
        while page := await catalog.list_databases(tenant=tenant, prefix=prefix, after=after, limit=_PAGE):
            for database in page:
                if database.written:
                    yield database
            after = page[-1].name

    # ---- a branch changes

    async def apply_retention(self, chore: Chore) -> int | None:
        """Do the chore of a branch: let go of history that is past its windows, and see whether memories are too old.

        What its manifest lets go of is looked for by the collector.
        """
        rules, again_ms = await self._rules(await self._database(chore))
        windows = policy.capped(self._retention.windows, rules)
        file = self._services.manifest_file(chore.db_uuid, chore.branch_id)
        based_ms = None if windows == self._retention.windows else await self._based(chore, file, windows)
        before = await file.load()
        due_ms = await self._retention.apply(file, windows)
        if before is not None and (file.cached is None or file.cached.commit_id != before.commit_id):
            self._services.agenda.let_go(chore.db_uuid)
            branch = await self._branch(chore)
            if branch is not None and branch.hot:
                await branch.manifests.load(fresh=True)  # so that nobody here is shown what has gone
        if rules.sweeps:
            sweep = Chore(SWEEP, chore.db_uuid, chore.branch_id)
            await self._services.catalog.schedule(sweep, self._services.clock.now_ms())
        return min((at_ms for at_ms in (due_ms, again_ms, based_ms) if at_ms is not None), default=None)

    async def _based(self, chore: Chore, file: SwapFile[Manifest], windows: Windows) -> int | None:
        """See that a snapshot stands behind what a policy lets be kept no longer; return when that is to be seen to again.

        History goes only behind a snapshot, and a branch that is written little has none for long.
        """
        since_ms = await self._retention.unbased_since_ms(file)
        if since_ms is None:
            return None
        late_ms = max(windows.fine_ms // BASE_LATE_PARTS, self._services.agenda.interval_ms)
        due_ms = since_ms + windows.fine_ms + late_ms
        if self._services.clock.now_ms() < due_ms:
            return due_ms
        branch = await self._branch(chore)
        if branch is not None:
            await self._branches.snapshot(branch)
            file.forget()
        return None

    async def _database(self, chore: Chore) -> Database | None:
        try:
            return await self._services.catalog.get_database_by_uuid(chore.db_uuid)
        except DatabaseNotFoundError:
            return None

    async def _rules(self, database: Database | None) -> tuple[Rules, int | None]:
        """Return what holds, and when to look again where that is not known: the ceiling alone holds then."""
        if database is None:
            return self._policies.ceiling, None
        name = database.qualified_name
        try:
            return await self._policies.effective(name, fresh=True), None
        except PolicyUnreadableError as error:
            self._services.metrics.policy_unknown["retention"].inc()
            _log.warning("history is kept by the node's own windows for now", database=name, error=str(error))
            return self._policies.ceiling, self._in_ms(UNKNOWN_AGAIN_S)

    # ---- memories may be too old

    async def sweep(self, chore: Chore) -> int | None:
        """Do the chore of a branch: remove memories that are too old or too many, and say when the next one will be.

        Raises PolicyUnreadableError: nothing is removed by a policy that may have changed.
        """
        branch = await self._branch(chore)
        if branch is None:
            return None
        try:
            rules = await self._policies.effective(branch.ref.database.qualified_name, fresh=True)
        except PolicyUnreadableError:
            self._services.metrics.policy_unknown["sweep"].inc()
            raise
        if not rules.sweeps:
            return None
        due = (
            await branch.read(lambda conn, now_ms: memory_ages.read_due(conn, now_ms, rules), work=Work.SCAN)
        ).value
        if due.now:
            written = await branch.write(
                lambda conn, now_ms: memory_ages.apply_sweep(conn, now_ms, rules, MEMORIES_PER_PASS),
                work=Work.HEAVY,
            )
            self._services.metrics.policy_swept.inc(written.value)
            name = branch.ref.database.qualified_name
            await self._acts.note(name, "memory.swept", branch=branch.ref.name, count=written.value)
            return self._services.clock.now_ms()
        return None if due.next_ms is None else self._together(due.next_ms, rules)

    def _together(self, due_ms: int, rules: Rules) -> int:
        """Return when to sweep what is due then: a little later, with what comes due meanwhile."""
        ages = (rules.event_max_age_secs, rules.superseded_max_age_secs)
        shortest_s = min(age for age in ages if age is not None)
        late_s = min(PASS_LATE_MAX_S, shortest_s / PASS_LATE_PARTS)
        return max(due_ms + round(1000 * late_s), self._in_ms(PASS_AGAIN_S))

    async def _branch(self, chore: Chore) -> Branch | None:
        try:
            return await self._branches.find_by_id(chore.db_uuid, chore.branch_id)
        except (DatabaseNotFoundError, BranchNotFoundError):
            return None

    def _in_ms(self, seconds: float) -> int:
        return self._services.clock.now_ms() + round(1000 * seconds)
