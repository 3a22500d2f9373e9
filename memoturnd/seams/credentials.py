"""The seam to the records of tokens and of what was revoked, which the catalog keeps."""

from dataclasses import dataclass
from typing import Literal, Protocol

RevocationKind = Literal["token", "database", "namespace", "tenant", "tombstone"]
"""One token by its id; every token of a database, a namespace or a tenant that was issued until then; and a deletion, after which no
token that was issued before opens the name again.
"""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """A token that was minted, without the token: of the database `db` or of the namespace `ns` of a tenant.

    Times are unix ms. `grant` is the JSON of what it opens (memoturnd.auth.records).
    """

    id: str
    tenant: str
    db: str
    ns: str
    issued_at: int
    expires_at: int
    grant: bytes


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tokens that are no longer good. `subject` is a token's id or the name that they are for; times are unix ms.

    Tokens issued at `at` or before are meant; nobody needs to know of it after `expires_at`. `change` numbers all revocations in the
    order in which they can be seen.
    """

    kind: RevocationKind
    tenant: str
    subject: str
    at: int
    expires_at: int
    change: int = 0


class Credentials(Protocol):
    """What is known of tokens. Every method raises RetryableError where it cannot be asked."""

    async def put_token(self, row: TokenRow) -> None:
        """Record a token. What is revoked meanwhile can be seen by then, or has a time at or after the token's."""
        ...

    async def get_token(self, tenant: str, token_id: str) -> TokenRow | None:
        """Return the record of a token, None where there is none."""
        ...

    async def list_tokens(
        self, *, tenant: str, db: str = "", ns: str = "", after: str = "", limit: int = 1000
    ) -> list[TokenRow]:
        """Return up to `limit` of the tokens of a database or of a namespace, by id, above `after`."""
        ...

    async def revoke(self, revocation: Revocation) -> Revocation:
        """Enter a revocation, and return it with its change number.

        Where one of its kind and subject stands, the later time holds. `at` is raised to when the youngest of the tokens meant was
        issued, so that a node whose clock is ahead hands out none that escapes.
        """
        ...

    async def revocations_since(self, change: int, *, limit: int = 1000) -> list[Revocation]:
        """Return up to `limit` revocations above a change number, in order; none of a lower number appears later."""
        ...

    async def forget_expired_tokens(self, now_ms: int, *, limit: int = 1000) -> int:
        """Remove up to `limit` tokens and as many revocations that are over, and return how many."""
        ...
