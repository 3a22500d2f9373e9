"""Cursors of listings: where a page ended, as text that a client passes back unread.

A cursor names the listing that it belongs to, so that one of another listing, or of the same one under other
filters, is refused instead of skipping rows.
"""

import base64
import hashlib
from typing import Annotated, Any, Final, TypeVar

import msgspec

from memoturnd.errors import InvalidRequestError

T = TypeVar("T")
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A number in a cursor that SQLite can take."""
Name = Annotated[str, msgspec.Meta(max_length=256, pattern=r"\A[\x21-\x7e]*\Z")]
"""A name in a cursor: one that is checked elsewhere has only such characters."""
LENGTH_LIMIT: Final = 16_384
_SIGN_BYTES: Final = 6
_encode = msgspec.json.Encoder().encode


def make(listing: Any, position: Any) -> str:
    """Return a cursor for `position` of `listing`, both of JSON's types."""
    return base64.urlsafe_b64encode(_sign(listing) + _encode(position)).rstrip(b"=").decode()


def read(text: str, listing: Any, shape: type[T]) -> T:
    """Return the position that `make` put into a cursor. Raises InvalidRequestError for anything else."""
    raw = _decoded(text)
    if raw[:_SIGN_BYTES] == _sign(listing):
        try:
            return msgspec.json.decode(raw[_SIGN_BYTES:], type=shape)
        except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
            pass
    raise InvalidRequestError(
        "cursor is not one that this listing gave under the same filters; start again without it"
    )


def _decoded(text: str) -> bytes:
    if len(text) > LENGTH_LIMIT:
        return b""
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""


def _sign(listing: Any) -> bytes:
    return hashlib.blake2b(_encode(listing), digest_size=_SIGN_BYTES).digest()
