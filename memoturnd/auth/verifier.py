"""From the text of a token to its bearer. What was verified once is kept until it expires, or the keys change."""

import hashlib
from typing import Final

import jwt
from jwt.exceptions import PyJWTError

from memoturnd.auth.keyring import Keyring
from memoturnd.core import tokens
from memoturnd.core.principal import Principal
from memoturnd.errors import UnauthorizedError
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock

ALGORITHM: Final = "EdDSA"
TOKEN_BYTES_LIMIT: Final = 16 * 1024
KEPT_LIMIT: Final = 10_000
"""Most verified tokens that are kept; the one verified first goes first."""
_HEADERS: Final = frozenset({"alg", "typ", "kid"})
_BAD: Final = "the credential is not a token that a key of this node has signed; get one from where your tokens are minted"


class Verifier:
    """Verifies tokens. Only EdDSA with the listed keys counts, whatever a token says of itself."""

    def __init__(
        self, keyring: Keyring, clock: Clock, metrics: Metrics, *, audience: str | None, max_lifetime_s: int
    ) -> None:
        self._keyring = keyring
        self._clock = clock
        self._audience = audience
        self._max_lifetime_s = max_lifetime_s
        self._kept: dict[bytes, Principal] = {}
        self._keys_seen = keyring.changes
        self._jws = jwt.PyJWS(algorithms=[ALGORITHM])
        self._hits, self._misses = metrics.tokens_verified["kept"], metrics.tokens_verified["verified"]
        metrics.verified_tokens.set_function(lambda: len(self._kept))
        metrics.verified_tokens_limit.set(KEPT_LIMIT)

    def bearer_of(self, token: bytes) -> Principal:
        """Return who bears a token. Raises UnauthorizedError. Whether it was revoked is not asked here."""
        keys = self._keyring.changes
        if self._keys_seen != keys:
            self._kept.clear()
            self._keys_seen = keys
        digest = hashlib.sha256(token).digest()
        bearer = self._kept.get(digest)
        if bearer is not None and self._clock.now_ms() < bearer.expires_at + 1000 * tokens.LEEWAY_S:
            self._hits.inc()
            return bearer
        self._kept.pop(digest, None)
        bearer = self._verified(token)
        self._misses.inc()
        if len(self._kept) >= KEPT_LIMIT:
            del self._kept[next(iter(self._kept))]
        self._kept[digest] = bearer
        return bearer

    def _verified(self, token: bytes) -> Principal:
        claims = tokens.decode(self._payload(token))
        tokens.check_times(claims, now_ms=self._clock.now_ms(), max_lifetime_s=self._max_lifetime_s)
        tokens.check_audience(claims, self._audience)
        return tokens.principal_of(claims, token)

    def _payload(self, token: bytes) -> bytes:
        if len(token) > TOKEN_BYTES_LIMIT:
            raise UnauthorizedError(_BAD)
        try:
            header = jwt.get_unverified_header(token)
        except (PyJWTError, ValueError, TypeError, RecursionError):
            raise UnauthorizedError(_BAD) from None
        kid = header.get("kid")
        if header.get("alg") != ALGORITHM or not header.keys() <= _HEADERS or not isinstance(kid, str | None):
            raise UnauthorizedError(_BAD)
        for key in self._keyring.verifying(kid):
            try:
                payload: bytes = self._jws.decode_complete(token, key, algorithms=[ALGORITHM])["payload"]
            except (PyJWTError, ValueError, TypeError, RecursionError):
                continue
            return payload
        raise UnauthorizedError(_BAD)
