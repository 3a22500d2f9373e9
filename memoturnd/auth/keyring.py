"""The keys of a node: which one signs, which ones verify, and which public ones are published.

The first key that the source lists signs. One that came while the node was running signs only once it has been published for a
while, so that no node is asked to verify what it has not heard of. Every public key that ever signed stays published, in the
object store and by the JWKS route, since receipts last longer than keys; tokens verify with the listed keys alone.
"""

import base64
from collections.abc import Mapping
from typing import Final

import msgspec
import structlog
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from memoturnd.auth.keys import SigningKey, jwk_of, kid_of, new_key, parse_keys, raw_of, written
from memoturnd.auth.sources import KeySource
from memoturnd.errors import ConflictError, MemoturnError
from memoturnd.seams.clock import Clock
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

PUBLIC_PREFIX: Final = "v1/_auth/public/"
PUBLISHED_TIMES: Final = 5
"""A new key is published for so many times `refresh_s` of its source before it signs: by then every node has read it."""
LEARN_S: Final = 60.0
"""How often public keys that other nodes have published are looked for."""
KEYS_LIMIT: Final = 16
"""Most keys that verify at once."""
_PUBLIC_LIMIT: Final = 1000
_log = structlog.get_logger(__name__)


class PublicKey(msgspec.Struct, frozen=True):
    """A published key: its 32 bytes in base64, and the unix ms at which it was first published."""

    kid: str
    key: str
    published_at: int


