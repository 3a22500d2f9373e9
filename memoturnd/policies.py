"""The policies of a node: read from the object store, kept for a while, changed by compare-and-swap.

    rules = await policies.effective("acme--ann")     # of a database; at most MEMOTURN_POLICY_CACHE_SECS old
    rules = await policies.effective("acme--ann", fresh=True)   # for what deletes

Where the store does not answer, or what it has cannot be read, the last that was known goes on to hold. What was never
known raises PolicyUnreadableError: who would send memories away then must not, and who would shorten a life goes on.
"""

import asyncio
import math
from collections import OrderedDict
from dataclasses import replace
from typing import Final

import structlog

from memoturnd.core import names, policy, policy_document
from memoturnd.core.consistency import Consistency
from memoturnd.core.policy import NOTHING, Rules
from memoturnd.core.policy_document import Change, PolicyDocument
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    RetryableError,
    StoreUnavailableError,
)
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.object_store import Committed, ObjectMissingError, ObjectStore, SwapResult, Unknown

READ_TIMEOUT_S: Final = 2.0
"""Longest that a request waits for a policy to be read."""
RETRY_S: Final = 1.0
"""How long the last that was known is taken after a read has failed, before the next read."""
SWAPS_LIMIT: Final = 3
CACHE_ENTRIES: Final = 8192
CACHE_BYTES: Final = 64 * 1024 * 1024
_ENTRY_BYTES: Final = 1024
"""What an entry is counted as besides its document."""
_PARSED: Final = 4
"""How much more memory a document takes than its JSON."""
_log = structlog.get_logger(__name__)


class PolicyUnreadableError(RetryableError):
    """The policy of a namespace is not known, and could not be read."""


class _Entry:
    """What is known of one namespace. `read_s` is when, -inf before it was ever read."""

    __slots__ = ("base", "document", "failed_s", "key", "lock", "merged", "read_s", "size_bytes", "why")

    def __init__(self, key: tuple[str, str]) -> None:
        self.key = key
        self.document: PolicyDocument | None = None
        self.base = NOTHING
        self.merged: dict[str, Rules] = {}
        self.read_s = -math.inf
        self.failed_s = -math.inf
        self.why: Exception | None = None
        self.size_bytes = 0
        self.lock = asyncio.Lock()


