"""Those who follow the changes of branches on this node: bounded in number, woken by commits, ended together.

A feed holds neither its branch open nor a slot while it waits; a copy of another node's branch is read now and then, so that it
stays one. It ends where it could go on telling what is not so: the node
stops, the branch is gone, or another node has become its owner. Its client resumes by the last txid, through any node.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, Literal, Protocol, TypeVar

from memoturnd.engine.moves import Moves
from memoturnd.errors import MemoturnError, OverloadedError
from memoturnd.metrics import Metrics
from memoturnd.seams.leases import Owner

FEEDS_LIMIT: Final = 1024
"""Feeds of one node."""
BRANCH_FEEDS_LIMIT: Final = 128
"""Feeds of one branch on one node."""
GATHER_S: Final = 0.02
"""How long a feed lets commits come together before it looks, so that many feeds do not follow each of many commits."""
OWNER_CHECK_S: Final = 5.0
"""How often the feed of a branch that this node does not own asks who does."""

End = Literal["stopping", "moved", "gone", "rewritten"]


class Followed(Protocol):
    """A branch, as a feed sees it. Implemented by memoturnd.engine.branch.Branch."""

    @property
    def branch_id(self) -> str:
        """Id of the branch."""
        ...

    @property
    def moves(self) -> Moves:
        """Tells that it moved."""
        ...

    @property
    def is_gone(self) -> bool:
        """Whether it was deleted."""
        ...

    @property
    def is_fenced(self) -> bool:
        """Whether another owner was found in its manifest."""
        ...


F = TypeVar("F", bound=Followed)


class Feeds(Generic[F]):
    """The feeds of one node. `owner_of` returns the other node that owns a branch."""

    def __init__(self, owner_of: Callable[[F], Awaitable[Owner | None]], metrics: Metrics) -> None:
        self._owner_of = owner_of
        self._metrics = metrics
        self._by_branch: Counter[str] = Counter()
        self._waiting: dict[asyncio.Future[None], None] = {}  # in the order in which they came
        self._stopping = False
        metrics.feeds.set_function(self._by_branch.total)
        metrics.feeds_limit.set(FEEDS_LIMIT)

    def stop(self) -> None:
        """End every feed, those to come at once."""
        self._stopping = True
        for future in self._waiting:
            if not future.done():
                future.set_result(None)

    @contextmanager
    def place(self, branch: F) -> Iterator[None]:
        """Count a feed inside the block. Raises OverloadedError."""
        id_ = branch.branch_id
        for count, limit, whose in (
            (self._by_branch.total(), FEEDS_LIMIT, "this node"),
            (self._by_branch[id_], BRANCH_FEEDS_LIMIT, "the branch on this node"),
        ):
            if count >= limit:
                self._metrics.shed["feeds"].inc()
                raise OverloadedError(
                    f"{whose} has {count} change feeds, which is the most: end one, or ask again later"
                )
        self._by_branch[id_] += 1
        try:
            yield
        finally:
            self._by_branch[id_] -= 1
            if not self._by_branch[id_]:
                del self._by_branch[id_]

    async def owner(self, branch: F) -> Owner | None:
        """Return the other node that owns a branch, None where this does, or nobody. Raises RetryableError."""
        return await self._owner_of(branch)

    def end(self, branch: F) -> End | None:
        """Return why a feed ends now, None where it goes on."""
        if self._stopping:
            return "stopping"
        if branch.is_gone:
            return "gone"
        return "moved" if branch.is_fenced else None

    async def moved(self, branch: F, seen: int, owner: Owner | None, timeout_s: float | None) -> End | None:
        """Wait until the branch has moved on from `seen`, or until the time is over; return why the feed ends, if it does.

        `owner` is who else owned the branch when the feed began.
        """
        loop = asyncio.get_running_loop()
        until_s = None if timeout_s is None else loop.time() + timeout_s
        while (end := self.end(branch)) is None and branch.moves.count == seen:
            left_s = OWNER_CHECK_S if until_s is None else min(OWNER_CHECK_S, until_s - loop.time())
            if left_s <= 0:
                return None
            if not await self._noticed(branch, left_s) and await self._has_another_owner(branch, owner):
                return "moved"
        if end is None:
            await self._noticed(branch, GATHER_S, moves=False)
        return end or self.end(branch)

    async def _noticed(self, branch: F, timeout_s: float, *, moves: bool = True) -> bool:
        """Return whether something happened in time."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        if moves:
            branch.moves.add(future)
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            return False
        finally:
            del self._waiting[future]
            branch.moves.discard(future)
        return True

    async def _has_another_owner(self, branch: F, owner: Owner | None) -> bool:
        try:
            now = await self._owner_of(branch)
        except MemoturnError:
            return False  # it is asked again
        return now is not None and (owner is None or (now.node_id, now.epoch) != (owner.node_id, owner.epoch))
