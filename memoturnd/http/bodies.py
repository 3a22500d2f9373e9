"""The bodies of control and branch routes. Unknown fields are ignored; wrong types are named by their path."""

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from memoturnd.errors import InvalidRequestError
from memoturnd.http.call import MAX_INTEGER
from memoturnd.surfaces.fields import SECONDS_LIMIT

S = TypeVar("S", bound=Struct)
Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]


class NameBody(Struct, frozen=True):
    """Create a database, a tenant, or a checkpoint."""

    name: str


class UndeleteBody(Struct, frozen=True):
    """Bring back a deleted database: the one that was deleted last, unless `uuid` names another."""

    uuid: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")] | None = None


class BranchBody(Struct, frozen=True, rename={"from_branch": "from"}):
    """Fork a branch; `ttl` in seconds. `at` takes a revision, `checkpoint` only a checkpoint's name."""

    name: str
    from_branch: str | None = None
    at: str | None = None
    checkpoint: str | None = None
    ttl: Annotated[int, Meta(ge=0, le=SECONDS_LIMIT)] | None = None


class RewindBody(Struct, frozen=True):
    """Rewind to a revision."""

    to: str


class SyncBody(Struct, frozen=True):
    """Wait until `txid`, the head when absent, is in object storage."""

    txid: Count | None = None


def decoder(shape: type[S]) -> Callable[[bytes], S]:
    """Return a function that decodes a JSON body into `shape` and raises InvalidRequestError."""
    decode = msgspec.json.Decoder(shape).decode

    def decode_body(body: bytes) -> S:
        try:
            if not body.isascii():
                body.decode()  # msgspec skips unknown fields without looking at their bytes
            return decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"the body is not what this route takes: {error}") from error
        except RecursionError as error:
            raise InvalidRequestError("the body is nested too deeply") from error

    return decode_body
