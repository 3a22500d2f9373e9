"""The tiers: which branches are open, which are only on disk, and who has to go.

    hot    open connections, bounded by descriptors and memory   -> warm after a while without use
    warm   files, closed, all shipped, bounded by the disk budget -> cold after a longer while

Past states (memoturnd.engine.past) and states that are verified share the disk budget with them.

A branch object is looked up by its id, and as long as anybody holds one, everybody gets the same one, so
that no path ever has two owners. Only hot and warm branches are held here; the rest costs nothing.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from weakref import WeakValueDictionary

import structlog

from memoturnd.engine.branch import Branch
from memoturnd.engine.ownership import BranchRef
from memoturnd.engine.past import PastStates
from memoturnd.engine.readers import IDLE_S
from memoturnd.engine.services import Services, Surroundings
from memoturnd.engine.shared_branch import SharedBranch
from memoturnd.errors import MemoturnError, OverloadedError

SWEEP_S = 1.0
_LOOKED_AT = 64
"""Branches among which the least recently used one is closed: near enough, at a cost that does not grow."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TierLimits:
    """Bounds in handles, bytes and seconds of idleness."""

    hot_cap: int
    warm_after_s: float
    cold_after_s: float
    disk_budget_bytes: int


class Tiers:
    """The branches of one node."""

    def __init__(self, services: Services, surroundings: Surroundings, limits: TierLimits) -> None:
        self.limits = limits
        self.past = PastStates(services, room_bytes=self._free_bytes)
        """Past states, which share the disk budget."""
        self._services = services
        self._surroundings = surroundings
        self._all: WeakValueDictionary[str, Branch] = WeakValueDictionary()
        # Oldest stamp first; the stamp is when the branch was last put at the end, not its every use.
        self._hot: OrderedDict[Branch, float] = OrderedDict()
        self._warm: OrderedDict[Branch, float] = OrderedDict()
        self._disk: dict[Branch, int] = {}
        self._disk_bytes = 0
        self._scratch_bytes = 0
        self._room = asyncio.Lock()

    def get(self, ref: BranchRef) -> Branch:
        """Return the one object of a branch."""
        branch = self._all.get(ref.branch_id)
        if branch is None:
            kind = SharedBranch if self._services.leases.is_shared else Branch
            branch = self._all[ref.branch_id] = kind(ref, self._services, self._surroundings)
        return branch

    def find(self, branch_id: str) -> Branch | None:
        """Return a branch that is open, or held by somebody; None where there is none of that id."""
        return self._all.get(branch_id)

    def known(self) -> Iterator[Branch]:
        """Yield the branches that are open, or held by somebody."""
        return iter(list(self._all.values()))

    def hot(self) -> Iterator[Branch]:
        """Yield the branches that are open, least recently placed first."""
        return iter(list(self._hot))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Return (hot, warm, bytes on disk)."""
        return len(self._hot), len(self._warm), self._disk_bytes

    def load(self) -> float:
        """Return the part of the hot pool that is in use, from 0 to 1."""
        return len(self._hot) / self.limits.hot_cap

    def adopt_warm(self, branch: Branch) -> None:
        """Count files that an earlier process left, all shipped."""
        branch.disk_bytes = branch.files.size_bytes()
        self._place(self._warm, branch)
        self._account(branch)

    async def make_room(self, branch: Branch) -> None:
        """Count `branch` among the hot, closing the least recently used idle one where the pool is full.

        Raises OverloadedError when every open branch is in use.
        """
        if branch.hot:
            return
        if branch not in self._hot and len(self._hot) >= self.limits.hot_cap:
            async with self._room:
                while len(self._hot) >= self.limits.hot_cap and branch not in self._hot:
                    if not await self._close_one():
                        raise OverloadedError(
                            f"all {self.limits.hot_cap} profiles that this node may hold open are in use; try again, "
                            "or raise MEMOTURN_HOT_CAP, MEMOTURN_MEMORY_BUDGET_BYTES or the limit of open files"
                        )
        self._warm.pop(branch, None)
        self._place(self._hot, branch)

    async def _close_one(self) -> bool:
        """Close an idle branch, the least recently used of the longest placed; False when all are in use."""
        for branch in sorted(islice(self._hot, _LOOKED_AT), key=lambda b: b.used_s):
            if await self._to_warm(branch):
                return True
        for branch in list(islice(self._hot, _LOOKED_AT, None)):
            if await self._to_warm(branch):
                return True
        return False

    async def _to_warm(self, branch: Branch) -> bool:
        if not branch.idle:
            return False
        try:
            if not await branch.close():
                return False
        except MemoturnError as error:
            _log.warning("branch cannot be closed", branch=str(branch.ref), error=str(error))
            return False
        self._hot.pop(branch, None)
        self._account(branch)
        if branch.disk_bytes and not branch.hot:
            self._place(self._warm, branch)
        return True

    async def _to_cold(self, branch: Branch) -> bool:
        try:
            if not await branch.evict():
                return False
        except MemoturnError as error:
            _log.warning("branch cannot go cold", branch=str(branch.ref), error=str(error))
            self._place(self._warm, branch)
            return False
        self._warm.pop(branch, None)
        self._hot.pop(branch, None)
        self._account(branch)
        return True

    async def evict(self, branch: Branch) -> bool:
        """Send a branch cold now; False when it is in use or cannot be shipped."""
        return await self._to_cold(branch)

    async def forget(self, branch: Branch) -> None:
        """Drop a branch that was destroyed, and its past states."""
        await self.past.forget(branch.ref.branch_id)
        self._hot.pop(branch, None)
        self._warm.pop(branch, None)
        self._disk_bytes -= self._disk.pop(branch, 0)
        self._all.pop(branch.ref.branch_id, None)

    async def let_go(self, uuid: str) -> bool:
        """Remove what is kept here of a database whose history was rewritten: past states, files of branches that
        are not owned, and tails that have landed. An owned branch has been brought up to date.

        False where a file still holds commits that are in no object: they are shipped, or kept as a branch, first.
        """
        await self._services.tails.let_go(uuid)
        all_gone = True
        for branch in [branch for branch in self._all.values() if branch.ref.database.uuid == uuid]:
            if branch.owned is None and branch.may_hold_more:
                with suppress(MemoturnError):
                    await branch.take_up()
            await branch.let_go()
            all_gone = all_gone and (branch.owned is not None or not branch.may_hold_more)
            await self.past.let_go(branch.branch_id)
            self._account(branch)
            if not branch.disk_bytes:
                self._warm.pop(branch, None)
        return all_gone

    @asynccontextmanager
    async def scratch(self, size_bytes: int) -> AsyncIterator[bool]:
        """Count so many bytes of a file that is made for a moment; False where the budget has no room for them."""
        self._scratch_bytes += size_bytes
        try:
            await self._make_disk_room()
            yield self._free_bytes() >= self.past.size_bytes
        finally:
            self._scratch_bytes -= size_bytes

    def _free_bytes(self) -> int:
        """Return how many bytes past states may take as things stand."""
        return (
            self.limits.disk_budget_bytes
            - self._disk_bytes
            - self._scratch_bytes
            - self._services.tails.store.size_bytes
        )

    async def sweep(self) -> None:
        """Send down what was idle long enough, and what the disk has no room for."""
        now_s = self._services.clock.monotonic_s()
        for branch in list(self._hot):
            self._account(branch)
        await self._sweep_tier(self._hot, now_s - self.limits.warm_after_s, self._to_warm)
        await self._sweep_tier(self._warm, now_s - self.limits.cold_after_s, self._to_cold)
        self._services.readers.close_unused(now_s - IDLE_S)
        await self._services.unreleased.release(self._services.leases)
        await self.past.drop_unused(now_s - self.limits.cold_after_s)
        await self._make_disk_room()

    async def _make_disk_room(self) -> None:
        """While the disk is over its budget, remove what was unused longest: a past state or a warm branch's file."""
        warm = iter(list(self._warm.items()))
        branch, placed_s = next(warm, (None, math.inf))
        while self.past.size_bytes > self._free_bytes():
            oldest_s = self.past.oldest_s
            if oldest_s is not None and oldest_s <= placed_s:
                await self.past.drop_oldest()
            elif branch is not None:
                await self._to_cold(branch)
                branch, placed_s = next(warm, (None, math.inf))
            else:
                return

    async def _sweep_tier(
        self, tier: OrderedDict[Branch, float], before_s: float, send: Callable[[Branch], Awaitable[bool]]
    ) -> None:
        due = []
        for branch, placed_s in list(tier.items()):
            if placed_s > before_s:
                break
            if branch.used_s > before_s or branch.users:
                self._place(tier, branch)
            else:
                due.append(branch)
        for branch in due:
            if not await send(branch):
                self._place(tier, branch)

    def _place(self, tier: OrderedDict[Branch, float], branch: Branch) -> None:
        tier[branch] = self._services.clock.monotonic_s()
        tier.move_to_end(branch)

    def _account(self, branch: Branch) -> None:
        size_bytes = branch.size_bytes if branch.hot else branch.disk_bytes
        self._disk_bytes += size_bytes - self._disk.pop(branch, 0)
        if size_bytes:
            self._disk[branch] = size_bytes
