"""Branches, checkpoints and rewinds."""

from typing import Literal, TypedDict

from memoturn.types.stamps import Written


class _Branch(TypedDict):
    db_name: str
    branch: str
    ttl_at: int | None
    created_at: int
    parent: str | None
    fork_txid: int | None


class BranchInfo(_Branch, total=False):
    """A branch other than main; `ttl_at` is when it is deleted, None for one that stays.

    It was forked of `parent` at `fork_txid`, where the node knows of that. A deleted one says when that was, and
    until when it can be brought back.
    """

    deleted_at: int
    undelete_until: int


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


class PastRewind(TypedDict):
    """A rewind that was made: commit `txid` brought back the state of `rewound_to`; before it `undo_txid` was the head."""

    txid: int
    rewound_to: int
    undo_txid: int
    created_at: int


class Checkpoint(Written):
    """A checkpoint as it was made, of the state `txid`."""

    checkpoint: str
    created_at: int


class Rewind(Written):
    """A rewind, which is the new commit `txid` whose state equals that of `rewound_to`.

    `undo_txid` is the txid whose state an undo brings back.
    """

    rewound_to: int
    undo_txid: int
    epoch: int
