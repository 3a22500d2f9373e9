"""Bodies of the routes of tokens and keys."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from memoturnd.core.tokens import LONGEST_LIFETIME_S, SUBJECT_LENGTH_LIMIT
from memoturnd.http.shapes import UNSET, Maybe, Struct, Time

TokenScope = Literal["read", "write", "admin"]
Lifetime = Annotated[int, Meta(ge=1, le=LONGEST_LIFETIME_S)]
Names = Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=100)]
Subject = Annotated[str, Meta(min_length=1, max_length=SUBJECT_LENGTH_LIMIT, pattern=r"^[\x20-\x7e]+$")]


class Mint(Struct, frozen=True, forbid_unknown_fields=True):
    """Mint a token; `expires_in` in seconds, an hour unless given, or as long as the token that it is minted with. What limits it is left out where it should not.

    `limits` are rates by name; `subject` is whom it is for, in words of your own.
    """

    scope: TokenScope
    expires_in: Lifetime | None = None
    branches: Names | None = None
    surfaces: Names | None = None
    profiles: Names | None = None
    limits: dict[str, float] | None = None
    subject: Subject | None = None


class Minted(Struct):
    """A token, which is shown only here; `expires_in` in seconds."""

    token: str
    expires_in: int
    id: str
    expires_at: Time


class TokenShown(Struct):
    """What is known of a token. One of `db` and `ns` is empty; `minted_by` is who asked for it."""

    id: str
    db: str
    ns: str
    scope: TokenScope
    issued_at: Time
    expires_at: Time
    revoked: bool
    minted_by: str
    subject: Maybe[str] = UNSET
    branches: Maybe[list[str]] = UNSET
    surfaces: Maybe[list[str]] = UNSET
    profiles: Maybe[list[str]] = UNSET
    limits: Maybe[dict[str, float]] = UNSET


class TokenPage(Struct):
    """Tokens by id; `next_cursor` is null where no more follow."""

    tokens: list[TokenShown]
    next_cursor: str | None


class Revoke(Struct, frozen=True, forbid_unknown_fields=True):
    """Revoke one `token`, shown whole, or without it every one that was issued until now."""

    token: Maybe[Annotated[str, Meta(max_length=16384)]] = UNSET


class Revoked(Struct):
    """What is revoked: the token `id`, or, without it, all that were issued at `revoked_until` or before."""

    revoked_until: Time
    id: Maybe[str] = UNSET


class Key(Struct):
    """A public key: whether it signs, verifies or is retired."""

    kid: str
    status: Literal["signing", "verifying", "retired"]


class Keys(Struct):
    """The keys of the node; `managed` is whether it may rotate them itself."""

    keys: list[Key]
    managed: bool


class Rotated(Struct):
    """The new key, and from when on it signs."""

    kid: str
    signs_from: Time


class KeySet(Struct):
    """A JSON Web Key Set (RFC 7517)."""

    keys: list[dict[str, Any]]
