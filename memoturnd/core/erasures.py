"""What is to be erased, and how far an erasure has come: the coupon, as pure functions (docs/formats.md).

One JSON object per erasure, `v1/_governance/erasures/{uuid}/{id}.json`, outside of what branches and rewinds reach.
It changes only by compare-and-swap, and every transition here is idempotent.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from memoturnd.core import names, versioned
from memoturnd.core.bounds import Count, Id
from memoturnd.core.sealed import sealed, unsealed

FORMAT_VERSION: Final = 1
IDS_LIMIT: Final = 10_000
"""Names of memories and documents that a coupon lists, which were found by a topic, a session or a filter."""
PASS_TARGETS: Final = 100
"""Targets that one pass over a history takes out: each costs time in every state that has it, and a pass has to end.

No more than a manifest records erasures (memoturnd.core.manifest.ERASURES_KEPT), by which the next pass knows of them.
"""
CLAIMS: Final = (
    "Every retained state of every branch of the database was rewritten without what the target names.",
    "Every object below the database's prefix that held the former states is gone from the object store.",
    "Every live node has let go of its local files, past states and caches of the database.",
)
"""What a receipt attests, the same sentences in each."""

_ID: Final = re.compile("ers_[0-9a-f]{16}")

Status = Literal["pending", "blocked", "rewriting", "completed"]


class TurnTarget(msgspec.Struct, frozen=True):
    """One turn of a transcript."""

    session_id: str
    seq: int


class DocumentTarget(msgspec.Struct, frozen=True, omit_defaults=True):
    """One document by its id, or those that match a filter in any retained state."""

    collection: str
    id: str | None = None
    filter: dict[str, Any] | None = None
    filter_sha256: str | None = None
    """What a completed coupon keeps of a filter, which may itself hold what was erased."""


class KeyTarget(msgspec.Struct, frozen=True, omit_defaults=True):
    """One key-value, or those whose keys begin with a prefix."""

    ns: str
    key: str | None = None
    prefix: str | None = None


class VectorTarget(msgspec.Struct, frozen=True):
    """One vector of a collection."""

    collection: str
    id: str


class TimelineTarget(msgspec.Struct, frozen=True):
    """The rows that a timeline holds under a key."""

    name: str
    key: str


class Target(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing to erase: exactly one of `memory_id`, `topic_key` with `type`, `session_id`, and the structures."""

    memory_id: str | None = None
    topic_key: str | None = None
    type: str | None = None
    session_id: str | None = None
    turns: bool = False
    memories: bool = False
    turn: TurnTarget | None = None
    document: DocumentTarget | None = None
    kv: KeyTarget | None = None
    vector: VectorTarget | None = None
    timeline: TimelineTarget | None = None


class BlockedBy(msgspec.Struct, frozen=True):
    """What stands in the way. `checkpoints` is empty always: history is rewritten below them, and they stay."""

    checkpoints: tuple[str, ...] = ()
    branches: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


class Cut(msgspec.Struct, frozen=True):
    """The commit of a branch that took the target out of its newest state, where that is done."""

    branch: str
    txid: Count


class Evidence(msgspec.Struct, frozen=True):
    """What was looked at when the erasure was completed; every count is of a check that was made then."""

    manifests_checked: Count
    objects_listed: Count
    oldest_snapshot_txid: Count | None
    oldest_segment_min_txid: Count | None
    clean: bool
    rounds_checked: Count
    pages_searched: Count
    rounds_rewritten: Count
    objects_replaced: Count
    nodes_cleared: Count


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """A completed erasure, attested: `sig` (base64) is of the context and the canonical JSON of `payload`."""

    payload: dict[str, Any]
    alg: str
    key_id: str | None = None
    sig: str | None = None


