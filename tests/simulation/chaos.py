"""The fault driver: what happens to nodes, networks and the lease service, until it is told to stop."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from functools import partial

from simulation.board import Board
from simulation.nodes import SimNode

Event = Callable[[SimNode], Awaitable[None]]


class Chaos:
    """Troubles the nodes of a board, all from one stream; with `kinds` in these ways alone."""

    def __init__(self, board: Board, mean_s: float, kinds: Collection[str] = ()) -> None:
        self._board = board
        self._world = board.shared.world
        self._source: random.Random = self._world.stream("chaos")
        self._mean_s = mean_s
        self._ttl_s = board.shared.table.ttl_s
        self._events: dict[Event, float] = {
            self._kill: 4,
            self._kill_and_lose_disk: 1,
            self._power_cut: 1,
            self._restart: 2,
            self._crash_then_stop: 1,
            self._pause: 4,
            self._cut_store: 3,
            self._cut_leases: 2,
            self._cut_both: 2,
            self._wipe_leases: 0.5,
            self._storm: 5,
            self._cut_nodes: 3,
            self._lose_unshipped: 3,
            self._blind_gateway: 1,
        }
        # A few kinds per run, often: what needs several of one kind in a row would else hardly ever come about.
        chosen = [event for event in self._events if self._source.random() < 0.4]
        if kinds:
            chosen = [event for event in self._events if event.__name__.strip("_") in kinds]
            assert len(chosen) == len(kinds), kinds
        self._events = {event: self._events[event] for event in chosen or [self._pause]}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Let something happen again and again until cancelled."""
        events, weights = list(self._events), list(self._events.values())
        while True:
            await asyncio.sleep(self._source.expovariate(1 / self._mean_s))
            (event,) = self._source.choices(events, weights)
            node = self._victim()
            self._world.note("chaos", event.__name__, node.name)
            self._board.count("chaos", event.__name__.strip("_"))
            task = asyncio.create_task(event(node))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _victim(self) -> SimNode:
        """Choose a node, the owner of a branch mostly: there is more to lose."""
        owners = [self._board.owner(branch_id) for branch_id in self._board.shared.branch_ids.values()]
        known = [node for node in owners if node is not None]
        if known and self._source.random() < 0.7:
            return self._source.choice(known)
        return self._source.choice(self._board.nodes)

    async def end(self) -> None:
        """Wait for what has begun, so that every node is up and connected again."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _up_again(self, node: SimNode) -> None:
        await asyncio.sleep(self._source.choice([0.2, 1.0, 2 * self._ttl_s]) * self._source.uniform(0.5, 1.5))
        await start_at_last(node, self._source)

    async def _kill(self, node: SimNode, *, lose_disk: bool = False, power: bool = False) -> None:
        if not node.serves or node.busy:
            return
        node.busy = True
        if self._source.random() < 0.5:
            await self._next_swap(node)
        await node.kill(lose_disk=lose_disk, power=power)
        await self._up_again(node)
        node.busy = False

    async def _kill_and_lose_disk(self, node: SimNode) -> None:
        await self._kill(node, lose_disk=True)

    async def _power_cut(self, node: SimNode) -> None:
        await self._kill(node, power=True)

    async def _restart(self, node: SimNode) -> None:
        if not node.serves or node.busy:
            return
        node.busy = True
        await node.stop()
        await self._up_again(node)
        node.busy = False

    async def _crash_then_stop(self, node: SimNode) -> None:
        """Stop a node that is only just recovering from a crash, before which it could not ship."""
        if not node.serves or node.busy:
            return
        node.busy = True
        node.weather.cut = True
        await asyncio.sleep(self._source.uniform(0.0, 2.0))
        node.weather.cut = False
        await node.kill()
        node.line.cut = self._source.random() < 0.5
        await start_at_last(node, self._source)
        await asyncio.sleep(self._source.uniform(0.0, 1.0))
        await node.stop()
        node.line.cut = False
        await self._up_again(node)
        node.busy = False

    async def _pause(self, node: SimNode) -> None:
        process = node.process
        if process is None or process.paused or process.dead:
            return
        if self._source.random() < 0.5:
            at_commit = self._board.shared.truth.at_commit
            at_commit[node.name] = partial(setattr, process, "paused", True)
            await asyncio.sleep(self._source.uniform(0.5, 3))
            at_commit.pop(node.name, None)
            if process.dead:
                return
        process.paused = True
        await asyncio.sleep(
            self._source.choice([0.3, self._ttl_s, 2 * self._ttl_s]) * self._source.uniform(0.5, 1.5)
        )
        self._world.loop.resume(process)
        self._world.note(process.name, "resumed")

    async def _cut_store(self, node: SimNode) -> None:
        if self._source.random() < 0.5:
            node.weather.at_swap = partial(setattr, node.weather, "cut", True)
        else:
            node.weather.cut = True
        await asyncio.sleep(self._source.uniform(0.2, 9))
        node.weather.at_swap = None
        node.weather.cut = False

    async def _next_swap(self, node: SimNode) -> None:
        """Wait until a conditional write of the node has just landed, or for a while."""
        swapped = asyncio.Event()
        node.weather.at_swap = swapped.set
        with suppress(TimeoutError):
            async with asyncio.timeout(3):
                await swapped.wait()
        node.weather.at_swap = None

    async def _cut_leases(self, node: SimNode) -> None:
        node.line.cut = True
        await asyncio.sleep(self._source.uniform(0.5, 3 * self._ttl_s))
        node.line.cut = False

    async def _cut_both(self, node: SimNode) -> None:
        node.weather.cut, node.line.cut = self._source.random() < 0.8, True
        if not node.weather.cut:
            node.weather.at_swap = partial(setattr, node.weather, "cut", True)
        await asyncio.sleep(self._source.uniform(0.5, 3 * self._ttl_s))
        node.weather.at_swap = None
        node.weather.cut = node.line.cut = False

    async def _cut_nodes(self, node: SimNode) -> None:
        """Let a node and another one, or a gateway, not hear each other, or it and all others."""
        others = [other for other in (*self._board.nodes, *self._board.gateways) if other is not node]
        if self._source.random() < 0.7:
            others = [self._source.choice(others)]
        cuts = {frozenset((node.name, other.name)) for other in others}
        self._board.shared.mesh.cuts |= cuts
        await asyncio.sleep(self._source.uniform(0.2, 3 * self._ttl_s))
        self._board.shared.mesh.cuts -= cuts

    async def _blind_gateway(self, _node: SimNode) -> None:
        """Let a gateway not hear who owns what."""
        if not self._board.gateways:
            return
        gateway = self._source.choice(self._board.gateways)
        gateway.line.cut = True
        await asyncio.sleep(self._source.uniform(0.5, 3 * self._ttl_s))
        gateway.line.cut = False

    async def _lose_unshipped(self, node: SimNode) -> None:
        """Kill a node, or pause it beyond its lease, that could not ship for a while: what it acknowledged is with others at best."""
        if not node.serves or node.busy:
            return
        node.busy = True
        node.weather.cut = True
        await asyncio.sleep(self._source.uniform(0.3, 2.5))
        if self._source.random() < 0.3 and node.process is not None and not node.process.paused:
            await self._pause(node)
            node.weather.cut = False
        else:
            await node.kill(lose_disk=self._source.random() < 0.5)
            node.weather.cut = False
            await self._up_again(node)
        node.busy = False

    async def _wipe_leases(self, _node: SimNode) -> None:
        self._board.shared.table.forget_everything()
        await asyncio.sleep(0)

    async def _storm(self, node: SimNode) -> None:
        before = node.weather.trouble
        node.weather.trouble = 0.5
        await asyncio.sleep(self._source.uniform(1, 6))
        node.weather.trouble = before


async def start_at_last(node: SimNode, source: random.Random) -> None:
    """Start a node, again and again while it refuses."""
    while not await node.start():
        node.world.check()
        await asyncio.sleep(source.uniform(0.2, 2))
