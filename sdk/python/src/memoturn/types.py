"""The shapes of requests and answers. Field names are those of the wire; times are unix milliseconds.

Answers that concern a branch carry `txid`, the txid of the state that they show or made, and
`durable_txid`, the newest txid that object storage has. A later release of the server may add fields.
"""

from datetime import datetime
from typing import Any, Literal, TypedDict

MemoryType = Literal["fact", "event", "instruction", "task"]
"""Facts and instructions with a topic key replace each other; events never do; tasks expire."""

Durability = Literal["local", "durable"]
"""What a write waits for: the node's own log, or object storage."""

At = str | int | datetime
"""A revision: a txid, a checkpoint's name, `head~3`, a time with its zone, or unix milliseconds."""

SqlValue = None | int | float | str | bool | bytes
"""A value in a SQL parameter or row."""


class TurnTarget(TypedDict):
    """One turn of a transcript."""

    session_id: str
    seq: int


class DocumentTarget(TypedDict, total=False):
    """A document by its `id`, or those that match a `filter`."""

    collection: str
    id: str
    filter: dict[str, Any]


class KeyTarget(TypedDict, total=False):
    """A key-value by its `key`, or those whose keys begin with a `prefix`."""

    ns: str
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


class _CouponRequired(TypedDict):
    id: str
    db: str
    uuid: str
    target: dict[str, Any]
    memory_ids: list[str]
    requested_at: int
    grace_until: int
    forget_txid: dict[str, int]
    status: Literal["pending", "blocked", "rewriting", "completed"]


class ErasureCoupon(_CouponRequired, total=False):
    """An erasure, and how far it has come."""

    branch: str
    blocked_by: ErasureBlockedBy
    rewritten_at: int
    completed_at: int
    receipt: dict[str, Any]


class _ItemRequired(TypedDict):
    type: MemoryType
    summary: str


class IngestItem(_ItemRequired, total=False):
    """One memory to ingest. `ttl` is seconds and only for tasks; `content` is any JSON value."""

    topic_key: str | None
    content: Any
    keywords: str | None
    embedding: list[float] | None
    session_id: str | None
    source: str | None
    ttl: int


class IngestOutcome(TypedDict):
    """What became of one item; `superseded` holds the ids that it replaced."""

    id: str
    status: Literal["created", "revived", "duplicate"]
    superseded: list[str]


class IngestResult(TypedDict):
    """Outcomes in the order of the items."""

    results: list[IngestOutcome]
    txid: int
    durable_txid: int


class Memory(TypedDict):
    """A stored memory with its neighbours in the chain of its topic."""

    id: str
    type: MemoryType
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    created_at: int
    expires_at: int | None
    superseded_by: str | None
    superseded_at: int | None
    supersedes: list[str]


class _HitRequired(TypedDict):
    id: str
    type: MemoryType
    topic_key: str | None
    summary: str
    content: Any
    keywords: str
    session_id: str | None
    source: str | None
    created_at: int
    superseded_by: str | None
    score: float
    channels: list[str]


class RecallHit(_HitRequired, total=False):
    """A recalled memory, best first.

    When it was asked for, `explain` has for each channel that found it its `rank` there, and the measure
    that ranked it where the channel has one.
    """

    explain: dict[str, dict[str, float]]


class _RecallRequired(TypedDict):
    memories: list[RecallHit]
    txid: int
    durable_txid: int


class RecallResult(_RecallRequired, total=False):
    """The hits, and turns of transcripts when they were asked for."""

    turns: list[dict[str, Any]]


class Session(TypedDict):
    """A session that memories were ingested under."""

    id: str
    created_at: int
    last_active_at: int


class ProfileInfo(TypedDict):
    """A profile of a namespace."""

    profile: str
    created_at: int


class DatabaseInfo(TypedDict):
    """A database as the catalog lists it."""

    name: str
    uuid: str
    created_at: int


class Exported(TypedDict):
    """A state that was saved to a file of `size_bytes`, whose SHA-256 is `sha256` in hex."""

    txid: int
    durable_txid: int
    size_bytes: int
    sha256: str


class ImportedDatabase(DatabaseInfo):
    """A branch that was made of a file; `txid` is that of its first state."""

    branch: str
    txid: int


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


class VerifyFinding(TypedDict):
    """One thing that a verification found wrong: the object's `key`, and `what` is wrong with it.

    `lost` are the first and last txids of the ranges that cannot be restored because of it, of `branch`;
    that is empty where the whole database is concerned. `todo` is the next step.
    """

    kind: Literal["missing", "damaged", "contradiction", "unrestorable"]
    branch: str
    key: str
    what: str
    lost: list[list[int]]
    todo: str


class Verification(TypedDict):
    """What a verification found. `seed` draws the same sample again; `unfinished` is what it could not look at.

    Unreachable objects are no damage: uploads that nothing names. They are None where that is not known.
    """

    outcome: Literal["clean", "damaged", "unfinished"]
    deep: bool
    seed: str
    branches: int
    objects: int
    bytes: int
    states: int
    findings: list[VerifyFinding]
    damaged_objects: int
    unreachable_objects: int | None
    unreachable_bytes: int | None
    unreachable_keys: list[str]
    unfinished: list[str]


class AuditPlace(TypedDict):
    """How far a chain of the audit stream went: its last event, that one's hash, unix ms."""

    seq: int
    hash: str
    at: int


AuditSince = dict[str, AuditPlace]
"""The ends of chains by name, as an earlier report had them."""


class AuditChain(TypedDict):
    """A chain as its head tells it: kept from event `from_seq` to `seq`."""

    chain: str
    node: str
    from_seq: int
    seq: int
    hash: str
    objects: int
    at: int
    signed: bool


class AuditProblem(TypedDict):
    """What does not fit in an audit stream. `chain` and `key` are empty where it has none."""

    kind: str
    chain: str
    key: str
    what: str


class AuditReport(TypedDict):
    """What a verification of an audit stream found."""

    stream: str
    outcome: Literal["sound", "damaged"]
    signatures: str
    events: int
    objects: int
    chains: list[AuditChain]
    problems: list[AuditProblem]


class SqlResult(TypedDict):
    """The rows of one statement; blobs are bytes."""

    columns: list[str]
    rows: list[list[SqlValue]]
    rows_affected: int


class SqlBatchResult(TypedDict):
    """The results of a batch that was applied as one."""

    results: list[SqlResult]
    txid: int
    durable_txid: int
