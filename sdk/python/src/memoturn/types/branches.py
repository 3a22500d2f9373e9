"""Branches, checkpoints and rewinds."""

from typing import Literal, TypedDict


class BranchInfo(TypedDict):
    """A branch other than main; `ttl_at` is when it is deleted, None for one that stays."""

    db_name: str
    branch: str
    ttl_at: int | None
    created_at: int
    parent: str
    fork_txid: int


class Fork(TypedDict):
    """A new branch; `spec` addresses it as `name@branch`."""

    branch: str
    parent: str
    fork_txid: int
    ttl_at: int | None
    spec: str


class CheckpointInfo(TypedDict):
    """A named txid."""

    checkpoint: str
    txid: int
    created_at: int


class RestorePoint(TypedDict):
    """A commit that can be restored; `created_at` is its wall time, `time` the same in RFC 3339."""

    txid: int
    created_at: int
    time: str
    kind: Literal["commit", "snapshot", "checkpoint"]
    checkpoints: list[str]


class Checkpoint(TypedDict):
    """A checkpoint as it was made."""

    checkpoint: str
    created_at: int
    txid: int
    durable_txid: int


class Rewind(TypedDict):
    """A rewind, which is the new commit `txid` whose state equals that of `rewound_to`.

    `undo_txid` is the txid whose state an undo brings back.
    """

    rewound_to: int
    undo_txid: int
    epoch: int
    txid: int
    durable_txid: int
