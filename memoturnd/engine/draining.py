"""How a node that stops gives its branches to others, one by one, while it goes on answering.

From its first moment the node takes no branch any more. A branch that it has goes on being served until its turn comes; a write to
one that it has given back, or never had, is refused with the name of a node that may take it. So nobody waits longer than for the
hand-over of the one branch that he uses.
"""

import asyncio
from typing import TYPE_CHECKING, Final

import structlog

from memoturnd.core.placement import place, weight
from memoturnd.errors import MemoturnError, RetryableError
from memoturnd.replication.few_at_once import together
from memoturnd.seams.clock import Clock
from memoturnd.seams.leases import Leases, LiveNode, Owner

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch
    from memoturnd.engine.tiers import Tiers

HAND_OVER_S: Final = 4.5
"""How long the hand-over of all branches may take; what is left then is shipped and closed behind the server's end."""
BRANCH_S: Final = 2.0
"""How long one branch may take, with what has begun on it."""
_NODES_S: Final = 1.0
_log = structlog.get_logger(__name__)


class Draining:
    """Whether the node stops, since when, and who is to have its branches."""

    def __init__(self, leases: Leases, clock: Clock, *, node_id: str) -> None:
        self._leases = leases
        self._clock = clock
        self._node_id = node_id
        self._began_s: float | None = None
        self._nodes: tuple[LiveNode, ...] = ()
        self._asked_s = float("-inf")

    @property
    def has_begun(self) -> bool:
        """Whether the node takes no branch any more."""
        return self._began_s is not None

    def begin(self) -> None:
        """Take no branch any more."""
        if self._began_s is None:
            self._began_s = self._clock.monotonic_s()

    def left_s(self, whole_s: float, *, least_s: float) -> float:
        """Return what is left of `whole_s` seconds since the beginning, and `least_s` at least."""
        if self._began_s is None:
            return whole_s
        return max(least_s, whole_s - (self._clock.monotonic_s() - self._began_s))

    async def heir(self, database: str) -> Owner | None:
        """Return the node that is to have the branches of a database, by its qualified name; None where nobody can say."""
        now_s = self._clock.monotonic_s()
        if now_s - self._asked_s > _NODES_S:
            self._asked_s = now_s
            try:
                self._nodes = tuple(node for node in await self._leases.live_nodes() if weight(node) > 0)
            except RetryableError as error:
                _log.warning("who is there is not known", error=str(error))
        node = place(database, self._nodes, avoiding={self._node_id})
        return None if node is None else Owner(node.node_id, node.address, 0)


async def hand_over(tiers: "Tiers", draining: Draining) -> int:
    """Give back every branch within HAND_OVER_S, open ones first; return how many could not be."""
    draining.begin()
    held = [branch for branch in tiers.known() if branch.lease is not None]
    held.sort(key=lambda branch: not branch.hot)
    given = 0

    async def one(branch: "Branch") -> None:
        nonlocal given
        try:
            async with asyncio.timeout(BRANCH_S):
                is_given = await branch.hand_over()
            given += is_given
            if not is_given:
                _log.warning("branch not handed over: its file holds more", branch=str(branch.ref))
        except (MemoturnError, TimeoutError) as error:
            _log.warning("branch not handed over", branch=str(branch.ref), error=str(error) or "it is in use")

    try:
        async with asyncio.timeout(HAND_OVER_S):
            await together(held, one)
    except TimeoutError:
        _log.warning("not all branches are handed over in time", left=len(held) - given)
    return len(held) - given
