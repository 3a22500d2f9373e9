"""Tokens and the keys that sign them."""

from typing import Literal, TypedDict

Scope = Literal["read", "write", "admin"]
"""What a token may do, each with those before it."""

TokenSurface = Literal["memory", "documents", "kv", "vectors", "timelines", "turns", "sql", "branches"]
"""A part of a database that a token may be limited to."""


class RateLimits(TypedDict, total=False):
    """Rates that a token shares with all that were minted with it."""

    requests_per_s: float
    writes_per_s: float


class MintedToken(TypedDict):
    """A token, which is shown this once, and is good for `expires_in` seconds, until `expires_at`."""

    token: str
    expires_in: int
    id: str
    expires_at: int


class _Token(TypedDict):
    id: str
    db: str
    ns: str
    scope: Scope
    issued_at: int
    expires_at: int
    revoked: bool
    minted_by: str


class TokenInfo(_Token, total=False):
    """A token that was minted: `db` is empty for one of a namespace. The rest is what limits it, where anything does."""

    subject: str
    branches: list[str]
    surfaces: list[str]
    profiles: list[str]
    limits: dict[str, float]


class _Revoked(TypedDict):
    revoked_until: int


class TokensRevoked(_Revoked, total=False):
    """What was revoked: every token issued up to `revoked_until`, or the one with the `id`."""

    id: str


class SigningKey(TypedDict):
    """A key by its id: the one that signs, one that verifies what it has signed, or a retired one."""

    kid: str
    status: Literal["signing", "verifying", "retired"]


class SigningKeys(TypedDict):
    """The keys of tokens; `managed` keys can be rotated by a call."""

    keys: list[SigningKey]
    managed: bool


class KeyRotated(TypedDict):
    """A new key, which verifies at once and signs from `signs_from` on."""

    kid: str
    signs_from: int
