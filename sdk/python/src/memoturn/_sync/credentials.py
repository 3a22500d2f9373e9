# Made of _async/credentials.py by scripts/unasync: change that one.
"""Tokens, and the keys that sign them."""

from collections.abc import Iterable, Iterator
from typing import Any, Final, cast

from memoturn._core.bodies import given, listed
from memoturn._sync.address import Address
from memoturn.types import (
    KeyRotated,
    MintedToken,
    RateLimits,
    Scope,
    SigningKeys,
    TokenInfo,
    TokensRevoked,
    TokenSurface,
    WriteOptions,
)

ONCE_ONLY: Final[WriteOptions] = {"idempotency_key": ""}
"""Of routes that take no idempotency key, and would do it twice: after a lost answer nothing is repeated."""


class Credentials:
    """The part of the client that mints and revokes tokens: for the platform key, and for admin tokens of a namespace."""

    _control: Address
    _root: Address

    def create_token(
        self,
        db: str,
        scope: Scope = "write",
        *,
        expires_in: int = 3600,
        branches: Iterable[str] | None = None,
        surfaces: Iterable[TokenSurface] | None = None,
        limits: RateLimits | None = None,
        subject: str | None = None,
    ) -> MintedToken:
        """Mint a token of a database, which is shown this once and is good for `expires_in` seconds.

        It may be limited to `branches`, to `surfaces` and to rates (`limits`); `subject` says whom it is for. One
        that is minted with another token opens no more than that. Raises DatabaseNotFoundError, ForbiddenError.
        """
        body = _asked(scope, expires_in, branches, surfaces, None, limits, subject)
        answer = self._control.write("POST", "databases", db, "tokens", body=body, **ONCE_ONLY)
        return cast("MintedToken", answer.json())

    def create_namespace_token(
        self,
        ns: str,
        scope: Scope = "write",
        *,
        expires_in: int = 3600,
        branches: Iterable[str] | None = None,
        surfaces: Iterable[TokenSurface] | None = None,
        profiles: Iterable[str] | None = None,
        limits: RateLimits | None = None,
        subject: str | None = None,
    ) -> MintedToken:
        """Mint a token of every profile of a namespace, or of some `profiles`; see `create_token`.

        The namespace need not have any profile yet. With the scope `admin` it mints narrower ones itself.
        """
        body = _asked(scope, expires_in, branches, surfaces, profiles, limits, subject)
        answer = self._control.write("POST", "namespaces", ns, "tokens", body=body, **ONCE_ONLY)
        return cast("MintedToken", answer.json())

    def iter_tokens(self, db: str, *, limit: int | None = None) -> Iterator[TokenInfo]:
        """Yield the tokens of a database that are not over, by id."""
        for row in self._control.pages("tokens", "databases", db, "tokens", most=limit):
            yield cast("TokenInfo", row)

    def iter_namespace_tokens(self, ns: str, *, limit: int | None = None) -> Iterator[TokenInfo]:
        """Yield the tokens of a namespace that are not over; those of its databases are with the databases."""
        for row in self._control.pages("tokens", "namespaces", ns, "tokens", most=limit):
            yield cast("TokenInfo", row)

    def revoke_token(self, db: str, token_id: str) -> None:
        """Revoke a token of a database by its id, and all that were minted with it.

        Every node knows of it within two seconds. Raises NotFoundError for one that was not minted here.
        """
        self._control.write("DELETE", "databases", db, "tokens", token_id)

    def revoke_namespace_token(self, ns: str, token_id: str) -> None:
        """Revoke a token of a namespace by its id, and all that were minted with it; see `revoke_token`."""
        self._control.write("DELETE", "namespaces", ns, "tokens", token_id)

    def revoke_tokens(self, db: str, *, token: str | None = None) -> TokensRevoked:
        """Revoke every token of a database that was issued until now, or the one `token`, shown whole.

        Tokens that are minted afterwards are good at once.
        """
        return self._revoke("databases", db, "tokens", "revoke", token=token)

    def revoke_namespace_tokens(self, ns: str, *, token: str | None = None) -> TokensRevoked:
        """Revoke every token of a namespace and of its databases, or one; see `revoke_tokens`."""
        return self._revoke("namespaces", ns, "tokens", "revoke", token=token)

    def revoke_tenant_tokens(self, *, token: str | None = None) -> TokensRevoked:
        """Revoke every token of the tenant, or one; see `revoke_tokens`. Takes the platform key."""
        return self._revoke("tokens", "revoke", token=token)

    def signing_keys(self) -> SigningKeys:
        """Return the keys that sign and verify tokens, by id. Takes the platform key."""
        return cast("SigningKeys", (self._control.read("GET", "keys")).json())

    def rotate_keys(self) -> KeyRotated:
        """Make a new signing key; those before it verify until the longest token is over. Takes the platform key.

        Raises ConflictError where the keys are not the node's own.
        """
        return cast("KeyRotated", (self._control.write("POST", "keys", "rotate", **ONCE_ONLY)).json())

    def published_keys(self) -> list[dict[str, Any]]:
        """Return every public key as a JSON Web Key with its `status`; retired ones verify receipts. Takes no credential."""
        answer = self._root.read("GET", ".well-known", "jwks.json")
        return cast("list[dict[str, Any]]", answer.json()["keys"])

    def _revoke(self, *parts: str, token: str | None) -> TokensRevoked:
        body = None if token is None else {"token": token}
        return cast("TokensRevoked", (self._control.write("POST", *parts, body=body, **ONCE_ONLY)).json())


def _asked(
    scope: Scope,
    expires_in: int,
    branches: Iterable[str] | None,
    surfaces: Iterable[str] | None,
    profiles: Iterable[str] | None,
    limits: RateLimits | None,
    subject: str | None,
) -> dict[str, Any]:
    return given(
        scope=scope,
        expires_in=expires_in,
        branches=listed(branches),
        surfaces=listed(surfaces),
        profiles=listed(profiles),
        limits=limits,
        subject=subject,
    )
