"""What a cluster tells of itself: answers of `Memoturn.cluster` and `Memoturn.placement`. Times are in milliseconds."""

from typing import Literal, TypedDict


class _Ready(TypedDict):
    store: str
    leases: str
    catalog: str
    version: str


class Ready(_Ready, total=False):
    """A node that is ready: what it stands on (each `ok`), and what it has.

    `embedder` is the model that it embeds with, None without one; `language_models` what it asks a language model for.
    """

    embedder: str | None
    language_models: list[str]


class Tiers(TypedDict):
    """Branches that are open, and those of which there is a closed file."""

    hot: int
    warm: int


class NodeState(TypedDict):
    """A node as it sees itself; `lease_left_ms` is None where leases do not expire."""

    version: str
    tiers: Tiers
    owned: int
    lease_left_ms: int | None
    unshipped_bytes: int
    unshipped_ms: int
    replicas: int
    replica_lag_ms: int
    warm_up: Literal["done", "recovering"]


class _Node(TypedDict):
    node_id: str
    address: str
    load: float
    silent: bool


class ClusterNode(_Node, total=False):
    """A node that is there; a silent one has a `problem` instead of a `state`."""

    state: NodeState
    problem: str


class Standing(TypedDict):
    """How far a branch is at its owner."""

    tier: Literal["hot", "warm"]
    txid: int
    durable_txid: int
    unshipped_bytes: int
    unshipped_ms: int
    replicas: int


class ClusterPlacement(TypedDict):
    """A branch that a node owns."""

    branch_id: str
    database: str
    tenant: str
    branch: str
    node_id: str
    epoch: int
    standing: Standing


class ClusterOverview(TypedDict):
    """Every node, and a page of placements."""

    nodes: list[ClusterNode]
    placements: list[ClusterPlacement]
    next_cursor: str | None


class Owner(TypedDict):
    """The node that owns a branch."""

    node_id: str
    address: str
    epoch: int


class Member(TypedDict):
    """A node of a sync set."""

    node_id: str
    address: str


class SyncSet(TypedDict):
    """The nodes that hold what was acknowledged as replicated under `epoch`."""

    epoch: int
    members: list[Member]


class DatabasePlacement(TypedDict):
    """Where a branch is; `owner` is None while nobody owns it, `standing` also where its owner does not answer."""

    database: str
    branch: str
    branch_id: str
    owner: Owner | None
    sync_set: SyncSet | None
    standing: Standing | None
