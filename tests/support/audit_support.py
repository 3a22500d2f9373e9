"""An audit log on a store in memory, and what tests ask of it."""

import asyncio
import contextlib
import itertools

from memoturnd.audit.log import AuditLog
from memoturnd.core import audit
from memoturnd.core.audit import Event
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import SystemClock, SystemRandomness

_numbers = itertools.count(1)


class HurriedClock(SystemClock):
    """The system's clocks, without the waits between attempts."""

    async def sleep(self, seconds):
        await asyncio.sleep(min(seconds, 0.001))


def event(n=None, *, ns="app", ts=1_700_000_000_000, **fields):
    number = next(_numbers) if n is None else n
    values = {
        "v": 1,
        "id": audit.event_id(ts, number),
        "ts": ts,
        "node": "n1",
        "ns": ns,
        "action": "kv.put",
        "outcome": "ok",
        **fields,
    }
    return Event(**values)


def log_of(store, folder, *, node="n1", sign=None, clock=None, **changes):
    values = {"flush_ms": 2000, "limit_bytes": 1 << 26, "wait_s": 0.2, "fsync": False, **changes}
    return AuditLog(
        store,
        folder,
        node=node,
        sign=sign,
        clock=clock or HurriedClock(),
        randomness=SystemRandomness(),
        metrics=Metrics(),
        **values,
    )


@contextlib.contextmanager
def started(store, folder, **changes):
    """A log that was started, and that ends as a killed process does."""
    log = log_of(store, folder, **changes)
    log.start()
    try:
        yield log
    finally:
        log._spool.close()
        log._ends.close()
