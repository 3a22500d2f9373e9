"""Bodies of the routes about the cluster."""

from memoturnd.core.cluster_wire import NodeState, Standing
from memoturnd.http.shapes import UNSET, Count, Maybe, Struct


class ClusterNode(Struct):
    """A node that is there, its load from 0 to 1. A silent one did not answer in time, and `problem` says why; else `state` is its own."""

    node_id: str
    address: str
    load: float
    silent: bool
    state: Maybe[NodeState] = UNSET
    problem: Maybe[str] = UNSET


class ClusterPlacement(Struct):
    """A branch that a node owns, and how far it is there."""

    branch_id: str
    database: str
    tenant: str
    branch: str
    node_id: str
    epoch: Count
    standing: Standing


class ClusterOverview(Struct):
    """Every node, and placements by branch id; `next_cursor` is null where no more follow."""

    nodes: list[ClusterNode]
    placements: list[ClusterPlacement]
    next_cursor: str | None


class PlacementOwner(Struct):
    """The node that owns a branch."""

    node_id: str
    address: str
    epoch: Count


class Member(Struct):
    """A node of a sync set."""

    node_id: str
    address: str


class PlacementSyncSet(Struct):
    """The nodes that hold what was acknowledged as replicated under `epoch`."""

    epoch: Count
    members: list[Member]


class DatabasePlacement(Struct):
    """Where a branch is. `owner` is null while nobody owns it, `standing` also where its owner does not answer."""

    database: str
    branch: str
    branch_id: str
    owner: PlacementOwner | None
    sync_set: PlacementSyncSet | None
    standing: Standing | None
