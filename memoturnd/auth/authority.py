"""Everything that a node with authentication knows of credentials: keys, secrets, revocations; it mints and revokes."""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import jwt
import msgspec

from memoturnd.auth.admission import CredentialAdmission
from memoturnd.auth.keyring import LEARN_S, Keyring
from memoturnd.auth.keys import cluster_key_of
from memoturnd.auth.revocations import POLL_S, Revocations
from memoturnd.auth.secrets import Secrets
from memoturnd.auth.sources import FixedKeys, KeysInFile, KeySource, OwnKeys, StoredKeys
from memoturnd.auth.verifier import ALGORITHM, TOKEN_BYTES_LIMIT, Verifier
from memoturnd.config import Settings
from memoturnd.core import tokens
from memoturnd.core.principal import Grant, Principal, TokenScope
from memoturnd.engine.periodic import periodic
from memoturnd.errors import ConfigurationError, ForbiddenError, InvalidRequestError, RetryableError
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.credentials import Credentials, Revocation, RevocationKind, TokenRow
from memoturnd.seams.object_store import ObjectStore

SECRETS_S: Final = 2.0
"""How often files with the platform key and the cluster key are read again."""
SWEEP_S: Final = 600.0
"""How often records of tokens that are over are removed."""
_SWEEP_BATCH: Final = 1000
PUBLISH_TIMEOUT_S: Final = 10.0
REVOCATION: Final = "revocation"
"""What the export calls revocations."""
_REVOKED_FOR_MS: Final = 1000 * (tokens.LONGEST_LIFETIME_S + tokens.LEEWAY_S)


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a token besides its row: what it opens, for whom, and by whom it was minted."""

    scope: TokenScope
    branches: list[str] | None = None
    surfaces: list[str] | None = None
    profiles: list[str] | None = None
    limits: dict[str, float] | None = None
    subject: str = ""
    minted_by: str = ""
    parents: list[str] = []


@dataclass(frozen=True, slots=True)
class Minted:
    """A new token; `expires_at` is unix ms."""

    token: str
    id: str
    lifetime_s: int
    expires_at: int


class Export(Protocol):
    """What the catalog has, in the object store."""

    async def now(self) -> None:
        """Return once what the catalog has is there. Raises RetryableError, StoreUnavailableError."""
        ...

    async def read(self, kind: str) -> dict[str, bytes]:
        """Return what is there of a kind, by id, as JSON. Raises RetryableError, StoreUnavailableError, CorruptionError."""
        ...


class Authority:
    """The credentials of a node."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: ObjectStore,
        records: Credentials,
        clock: Clock,
        randomness: Randomness,
        metrics: Metrics,
    ) -> None:
        self.max_lifetime_s = settings.token_max_lifetime_s
        self.keyring = Keyring(_source(settings, store), store, clock)
        self._export: Export | None = None
        self.revocations = Revocations(records, self._exported, clock, metrics)
        self.verifier = Verifier(
            self.keyring, clock, metrics, audience=settings.token_audience, max_lifetime_s=self.max_lifetime_s
        )
        self.platform = Secrets("MEMOTURN_PLATFORM_KEY", settings.platform_key, settings.platform_key_file)
        self.cluster = Secrets("MEMOTURN_CLUSTER_KEY", settings.cluster_key, settings.cluster_key_file)
        self.records = records
        self.admission = CredentialAdmission(
            verifier=self.verifier,
            revocations=self.revocations,
            platform=self.platform,
            cluster=self.cluster,
            metrics=metrics,
        )
        self._derives_cluster_key = settings.cluster_key is None and settings.cluster_key_file is None
        self._audience = settings.token_audience
        self._clock = clock
        self._randomness = randomness

    async def start(self) -> None:
        """Read keys and secrets. Raises ConfigurationError, StoreUnavailableError."""
        await self.keyring.start()
        await self.keyring.learn()
        await self._read_secrets()

    def exports_by(self, export: Export) -> None:
        """Let the object store hear by `export` of what is revoked."""
        self._export = export

    def loops(self) -> list[Coroutine[Any, Any, None]]:
        """Return the background work: everything that is read again and again."""
        clock = self._clock
        return [
            periodic(clock, POLL_S, "revocations", self.revocations.refresh),
            periodic(clock, self.keyring.source.refresh_s, "signing keys", self.keyring.refresh),
            periodic(clock, SECRETS_S, "platform and cluster key", self._read_secrets),
            periodic(clock, LEARN_S, "public keys", self.keyring.learn),
            periodic(clock, SWEEP_S, "expired tokens", self._sweep),
        ]

    async def mint(
        self, minter: Principal, grant: Grant, *, expires_in_s: int | None, subject: str = ""
    ) -> Minted:
        """Return a new token of the minter's tenant. Raises InvalidRequestError, ForbiddenError, RetryableError."""
        grant = tokens.narrowed(minter, tokens.check_grant(grant))
        now_ms = self._clock.now_ms()
        lifetime_s = tokens.lifetime_s(
            minter, expires_in_s, now_ms=now_ms, max_lifetime_s=self.max_lifetime_s
        )
        # A token that is minted in the very millisecond of a deletion or a cut-off is meant to be good.
        issued_at = max(now_ms, self.revocations.newest(minter.tenant, grant.db, grant.ns) + 1)
        is_token = minter.kind == "token"
        bearer = Principal(
            "token",
            minter.tenant,
            grant,
            token_id=f"tok_{self._randomness.hex(12)}",
            parents=(*minter.parents, minter.token_id) if is_token else (),
            issued_at=issued_at,
            expires_at=(issued_at // 1000 + lifetime_s) * 1000,
            subject=subject,
            shared_limits=tokens.shared_limits(minter),
        )
        signed = self._signed(bearer, grant)
        if len(signed) > TOKEN_BYTES_LIMIT:
            raise InvalidRequestError(
                f"the token would be of {len(signed)} bytes, and at most {TOKEN_BYTES_LIMIT} are taken; name fewer branches or profiles"
            )
        record = _record(bearer, minted_by=minter.name)
        await self.records.put_token(
            TokenRow(bearer.token_id, bearer.tenant, grant.db, grant.ns, issued_at, bearer.expires_at, record)
        )
        if is_token:
            # It may have been revoked since it was admitted, by a cut-off that is older than the new token.
            await self.revocations.catch_up()
            self.revocations.check(minter, grant.db)
        return Minted(signed, bearer.token_id, lifetime_s, bearer.expires_at)

    async def revoke_token(self, tenant: str, token_id: str, expires_at: int) -> Revocation:
        """Revoke one token, and with it all that were minted with it. Raises RetryableError until that is sure."""
        return await self._revoke("token", tenant, token_id, expires_at)

    async def revoke_all(self, kind: RevocationKind, tenant: str, name: str) -> Revocation:
        """Revoke every token of a database, a namespace or a tenant up to now. Raises RetryableError until that is sure."""
        return await self._revoke(kind, tenant, name, self._clock.now_ms() + _REVOKED_FOR_MS)

    def longest_until(self, expires_at: int) -> int:
        """Return until when a token's revocation is needed: what was minted with it ends before it does."""
        return expires_at + 1000 * tokens.LEEWAY_S

    def is_revoked(self, row: TokenRow) -> bool:
        """Return whether a recorded token is revoked, as far as this node knows."""
        record = record_of(row)
        bearer = Principal(
            "token",
            row.tenant,
            grant_of(row),
            token_id=row.id,
            parents=tuple(record.parents),
            issued_at=row.issued_at,
        )
        try:
            self.revocations.check(bearer, row.db)
        except ForbiddenError:
            return True
        return False

    async def _revoke(self, kind: RevocationKind, tenant: str, subject: str, expires_at: int) -> Revocation:
        revocation = await self.records.revoke(
            Revocation(kind, tenant, subject, self._clock.now_ms(), expires_at)
        )
        self.revocations.take([replace(revocation, change=0)])  # the poll goes on from where it is
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                if self._export is not None:
                    await self._export.now()
        except TimeoutError as error:
            raise RetryableError(
                "the tokens are revoked, but the object store does not have it yet; send it again"
            ) from error
        return revocation

    async def _exported(self) -> list[Revocation]:
        if self._export is None:
            raise RetryableError("the node has not started yet")
        found = await self._export.read(REVOCATION)
        try:
            return [msgspec.json.decode(body, type=Revocation) for body in found.values()]
        except msgspec.MsgspecError as error:
            raise RetryableError(f"a revocation in the export cannot be read: {error}") from error

    def _signed(self, bearer: Principal, grant: Grant) -> str:
        signer = self.keyring.signer
        payload = tokens.encode(tokens.claims_of(bearer, grant, audience=self._audience))
        return jwt.api_jws.encode(
            payload, signer.private, algorithm=ALGORITHM, headers={"kid": signer.kid, "typ": "JWT"}
        )

    async def _read_secrets(self) -> None:
        """Let the secrets count that are there now, both or neither. Raises ConfigurationError."""
        platform = await self.platform.read()
        if self._derives_cluster_key:
            cluster = [cluster_key_of(key) for key in self.keyring.private_keys]
        else:
            cluster = await self.cluster.read()
        if not set(platform).isdisjoint(cluster):
            raise ConfigurationError(
                "MEMOTURN_CLUSTER_KEY is MEMOTURN_PLATFORM_KEY: who has one must not have the other; choose another"
            )
        self.platform.set(*platform)
        self.cluster.set(*cluster)

    async def _sweep(self) -> None:
        while await self.records.forget_expired_tokens(self._clock.now_ms(), limit=_SWEEP_BATCH):
            pass


def record_of(row: TokenRow) -> Record:
    """Return what is kept of a token besides its row."""
    return msgspec.json.decode(row.grant, type=Record)


def grant_of(row: TokenRow) -> Grant:
    """Return what a recorded token opens."""
    record = record_of(row)

    def names(values: Iterable[str] | None) -> frozenset[str] | None:
        return None if values is None else frozenset(values)

    return Grant(
        record.scope,
        row.db,
        row.ns,
        names(record.branches),
        names(record.surfaces),
        names(record.profiles),
        record.limits or {},
    )


def _record(bearer: Principal, *, minted_by: str) -> bytes:
    grant = tokens.grant_to_json(bearer.grant) if bearer.grant is not None else {}
    extra = {"subject": bearer.subject, "minted_by": minted_by, "parents": list(bearer.parents)}
    return msgspec.json.encode(msgspec.convert({**grant, **extra}, Record))


def _source(settings: Settings, store: ObjectStore) -> KeySource:
    """Return where the keys come from: the environment, a file, the object store where that is wanted, else this node's own."""
    if settings.auth_key is not None:
        return FixedKeys(settings.auth_key.reveal())
    if settings.auth_key_file is not None:
        return KeysInFile(settings.auth_key_file)
    own = OwnKeys(settings.shared_dir)
    if settings.persist_auth_key and not own.exists():
        return StoredKeys(store)
    return own
