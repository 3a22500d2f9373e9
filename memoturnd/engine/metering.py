"""Usage, counted in memory and put into the catalog in batches, so that no request waits for it.

A crash loses what was counted since the last flush. While the catalog is down counters wait; so that they stay bounded,
databases beyond the bound are counted for their namespace alone, and namespaces beyond it for their tenant.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from memoturnd.core.days import DAY_MS, day_of, days_before
from memoturnd.core.limits import Owner
from memoturnd.engine.branch import Branch
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import MemoturnError
from memoturnd.metrics import Metrics
from memoturnd.seams.catalog import Catalog, Size, UsageDay, Use
from memoturnd.seams.clock import Clock
from memoturnd.seams.profile import Work

COUNTERS_KEPT: Final = 10_000
"""Databases of which something is counted and not flushed; half of it begins a flush."""
FLUSHED_AT_ONCE: Final = 50
"""Counts in one transaction of the catalog, some round trips each: what it takes has to fit well into the time of one call."""
BATCH: Final = 500
"""Rows of one transaction."""
COUNTED_AT_ONCE: Final = 200
"""Profiles whose memories are counted in one flush; more wait for the next."""
PRUNE_S: Final = 3600.0
MEASURE_S: Final = 60.0
"""How often it is added up what an active namespace stores."""
_UUID: Final = slice(3, 35)
"""Where an object's key has the uuid of its database."""
_COUNT: Final = "SELECT count(*) FROM __memoturn_memories"
_log = structlog.get_logger(__name__)


class Counted(NamedTuple):
    """Whose row something is counted in: the database of that plain name, or with none the rest of its owner's."""

    owner: Owner
    database: str
    day: str


@dataclass(slots=True)
class Counters:
    """What requests have taken."""

    requests: int = 0
    reads: int = 0
    writes: int = 0
    recalls: int = 0

    def subtract(self, use: Use) -> bool:
        """Take off what was flushed; return whether nothing is left."""
        self.requests -= use.requests
        self.reads -= use.reads
        self.writes -= use.writes
        self.recalls -= use.recalls
        return not self.requests


@dataclass(slots=True)
class Growth:
    """What this node has put for a database and not flushed: `shipped` bytes, and `stored` ones of new objects.

    While the collector lists the database, `since` counts what is stored since the listing began; `listed` is what it found.
    """

    shipped: int = 0
    stored: int = 0
    memories: int | None = None
    is_being_listed: bool = False
    since: int = 0
    listed: int | None = None

    def size(self, uuid: str, day: str) -> Size:
        """Return what is to be flushed."""
        if self.listed is None:
            return Size(uuid, day, self.shipped, self.stored, is_whole=False, memories=self.memories)
        return Size(uuid, day, self.shipped, self.listed + self.since, is_whole=True, memories=self.memories)

    def subtract(self, flushed: Size, listed: int | None, stored: int) -> bool:
        """Take off what was flushed; return whether nothing is left."""
        self.shipped -= flushed.bytes_shipped
        self.stored -= stored
        if self.memories == flushed.memories:
            self.memories = None
        if self.listed is listed and not self.is_being_listed:
            self.listed, self.since = None, 0
        return (
            not (self.shipped or self.stored or self.is_being_listed) and self.memories is self.listed is None
        )


