"""Leases inside one process: the embedded node, and several nodes in one test.

Nothing expires. That there is only one process is the data directory lock's business.
"""

from dataclasses import dataclass, field

from memoturnd.errors import ConflictError
from memoturnd.seams.leases import Lease, Owner


@dataclass(slots=True)
class LeaseTable:
    """Who holds what. One counter serves every branch, so epochs grow without a memory per branch."""

    epoch: int = 0
    owners: dict[str, Owner] = field(default_factory=dict)


class LocalLeases:
    """Leases of one node. Nodes of one process that share a `table` exclude each other."""

    def __init__(self, node_id: str, address: str, table: LeaseTable | None = None) -> None:
        self._node_id = node_id
        self._address = address
        self._table = table or LeaseTable()

    async def acquire(self, branch_id: str) -> Lease:
        """Take the branch for this node, always with a new epoch, so that an older lease of it is stale.

        Raises ConflictError naming the owner when another node has it.
        """
        owner = self._table.owners.get(branch_id)
        if owner is not None and owner.node_id != self._node_id:
            raise ConflictError(
                f"branch {branch_id} belongs to node {owner.node_id} at {owner.address}: send the request there",
            )
        self._table.epoch += 1
        epoch = self._table.epoch
        self._table.owners[branch_id] = Owner(self._node_id, self._address, epoch)
        return Lease(branch_id, self._node_id, epoch)

    async def owner_of(self, branch_id: str) -> Owner | None:
        """Return the current owner, None when nobody has the branch."""
        return self._table.owners.get(branch_id)

    async def release(self, lease: Lease) -> None:
        """Give the branch back, only if `lease` is still the current one."""
        owner = self._table.owners.get(lease.branch_id)
        if owner is not None and (owner.node_id, owner.epoch) == (lease.node_id, lease.epoch):
            del self._table.owners[lease.branch_id]

    def deadline(self) -> float | None:
        """Return None: these leases never expire."""
        return None

    async def close(self) -> None:
        """Give back what this node holds."""
        held = [branch for branch, owner in self._table.owners.items() if owner.node_id == self._node_id]
        for branch_id in held:
            del self._table.owners[branch_id]
