"""Leases inside one process: the embedded node, and several nodes in one test.

Nothing expires. That there is only one process is the data directory lock's business.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from memoturnd.errors import FencedError, NotOwnerError
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


@dataclass(slots=True)
class LeaseTable:
    """Who holds what. One counter serves every branch, so epochs grow without a memory per branch."""

    epoch: int = 0
    placed: dict[str, Placed] = field(default_factory=dict)
    nodes: dict[str, LiveNode] = field(default_factory=dict)
    sync_sets: dict[str, SyncSet] = field(default_factory=dict)
    watchers: list["asyncio.Queue[Change]"] = field(default_factory=list)

    def owner(self, branch_id: str) -> Owner | None:
        """Return who holds a branch."""
        placed = self.placed.get(branch_id)
        return None if placed is None else placed.owner

    def tell(self, change: Change) -> None:
        """Let every watcher know."""
        for queue in self.watchers:
            queue.put_nowait(change)


class LocalLeases:
    """Leases of one node. Nodes of one process that share a `table` exclude each other."""

    lineage = Lineage()

    def __init__(self, node_id: str, address: str, table: LeaseTable | None = None) -> None:
        self.is_shared = table is not None
        self._node_id = node_id
        self._address = address
        self._table = table or LeaseTable()
        self._table.nodes[node_id] = LiveNode(node_id, address)
        self._table.tell(self._table.nodes[node_id])

    async def acquire(self, branch_id: str, *, database: str = "", branch: str = "") -> Lease:
        """Take the branch for this node, always with a new epoch, so that an older lease of it is stale.

        Raises NotOwnerError naming the owner when another node has it.
        """
        table, owner = self._table, self._table.owner(branch_id)
        if owner is not None and owner.node_id != self._node_id:
            raise NotOwnerError(
                f"branch {branch_id} belongs to node {owner.node_id} at {owner.address}: send the request there",
                owner,
            )
        table.epoch += 1
        placed = Placed(branch_id, database, branch, Owner(self._node_id, self._address, table.epoch))
        table.placed[branch_id] = placed
        table.tell(placed)
        return Lease(branch_id, self._node_id, table.epoch, lineage=self.lineage)

    async def owner_of(self, branch_id: str) -> Owner | None:
        """Return the current owner, None when nobody has the branch."""
        return self._table.owner(branch_id)

    async def release(self, lease: Lease) -> None:
        """Give the branch back, only if `lease` is still the current one."""
        if self.holds(lease):
            self._drop(lease.branch_id)

    def holds(self, lease: Lease) -> bool:
        """Return whether the lease is this node's, and the current one of its branch."""
        owner = self._table.owner(lease.branch_id)
        return (
            owner is not None
            and lease.node_id == self._node_id
            and (owner.node_id, owner.epoch) == (lease.node_id, lease.epoch)
        )

    def deadline(self) -> float | None:
        """Return None: these leases never expire."""
        return None

    async def live_nodes(self) -> Sequence[LiveNode]:
        """Return the nodes that share the table."""
        return tuple(self._table.nodes.values())

    async def sync_set(self, branch_id: str) -> SyncSet | None:
        """Return the set that was recorded last, None where nothing depends on any."""
        return self._table.sync_sets.get(branch_id)

    async def record_sync_set(self, lease: Lease, members: Sequence[LiveNode]) -> None:
        """Record the set under the lease's epoch, or that there is none. Raises FencedError for a stale lease."""
        if not self.holds(lease):
            raise FencedError(f"the lease of branch {lease.branch_id} is not this node's any more")
        if members:
            self._table.sync_sets[lease.branch_id] = SyncSet(lease.epoch, tuple(members))
        else:
            self._table.sync_sets.pop(lease.branch_id, None)

    async def watch(self) -> AsyncIterator[Change]:
        """Yield everything, then each change."""
        table = self._table
        changes: asyncio.Queue[Change] = asyncio.Queue()
        table.watchers.append(changes)
        try:
            yield Placements(tuple(table.placed.values()), tuple(table.nodes.values()))
            while True:
                yield await changes.get()
        finally:
            table.watchers.remove(changes)

    async def close(self) -> None:
        """Give back what this node holds."""
        table = self._table
        for branch_id, placed in list(table.placed.items()):
            if placed.owner is not None and placed.owner.node_id == self._node_id:
                self._drop(branch_id)
        if table.nodes.pop(self._node_id, None) is not None:
            table.tell(NodeLeft(self._node_id))

    def _drop(self, branch_id: str) -> None:
        placed = self._table.placed.pop(branch_id)
        self._table.tell(Placed(branch_id, placed.database, placed.branch, None))
