"""What a node knows of the tenants and namespaces that use it: their quotas, what they take up, and their rates.

An account is read from the catalog at its first use. Changes of quotas are asked for every second, so that those that
were set at another node hold here soon, and what an account takes up is added up again while it is used. While the catalog is down what was known last goes on to hold, and who was
not known has the defaults of the settings. Rates are of this node alone: each node counts for itself.
"""

import math
from collections import OrderedDict
from typing import Final, NamedTuple

import structlog

from memoturnd.core.limits import Bucket, Defaults, Owner, Quotas
from memoturnd.errors import MemoturnError, OverloadedError
from memoturnd.metrics import Metrics
from memoturnd.seams.catalog import Cap, Catalog, Totals
from memoturnd.seams.clock import Clock

ACCOUNTS_KEPT: Final = 20_000
"""Accounts in memory; the one that was unused longest goes, and begins with full buckets when it is used again."""
REFRESH_S: Final = 2.0
"""How old what is known of what an account takes up may get, while it is used and the catalog answers."""
_USED_S: Final = 10.0
"""An account counts as in use for so long after its last use."""
_BATCH: Final = 500
_COST: Final = 100
"""Adding up what an account takes up may take one part in this many of the time."""
_FULL_AGAIN_S: Final = 60
"""What `Retry-After` says where only deleting something helps."""
_NOTHING: Final = Totals(0, 0, 0)
_log = structlog.get_logger(__name__)


class Account:
    """One tenant or namespace. `quotas` are those that hold, defaults included; `used` was added up at `added_up_s`."""

    __slots__ = (
        "added_up_s", "grown_bytes", "grown_memories", "is_read", "next_refusal_s", "owner", "quotas", "requests",
        "used", "used_s", "writes",
    )  # fmt: skip

    def __init__(self, owner: Owner, quotas: Quotas, now_s: float) -> None:
        self.owner = owner
        self.quotas = quotas
        self.used = _NOTHING
        self.grown_bytes = 0
        self.grown_memories = 0
        """What this node has taken since `used` was added up."""
        self.is_read = False
        """Whether the catalog has said what its own quotas are."""
        self.added_up_s = -math.inf
        self.used_s = now_s
        self.next_refusal_s = 0.0
        """When the next refusal is answered at the earliest."""
        self.requests = Bucket(now_s)
        self.writes = Bucket(now_s)

    @property
    def shown(self) -> str:
        """What messages call it."""
        return self.owner.shown

    @property
    def is_counted(self) -> bool:
        """Whether what it takes up is limited."""
        return self.quotas.bytes is not None or self.quotas.memories is not None

    def check_room(self, *, for_memories: bool) -> None:
        """Raise OverloadedError where no more may be stored."""
        most = self.quotas
        if most.bytes is not None and (size_bytes := self.used.bytes_stored + self.grown_bytes) >= most.bytes:
            raise self.full("bytes", most.bytes, size_bytes, "delete something")
        if (
            for_memories
            and most.memories is not None
            and (count := self.used.memories + self.grown_memories) >= most.memories
        ):
            raise self.full("memories", most.memories, count, "forget some")

    def full(self, limit: str, most: int, used: int, what_helps: str) -> OverloadedError:
        """Return the error that says that a quota is used up."""
        return OverloadedError(
            f"{self.owner.shown} has its {limit} quota of {most} used up ({used}); {what_helps}, or ask for a larger quota",
            retry_after_s=_FULL_AGAIN_S,
            limit=limit,
        )


class Stored(NamedTuple):
    """The quotas that an owner was given, those that hold, and what it takes up, as the catalog has it."""

    own: Quotas
    effective: Quotas
    used: Totals


