"""When each branch is shipped: soon after its first commit, oldest first, within the node's request budget.

A dirty branch is due one interval after it became dirty. While the node's ship rate allows, that is what it
gets; beyond the rate the oldest goes first and windows stretch, up to the bound at which writes wait. A
branch that somebody waits for goes at once. A branch that fails backs off alone and disturbs no other.
"""

import asyncio
import heapq
from collections import deque
from itertools import count

import structlog

from memoturnd.errors import FencedError, MemoturnError
from memoturnd.replication.shipper import Shipper
from memoturnd.seams.clock import Clock

_BACKOFF_FIRST_S = 0.1
_BACKOFF_MAX_S = 5.0
_log = structlog.get_logger(__name__)


class ShipScheduler:
    """One per node. `note` is cheap and may be called from any coroutine; `run` does the work."""

    def __init__(self, clock: Clock, *, interval_s: float, rate_per_s: float, concurrency: int) -> None:
        self._clock = clock
        self._interval_s = interval_s
        self._rate_per_s = rate_per_s
        self._slots = asyncio.Semaphore(concurrency)
        self._tokens = rate_per_s
        self._refilled_s = clock.monotonic_s()
        self._heap: list[tuple[float, int, Shipper]] = []
        self._order = count()
        self._urgent: deque[Shipper] = deque()
        self._queued: set[Shipper] = set()
        self._running: set[Shipper] = set()
        self._failures: dict[Shipper, int] = {}
        self._changed = asyncio.Event()

    def note(self, shipper: Shipper, urgent: bool) -> None:
        """Queue a branch that became dirty, or that somebody waits for (`urgent`)."""
        if shipper in self._running:
            return  # it is looked at again when the ship under way ends
        if urgent:
            if shipper not in self._urgent:
                self._urgent.append(shipper)
                self._changed.set()
        elif shipper not in self._queued:
            self._push(shipper, self._clock.monotonic_s() + self._interval_s)

    @property
    def behind_s(self) -> float:
        """Return how long the branch that is due first has waited beyond its time, 0 where none has."""
        return max(0.0, self._clock.monotonic_s() - self._heap[0][0]) if self._heap else 0.0

    def drop(self, shipper: Shipper) -> None:
        """Forget a branch that is closed."""
        self._queued.discard(shipper)
        self._failures.pop(shipper, None)

    async def run(self) -> None:
        """Ship for ever; cancel to stop, which waits for ships under way."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._slots.acquire()
                try:
                    shipper = await self._next()
                except BaseException:
                    self._slots.release()
                    raise
                self._running.add(shipper)
                group.create_task(self._ship(shipper))

    async def _next(self) -> Shipper:
        while True:
            self._changed.clear()
            now_s = self._clock.monotonic_s()
            self._refill(now_s)
            while self._urgent:
                shipper = self._urgent.popleft()
                if shipper not in self._running:
                    self._queued.discard(shipper)
                    self._tokens -= 1
                    return shipper
            while self._heap and self._heap[0][2] not in self._queued:
                heapq.heappop(self._heap)
            wait_s = None
            if self._heap:
                wait_s = max(self._heap[0][0] - now_s, (1 - self._tokens) / self._rate_per_s)
                if wait_s <= 0:
                    shipper = heapq.heappop(self._heap)[2]
                    self._queued.discard(shipper)
                    self._tokens -= 1
                    return shipper
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _refill(self, now_s: float) -> None:
        earned = (now_s - self._refilled_s) * self._rate_per_s
        self._tokens = min(self._rate_per_s, self._tokens + earned)
        self._refilled_s = now_s

    def _push(self, shipper: Shipper, due_s: float) -> None:
        self._queued.add(shipper)
        heapq.heappush(self._heap, (due_s, next(self._order), shipper))
        if self._heap[0][2] is shipper:
            self._changed.set()

    async def _ship(self, shipper: Shipper) -> None:
        """Ship one branch; whatever happens to it stays with it."""
        delay_s = self._interval_s
        try:
            await shipper.ship()
            self._failures.pop(shipper, None)
        except FencedError as error:
            _log.warning("branch fenced", branch=shipper.label, error=str(error))
            return
        except (MemoturnError, OSError) as error:
            failures = self._failures[shipper] = self._failures.get(shipper, 0) + 1
            delay_s = min(_BACKOFF_MAX_S, _BACKOFF_FIRST_S * 2 ** (failures - 1))
            _log.warning(
                "ship failed", branch=shipper.label, error=str(error), failures=failures, retry_s=delay_s
            )
        except Exception:  # noqa: BLE001 - the boundary of one branch's task
            # A bug in shipping one branch must not stop the others; its writes run into their bound.
            failures = self._failures[shipper] = self._failures.get(shipper, 0) + 1
            delay_s = _BACKOFF_MAX_S
            _log.exception("ship failed unexpectedly", branch=shipper.label)
        finally:
            self._running.discard(shipper)
            self._slots.release()
        if shipper.stopped:
            self.drop(shipper)
        elif shipper.urgent and shipper not in self._failures:
            self.note(shipper, urgent=True)
        elif shipper.dirty_since_s is not None:
            self._push(shipper, self._clock.monotonic_s() + delay_s)
