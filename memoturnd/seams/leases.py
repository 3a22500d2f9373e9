"""The leases seam: which node may write a branch, and until when.

A lease is liveness; safety comes from the epoch in the branch's manifest, which the new owner raises by
compare-and-swap before it serves anything.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted ownership. `epoch` only ever grows per branch as far as the lease service remembers."""

    branch_id: str
    node_id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a branch now, and where it can be reached."""

    node_id: str
    address: str
    epoch: int


class Leases(Protocol):
    """Grants branch ownership to nodes."""

    async def acquire(self, branch_id: str) -> Lease:
        """Take the branch for this node. Raises ConflictError naming the owner when another node has it."""
        ...

    async def owner_of(self, branch_id: str) -> Owner | None:
        """Return the current owner, None when nobody has the branch."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the branch back, only if `lease` is still the current one."""
        ...

    def deadline(self) -> float | None:
        """Return the boot-clock second at which this node must stop writing; None when it never expires."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...
