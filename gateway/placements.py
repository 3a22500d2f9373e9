"""What a gateway knows of the cluster: which nodes are there, and which of them owns what. It is fed by the watch on the leases.

It may be out of date: a node that is not the owner any more says so, and whose it is then. While the lease service does not answer
all of it stays as it was known last.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, cast

import structlog

from gateway.routing import Key, Target
from memoturnd.core.breaker import Breaker
from memoturnd.core.placement import place, spread
from memoturnd.core.retries import Event
from memoturnd.seams.leases import Change, LiveNode, NodeLeft, Owner, Placed, Placements, Watching

PLACEMENTS_LIMIT: Final = 1_000_000
"""Owners that are known at once. Of more, those that were told longest ago are forgotten: a node names them when asked."""
WATCH_AGAIN_S: Final = 1.0
_GOLDEN: Final = (5**0.5 - 1) / 2
_NOBODY: Final[frozenset[str]] = frozenset()
_log = structlog.get_logger(__name__)


class PlacementCache:
    """Owners and nodes, as they were told last. Implements gateway.routing.Where.

    `left` is called with the address of a node that is not there any more: nothing is to be expected from it.
    """

    def __init__(
        self,
        *,
        now_s: Callable[[], float],
        left: Callable[[str], None] = lambda _: None,
        limit: int = PLACEMENTS_LIMIT,
    ) -> None:
        self.nodes: dict[str, LiveNode] = {}
        self.is_fed = False
        """Whether a first picture of the cluster has come."""
        self.told: Callable[[], None] = lambda: None
        """Called with each change that is told."""
        self.looked: Callable[[bool], None] = lambda _hit: None
        """Called with each look for an owner: whether he was known."""
        self._owners: OrderedDict[Key, Owner] = OrderedDict()
        self._breakers: dict[str, Breaker] = {}
        self._waiting: dict[Key | None, dict[asyncio.Future[None], None]] = {}
        """Who waits for a change of what, in the order in which they came and are woken."""
        self._now_s = now_s
        self._left = left
        self.limit = limit
        self._point = 0.0

    @property
    def owners(self) -> int:
        """How many owners are known."""
        return len(self._owners)

    @property
    def open_breakers(self) -> int:
        """How many nodes are left alone for now."""
        return sum(breaker.is_open for breaker in self._breakers.values())

    @property
    def can_route(self) -> bool:
        """Whether there is a node to which requests can be sent."""
        return self.is_fed and any(
            (breaker := self._breakers.get(node_id)) is None or not breaker.is_open for node_id in self.nodes
        )

    def owner(self, key: Key) -> Owner | None:
        """Return the owner of a branch as far as it is known."""
        return self._owners.get(key)

    # ---- what is told

    async def feed(self, watching: Watching) -> None:
        """Follow the watch for ever."""
        while True:
            try:
                async with aclosing(cast("AsyncGenerator[Change, None]", watching.watch())) as changes:
                    async for change in changes:
                        self.take(change)
            except Exception as error:  # noqa: BLE001 - what is known goes on being used
                _log.error("the watch on the leases failed", exc_info=error)
            await asyncio.sleep(WATCH_AGAIN_S)

    def take(self, change: Change) -> None:
        """Take note of a change."""
        self.told()
        match change:
            case Placements():
                self._take_all(change)
            case Placed():
                self._take_placed(change)
            case LiveNode():
                self.nodes[change.node_id] = change
                self._wake_all()
            case NodeLeft():
                self._forget(change.node_id)
                self._wake_all()

    def _take_all(self, picture: Placements) -> None:
        there = {node.node_id for node in picture.nodes}
        for node_id in [known for known in self.nodes if known not in there]:
            self._forget(node_id)
        self.nodes = {node.node_id: node for node in picture.nodes}
        self._owners.clear()
        for placed in picture.placed[-self.limit :]:
            if placed.owner is not None:
                self._owners[placed.database, placed.branch] = placed.owner
        self.is_fed = True
        self._wake_all()

    def _take_placed(self, placed: Placed) -> None:
        key = (placed.database, placed.branch)
        if placed.owner is None:
            self._owners.pop(key, None)
        else:
            self._note(key, placed.owner)
        self._wake(key)

    def _forget(self, node_id: str) -> None:
        node = self.nodes.pop(node_id, None)
        self._breakers.pop(node_id, None)
        if node is not None:
            self._left(node.address)

    def _note(self, key: Key, owner: Owner) -> None:
        self._owners[key] = owner
        self._owners.move_to_end(key)
        while len(self._owners) > self.limit:
            self._owners.popitem(last=False)

    # ---- what is asked

    async def target(self, key: Key | None, failed: frozenset[str]) -> Target | None:
        """Return the owner; where it cannot be reached, another node that may reach it; where nobody owns the branch, its place."""
        if key is None:
            self._point = (self._point + _GOLDEN) % 1.0
            node = self._admitted(
                failed, lambda avoiding: spread(self.nodes.values(), self._point, avoiding=avoiding)
            )
            return None if node is None else Target(node.node_id, node.address, forwarded=False)
        owner = self._owners.get(key)
        self.looked(owner is not None)
        if owner is not None and owner.node_id not in failed and self._admits(owner.node_id):
            return Target(owner.node_id, owner.address)
        avoiding = failed if owner is None else failed | {owner.node_id}
        node = self._admitted(avoiding, lambda skipped: place(key[0], self.nodes.values(), avoiding=skipped))
        return None if node is None else Target(node.node_id, node.address, forwarded=owner is None)

    def polled(self, target: Target) -> None:
        """Return None: the connections of a node that is not there any more are cut."""

    def learned(self, key: Key | None, owner: Owner) -> None:
        """Take note of an owner that a node named, unless a newer one is known."""
        if key is None:
            return
        known = self._owners.get(key)
        if known is None or known.epoch < owner.epoch:
            self._note(key, owner)

    async def changed(self, key: Key | None, wait_s: float) -> None:
        """Wait until something is told of the branch or of a node, or for `wait_s`."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, {})
        waiting[turn] = None
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except TimeoutError:
            pass
        finally:
            del waiting[turn]
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    def saw(self, target: Target, event: Event) -> None:
        """Take note of what became of an attempt."""
        breaker = self._breakers.get(target.node_id)
        if event is Event.ANSWERED:
            if breaker is not None:
                breaker.succeeded()
            return
        if breaker is None:
            if target.node_id not in self.nodes:
                return
            breaker = self._breakers[target.node_id] = Breaker()
        breaker.failed(self._now_s())

    def abandoned(self, target: Target) -> None:
        """Take note that an attempt was given up before anything became of it."""
        if (breaker := self._breakers.get(target.node_id)) is not None:
            breaker.abandoned()

    def _admits(self, node_id: str) -> bool:
        breaker = self._breakers.get(node_id)
        return breaker is None or breaker.admits(self._now_s())

    def _admitted(
        self, avoiding: frozenset[str], pick: "Callable[[frozenset[str]], LiveNode | None]"
    ) -> LiveNode | None:
        while (node := pick(avoiding)) is not None and not self._admits(node.node_id):
            avoiding |= {node.node_id}
        return node

    def _wake(self, key: Key) -> None:
        for turn in self._waiting.get(key, ()):
            if not turn.done():
                turn.set_result(None)

    def _wake_all(self) -> None:
        for waiting in self._waiting.values():
            for turn in waiting:
                if not turn.done():
                    turn.set_result(None)
