"""Events of an audit stream, and reports of a verified one."""

from typing import Literal, TypedDict


class _Actor(TypedDict):
    kind: str


class AuditActor(_Actor, total=False):
    """Who did something; `token_hash` names a credential without giving it away, `iat` is in seconds."""

    token_hash: str
    token_id: str
    subject: str
    scope: str
    claim_db: str
    claim_ns: str
    iat: int


class _Egress(TypedDict):
    provider: str
    model: str
    self_hosted: bool
    input_items: int
    input_bytes: int


class AuditEgress(_Egress, total=False):
    """What left the node for a provider of models, in sizes."""

    endpoint_host: str
    output_items: int
    duration_ms: int


class _Event(TypedDict):
    seq: int
    prev: str
    v: int
    id: str
    ts: int
    node: str
    ns: str
    action: str
    outcome: Literal["ok", "denied", "error"]


class AuditEvent(_Event, total=False):
    """One act. `seq` is its number in its node's chain, `prev` the hash of the event before it."""

    tenant: str
    db: str
    profile: str
    branch: str
    resource: str
    txid: int
    count: int
    actor: AuditActor
    egress: AuditEgress
    error: str
    request_id: str


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