class Coupon(msgspec.Struct, frozen=True, kw_only=True):
    """An erasure. Times are unix ms; `cuts` are by branch id; `nodes` tell when each node had let go (0: not yet)."""

    format: int = FORMAT_VERSION
    commit_id: str = ""
    id: Id
    db: str
    uuid: Id
    tenant: str = names.DEFAULT_TENANT
    branch: str
    targets: tuple[Target, ...]
    memory_ids: tuple[str, ...] = ()
    document_ids: tuple[tuple[str, str], ...] = ()
    requested_at: Count
    grace_until: Count
    cuts: dict[str, Cut] = {}
    status: Status = "pending"
    blocked_by: BlockedBy | None = None
    rewritten_at: Count | None = None
    rewritten_txid: Count = 0
    """No branch was at a higher txid when it was rewritten: newer objects never held the target."""
    rewritten_stored_at: Count = 0
    """`rewritten_at` by the store's clock."""
    rounds_rewritten: Count = 0
    objects_replaced: Count = 0
    nodes: dict[str, Count] = {}
    completed_at: Count | None = None
    receipt: Receipt | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Coupon)
replace = msgspec.structs.replace


def encode(coupon: Coupon) -> bytes:
    """Return the coupon's JSON, sealed with a checksum."""
    return sealed(_encoder.encode(coupon))


def decode(data: bytes) -> Coupon:
    """Return the coupon in `data`. Raises CorruptionError when it is cut off or newer."""
    return versioned.read(
        lambda sealed_: _decoder.decode(unsealed(sealed_)),
        data,
        what="the erasure's coupon",
        newest=FORMAT_VERSION,
    )


def new_id(at_ms: int, random: str) -> str:
    """Return an erasure's id: `ers_`, 11 hex digits of the time and 5 random ones, so that ids sort by time."""
    return f"ers_{at_ms & 0xFFF_FFFF_FFFF:011x}{random[:5]}"


def is_id(value: str) -> bool:
    """Return whether an erasure may have this id."""
    return _ID.fullmatch(value) is not None


# ---- transitions


def deleted(
    coupon: Coupon, branch_id: str, cut: Cut, memory_ids: set[str], document_ids: set[tuple[str, str]]
) -> Coupon:
    """Note that a commit took the target out of a branch's newest state; the first such commit stays the cut."""
    if branch_id not in coupon.cuts:
        coupon = replace(coupon, cuts={**coupon.cuts, branch_id: cut})
    return found(coupon, memory_ids, document_ids)


def found(coupon: Coupon, memory_ids: set[str], document_ids: set[tuple[str, str]]) -> Coupon:
    """Note which memories and documents the target turned out to name."""
    memories = tuple(sorted({*coupon.memory_ids, *memory_ids}))[:IDS_LIMIT]
    documents = tuple(sorted({*coupon.document_ids, *document_ids}))[:IDS_LIMIT]
    if memories == coupon.memory_ids and documents == coupon.document_ids:
        return coupon
    return replace(coupon, memory_ids=memories, document_ids=documents)


def blocked(coupon: Coupon, by: BlockedBy) -> Coupon:
    """Note what stands in the way; it is tried again."""
    if coupon.status == "completed" or (coupon.status == "blocked" and coupon.blocked_by == by):
        return coupon
    return replace(coupon, status="blocked", blocked_by=by)


def rewriting(coupon: Coupon) -> Coupon:
    """Note that history is being rewritten."""
    if coupon.status in {"rewriting", "completed"}:
        return coupon
    return replace(coupon, status="rewriting", blocked_by=None)


def rewritten(
    coupon: Coupon,
    *,
    at_ms: int,
    stored_ms: int,
    last_txid: int,
    rounds: int,
    objects: int,
    nodes: tuple[str, ...],
) -> Coupon:
    """Note that no manifest names a former state any more, and which nodes have to let go of their copies.

    More than once where more was found to be rewritten.
    """
    if coupon.rewritten_at == at_ms or coupon.status == "completed":
        return coupon
    return replace(
        coupon,
        rewritten_at=at_ms,
        rewritten_stored_at=stored_ms,
        rewritten_txid=max(coupon.rewritten_txid, last_txid),
        rounds_rewritten=coupon.rounds_rewritten + rounds,
        objects_replaced=coupon.objects_replaced + objects,
        nodes=dict.fromkeys(nodes, 0),
    )


