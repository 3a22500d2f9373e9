"""What was revoked, as this node knows it.

It is in memory, and brought up to date every second from the catalog; while that does not answer, from the export in the object store.
Once neither has answered for `STALE_S`, no token is good until one does.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Final

import structlog

from memoturnd.core import names
from memoturnd.core.principal import Principal
from memoturnd.errors import ForbiddenError, MemoturnError, RetryableError
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock
from memoturnd.seams.credentials import Credentials, Revocation

POLL_S: Final = 1.0
STALE_S: Final = 10.0
"""How long what is known may be old: beyond it a token might have been revoked seconds ago."""
KEPT_LIMIT: Final = 200_000
"""Most revocations in memory. Beyond it the oldest become a cut-off of their tenant, whose older tokens are then all revoked."""
WHOLE_S: Final = 600.0
"""How often everything is asked for anew: a catalog that was rebuilt may have given numbers a second time."""
_BATCH: Final = 1000
_TIMEOUT_S: Final = 5.0
_log = structlog.get_logger(__name__)

Fallback = Callable[[], Awaitable[Iterable[Revocation]]]
"""Returns the revocations that the export has."""
_Key = tuple[str, str, str]


class Revocations:
    """Answers whether a token is revoked, from memory."""

    def __init__(
        self,
        records: Credentials,
        fallback: Fallback,
        clock: Clock,
        metrics: Metrics,
        *,
        kept_limit: int = KEPT_LIMIT,
    ) -> None:
        self._records = records
        self._fallback = fallback
        self._clock = clock
        self._metrics = metrics
        self._kept_limit = kept_limit
        self._kept: dict[_Key, Revocation] = {}
        self._change = 0
        self._fresh_at_s: float | None = None
        self._whole_at_s = clock.monotonic_s()
        self._asking = asyncio.Lock()
        metrics.revocations_limit.set(kept_limit)

    def __len__(self) -> int:
        return len(self._kept)

    def check(self, bearer: Principal, db: str) -> None:
        """Raise ForbiddenError where the bearer's token is revoked, or older than a deletion of the database `db` that it is used on."""
        if not self._kept:
            return
        tenant = bearer.tenant
        for token_id in (bearer.token_id, *bearer.parents):
            if ("token", tenant, token_id) in self._kept:
                raise ForbiddenError("the token was revoked; get a new one")
        ns = bearer.ns or _namespace_of(bearer.db)
        cut_offs = (
            ("tenant", tenant, tenant),
            ("namespace", tenant, ns),
            ("database", tenant, bearer.db),
        )
        for key in cut_offs:
            if (found := self._kept.get(key)) is not None and bearer.issued_at <= found.at:
                raise ForbiddenError(
                    f"every token of the {key[0]} up to that time was revoked; get a new one"
                )
        if (
            db
            and (gone := self._kept.get(("tombstone", tenant, db))) is not None
            and bearer.issued_at <= gone.at
        ):
            raise ForbiddenError("the token is older than the deletion of this database; get a new one")

    def newest(self, tenant: str, db: str, ns: str) -> int:
        """Return the latest time up to which tokens of these names are revoked: a new token is issued after it."""
        keys = (
            ("tenant", tenant, tenant),
            ("namespace", tenant, ns or _namespace_of(db)),
            ("database", tenant, db),
            ("tombstone", tenant, db),
        )
        return max((found.at for key in keys if (found := self._kept.get(key)) is not None), default=0)

    def take(self, revocations: Iterable[Revocation]) -> None:
        """Take what was revoked."""
        now_ms = self._clock.now_ms()
        for revocation in revocations:
            self._change = max(self._change, revocation.change)
            key = (revocation.kind, revocation.tenant, revocation.subject)
            known = self._kept.get(key)
            if revocation.expires_at <= now_ms:
                continue
            if known is None:
                self._kept[key] = revocation
            else:
                self._kept[key] = replace(
                    known,
                    at=max(known.at, revocation.at),
                    expires_at=max(known.expires_at, revocation.expires_at),
                )
        if len(self._kept) > self._kept_limit:
            self._fold(now_ms)
        self._metrics.revocations.set(len(self._kept))

    async def ensure_fresh(self) -> None:
        """Return once what is known is young enough. Raises RetryableError where it cannot be had: no token is good then."""
        if self._is_fresh():
            return
        async with self._asking:
            if not self._is_fresh():
                await self._refresh()
        if not self._is_fresh():
            raise RetryableError(
                "neither the catalog nor its export says which tokens are revoked, so none is taken; try again"
            )

    async def refresh(self) -> None:
        """Ask for what is new."""
        async with self._asking:
            await self._refresh()

    async def catch_up(self) -> None:
        """Return once everything is known that the catalog has. Raises RetryableError where it does not answer."""
        try:
            async with self._asking, asyncio.timeout(_TIMEOUT_S):
                await self._ask_catalog()
        except TimeoutError as error:
            raise RetryableError("the catalog does not say what was revoked; try again") from error

    def _is_fresh(self) -> bool:
        return self._fresh_at_s is not None and self._clock.monotonic_s() - self._fresh_at_s <= STALE_S

    async def _refresh(self) -> None:
        began_s = self._clock.monotonic_s()
        if began_s - self._whole_at_s > WHOLE_S:
            self._forget_old(self._clock.now_ms())
            self._change, self._whole_at_s = 0, began_s
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                await self._ask_catalog()
        except (MemoturnError, TimeoutError) as error:
            _log.warning("the catalog does not say what was revoked; its export is asked", error=str(error))
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    self._take_exported(await self._fallback())
            except (MemoturnError, TimeoutError) as failure:
                _log.error("the export does not say what was revoked, either", error=str(failure))
                return
        self._fresh_at_s = began_s

    async def _ask_catalog(self) -> None:
        while news := await self._records.revocations_since(self._change, limit=_BATCH):
            self.take(news)

    def _take_exported(self, revocations: Iterable[Revocation]) -> None:
        """Take what the export has. It may lack changes of lower numbers, so the catalog is asked for them again later."""
        change = self._change
        self.take(revocations)
        self._change = change

    def _forget_old(self, now_ms: int) -> None:
        self._kept = {key: kept for key, kept in self._kept.items() if kept.expires_at > now_ms}

    def _fold(self, now_ms: int) -> None:
        """Forget what is over; where that is not enough, let the oldest of the tenants with most become cut-offs."""
        self._forget_old(now_ms)
        excess = len(self._kept) - self._kept_limit * 9 // 10
        if len(self._kept) <= self._kept_limit:
            return
        foldable = [kept for kept in self._kept.values() if kept.kind != "tenant"]
        of_tenant = Counter(kept.tenant for kept in foldable)  # whoever has most is folded first
        oldest = sorted(foldable, key=lambda kept: (-of_tenant[kept.tenant], kept.at))[:excess]
        for kept in oldest:
            del self._kept[kept.kind, kept.tenant, kept.subject]
            key = ("tenant", kept.tenant, kept.tenant)
            standing = self._kept.get(key, Revocation("tenant", kept.tenant, kept.tenant, 0, 0))
            self._kept[key] = replace(
                standing, at=max(standing.at, kept.at), expires_at=max(standing.expires_at, kept.expires_at)
            )
        _log.warning("too many revocations: the oldest became cut-offs of their tenants", folded=len(oldest))


def _namespace_of(db: str) -> str:
    ns, separator, _ = db.partition(names.PROFILE_SEPARATOR)
    return ns if separator else ""
