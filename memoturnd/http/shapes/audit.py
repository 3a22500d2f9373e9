"""Bodies of the routes of the audit stream."""

from typing import Literal

from memoturnd.http.shapes import UNSET, Count, Maybe, Struct, Time, Txid


class Actor(Struct):
    """Who did it; `token_hash` names a credential without giving it away, `iat` is in seconds."""

    kind: str
    token_hash: Maybe[str] = UNSET
    token_id: Maybe[str] = UNSET
    subject: Maybe[str] = UNSET
    scope: Maybe[str] = UNSET
    claim_db: Maybe[str] = UNSET
    claim_ns: Maybe[str] = UNSET
    iat: Maybe[int] = UNSET


class Egress(Struct):
    """What left the node for a provider of models, in sizes."""

    provider: str
    model: str
    self_hosted: bool
    input_items: Count
    input_bytes: Count
    endpoint_host: Maybe[str] = UNSET
    output_items: Maybe[Count] = UNSET
    duration_ms: Maybe[Count] = UNSET


class Event(Struct):
    """One act. `seq` is its number in its chain, `prev` the SHA-256 of the line before it."""

    seq: Count
    prev: str
    v: int
    id: str
    ts: Time
    node: str
    ns: str
    action: str
    outcome: Literal["ok", "denied", "error"]
    tenant: Maybe[str] = UNSET
    db: Maybe[str] = UNSET
    profile: Maybe[str] = UNSET
    branch: Maybe[str] = UNSET
    resource: Maybe[str] = UNSET
    txid: Maybe[Txid] = UNSET
    count: Maybe[Count] = UNSET
    actor: Maybe[Actor] = UNSET
    egress: Maybe[Egress] = UNSET
    error: Maybe[str] = UNSET
    request_id: Maybe[str] = UNSET


class EventPage(Struct):
    """Events, oldest first.

    `complete` is false where more may come of the same window: behind `next_cursor`, from what waits at this node, or from
    what could not be read.
    """

    events: list[Event]
    next_cursor: str | None
    complete: bool
