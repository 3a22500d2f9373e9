"""Reports of a verified audit stream."""

from typing import Literal, TypedDict


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
