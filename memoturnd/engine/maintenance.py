"""Maintenance: chores are taken from the catalog when they are due, a few at a time, never by walking databases.

A chore says itself when it is due again; one that says nothing is not scheduled any more. A failure is
tried again, later each time, and holds up no other chore. A chore of a branch that another node owns is done by that
node, which is asked for it by the one that has claimed it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec
import structlog

from memoturnd.core.release_wire import CHORE, Done
from memoturnd.engine.agenda import Agenda
from memoturnd.errors import (
    CorruptionError,
    MemoturnError,
    NotOwnerError,
    OverloadedError,
    RetryableError,
    UpstreamError,
)
from memoturnd.metrics import Metrics
from memoturnd.seams.catalog import Catalog, Chore, ClaimedChore
from memoturnd.seams.clock import Clock
from memoturnd.seams.peers import JSON, Peers

TICK_S = 1.0
AT_ONCE = 2
"""Chores that a node has under way at once."""
CHORE_TIMEOUT_S = 840.0
CLAIM_S = 900.0
"""How long a chore is its node's alone: after that another one takes it for lost."""
PASSED_S = 60.0
"""How long the owner of a branch may take for a chore of it."""
PASSED_AT_ONCE = 4
"""Chores that a node does at once because others have claimed them; more are refused."""
_PER_TICK = 64
_AGAIN_S = 5.0
"""Least time between two turns of a chore."""
_BACKOFF_S = 60.0
_BACKOFF_MAX_S = 86_400.0
_BUSY_LOOK_S = 0.25
_BUSY_MAX_S = 30.0
"""How long a chore waits for a quiet moment before it goes on all the same."""
_DONE = msgspec.json.Decoder(Done)
_log = structlog.get_logger(__name__)

Work = Callable[[Chore], Awaitable[int | None]]
"""Does a chore, and returns when it is due again (unix ms), None where it is not."""


class Maintenance:
    """The maintenance of one node. `works` does each kind of chore; others are left to nodes that know them."""

    def __init__(
        self,
        catalog: Catalog,
        agenda: Agenda,
        works: Mapping[str, Work],
        *,
        clock: Clock,
        metrics: Metrics,
        is_busy: Callable[[], bool],
        peers: Peers | None = None,
    ) -> None:
        self._peers = peers
        self._passed = 0
        self._catalog = catalog
        self._agenda = agenda
        self._works = works
        self._clock = clock
        self._metrics = metrics
        self._is_busy = is_busy
        self._stopped: set[Chore] = set()

    async def run_due(self) -> int:
        """Do what is due now, up to a bound, and return how many chores that were."""
        await self._agenda.flush(self._catalog)
        done = 0
        while done < _PER_TICK:
            now_ms = self._clock.now_ms()
            until_ms = now_ms + round(1000 * CLAIM_S)
            claimed = await self._catalog.claim_due(now_ms, until_ms=until_ms, limit=AT_ONCE)
            if claimed:
                self._metrics.maintenance_late_seconds.set(max(0, now_ms - claimed[0].due_at) / 1000)
            async with asyncio.TaskGroup() as group:
                for chore in claimed:
                    group.create_task(self._do(chore))
            done += len(claimed)
            if len(claimed) < AT_ONCE:
                break
        return done

    async def _do(self, claimed: ClaimedChore) -> None:
        """Do one chore; whatever happens to it stays with it."""
        chore, now_ms = claimed.chore, self._clock.now_ms()
        work = self._works.get(chore.kind)
        if work is None:
            await self._finish(claimed, now_ms + round(1000 * _BACKOFF_MAX_S), failed=False)
            return
        await self._wait_for_quiet()
        try:
            async with asyncio.timeout(CHORE_TIMEOUT_S):
                next_ms = await self._worked(work, chore)
        except asyncio.CancelledError:
            await self._finish(claimed, now_ms, failed=False)  # the node stops: it is due at once
            raise
        except Exception as error:  # noqa: BLE001 - the boundary of a chore: a bug in one must not stop the others
            await self._failed(claimed, error)
            return
        self._stopped.discard(chore)
        self._count("done")
        self._metrics.maintenance_last_success.set(self._clock.now_ms() / 1000)
        if next_ms is not None:
            next_ms = max(next_ms, self._clock.now_ms() + round(1000 * _AGAIN_S))
        await self._finish(claimed, next_ms, failed=False)

    async def _worked(self, work: Work, chore: Chore) -> int | None:
        try:
            return await work(chore)
        except NotOwnerError as error:
            if error.owner is None or self._peers is None:
                raise
            path = CHORE.format(uuid=chore.db_uuid, branch_id=chore.branch_id)
            asked = msgspec.json.encode({"kind": chore.kind})
            answer = await self._peers.ask(
                error.owner.address, path, body=asked, headers=JSON, timeout_s=PASSED_S
            )
            try:
                return _DONE.decode(answer).due_at
            except msgspec.MsgspecError as wrong:
                raise UpstreamError(
                    f"node {error.owner.node_id} does not say whether it has done a chore: {wrong}"
                ) from wrong

    async def do_for_another(self, chore: Chore) -> int | None:
        """Do a chore of a branch that this node owns, which another node has claimed; return when it is due again.

        Raises NotOwnerError, OverloadedError, RetryableError when it takes too long, and what the chore raises.
        """
        if self._passed >= PASSED_AT_ONCE:
            raise OverloadedError(f"{self._passed} chores for other nodes are under way; ask again later")
        self._passed += 1
        try:
            async with asyncio.timeout(PASSED_S):
                return await self._works[chore.kind](chore)
        except TimeoutError as error:
            raise RetryableError(f"the chore {chore.kind} took over {PASSED_S:g} s; ask again") from error
        finally:
            self._passed -= 1

    async def _failed(self, claimed: ClaimedChore, error: Exception) -> None:
        """Log a failure by what it asks of people, and put the chore off, twice as long each time."""
        chore = claimed.chore
        facts = {
            "chore": chore.kind,
            "database": chore.db_uuid,
            "branch": chore.branch_id,
            "error": str(error),
        }
        if isinstance(error, CorruptionError):
            self._stopped.add(chore)
            _log.error("maintenance of a database has stopped: what it names cannot be read", **facts)
        elif isinstance(error, MemoturnError | TimeoutError):
            _log.warning("maintenance failed; it is tried again", **facts)
        else:
            _log.error("maintenance failed unexpectedly; it is tried again", **facts, exc_info=error)
        self._count("stopped" if isinstance(error, CorruptionError) else "failed")
        pause_s = min(_BACKOFF_MAX_S, _BACKOFF_S * 2.0 ** min(claimed.attempts - 1, 16))
        await self._finish(claimed, self._clock.now_ms() + round(1000 * pause_s), failed=True)

    async def _finish(self, claimed: ClaimedChore, next_ms: int | None, *, failed: bool) -> None:
        try:
            await self._catalog.finish(claimed, next_ms=next_ms, failed=failed)
        except MemoturnError as error:  # its claim runs out, and it is done once more
            _log.warning("maintenance not noted as done", chore=claimed.chore.kind, error=str(error))

    def _count(self, outcome: str) -> None:
        self._metrics.maintenance_passes[outcome].inc()
        self._metrics.maintenance_stopped.set(len(self._stopped))

    async def _wait_for_quiet(self) -> None:
        """Let foreground work that is behind go first, for a while."""
        started_s = self._clock.monotonic_s()
        while self._is_busy() and self._clock.monotonic_s() - started_s < _BUSY_MAX_S:
            await self._clock.sleep(_BUSY_LOOK_S)