class Policies:
    """What holds for the databases of every namespace. `ceiling` holds for all of them, and for other databases."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        clock: Clock,
        randomness: Randomness,
        metrics: Metrics,
        cache_s: float,
        ceiling: Rules = NOTHING,
        self_hosted_embedder: bool = False,
    ) -> None:
        self.ceiling = ceiling
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._metrics = metrics
        self._cache_s = cache_s
        self._self_hosted = self_hosted_embedder
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._size_bytes = 0
        metrics.policy_cache_limit_bytes.set(CACHE_BYTES)
        metrics.before_scrape(lambda: metrics.policy_cache_bytes.set(self._size_bytes))

    # ---- what holds

    async def effective(self, database: str, *, fresh: bool = False) -> Rules:
        """Return what holds for a database, by its qualified name. Raises PolicyUnreadableError.

        One that is of no namespace has the operator's ceiling alone.
        """
        tenant, name = names.split_qualified(database)
        namespace, separator, profile = name.partition(names.PROFILE_SEPARATOR)
        if not separator:
            return self.ceiling
        return await self.of_namespace(tenant, namespace, profile, fresh=fresh)

    async def of_namespace(
        self, tenant: str, namespace: str, profile: str | None = None, *, fresh: bool = False
    ) -> Rules:
        """Return what holds for a namespace, or for one of its profiles. Raises PolicyUnreadableError."""
        key = (tenant, namespace)
        entry = self._entries.get(key)
        if entry is None or fresh or self._clock.monotonic_s() >= entry.read_s + self._cache_s:
            self._metrics.policy_reads["miss"].inc()
            entry = await self._read(tenant, namespace, fresh=fresh)
        else:
            self._metrics.policy_reads["hit"].inc()
            self._entries.move_to_end(key)
        document = entry.document
        if document is None or profile is None or profile not in document.overrides:
            return entry.base
        merged = entry.merged.get(profile)
        if merged is None:
            merged = entry.merged[profile] = policy.effective(entry.base, document.overrides[profile])
        return merged

    async def egress(self, database: str) -> Rules:
        """Return what holds for sending memories to a model. Raises PolicyUnreadableError: then nothing may be sent."""
        try:
            return await self.effective(database)
        except PolicyUnreadableError:
            self._metrics.policy_unknown["egress"].inc()
            raise

    async def lets_embed(self, database: str) -> bool:
        """Return whether this node's embedder may be sent what the database holds. Raises PolicyUnreadableError."""
        return (await self.egress(database)).lets_embed(self_hosted=self._self_hosted)

    async def reads(self, database: str) -> Consistency:
        """Return what reads that do not say ask for; the newest state, where nobody says or it is not known."""
        try:
            said = (await self.effective(database)).reads
        except PolicyUnreadableError as error:
            self._metrics.policy_unknown["reads"].inc()
            _log.warning("reads show the newest state for now", database=database, error=str(error))
            said = None
        return Consistency.CACHED if said == "cached" else Consistency.PRIMARY

    async def task_ttl_max_s(self, database: str) -> int | None:
        """Return the longest life of a task, None without a bound; where it is not known, the ceiling's."""
        try:
            return (await self.effective(database)).task_ttl_max_secs
        except PolicyUnreadableError as error:
            self._metrics.policy_unknown["task_ttl"].inc()
            _log.warning("lives of tasks are not bounded for now", database=database, error=str(error))
            return self.ceiling.task_ttl_max_secs

    def holds_for(self, document: PolicyDocument | None, profile: str) -> Rules:
        """Return what holds for a profile by these policies of its namespace."""
        if document is None:
            return self.ceiling
        own = document.overrides.get(profile, NOTHING)
        return policy.effective(self.ceiling, document.rules, own)

    # ---- documents

    async def document(self, tenant: str, namespace: str) -> PolicyDocument | None:
        """Return the policies of a namespace as they stand now, None where none was ever set.

        Raises StoreUnavailableError, CorruptionError.
        """
        entry = self._entry(tenant, namespace)
        async with entry.lock:
            return (await self._load(tenant, namespace, entry))[0]

    async def change(self, tenant: str, namespace: str, change: Change) -> PolicyDocument:
        """Change the policies of a namespace, and return what stands then, which this node takes at once.

        Raises what `change` raises, ConflictError where others were faster each time, StoreUnavailableError where the
        outcome is not known, CorruptionError for policies that cannot be read.
        """
        entry = self._entry(tenant, namespace)
        async with entry.lock:
            document = await self._swap(tenant, namespace, entry, change)
            self._note(entry, document, len(policy_document.encode(document)), self._clock.monotonic_s())
            return document

    async def _swap(self, tenant: str, namespace: str, entry: _Entry, change: Change) -> PolicyDocument:
        key = policy_document.key_of(tenant, namespace)
        sent: set[str] = set()
        result: SwapResult | None = None
        for _ in range(SWAPS_LIMIT + 1):
            current, etag = await self._load(tenant, namespace, entry)
            if current is not None and current.commit_id in sent:
                return current  # its reply was lost
            if len(sent) == SWAPS_LIMIT:
                break
            changed = change(current)
            new = replace(
                changed,
                revision=1 + (0 if current is None else current.revision),
                updated_at=self._clock.now_ms(),
                commit_id=self._randomness.hex(8),
            )
            sent.add(new.commit_id)
            data = policy_document.encode(new)
            try:
                if current is None:
                    result = await self._store.put_if_absent(key, data)
                else:
                    result = await self._store.put_if_match(key, data, etag)
            except ObjectMissingError:
                continue  # somebody removed it meanwhile
            if isinstance(result, Committed):
                return new
        if isinstance(result, Unknown):
            raise StoreUnavailableError(
                f"changing {key} did not come to an end ({result.cause}): it may still land; read it again"
            )
        raise ConflictError(
            f"the policies of namespace {namespace} were changed by others {SWAPS_LIMIT} times meanwhile: "
            "read them again, then decide"
        )

    async def _load(self, tenant: str, namespace: str, entry: _Entry) -> tuple[PolicyDocument | None, str]:
        """Return what stands and its etag, and note it. Raises StoreUnavailableError, CorruptionError."""
        key, started_s = policy_document.key_of(tenant, namespace), self._clock.monotonic_s()
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                blob = await self._store.get(key)
        except ObjectMissingError:
            self._note(entry, None, 0, started_s)
            return None, ""
        except TimeoutError as error:
            raise StoreUnavailableError(f"reading {key} took over {READ_TIMEOUT_S:g} s; try again") from error
        document = policy_document.decode(blob.data, tenant=tenant, namespace=namespace)
        self._note(entry, document, len(blob.data), started_s)
        return document, blob.etag

    # ---- the cache

    async def _read(self, tenant: str, namespace: str, *, fresh: bool) -> _Entry:
        """Return what is known of a namespace, read again where it is not new enough. Raises PolicyUnreadableError."""
        entry = self._entry(tenant, namespace)
        asked_s = self._clock.monotonic_s()
        async with entry.lock:  # one reads, and those who waited for it take what it found
            is_new = entry.read_s >= (asked_s if fresh else self._clock.monotonic_s() - self._cache_s)
            rests = not fresh and self._clock.monotonic_s() < entry.failed_s + RETRY_S
            if not is_new and not rests:
                try:
                    await self._load(tenant, namespace, entry)
                except (RetryableError, CorruptionError) as error:
                    entry.failed_s, entry.why = self._clock.monotonic_s(), error
                    self._tell(namespace, entry, error)
            if entry.why is not None and (fresh or entry.read_s == -math.inf):
                raise PolicyUnreadableError(
                    f"the policies of namespace {namespace} are not known now: {entry.why}"
                ) from entry.why
            return entry

    def _tell(self, namespace: str, entry: _Entry, error: Exception) -> None:
        self._metrics.policy_reads_failed.inc()
        _log.warning(
            "policies cannot be read",
            namespace=namespace,
            holds="the last that was known" if entry.read_s > -math.inf else "nothing is known",
            error=str(error),
        )

    def _entry(self, tenant: str, namespace: str) -> _Entry:
        key = (tenant, namespace)
        entry = self._entries.get(key)
        if entry is None:
            entry = _Entry(key)
            self._keep(entry, 0)
        return entry

    def _note(self, entry: _Entry, document: PolicyDocument | None, size_bytes: int, read_s: float) -> None:
        """Take what stood at `read_s`, or later, for what stands."""
        rules = NOTHING if document is None else document.rules
        entry.document, entry.base = document, policy.effective(self.ceiling, rules)
        entry.merged = {}
        entry.read_s, entry.why = read_s, None
        self._keep(entry, size_bytes)

    def _keep(self, entry: _Entry, size_bytes: int) -> None:
        """Keep an entry as the one used last; those that were used longest ago go beyond the bounds."""
        before = self._entries.pop(entry.key, None)
        if before is not None:
            self._size_bytes -= before.size_bytes
        entry.size_bytes = _ENTRY_BYTES + _PARSED * size_bytes
        self._entries[entry.key] = entry
        self._size_bytes += entry.size_bytes
        while len(self._entries) > CACHE_ENTRIES or self._size_bytes > CACHE_BYTES:
            self._size_bytes -= self._entries.popitem(last=False)[1].size_bytes
