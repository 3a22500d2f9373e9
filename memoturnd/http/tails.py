"""Internal routes of tails: what an owner sends to its sync set, and what a takeover asks of it."""

import re
from typing import Final

from memoturnd.core import tails
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.tails import (
    BEGINS_HEADER,
    BRANCH_ID_HEADER,
    DURABLE_HEADER,
    EPOCH_HEADER,
    UUID_HEADER,
    Push,
)
from memoturnd.errors import InvalidRequestError
from memoturnd.http.call import Call
from memoturnd.http.describe import BYTES as BINARY
from memoturnd.http.describe import NOTHING, Value, described
from memoturnd.http.envelope import BYTES, Answer

_ID: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_DIGITS: Final = 16
_OF: Final = (
    Value(UUID_HEADER, str, "The database.", is_header=True),
    Value(BRANCH_ID_HEADER, str, "The branch.", is_header=True),
    Value(EPOCH_HEADER, int, "The epoch of the owner that asks.", is_header=True),
)
_PUSHED: Final = (
    Value(DURABLE_HEADER, int, "All up to this txid is in object storage.", is_header=True),
    Value(BEGINS_HEADER, str, "`1` on the first piece of a tail, else `0`.", is_header=True),
)


@described(gives={204: NOTHING}, values=(*_OF, *_PUSHED))
async def push(call: Call) -> Answer:
    """Hold a piece of a branch's tail until object storage has it."""
    await call.node.tails.store.push(_push_of(call), call.body)
    return Answer(204)


@described(gives={200: BINARY}, values=_OF)
async def read(call: Call) -> Answer:
    """Give a branch's tail to its new owner, and answer no earlier one any more."""
    asked = _push_of(call)
    held = await call.node.tails.store.read(asked.branch_id, asked.epoch)
    return Answer(200, tails.packed(held), [BYTES])


@described(gives={204: NOTHING}, values=_OF)
async def forget(call: Call) -> Answer:
    """Let go of a branch's tail: its owner has everything in object storage."""
    asked = _push_of(call)
    await call.node.tails.store.forget(asked.branch_id, asked.epoch)
    return Answer(204)


def _push_of(call: Call) -> Push:
    return Push(
        _id(call, UUID_HEADER, optional=True),
        _id(call, BRANCH_ID_HEADER),
        _number(call, EPOCH_HEADER),
        _number(call, DURABLE_HEADER, default="0"),
        call.header(BEGINS_HEADER) == "1",
    )


def _id(call: Call, name: str, *, optional: bool = False) -> str:
    """Return an id, which becomes a folder's name."""
    value = call.header(name) or ""
    if _ID.fullmatch(value) is None and not (optional and not value):
        raise InvalidRequestError(f"{name} is no id")
    return value


def _number(call: Call, name: str, *, default: str = "") -> int:
    value = call.header(name) or default
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS) or int(value) > INTEGER_MAX:
        raise InvalidRequestError(f"{name} must be an integer from 0 to 2^53-1")
    return int(value)