class Keyring:
    """The keys from one source."""

    def __init__(self, source: KeySource, store: ObjectStore, clock: Clock) -> None:
        self.source = source
        self._reads = 0
        self._store = store
        self._clock = clock
        self._pause_ms = round(1000 * PUBLISHED_TIMES * source.refresh_s)
        self._text = ""
        self._keys: list[SigningKey] = []
        self._signs_from_ms: dict[str, int] = {}
        self._published: dict[str, bytes] = {}

    async def start(self) -> None:
        """Read the keys, all of which may sign at once. Raises ConfigurationError, StoreUnavailableError."""
        await self._read(signs_from_ms=0)
        await self._publish()

    async def refresh(self) -> None:
        """Read the keys again; those that stand stay where they cannot be read. Raises MemoturnError."""
        await self._read(signs_from_ms=self._clock.now_ms() + self._pause_ms)
        await self._publish()

    @property
    def changes(self) -> tuple[int, int]:
        """What is another whenever the keys that verify are: how often they were read, and how many of them are over."""
        now_ms = self._clock.now_ms()
        return self._reads, sum(not _verifies(key, now_ms) for key in self._keys)

    @property
    def signer(self) -> SigningKey:
        """The key that signs now."""
        now_ms = self._clock.now_ms()
        able = [key for key in self._keys if _verifies(key, now_ms)] or self._keys
        return next((key for key in able if self._signs_from_ms[key.kid] <= now_ms), able[0])

    def verifying(self, kid: str | None) -> list[Ed25519PublicKey]:
        """Return the keys that may verify a token: the one of that id, or all of them for a token that names none."""
        now_ms = self._clock.now_ms()
        return [
            key.public for key in self._keys if (kid is None or key.kid == kid) and _verifies(key, now_ms)
        ]

    @property
    def private_keys(self) -> list[SigningKey]:
        """Every listed key; the first is the one that will sign."""
        return list(self._keys)

    def sign(self, message: bytes) -> tuple[str, bytes]:
        """Return the id of the signing key, and its signature of a message."""
        signer = self.signer
        return signer.kid, signer.private.sign(message)

    def published(self) -> Mapping[str, bytes]:
        """Return every public key by its id, the retired ones too: 32 bytes each."""
        return {**self._published, **{key.kid: raw_of(key.public) for key in self._keys}}

    def verify(self, kid: str, message: bytes, signature: bytes) -> bool:
        """Return whether a published key has made a signature, retired ones included: for receipts, not for tokens."""
        raw = self.published().get(kid)
        if raw is None:
            return False
        try:
            Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def jwks(self) -> list[dict[str, str]]:
        """Return the published keys as JSON Web Keys: the one that signs first, then those that verify, then retired ones."""
        signer, now_ms = self.signer.kid, self._clock.now_ms()
        live = {key.kid for key in self._keys if _verifies(key, now_ms)}
        status = {
            kid: "signing" if kid == signer else "verifying" if kid in live else "retired"
            for kid in self.published()
        }
        order = ["signing", "verifying", "retired"]
        kids = sorted(status, key=lambda kid: (order.index(status[kid]), kid))
        return [jwk_of(self.published()[kid], status[kid]) for kid in kids]

    async def rotate(self, *, max_lifetime_s: int) -> tuple[SigningKey, int]:
        """Make a new key; return it and the unix ms from which it signs. Those before verify until their longest token is over.

        Raises ConflictError where the keys are the operator's own, or changed meanwhile, and StoreUnavailableError.
        """
        if not self.source.managed:
            raise ConflictError(
                f"the keys come from {self.source.shown}; add the new one there, in front of the others"
            )
        await self.refresh()
        now_ms = self._clock.now_ms()
        signs_from_ms = now_ms + self._pause_ms
        over_ms = signs_from_ms + self._pause_ms + 1000 * max_lifetime_s
        kept = [key for key in self._keys if _verifies(key, now_ms)]
        if len(kept) >= KEYS_LIMIT:
            raise ConflictError(
                f"{KEYS_LIMIT} keys verify already; wait until the tokens of the oldest are over"
            )
        new = new_key()
        older = [SigningKey(key.private, key.until_ms or over_ms) for key in kept]
        await self.source.write(written([new, *older]), instead_of=self._text)
        await self.refresh()
        return new, signs_from_ms

    async def _read(self, *, signs_from_ms: int) -> None:
        text = await self.source.read()
        if text == self._text:
            return
        keys = parse_keys(text, where=self.source.shown)
        for key in keys:
            self._signs_from_ms.setdefault(key.kid, signs_from_ms)
        if self._text:
            _log.info("signing keys read again", keys=[key.kid for key in keys])
        self._text, self._keys = text, keys
        self._reads += 1

    async def _publish(self) -> None:
        """Make sure that the public keys stand in the object store, and learn of those that others published."""
        for key in self._keys:
            if key.kid not in self._published:
                await self._put(key)

    async def learn(self) -> None:
        """Read the public keys that stand in the object store, retired ones too. Raises StoreUnavailableError."""
        async for info in self._store.list(PUBLIC_PREFIX):
            kid = info.key.removeprefix(PUBLIC_PREFIX).removesuffix(".json")
            if kid in self._published or len(self._published) >= _PUBLIC_LIMIT:
                continue
            try:
                raw = _decode((await self._store.get(info.key)).data)
            except ObjectMissingError:
                continue
            if raw is not None and kid_of(raw) == kid:
                self._published[kid] = raw

    async def _put(self, key: SigningKey) -> None:
        raw = raw_of(key.public)
        body = msgspec.json.encode(PublicKey(key.kid, base64.b64encode(raw).decode(), self._clock.now_ms()))
        try:
            await self._store.put_if_absent(f"{PUBLIC_PREFIX}{key.kid}.json", body)
        except MemoturnError as error:
            _log.warning("public key not published yet; it is tried again", kid=key.kid, error=str(error))
            return
        self._published[key.kid] = raw


def _verifies(key: SigningKey, now_ms: int) -> bool:
    return key.until_ms is None or key.until_ms > now_ms


def _decode(data: bytes) -> bytes | None:
    try:
        raw = base64.b64decode(msgspec.json.decode(data, type=PublicKey).key, validate=True)
    except (msgspec.MsgspecError, ValueError):
        return None
    return raw if len(raw) == 32 else None  # noqa: PLR2004 - what an Ed25519 key has