class Accounts:
    """The accounts that were used lately. `refresh` is to be called about once a second."""

    def __init__(self, catalog: Catalog, clock: Clock, metrics: Metrics, defaults: Defaults) -> None:
        self.defaults = defaults
        self._catalog = catalog
        self._clock = clock
        self._metrics = metrics
        # Least recently used first.
        self._known: OrderedDict[Owner, Account] = OrderedDict()
        self._change = 0
        metrics.accounts_limit.set(ACCOUNTS_KEPT)
        metrics.accounts.set_function(lambda: len(self._known))

    def known(self, owner: Owner) -> Account | None:
        """Return an account that is in memory; None where `get` has to be asked."""
        account = self._known.get(owner)
        if account is not None:
            account.used_s = self._clock.monotonic_s()
            self._known.move_to_end(owner)
        return account

    async def get(self, owner: Owner) -> Account:
        """Return an account, read from the catalog where it is not in memory. Raises nothing."""
        account = self.known(owner)
        if account is None:
            account = self._known[owner] = Account(owner, self.defaults.of(owner), self._clock.monotonic_s())
            if len(self._known) > ACCOUNTS_KEPT:
                self._known.popitem(last=False)
            await self._read(account)
        return account

    def grew(self, owner: Owner, size_bytes: int, memories: int) -> None:
        """Note what a write to a database of `owner` has brought, until it is added up."""
        for one in {owner, Owner(owner.tenant)}:
            account = self._known.get(one)
            if account is not None and account.is_counted:
                account.grown_bytes += size_bytes
                account.grown_memories += memories

    async def stored(self, owner: Owner) -> Stored:
        """Return what the catalog has of an owner. Raises RetryableError."""
        own = await self._catalog.quotas_of(owner)
        return Stored(own, own.over(self.defaults.of(owner)), await self._catalog.totals_of(owner))

    async def set(self, owner: Owner, quotas: Quotas) -> None:
        """Give a tenant or namespace quotas of its own. Raises RetryableError."""
        await self._catalog.put_quotas(owner, quotas)
        account = self._known.get(owner)
        if account is not None:
            self._settle(account, quotas)
            await self._read(account)

    async def caps(self, owner: Owner) -> tuple[Cap, ...]:
        """Return how many databases there may be, of all the ones that a new one of `owner` counts among."""
        owners = {owner, Owner(owner.tenant)}
        accounts = [await self.get(one) for one in sorted(owners)]
        return tuple(
            Cap(account.owner, account.quotas.databases)
            for account in accounts
            if account.quotas.databases is not None
        )

    async def refresh(self) -> None:
        """Take over what has changed, and add up again what is limited and in use. Raises nothing."""
        try:
            while changes := await self._catalog.quotas_changed(self._change, limit=_BATCH):
                for change in changes:
                    account = self._known.get(change.owner)
                    if account is not None:
                        self._settle(account, change.quotas)
                self._change = changes[-1].change
        except MemoturnError as error:
            self._failed(error)
            return
        for account in self._due():
            await self._read(account)

    def _due(self) -> list[Account]:
        """Return the accounts in use of which something is not known, or has become old."""
        now_s = self._clock.monotonic_s()
        due = []
        for account in reversed(self._known.values()):  # the latest used first
            if now_s - account.used_s > _USED_S:
                break
            if not account.is_read or (account.is_counted and now_s - account.added_up_s >= REFRESH_S):
                due.append(account)
        return due

    def _settle(self, account: Account, own: Quotas) -> None:
        account.quotas = own.over(self.defaults.of(account.owner))
        account.added_up_s = -math.inf

    async def _read(self, account: Account) -> None:
        try:
            if not account.is_read:
                self._settle(account, await self._catalog.quotas_of(account.owner))
                account.is_read = True
            if account.is_counted:
                await self._add_up(account)
        except MemoturnError as error:
            self._failed(error)

    def _failed(self, error: MemoturnError) -> None:
        self._metrics.accounts_failed.inc()
        _log.warning("quotas not read; what was known last holds", error=str(error))

    async def _add_up(self, account: Account) -> None:
        """Learn what an account takes up; where that takes long, it is not done again for a while."""
        began_s = self._clock.monotonic_s()
        grown_bytes, grown_memories = account.grown_bytes, account.grown_memories
        account.used = await self._catalog.totals_of(account.owner)
        account.grown_bytes -= grown_bytes
        account.grown_memories -= grown_memories
        now_s = self._clock.monotonic_s()
        account.added_up_s = now_s + _COST * (
            now_s - began_s
        )  # where that took long, it is soon enough later
