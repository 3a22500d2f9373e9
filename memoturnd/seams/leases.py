"""The leases seam: which node may write a branch, and until when; which nodes are there.

A lease is liveness; safety comes from the epoch in the branch's manifest, which the new owner raises by
compare-and-swap before it serves anything.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Lineage:
    """Since when the lease service remembers: `id` is another one once it was emptied or replaced, and empty where it never is.

    From `settled_s` of the boot clock on, nobody acts on a lease that was granted before.
    """

    id: str = ""
    settled_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Lease:
    """A granted ownership. `epoch` only ever grows per branch as far as the lease service remembers.

    `session` names the node's own lease under which it was granted: once that ended, so has this.
    """

    branch_id: str
    node_id: str
    epoch: int
    session: str = ""
    lineage: Lineage = Lineage()


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a branch now, and where it can be reached."""

    node_id: str
    address: str
    epoch: int


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node that can be given branches. `load` is the part of its capacity in use, from 0 to 1; one that drains has 1."""

    node_id: str
    address: str
    load: float = 0.0


@dataclass(frozen=True, slots=True)
class SyncSet:
    """The nodes that hold what the owner under `epoch` has acknowledged as replicated: each of them all of it."""

    epoch: int
    members: tuple[LiveNode, ...]


@dataclass(frozen=True, slots=True)
class Placed:
    """That a branch has an owner, or (None) has none any more. `database` is its qualified name, `branch` its name."""

    branch_id: str
    database: str
    branch: str
    owner: Owner | None


@dataclass(frozen=True, slots=True)
class Placements:
    """All that is placed, and every node that is there, as of one moment."""

    placed: tuple[Placed, ...]
    nodes: tuple[LiveNode, ...]


@dataclass(frozen=True, slots=True)
class NodeLeft:
    """That a node is not there any more."""

    node_id: str


Change = Placements | Placed | LiveNode | NodeLeft
"""What a watch tells: everything at first and after each gap, then what changes."""


class Watching(Protocol):
    """Tells who owns what: for whoever routes, and holds nothing itself."""

    def watch(self) -> AsyncIterator[Change]:
        """Yield everything, then each change, for ever; after a gap everything again. Raises nothing but cancellation."""
        ...


class Leases(Watching, Protocol):
    """Grants branch ownership to nodes."""

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may own branches: without it nothing has to be asked before a read."""
        ...

    @property
    def lineage(self) -> Lineage:
        """The lineage of what the service answered last."""
        ...

    async def acquire(self, branch_id: str, *, database: str = "", branch: str = "") -> Lease:
        """Take the branch for this node; its names are noted for whoever routes.

        Raises NotOwnerError naming the owner when another node has it, RetryableError when the service does not answer.
        """
        ...

    async def owner_of(self, branch_id: str) -> Owner | None:
        """Return the current owner, None when nobody has the branch; never an answer older than the question.

        Raises RetryableError.
        """
        ...

    async def release(self, lease: Lease) -> None:
        """Give the branch back, only if `lease` is still the current one. Raises RetryableError."""
        ...

    def holds(self, lease: Lease) -> bool:
        """Return whether the lease is of the session that stands, before its deadline. Asks nobody."""
        ...

    def deadline(self) -> float | None:
        """Return the boot-clock second at which this node must stop writing; None when it never expires."""
        ...

    async def live_nodes(self) -> Sequence[LiveNode]:
        """Return the nodes that are there, this one included. Raises RetryableError."""
        ...

    async def sync_set(self, branch_id: str) -> SyncSet | None:
        """Return the set that the last owner who needed one recorded, None where nothing depends on any. Raises RetryableError."""
        ...

    async def record_sync_set(self, lease: Lease, members: Sequence[LiveNode]) -> None:
        """Record the set under the lease's epoch, or (empty) that nothing depends on any; only while `lease` is the current one.

        Raises FencedError when it is not, RetryableError: then it may have been recorded all the same.
        """
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...