class Meter:
    """The counters of one node. `tick` is to be called about once a second, `flush` at the end."""

    def __init__(
        self,
        catalog: Catalog,
        clock: Clock,
        metrics: Metrics,
        *,
        flush_s: float,
        retention_days: int,
        main_of: Callable[[str], Awaitable[Branch]],
    ) -> None:
        self._catalog = catalog
        self._clock = clock
        self._metrics = metrics
        self._flush_s = flush_s
        self._retention_days = retention_days
        self._main_of = main_of
        self._counters: dict[Counted, Counters] = {}
        self._growth: dict[str, Growth] = {}
        self._written: dict[str, None] = {}
        """Databases whose memories may have become more or fewer, in the order of that."""
        self._measured_s: dict[Owner, float] = {}
        self._flushing = asyncio.Lock()
        self._flushed_s = clock.monotonic_s()
        self._pruned_s = -PRUNE_S
        self._day = (-1, "")
        metrics.usage_waiting_limit.set(COUNTERS_KEPT)
        metrics.usage_waiting.set_function(lambda: len(self._counters))

    @property
    def today(self) -> str:
        """The day (UTC) of what is counted now."""
        number = self._clock.now_ms() // DAY_MS
        if number != self._day[0]:
            self._day = number, day_of(number * DAY_MS)
        return self._day[1]

    async def of_database(self, uuid: str, first: str, last: str, limit: int) -> list[UsageDay]:
        """Return the days of a database, as far as they were flushed. Raises RetryableError."""
        return await self._catalog.usage_of_database(uuid, first, last, limit=limit)

    async def of_owner(self, owner: Owner, first: str, last: str, limit: int) -> list[UsageDay]:
        """Return the days of a namespace in the same way. Raises RetryableError."""
        return await self._catalog.usage_of(owner, first, last, limit=limit)

    # ---- counting

    def served(self, owner: Owner, database: str, *, wrote: bool, recalled: bool) -> None:
        """Count a request that was served, for a database by its plain name (empty for none)."""
        counters = self._of(owner, database)
        if counters is None:
            self._metrics.usage_uncounted.inc()
            return
        counters.requests += 1
        if wrote:
            counters.writes += 1
        else:
            counters.reads += 1
        if recalled:
            counters.recalls += 1

    def changed(self, database: str) -> None:
        """Note that the main branch of a database, by its qualified name, may have other memories now."""
        if len(self._written) < COUNTERS_KEPT:
            self._written.setdefault(database)

    def put(self, key: str, size_bytes: int, is_new: bool) -> None:
        """Count bytes that were put into the object store, under a new key or instead of what was there."""
        uuid = key[_UUID]
        if key[35:36] != "/":  # not a database's
            return
        growth = self._growth.get(uuid)
        if growth is None:
            growth = self._growth[uuid] = Growth()
        growth.shipped += size_bytes
        if is_new:
            growth.stored += size_bytes
            growth.since += size_bytes

    def listing(self, uuid: str) -> None:
        """Note that a listing of the database's objects begins; `listed` is to follow."""
        growth = self._growth.setdefault(uuid, Growth())
        growth.is_being_listed, growth.since = True, 0

    def listed(self, uuid: str, size_bytes: int | None) -> None:
        """Note how many bytes a database's objects have together; None where that was not found out."""
        growth = self._growth.setdefault(uuid, Growth())
        growth.is_being_listed = False
        if size_bytes is not None:
            growth.listed = size_bytes

    def _of(self, owner: Owner, database: str) -> Counters | None:
        """Return the counters of a database; where there are too many, those of its namespace or tenant."""
        day = self.today
        tenant = Owner(owner.tenant)
        for most, key in (
            (COUNTERS_KEPT, Counted(owner, database, day)),
            (2 * COUNTERS_KEPT, Counted(owner, "", day)),
            (3 * COUNTERS_KEPT, Counted(tenant, "", day)),
        ):
            found = self._counters.get(key)
            if found is not None:
                return found
            if len(self._counters) < most:
                counters = self._counters[key] = Counters()
                return counters
        return None

    # ---- flushing

    async def tick(self) -> None:
        """Flush when it is time, or when much is waiting; let go of old days now and then. Raises nothing."""
        now_s = self._clock.monotonic_s()
        waiting = max(len(self._counters), len(self._growth))
        if now_s - self._flushed_s < self._flush_s and waiting < COUNTERS_KEPT // 2:
            return
        self._flushed_s = now_s
        try:
            await self._count_memories()
            await self.flush()
            await self._prune(now_s)
        except MemoturnError as error:
            self._metrics.usage_failed.inc()
            _log.warning("usage not written; it is tried again", error=str(error))

    async def flush(self) -> None:
        """Put what was counted into the catalog. Raises RetryableError; what is not there yet is kept then."""
        async with self._flushing:
            keys = list(self._counters)
            for first in range(0, len(keys), FLUSHED_AT_ONCE):
                await self._flush_counters(keys[first : first + FLUSHED_AT_ONCE])
            uuids = list(self._growth)
            for first in range(0, len(uuids), FLUSHED_AT_ONCE):
                await self._flush_growth(uuids[first : first + FLUSHED_AT_ONCE])
            await self._measure({key.owner for key in keys if key.owner.namespace})

    async def _flush_counters(self, keys: list[Counted]) -> None:
        rows = []
        for key in keys:
            at = self._counters[key]
            rows.append(Use(key.owner, key.database, key.day, at.requests, at.reads, at.writes, at.recalls))
        await self._catalog.add_usage(rows)
        for key, row in zip(keys, rows, strict=True):
            if self._counters[key].subtract(row):
                del self._counters[key]

    async def _flush_growth(self, uuids: list[str]) -> None:
        day = self.today
        growths = [self._growth[uuid] for uuid in uuids]
        rows = [growth.size(uuid, day) for uuid, growth in zip(uuids, growths, strict=True)]
        was = [(growth.listed, growth.stored) for growth in growths]
        await self._catalog.add_sizes(rows)
        for row, growth, (listed, stored) in zip(rows, growths, was, strict=True):
            if growth.subtract(row, listed, stored):
                del self._growth[row.db_uuid]

    async def _measure(self, owners: set[Owner]) -> None:
        """Note of the namespaces in use how much they store today."""
        now_s = self._clock.monotonic_s()
        self._measured_s = {o: at for o, at in self._measured_s.items() if now_s - at < MEASURE_S}
        day = self.today
        for owner in sorted(owners - set(self._measured_s)):
            await self._catalog.put_totals(owner, day, await self._catalog.totals_of(owner))
            self._measured_s[owner] = now_s

    async def _count_memories(self) -> None:
        """Count the memories of some profiles that were written."""
        for name in list(self._written)[:COUNTED_AT_ONCE]:
            self._written.pop(name, None)
            try:
                branch = await self._main_of(name)
                seen = await branch.read(_memories, work=Work.SCAN)
            except MemoturnError as error:  # it was deleted meanwhile, or will be written again
                _log.info("memories not counted", database=name, error=str(error))
                continue
            self._growth.setdefault(branch.ref.database.uuid, Growth()).memories = seen.value

    async def _prune(self, now_s: float) -> None:
        if now_s - self._pruned_s >= PRUNE_S:
            self._pruned_s = now_s
            day = days_before(self.today, self._retention_days)
            while await self._catalog.prune_usage(day, limit=BATCH):
                pass


def _memories(conn: ProfileConnection, _now_ms: int) -> int:
    """Return how many memories there are, superseded ones included."""
    for row in conn.execute(_COUNT):
        return int(row[0])
    return 0
