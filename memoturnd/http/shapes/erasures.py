"""Bodies of erasures: what to erase, coupons and receipts."""

from typing import Annotated, Literal

from msgspec import Meta

from memoturnd.http.shapes import UNSET, Count, Maybe, Object, Struct, Time, Txid

Grace = Annotated[
    int, Meta(ge=0, description="Seconds until history is rewritten; 0 is as soon as possible.")
]


class Turn(Struct):
    """One turn of a transcript."""

    session_id: str
    seq: Count


class Document(Struct):
    """A document by its id, or those that match a filter in any retained state."""

    collection: str
    id: str | None = None
    filter: Object | None = None


class Keys(Struct):
    """A key-value, or those whose keys begin with a prefix."""

    ns: str
    key: str | None = None
    prefix: str | None = None


class Vector(Struct):
    """A vector of a collection."""

    collection: str
    id: str


class Timeline(Struct):
    """What a timeline holds under a key."""

    name: str
    key: str


class Target(Struct):
    """Exactly one thing: a memory, a topic with its type, a session, or a structure."""

    memory_id: str | None = None
    topic_key: str | None = None
    type: Literal["fact", "instruction"] | None = None
    session_id: str | None = None
    turns: bool = False
    memories: bool = False
    turn: Turn | None = None
    document: Document | None = None
    kv: Keys | None = None
    vector: Vector | None = None
    timeline: Timeline | None = None


class Erase(Target):
    """What to erase: one target, or up to 100 `targets`."""

    targets: list[Target] | None = None
    grace_secs: Grace | None = None


class Requested(Struct):
    """An erasure that was accepted: what it named is out of the newest state, durably."""

    erasure_id: str
    status: str
    txid: Txid
    grace_until: Time


class BlockedBy(Struct):
    """What stands in the way; checkpoints never do."""

    checkpoints: list[str]
    branches: list[str]
    reasons: list[str]


class Receipt(Struct):
    """What a completed erasure attests, signed where the node has keys."""

    payload: Object
    alg: str
    key_id: Maybe[str] = UNSET
    sig: Maybe[str] = UNSET


class Coupon(Struct):
    """An erasure, and how far it has come."""

    id: str
    db: str
    uuid: str
    branch: str
    target: Object
    memory_ids: list[str]
    requested_at: Time
    grace_until: Time
    forget_txid: dict[str, Txid]
    status: Literal["pending", "blocked", "rewriting", "completed"]
    blocked_by: Maybe[BlockedBy] = UNSET
    rewritten_at: Maybe[Time] = UNSET
    completed_at: Maybe[Time] = UNSET
    receipt: Maybe[Receipt] = UNSET


class Coupons(Struct):
    """A page of erasures, the newest request first."""

    erasures: list[Coupon]
    next_cursor: str | None