def cleared(coupon: Coupon, node: str, at_ms: int) -> Coupon:
    """Note that a node has let go of what it kept of the database."""
    if coupon.rewritten_at is None or coupon.nodes.get(node):
        return coupon
    return replace(coupon, nodes={**coupon.nodes, node: at_ms})


def completed(coupon: Coupon, receipt: Receipt, at_ms: int) -> Coupon:
    """Note the end, with its receipt; a filter stays as its hash alone, since it may hold what was erased."""
    if coupon.status == "completed":
        return coupon
    return replace(
        coupon,
        status="completed",
        blocked_by=None,
        completed_at=at_ms,
        receipt=receipt,
        targets=tuple(map(_without_filter, coupon.targets)),
    )


def _without_filter(target: Target) -> Target:
    document = target.document
    if document is None or document.filter is None:
        return target
    digest = hashlib.sha256(canonical(document.filter)).hexdigest()
    return replace(target, document=DocumentTarget(document.collection, filter_sha256=digest))


def fitting(coupons: Sequence[Coupon]) -> int:
    """Return how many of the first of these one pass over the history is for; one where that has many targets itself."""
    targets = 0
    for count, coupon in enumerate(coupons):
        targets += len(coupon.targets)
        if count and targets > PASS_TARGETS:
            return count
    return len(coupons)


# ---- what is shown


def shown(coupon: Coupon) -> dict[str, Any]:
    """Return the coupon as answers have it."""
    answer: dict[str, Any] = {
        "id": coupon.id,
        "db": coupon.db,
        "uuid": coupon.uuid,
        "branch": coupon.branch,
        "target": shown_target(coupon.targets),
        "memory_ids": list(coupon.memory_ids),
        "requested_at": coupon.requested_at,
        "grace_until": coupon.grace_until,
        "forget_txid": forget_txids(coupon),
        "status": coupon.status,
    }
    if coupon.blocked_by is not None:
        answer["blocked_by"] = msgspec.to_builtins(coupon.blocked_by)
    if coupon.rewritten_at is not None:
        answer["rewritten_at"] = coupon.rewritten_at
    if coupon.completed_at is not None:
        answer["completed_at"] = coupon.completed_at
    if coupon.receipt is not None:
        answer["receipt"] = msgspec.to_builtins(coupon.receipt)
    return answer


def shown_target(targets: tuple[Target, ...]) -> dict[str, Any]:
    """Return the one target, or `{targets}` of several."""
    each: list[dict[str, Any]] = [msgspec.to_builtins(target) for target in targets]
    return each[0] if len(each) == 1 else {"targets": each}


def forget_txids(coupon: Coupon) -> dict[str, int]:
    """Return by branch name the commit that took the target out of its newest state."""
    return {cut.branch: cut.txid for cut in coupon.cuts.values()}


# ---- the receipt


CONTEXT: Final = b"memoturn-erasure-receipt-v1\x00"
"""What stands before the payload in what is signed, so that no other signature passes for a receipt."""


def canonical(value: Any) -> bytes:
    """Return compact JSON with sorted keys, in UTF-8: what is signed, and what a verifier makes of it again."""
    return msgspec.json.encode(value, order="deterministic")


def signed_bytes(payload: dict[str, Any]) -> bytes:
    """Return what the signature of a receipt is of."""
    return CONTEXT + canonical(payload)


def payload(coupon: Coupon, evidence: Evidence, at_ms: int) -> dict[str, Any]:
    """Return what the receipt of an erasure attests."""
    return {
        "db": coupon.db,
        "uuid": coupon.uuid,
        "erasure_id": coupon.id,
        "target": shown_target(tuple(map(_without_filter, coupon.targets))),
        "memory_ids": list(coupon.memory_ids),
        "forget_txid": forget_txids(coupon),
        "completed_at": at_ms,
        "evidence": msgspec.to_builtins(evidence),
        "claims": list(CLAIMS),
    }
