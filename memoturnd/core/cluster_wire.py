"""What a node tells of itself: to other nodes, on an internal route, and through them to the operator."""

from typing import Annotated, Final, Literal

import msgspec

from memoturnd.core.bounds import INTEGER_MAX

STATUS: Final = "/internal/cluster/status"
PLACEMENTS_LIMIT: Final = 1000
"""Placements that one answer holds at most."""

Count = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]


class Tiers(msgspec.Struct, frozen=True):
    """Branches that are open, and those of which there is a closed file. Every other one is cold here."""

    hot: Count
    warm: Count


class Standing(msgspec.Struct, frozen=True):
    """A branch at its owner: how far it is, what object storage lacks of it, and how many nodes follow it."""

    tier: Literal["hot", "warm"]
    txid: Count
    durable_txid: Count
    unshipped_bytes: Count
    unshipped_ms: Milliseconds
    replicas: Count


class Placement(msgspec.Struct, frozen=True):
    """A branch that a node owns under `epoch`, by the database's name and tenant."""

    branch_id: str
    database: str
    tenant: str
    branch: str
    epoch: Count
    standing: Standing


class NodeState(msgspec.Struct, frozen=True):
    """A node as it sees itself.

    `lease_left_ms` is how long it may write unless its lease is renewed, null where leases do not expire. Of the
    replicas that it follows, `replica_lag_ms` is the age of the oldest. `warm_up` is `recovering` while it ships what an
    earlier process left on its disk.
    """

    version: str
    tiers: Tiers
    owned: Count
    lease_left_ms: Milliseconds | None
    unshipped_bytes: Count
    unshipped_ms: Milliseconds
    replicas: Count
    replica_lag_ms: Milliseconds
    warm_up: Literal["recovering", "done"]


class Ask(msgspec.Struct, frozen=True):
    """Which of its placements a node is asked for: so many behind the branch id `after`, or that of `branch_id` alone."""

    after: Annotated[str, msgspec.Meta(max_length=64)] = ""
    limit: Annotated[int, msgspec.Meta(ge=0, le=PLACEMENTS_LIMIT)] = 0
    branch_id: Annotated[str, msgspec.Meta(max_length=64)] | None = None


class Status(msgspec.Struct, frozen=True):
    """A node's answer: itself, and what it was asked for by branch id."""

    state: NodeState
    placements: list[Placement]
