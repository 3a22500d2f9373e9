"""Erasures: what is to be erased, and how far it has come."""

from typing import Any, Literal, TypedDict


class TurnTarget(TypedDict):
    """One turn of a transcript."""

    session_id: str
    seq: int


class _Collection(TypedDict):
    collection: str


class DocumentTarget(_Collection, total=False):
    """A document by its `id`, or those that match a `filter`."""

    id: str
    filter: dict[str, Any]


class _KeySpace(TypedDict):
    ns: str


class KeyTarget(_KeySpace, total=False):
    """A key-value by its `key`, or those whose keys begin with a `prefix`."""

    key: str
    prefix: str


class VectorTarget(TypedDict):
    """A vector of a collection."""

    collection: str
    id: str


class TimelineTarget(TypedDict):
    """What a timeline holds under a key."""

    name: str
    key: str


class ErasureTarget(TypedDict, total=False):
    """What to erase: a memory, a topic with its type, a session, or one of the structures; exactly one of them."""

    memory_id: str
    topic_key: str
    type: Literal["fact", "instruction"]
    session_id: str
    turns: bool
    memories: bool
    turn: TurnTarget
    document: DocumentTarget
    kv: KeyTarget
    vector: VectorTarget
    timeline: TimelineTarget


class ErasureRequested(TypedDict):
    """An erasure that was accepted; history is rewritten from `grace_until` (unix ms) on."""

    erasure_id: str
    status: str
    txid: int
    grace_until: int


class ErasureBlockedBy(TypedDict):
    """What stands in an erasure's way."""

    checkpoints: list[str]
    branches: list[str]
    reasons: list[str]


class _Receipt(TypedDict):
    payload: dict[str, Any]
    alg: str


class ErasureReceipt(_Receipt, total=False):
    """Proof of an erasure, which `verify_receipt` checks; without `key_id` and `sig` where the node has no keys."""

    key_id: str
    sig: str


class _CouponRequired(TypedDict):
    id: str
    db: str
    uuid: str
    branch: str
    target: dict[str, Any]
    memory_ids: list[str]
    requested_at: int
    grace_until: int
    forget_txid: dict[str, int]
    status: Literal["pending", "blocked", "rewriting", "completed"]


class ErasureCoupon(_CouponRequired, total=False):
    """An erasure, and how far it has come."""

    blocked_by: ErasureBlockedBy
    rewritten_at: int
    completed_at: int
    receipt: ErasureReceipt
