"""The jobs that embed again: each walks one branch in small steps, in the node's task group.

A job is a row in the branch's file (memoturnd.surfaces.reembed) and a chore in the catalog, which finds it again after
a restart. Each step reads a few rows, embeds them beside every lock, and commits their vectors with the job's place.
"""

import asyncio

import structlog

from memoturnd.audit.acts import Acts
from memoturnd.audit.egress import noted_by
from memoturnd.embedders.guard import NodeEmbedder
from memoturnd.engine.branch import Branch
from memoturnd.engine.branching import Branching
from memoturnd.engine.services import Services
from memoturnd.errors import (
    BranchNotFoundError,
    ConflictError,
    DatabaseNotFoundError,
    InvalidRequestError,
    MemoturnError,
    RetryableError,
)
from memoturnd.policies import Policies, PolicyUnreadableError
from memoturnd.seams.catalog import REEMBED, Chore
from memoturnd.seams.embedder import EmbedderError, EmbedderMisconfiguredError, Vectors
from memoturnd.seams.profile import Work
from memoturnd.surfaces import reembed

JOBS_AT_ONCE = 2
"""Branches that a node embeds again at once; others wait for the next look."""
LOOK_S = 5.0
"""How often it is looked whether a job needs somebody to do it."""
UNCONFIGURED_S = 600.0
"""How often on a node without an embedder, or where the policy forbids it: both may change."""
FAILURES_LIMIT = 20
"""Failures in a row after which a job is given up; what it made stays."""
PAUSE_S = 1.0
PAUSE_LIMIT_S = 60.0
_log = structlog.get_logger(__name__)


class Reembedding:
    """The jobs of one node."""

    def __init__(
        self,
        services: Services,
        branches: Branching,
        policies: Policies,
        embedder: NodeEmbedder | None,
        acts: Acts,
    ) -> None:
        self._acts = acts
        self._services = services
        self._policies = policies
        self._branches = branches
        self._embedder = embedder
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def running(self) -> int:
        """How many jobs run here now."""
        return len(self._tasks)

    def new_job_id(self) -> str:
        """Return a name for a job."""
        return self._services.randomness.hex(8)

    def is_live(self, branch_id: str) -> bool:
        """Return whether this node is at the branch's job."""
        return branch_id in self._tasks

    async def go_on(self, db_name: str, branch: str) -> None:
        """See to the branch's job: now where there is room, and else, or should this node die, later.

        Raises DatabaseNotFoundError, BranchNotFoundError.
        """
        found = await self._branches.find(db_name, branch)
        chore = Chore(REEMBED, found.ref.database.uuid, found.branch_id)
        await self._services.catalog.schedule(chore, self._look_again_ms())
        self._ensure(found)

    async def look(self, chore: Chore) -> int | None:
        """Do the chore: see that the job of a branch goes on. Return when to look again, None once it is over."""
        if self._embedder is None:
            return self._services.clock.now_ms() + round(1000 * UNCONFIGURED_S)
        branch = await self._of_chore(chore)
        if branch is None:
            return None
        if not await self._may_embed(branch):
            return self._services.clock.now_ms() + round(1000 * UNCONFIGURED_S)
        if not self.is_live(branch.branch_id):
            seen = await branch.read(lambda conn, _: reembed.running(conn, branch.branch_id))
            if seen.value is None:
                return None
            self._ensure(branch)
        return self._look_again_ms()

    async def close(self) -> None:
        """Stop the jobs; they go on with the next start."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _look_again_ms(self) -> int:
        return self._services.clock.now_ms() + round(1000 * LOOK_S)

    async def _of_chore(self, chore: Chore) -> Branch | None:
        try:
            return await self._branches.find_by_id(chore.db_uuid, chore.branch_id)
        except (DatabaseNotFoundError, BranchNotFoundError):
            return None

    def _ensure(self, branch: Branch) -> None:
        if self._closed or self._embedder is None or self.is_live(branch.branch_id):
            return
        if len(self._tasks) < JOBS_AT_ONCE:
            self._tasks[branch.branch_id] = self._services.spawn(self._run(branch, self._embedder))

    async def _run(self, branch: Branch, embedder: NodeEmbedder) -> None:
        try:
            await self._walk(branch, embedder)
        except (BranchNotFoundError, DatabaseNotFoundError, ConflictError) as error:
            _log.info("embedding again has stopped", branch=str(branch.ref), why=str(error))
        except Exception:  # noqa: BLE001 - the boundary of a background task: a bug here must not stop the node
            _log.exception("embedding again failed unexpectedly; it is tried again", branch=str(branch.ref))
        finally:
            del self._tasks[branch.branch_id]

    async def _may_embed(self, branch: Branch) -> bool:
        """Return whether the policy lets what the branch holds be embedded here, as far as is known."""
        try:
            return await self._policies.lets_embed(branch.ref.database.qualified_name)
        except PolicyUnreadableError:
            return False

    async def _walk(self, branch: Branch, embedder: NodeEmbedder) -> None:
        """Do step after step until the job is over, or the policy lets no more be embedded here: it waits then."""
        failures = 0
        pause_s = PAUSE_S
        while await self._may_embed(branch):
            try:
                if not await self._step(branch, embedder):
                    return
                failures, pause_s = 0, PAUSE_S
                continue
            except (EmbedderError, RetryableError) as error:
                failures += 1
                if isinstance(error, EmbedderMisconfiguredError) or failures >= FAILURES_LIMIT:
                    await self._give_up(branch, error)
                    return
            except InvalidRequestError as error:
                await self._give_up(branch, error)
                return
            await self._services.clock.sleep(max(pause_s, embedder.resting_s))
            pause_s = min(PAUSE_LIMIT_S, 2 * pause_s)

    async def _step(self, branch: Branch, embedder: NodeEmbedder) -> bool:
        """Embed the rows that are next; return whether the job goes on."""
        branch_id = branch.branch_id
        seen = await branch.read(
            lambda conn, _: reembed.read_batch(conn, branch_id, embedder.batch), work=Work.SCAN
        )
        batch = seen.value
        if batch is None:
            return False
        if batch.job.model != embedder.model:
            raise InvalidRequestError(
                f"the node embeds with {embedder.model} now, and the job is of {batch.job.model}"
            )
        vectors: Vectors = []
        if batch.rows:
            with noted_by(await self._acts.egress_of(branch.ref.database.qualified_name, branch.ref.name)):
                vectors = await embedder.attempt([text for _, text in batch.rows])
        written = await branch.write(
            lambda conn, now_ms: reembed.apply_batch(conn, now_ms, branch_id, batch, vectors), work=Work.HEAVY
        )
        return written.value

    async def _give_up(self, branch: Branch, error: MemoturnError) -> None:
        _log.warning("embedding again is given up", branch=str(branch.ref), error=str(error))
        await branch.write(
            lambda conn, now_ms: reembed.apply_end(conn, now_ms, branch.branch_id, "failed", error=str(error))
        )
