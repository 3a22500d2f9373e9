"""The lease service that all nodes share: one session per node, which expires by the virtual clock."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

from memoturnd.errors import FencedError, NotOwnerError, RetryableError
from memoturnd.leases.etcd import MARGIN_SHARE
from memoturnd.seams.leases import (
    Change,
    Lease,
    Lineage,
    LiveNode,
    NodeLeft,
    Owner,
    Placed,
    Placements,
    SyncSet,
)
from simulation.loop import Process
from simulation.world import NodeClock, World

TTL_S = 3.0
"""Of a session, in virtual seconds at the usual pace."""
_WATCH_S = 0.1
"""How far a watch is behind, at the usual pace."""


def address_of(node_id: str) -> str:
    """Return where a node is reached."""
    return f"http://{node_id}"


@dataclass(slots=True)
class Holding:
    """A branch, held under a session of its node."""

    node_id: str
    session: int
    epoch: int
    database: str = ""
    branch: str = ""


@dataclass(slots=True)
class Table:
    """Who holds what, as the service remembers it."""

    world: World
    epoch: int = 0
    sessions: int = 0
    expiry_s: dict[int, float] = field(default_factory=dict)
    holdings: dict[str, Holding] = field(default_factory=dict)
    sync_sets: dict[str, SyncSet] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    """Node id to the session that it had last."""
    lineage: int = 1
    clients: dict[str, "SharedLeases"] = field(default_factory=dict)
    """Process name to its leases."""
    wiped_s: list[float] = field(default_factory=list)
    """When the service lost its memory."""
    on_recorded: Callable[[str, Sequence[str]], None] = lambda _branch_id, _members: None

    @property
    def ttl_s(self) -> float:
        """Return how long a session lasts without being renewed."""
        return TTL_S * self.world.pace

    def owner(self, branch_id: str) -> Holding | None:
        """Return who holds a branch under a session that has not expired."""
        held = self.holdings.get(branch_id)
        if held is None or self.expiry_s.get(held.session, 0.0) <= self.world.loop.time():
            return None
        return held

    def live(self) -> tuple[LiveNode, ...]:
        """Return the nodes whose session has not expired."""
        now_s = self.world.loop.time()
        return tuple(
            LiveNode(name, address_of(name))
            for name, session in sorted(self.nodes.items())
            if self.expiry_s.get(session, 0.0) > now_s
        )

    def placements(self) -> Placements:
        """Return everything that a watch tells."""
        placed = []
        for branch_id in sorted(self.holdings):
            held = self.owner(branch_id)
            if held is not None:
                owner = Owner(held.node_id, address_of(held.node_id), held.epoch)
                placed.append(Placed(branch_id, held.database, held.branch, owner))
        return Placements(tuple(placed), self.live())

    async def watch(self, line: "Line") -> AsyncIterator[Change]:
        """Tell everything, then what changes; everything again after a cut."""
        told: Placements | None = None
        while True:
            if line.cut:
                told = None
            elif told is None:
                told = self.placements()
                yield told
            else:
                now, before, told = self.placements(), told, None
                for change in _changes(before, now):
                    yield change
                told = now
            await asyncio.sleep(_WATCH_S * self.world.pace)

    def forget_everything(self) -> None:
        """Lose all memory, epochs included, as a service does that was made anew."""
        self.world.note("leases", "wiped")
        self.wiped_s.append(self.world.loop.time())
        self.lineage += 1
        self.nodes.clear()
        self.epoch = 0
        self.expiry_s.clear()
        self.holdings.clear()
        self.sync_sets.clear()


def _changes(before: Placements, now: Placements) -> list[Change]:
    changes: list[Change] = []
    stay = {node.node_id for node in now.nodes}
    changes += [NodeLeft(node.node_id) for node in before.nodes if node.node_id not in stay]
    changes += [node for node in now.nodes if node not in before.nodes]
    owned = {placed.branch_id for placed in now.placed}
    for placed in before.placed:
        if placed.branch_id not in owned:
            changes.append(Placed(placed.branch_id, placed.database, placed.branch, None))
    changes += [placed for placed in now.placed if placed not in before.placed]
    return changes


@dataclass(slots=True)
class Line:
    """The way to the lease service."""

    cut: bool = False


class SharedLeases:
    """Leases for one process life. `keep` renews its session and runs beside the node."""

    def __init__(
        self, table: Table, process: Process, clock: NodeClock, line: Line, source: random.Random
    ) -> None:
        self.is_shared = True
        self._table = table
        self._process = process
        self._clock = clock
        self._line = line
        self._source = source
        self._node_id = process.name.partition("/")[0]
        self._session = 0
        self._sent_s = 0.0
        self.lineage = Lineage()
        table.clients[process.name] = self

    async def keep(self) -> None:
        """Renew the session for ever."""
        while True:
            try:
                await self._renew()
            except RetryableError:
                await self._clock.sleep(0.2)
                continue
            await self._clock.sleep(self._table.ttl_s / 3)

    async def _renew(self) -> None:
        sent_s = self._clock.monotonic_s()
        await self._way()
        table, now_s = self._table, self._table.world.loop.time()
        if table.expiry_s.get(self._session, 0.0) <= now_s:
            table.sessions += 1
            self._session = table.sessions
            table.world.note(self._process.name, "session", self._session)
            self._learn_lineage()
        table.expiry_s[self._session] = now_s + self._table.ttl_s
        table.nodes[self._node_id] = self._session
        await self._way()
        self._sent_s = sent_s

    def _learn_lineage(self) -> None:
        name = f"l{self._table.lineage}"
        if self.lineage.id != name:
            self.lineage = Lineage(name, self._clock.monotonic_s() + self._table.ttl_s)

    async def _see_that_it_remembers(self) -> None:
        """End the session of a service that has forgotten it, before what it answers is believed."""
        if self.lineage.id != f"l{self._table.lineage}":
            self._session = 0
            await self._renew()

    async def acquire(self, branch_id: str, *, database: str = "", branch: str = "") -> Lease:
        await self._way()
        table = self._table
        if table.expiry_s.get(self._session, 0.0) <= table.world.loop.time():
            await self._renew()
        held = table.owner(branch_id)
        if held is not None and held.node_id != self._node_id:
            raise NotOwnerError(
                f"branch {branch_id} belongs to node {held.node_id}: send the request there",
                Owner(held.node_id, address_of(held.node_id), held.epoch),
            )
        table.epoch += 1
        table.holdings[branch_id] = Holding(self._node_id, self._session, table.epoch, database, branch)
        table.world.note(self._process.name, "acquired", branch_id, table.epoch)
        lease = Lease(branch_id, self._node_id, table.epoch, str(self._session), self.lineage)
        await self._way()
        return lease

    async def owner_of(self, branch_id: str) -> Owner | None:
        await self._way()
        await self._see_that_it_remembers()
        held = self._table.owner(branch_id)
        await self._way()
        return None if held is None else Owner(held.node_id, address_of(held.node_id), held.epoch)

    async def release(self, lease: Lease) -> None:
        await self._way()
        table, held = self._table, self._table.owner(lease.branch_id)
        if held is not None and (str(held.session), held.epoch) == (lease.session, lease.epoch):
            table.world.require(
                held.node_id == self._node_id,
                f"{self._node_id} gave back a lease of {held.node_id}",
            )
            del table.holdings[lease.branch_id]
            table.world.note(self._process.name, "released", lease.branch_id)
        await self._way()

    def session(self) -> str:
        """Return the session that stands by this node's clock, empty without one."""
        return str(self._session) if self._clock.monotonic_s() < self.deadline() else ""

    def holds(self, lease: Lease) -> bool:
        return lease.session == str(self._session) and self._clock.monotonic_s() < self.deadline()

    async def live_nodes(self) -> Sequence[LiveNode]:
        await self._way()
        return self._table.live()

    async def sync_set(self, branch_id: str) -> SyncSet | None:
        await self._way()
        await self._see_that_it_remembers()
        return self._table.sync_sets.get(branch_id)

    async def record_sync_set(self, lease: Lease, members: Sequence[LiveNode]) -> None:
        await self._way()
        held = self._table.owner(lease.branch_id)
        if held is None or (held.node_id, held.epoch) != (lease.node_id, lease.epoch):
            raise FencedError(f"the lease of branch {lease.branch_id} is not this node's any more")
        if members:
            self._table.sync_sets[lease.branch_id] = SyncSet(lease.epoch, tuple(members))
            self._table.on_recorded(lease.branch_id, [node.node_id for node in members])
        else:
            self._table.sync_sets.pop(lease.branch_id, None)
        await self._way()

    def watch(self) -> AsyncIterator[Change]:
        return self._table.watch(self._line)

    def deadline(self) -> float:
        return self._sent_s + (1 - MARGIN_SHARE) * self._table.ttl_s

    async def close(self) -> None:
        """End the session, by this node's clock too: what it could not ship is not there until it comes back."""
        self._table.expiry_s.pop(self._session, None)
        self._sent_s = float("-inf")

    async def _way(self) -> None:
        self._process.check_alive()
        await asyncio.sleep(self._source.expovariate(500.0))
        if self._line.cut:
            await asyncio.sleep(TTL_S / 4)
            raise RetryableError("the lease service does not answer (simulated); try again")
