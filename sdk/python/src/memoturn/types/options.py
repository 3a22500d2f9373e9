"""What most calls take besides their own arguments."""

from datetime import datetime
from typing import Literal, TypedDict

Durability = Literal["local", "replicated", "durable"]
"""What a write waits for: the node's own log, the disks of other nodes, or object storage."""

Consistency = Literal["primary", "cached"]
"""What a read shows where nodes share branches: the newest state, or one that may be a moment old."""

At = str | int | datetime
"""A revision: a txid, a checkpoint's name, `head~3`, a time with its zone, or unix milliseconds."""


Time = int | datetime
"""A time: unix milliseconds, or a datetime with its zone."""

Moment = int | str | datetime
"""A time: unix milliseconds, RFC 3339 text, or a datetime with its zone."""


class ReadOptions(TypedDict, total=False):
    """Options of every read of a branch.

    `at` reads a past state. `min_txid` is a floor: the answer shows that txid or a later one, else
    PreconditionFailedError after 2 seconds of waiting; without it the client asks for what it has written
    and seen itself, and 0 asks for nothing. `timeout_s` is this call's instead of the client's.
    """

    at: At | None
    min_txid: int | None
    consistency: Consistency | None
    timeout_s: float | None


class WriteOptions(TypedDict, total=False):
    """Options of every write.

    With `durability="durable"` it returns once object storage has it. `idempotency_key` (1 to 255 visible
    ASCII characters) is made by the client unless given: however often a write is sent under one key, also by
    a later process, it takes effect once. "" sends none; a lost answer is then not followed by a repeat.
    `timeout_s` is this call's instead of the client's.
    """

    durability: Durability | None
    idempotency_key: str | None
    timeout_s: float | None
