"""An owner's side of replicas: who follows the branches that this node owns, and what they are sent.

What a ship has put and named goes to each subscriber, in order, by one request at a time. Nothing here delays a ship:
a subscriber that does not keep up loses what waits for it, finds the gap, and fetches from object storage.
A subscription ends when its node has not asked for a while; see memoturnd.engine.replicas.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import structlog

from memoturnd.core import replica_wire as wire
from memoturnd.engine.errands import Errands
from memoturnd.errors import ConflictError, MemoturnError, NotFoundError, OverloadedError
from memoturnd.metrics import Metrics
from memoturnd.replication.compactor import Tasks
from memoturnd.seams.clock import Clock
from memoturnd.seams.peers import JSON, Peers

if TYPE_CHECKING:
    from memoturnd.engine.ownership import BranchRef

BRANCH_LIMIT: Final = 8
"""Subscribers of one branch."""
NODE_LIMIT: Final = 4096
"""Subscriptions of all branches of a node."""
WAITING_LIMIT: Final = 8
WAITING_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Segments, and their bytes, that wait for one subscriber; beyond either all of them are dropped."""
SENDING: Final = 16
"""Requests with segments that are under way at once."""
SILENT_S: Final = 5.0
"""A subscriber that did not ask for so long is dropped."""
PUSH_S: Final = 10.0
"""How long one push may take."""
TELL_S: Final = 2.0
_log = structlog.get_logger(__name__)


class Subscriber:
    """One node that follows one branch."""

    __slots__ = ("address", "ref", "seen_s", "sending", "waiting", "waiting_bytes")

    def __init__(self, ref: "BranchRef", address: str, seen_s: float) -> None:
        self.ref = ref
        self.address = address
        self.seen_s = seen_s
        self.waiting: deque[bytes] = deque()
        self.waiting_bytes = 0
        self.sending = False


class Subscribers:
    """The subscribers of all branches that this node owns."""

    def __init__(self, peers: Peers | None, clock: Clock, metrics: Metrics, spawn: Tasks) -> None:
        self._peers = peers
        self._clock = clock
        self._metrics = metrics
        self._errands = Errands(spawn)
        self._sending = asyncio.Semaphore(SENDING)
        self._of: dict[str, dict[str, Subscriber]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def followers(self, branch_id: str) -> int:
        """Return how many nodes follow a branch."""
        return len(self._of.get(branch_id, ()))

    def note(self, ref: "BranchRef", address: str) -> None:
        """Subscribe a node to a branch that this one owns, or keep it subscribed. Raises OverloadedError."""
        now_s = self._clock.monotonic_s()
        of_branch = self._of.get(ref.branch_id, {})
        known = of_branch.get(address)
        if known is not None:
            known.seen_s = now_s
            return
        if len(of_branch) >= BRANCH_LIMIT or self._count >= NODE_LIMIT:
            raise OverloadedError(
                f"{ref} has {len(of_branch)} replicas, and this node {self._count} in all, which is as many as it "
                "keeps up to date; read it from its owner"
            )
        self._of.setdefault(ref.branch_id, {})[address] = Subscriber(ref, address, now_s)
        self._count += 1

    def shipped(self, branch_id: str, data: bytes | None) -> None:
        """Send a segment that has landed to who follows the branch; without one they are told to look for themselves."""
        of_branch = self._of.get(branch_id)
        if not of_branch:
            return
        if data is None or len(data) > WAITING_LIMIT_BYTES:
            self.changed(branch_id)
            return
        for one in list(of_branch.values()):
            if len(one.waiting) >= WAITING_LIMIT or one.waiting_bytes + len(data) > WAITING_LIMIT_BYTES:
                one.waiting.clear()
                one.waiting_bytes = 0
                self._metrics.replica_pushes["skipped"].inc()
            one.waiting.append(data)
            one.waiting_bytes += len(data)
            if not one.sending:
                one.sending = True
                self._errands.start("pushing to a replica", self._send(one))

    def changed(self, branch_id: str, *, gone: bool = False) -> None:
        """Let who follows the branch ask at once: what it has may not be the branch's any more; or it is `gone`."""
        of_branch = self._of.get(branch_id)
        if of_branch:
            self._errands.start("telling replicas", self._tell(branch_id, list(of_branch), gone))

    def sweep(self) -> None:
        """Drop who did not ask for a while."""
        before_s = self._clock.monotonic_s() - SILENT_S
        for one in [one for of_branch in self._of.values() for one in of_branch.values()]:
            if one.seen_s < before_s:
                self._drop(one)

    def close(self) -> None:
        """Send nothing any more."""
        self._errands.close()
        self._of.clear()

    async def _send(self, one: Subscriber) -> None:
        try:
            while one.waiting and self._stands(one):
                async with self._sending:
                    if one.waiting:
                        data = one.waiting.popleft()
                        one.waiting_bytes -= len(data)
                        await self._push(one, data)
        finally:
            one.sending = False

    async def _push(self, one: Subscriber, data: bytes) -> None:
        peers, ref, pushes = self._peers, one.ref, self._metrics.replica_pushes
        if peers is None:
            return
        headers = {
            wire.UUID_HEADER: ref.database.uuid,
            wire.BRANCH_HEADER: ref.name,
            wire.BRANCH_ID_HEADER: ref.branch_id,
            wire.KIND_HEADER: "segment",
        }
        try:
            await peers.ask(one.address, wire.INGEST, body=data, headers=headers, timeout_s=PUSH_S)
        except (ConflictError, NotFoundError):
            pushes["refused"].inc()  # it owns the branch by now, or has let it go
            self._drop(one)
        except MemoturnError as error:
            pushes["failed"].inc()  # it finds the gap, or is dropped when it does not ask any more
            _log.info("push failed", branch=str(ref), address=one.address, error=str(error))
        else:
            pushes["ok"].inc()
            self._metrics.replica_pushed_bytes.inc(len(data))

    async def _tell(self, branch_id: str, addresses: Iterable[str], gone: bool) -> None:
        body = wire.encode(wire.Changed([branch_id], gone))

        async def tell(address: str) -> None:
            try:
                if self._peers is not None:
                    await self._peers.ask(address, wire.CHANGED, body=body, headers=JSON, timeout_s=TELL_S)
            except MemoturnError as error:  # it asks again soon by itself
                _log.info("replica not told", branch=branch_id, address=address, error=str(error))

        async with asyncio.TaskGroup() as group:
            for address in addresses:
                group.create_task(tell(address))

    def _stands(self, one: Subscriber) -> bool:
        return self._of.get(one.ref.branch_id, {}).get(one.address) is one

    def _drop(self, one: Subscriber) -> None:
        if not self._stands(one):
            return
        of_branch = self._of[one.ref.branch_id]
        del of_branch[one.address]
        self._count -= 1
        if not of_branch:
            del self._of[one.ref.branch_id]
