"""Retention of the audit stream, day by day: a chain's beginning goes, and its head says from where on it is kept.

The head is moved first and the objects are deleted then, so that nobody finds a hole that the head does not explain. Only a
beginning goes: what a clock that jumped has put into another day waits for what came before it.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog

from memoturnd.audit.chains import Chain
from memoturnd.audit.log import AuditLog
from memoturnd.audit.ports import AuditRules
from memoturnd.audit.reader import DAY_MS
from memoturnd.core import audit
from memoturnd.core.audit import Head, Kept, ObjectName
from memoturnd.errors import CorruptionError, MemoturnError
from memoturnd.seams.clock import Clock
from memoturnd.seams.object_store import ObjectStore

RETENTION_S: Final = 3600.0
DAYS_OF_PASS: Final = 62
_log = structlog.get_logger(__name__)


class AuditRetention:
    """Lets go of what the policies do not keep."""

    def __init__(self, store: ObjectStore, log: AuditLog, rules: AuditRules, clock: Clock) -> None:
        self._store = store
        self._log = log
        self._rules = rules
        self._clock = clock

    async def run(self) -> int:
        """Go through the heads of all streams once, and return how many objects were deleted."""
        deleted = 0
        keys = [info.key async for info in self._store.list(audit.heads_prefix())]
        for key in keys:
            try:
                deleted += await self._apply(key)
            except MemoturnError as error:
                _log.warning("audit retention is tried again", head=key, error=str(error))
        return deleted

    async def _apply(self, key: str) -> int:
        stream, _, name = key.removeprefix(audit.heads_prefix()).partition("/")
        tenant, namespace = audit.split_stream(stream)
        retention_s = (await self._rules.rule(tenant, namespace)).retention_s
        if retention_s is None:
            return 0
        last_ms = self._clock.now_ms() - 1000 * retention_s - audit.OBJECT_SPAN_MS
        chain = self._log.open_chain(stream, name.removesuffix(".json"))
        head = await chain.head()
        if head.kept.day >= audit.day_of(last_ms):
            return 0
        return await self._let_go(chain, head, last_ms)

    async def _let_go(self, chain: Chain, head: Head, last_ms: int) -> int:
        found = await self._objects(head, last_ms)
        old = [key for name, key in found if name.number < head.kept.object]
        going: list[str] = []
        for name, key in found:
            if name.number == head.kept.object + len(going):
                going.append(key)
        if going:
            end = await self._end_of(going[-1], head.kept.object + len(going))
            await chain.keep_from(end)
        elif not found:
            await chain.keep_from(
                Kept(head.kept.seq, head.kept.prev, head.kept.object, _later(head.kept.day, last_ms))
            )
        for key in [*old, *going]:
            await self._store.delete(key)
        return len(old) + len(going)

    async def _objects(self, head: Head, last_ms: int) -> Sequence[tuple[ObjectName, str]]:
        """Return a chain's objects of the days that are past, by number."""
        found = []
        for day in _days(head.kept.day, audit.day_of(last_ms)):
            async for info in self._store.list(audit.day_prefix(head.stream, day)):
                name = audit.parse_object_key(info.key)
                if name is not None and name.chain == head.chain and name.number <= head.objects:
                    found.append((name, info.key))
        return sorted(found, key=lambda row: row[0].number)

    async def _end_of(self, key: str, next_object: int) -> Kept:
        """Return where the kept part begins when the object at `key` is the last to go."""
        line = (await self._store.get(key)).data.rstrip(b"\n").rpartition(b"\n")[2]
        try:
            seq = msgspec.json.decode(line)["seq"]
        except (msgspec.MsgspecError, KeyError, TypeError) as error:
            raise CorruptionError(f"{key} is damaged; it is kept, for whoever verifies the stream") from error
        return Kept(seq=seq + 1, prev=hashlib.sha256(line).hexdigest(), object=next_object, day="")


def _days(first: str, end: str) -> list[str]:
    """Return the days from `first` to before `end`, up to DAYS_OF_PASS."""
    days: list[str] = []
    at_ms = audit.day_ms(first)
    while len(days) < DAYS_OF_PASS and (day := audit.day_of(at_ms)) < end:
        days.append(day)
        at_ms += DAY_MS
    return days


def _later(day: str, last_ms: int) -> str:
    return min(audit.day_of(last_ms), audit.day_of(audit.day_ms(day) + DAYS_OF_PASS * DAY_MS))
