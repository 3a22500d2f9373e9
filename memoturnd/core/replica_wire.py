"""What nodes tell one another about replicas: bodies of the internal routes, and the headers of a push."""

from typing import Annotated, Final, Literal

import msgspec

from memoturnd.core.bounds import INTEGER_MAX

SUBSCRIBE: Final = "/internal/replica/subscribe"
INGEST: Final = "/internal/replica/ingest"
CONFIRM: Final = "/internal/replica/confirm"
CHANGED: Final = "/internal/replica/changed"
UUID_HEADER: Final = "Memoturn-Db-Uuid"
BRANCH_HEADER: Final = "Memoturn-Branch"
BRANCH_ID_HEADER: Final = "Memoturn-Branch-Id"
KIND_HEADER: Final = "Memoturn-Kind"
KINDS: Final = frozenset({"segment", "snapshot"})
CONFIRMED_LIMIT: Final = 4096
"""Branches that one request asks about at most."""

Uuid = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Address = Annotated[str, msgspec.Meta(pattern=r"^https?://[!-~]{1,500}$(?!\n)")]
Count = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
Checksum = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]


class Subscribe(msgspec.Struct, frozen=True):
    """That the node at `addr` wants what is shipped of a branch from now on. `branch` is its name."""

    uuid: Uuid
    branch: Name
    addr: Address
    branch_id: Id | None = None


class Followed(msgspec.Struct, frozen=True):
    """A branch of which a node has a replica."""

    uuid: Uuid
    branch: Name
    branch_id: Id


class Confirm(msgspec.Struct, frozen=True):
    """Which branches the node at `addr` follows; it stays subscribed to those that the asked node owns."""

    addr: Address
    branches: Annotated[list[Followed], msgspec.Meta(max_length=CONFIRMED_LIMIT)]


class Standing(msgspec.Struct, frozen=True):
    """Where an owner stands: all that was committed more than `unshipped_ms` ago is at or below `txid`, of that checksum."""

    branch_id: Id
    txid: Count
    checksum: Checksum
    epoch: Count
    unshipped_ms: Count


class Confirmed(msgspec.Struct, frozen=True):
    """The branches asked for that the node owns; it has nothing to say of others."""

    branches: list[Standing]


class Ingested(msgspec.Struct, frozen=True):
    """That a push was taken: `txid` is where the replica stands now."""

    txid: Count


class Changed(msgspec.Struct, frozen=True):
    """Branches of which replicas have to ask at once, since their history was rewritten; or, `gone`, that were deleted."""

    branches: Annotated[list[Id], msgspec.Meta(max_length=CONFIRMED_LIMIT)]
    gone: bool = False


Kind = Literal["segment", "snapshot"]
encode = msgspec.json.Encoder().encode
