"""Whose a branch is, among the nodes that share it."""

from typing import TYPE_CHECKING

from memoturnd.engine.services import Services
from memoturnd.errors import NotOwnerError
from memoturnd.seams.leases import Owner

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch


async def owner_elsewhere(services: Services, branch: "Branch") -> Owner | None:
    """Return the other node that owns a branch; None where this one does, or nobody.

    Asks the lease service only where other nodes may own branches and this one does not own it. Raises RetryableError.
    """
    leases = services.leases
    if not leases.is_shared or branch.is_ours:
        return None
    owner = await leases.owner_of(branch.branch_id)
    return None if owner is None or owner.node_id == services.node_id else owner


async def refuse_elsewhere(services: Services, branch: "Branch") -> None:
    """Raise NotOwnerError where another node owns the branch, and may have committed what is nowhere else. Raises RetryableError."""
    owner = await owner_elsewhere(services, branch)
    if owner is not None:
        raise NotOwnerError(
            f"{branch.ref} belongs to node {owner.node_id} at {owner.address}: send the request there", owner
        )
