"""The cluster as its nodes see it: each asked for itself, with a time limit, and put together for the operator."""

import asyncio
import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from memoturnd import __version__
from memoturnd.core.cluster_wire import STATUS, Ask, NodeState, Placement, Standing, Status, Tiers
from memoturnd.engine.branch import Branch
from memoturnd.engine.branching import Branching
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers as Open
from memoturnd.errors import MemoturnError
from memoturnd.seams.leases import LiveNode, Owner, SyncSet
from memoturnd.seams.peers import JSON

ASK_S: Final = 2.0
"""How long a node may take to tell of itself; then it is listed as silent."""
NODES_LIMIT: Final = 256
"""Nodes that are asked; a cluster of more shows the first of them by name."""
ASKED_AT_ONCE: Final = 32
_DECODER = msgspec.json.Decoder(Status)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """A node that is there; `status` is None where it did not answer, and `problem` says why."""

    node: LiveNode
    status: Status | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A branch and the node that owns it."""

    node: LiveNode
    placement: Placement


@dataclass(frozen=True, slots=True)
class BranchPlacement:
    """Where one branch is: its owner by the leases, the set that its replicated commits depend on, and what its owner says of it."""

    branch: str
    branch_id: str
    owner: Owner | None
    sync_set: SyncSet | None
    standing: Standing | None


class Cluster:
    """What this node knows of itself and hears of the others. `is_recovering` tells whether its start is still under way."""

    def __init__(
        self,
        services: Services,
        open_branches: Open,
        branching: Branching,
        *,
        node_id: str,
        is_recovering: Callable[[], bool],
    ) -> None:
        self._services = services
        self._open = open_branches
        self._branching = branching
        self._node_id = node_id
        self._is_recovering = is_recovering

    def status(self, ask: Ask) -> Status:
        """Return what this node says of itself."""
        if ask.branch_id is not None:
            found = self._open.find(ask.branch_id)
            owned = [found] if found is not None and self._owns(found) else []
            return Status(self._state(), [self._placement(branch) for branch in owned])
        behind = (branch for branch in self._owned() if branch.branch_id > ask.after)
        chosen = heapq.nsmallest(ask.limit, behind, key=lambda branch: branch.branch_id)
        return Status(self._state(), [self._placement(branch) for branch in chosen])

    async def overview(self, after: str, limit: int) -> tuple[list[Seen], list[Placed]]:
        """Return every node that is there, and the first `limit` placements behind the branch id `after`. Raises RetryableError."""
        nodes = sorted(await self._services.leases.live_nodes(), key=lambda node: node.node_id)
        gate = asyncio.Semaphore(ASKED_AT_ONCE)
        ask = Ask(after=after, limit=limit)
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._seen(node, ask, gate)) for node in nodes[:NODES_LIMIT]]
        seen = [task.result() for task in asked]
        placed = (
            Placed(one.node, placement)
            for one in seen
            if one.status is not None
            for placement in one.status.placements
        )
        return seen, heapq.nsmallest(
            limit, placed, key=lambda one: (one.placement.branch_id, one.node.node_id)
        )

    async def placement(self, db_name: str, branch: str) -> BranchPlacement:
        """Return where a branch is. Raises DatabaseNotFoundError, BranchNotFoundError, RetryableError."""
        ref = (await self._branching.find(db_name, branch)).ref
        leases = self._services.leases
        owner, sync_set = await leases.owner_of(ref.branch_id), await leases.sync_set(ref.branch_id)
        standing = None
        if owner is not None:
            node = LiveNode(owner.node_id, owner.address)
            seen = await self._seen(node, Ask(branch_id=ref.branch_id), asyncio.Semaphore(1))
            said = [] if seen.status is None else seen.status.placements
            standing = said[0].standing if said else None
        return BranchPlacement(ref.name, ref.branch_id, owner, sync_set, standing)

    async def _seen(self, node: LiveNode, ask: Ask, gate: asyncio.Semaphore) -> Seen:
        """Return a node with what it says of itself, or why it does not."""
        if node.node_id == self._node_id:
            return Seen(node, self.status(ask))
        peers = self._services.peers
        if peers is None:
            return Seen(node, None, "this node has no cluster key to ask it with")
        async with gate:
            try:
                body = await peers.ask(
                    node.address,
                    STATUS,
                    body=msgspec.json.encode(ask),
                    headers=JSON,
                    timeout_s=ASK_S,
                )
                return Seen(node, _DECODER.decode(body))
            except (MemoturnError, msgspec.MsgspecError) as error:
                _log.warning("a node does not tell of itself", node=node.node_id, error=str(error))
                return Seen(node, None, str(error))

    def _state(self) -> NodeState:
        services = self._services
        hot, warm, _ = self._open.counts
        shippers = [branch.owned.shipper for branch in self._open.hot() if branch.owned is not None]
        deadline_s = services.leases.deadline()
        return NodeState(
            version=__version__,
            tiers=Tiers(hot, warm),
            owned=sum(1 for _ in self._owned()),
            lease_left_ms=None if deadline_s is None else _ms(deadline_s - services.clock.monotonic_s()),
            unshipped_bytes=sum(shipper.unshipped_bytes for shipper in shippers),
            unshipped_ms=_ms(max((shipper.unshipped_age_s for shipper in shippers), default=0)),
            replicas=len(services.replicas),
            replica_lag_ms=_ms(services.replicas.oldest_age_s),
            warm_up="recovering" if self._is_recovering() else "done",
        )

    def _owned(self) -> Iterator[Branch]:
        return (branch for branch in self._open.known() if self._owns(branch))

    def _owns(self, branch: Branch) -> bool:
        return branch.lease is not None and self._services.leases.holds(branch.lease)

    def _placement(self, branch: Branch) -> Placement:
        database, owned, lease = branch.ref.database, branch.owned, branch.lease
        shipper = None if owned is None else owned.shipper
        standing = Standing(
            tier="hot" if branch.hot else "warm",
            txid=branch.txid,
            durable_txid=branch.durable_txid,
            unshipped_bytes=0 if shipper is None else shipper.unshipped_bytes,
            unshipped_ms=0 if shipper is None else _ms(shipper.unshipped_age_s),
            replicas=self._services.subscribers.followers(branch.branch_id),
        )
        epoch = owned.epoch if owned is not None else lease.epoch if lease is not None else 0
        return Placement(branch.branch_id, database.name, database.tenant, branch.ref.name, epoch, standing)


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))
