"""The stream of one owned branch's commits to the nodes of its sync set, for writes that wait for `replicated`.

A second reader of the log beside the shipper's, which reads from where the stream was and never behind the shipper: what
has landed needs no other copy. Writes that come while a push is under way share the next one. Whatever is not as it
should be (a node that fails, a log that cannot be followed) ends the stream, and it begins anew: nodes are chosen, get
all that is not in object storage yet, are recorded as the branch's sync set, and only then does anything count on them.
Those who wait meanwhile wait for object storage.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import structlog

from memoturnd.core import segment
from memoturnd.core.segment import Kind
from memoturnd.core.tails import Push
from memoturnd.errors import FencedError, MemoturnError
from memoturnd.metrics import Metrics
from memoturnd.replication.capture import Batch, Capture, SurpriseError
from memoturnd.replication.compactor import Tasks
from memoturnd.replication.open_branch import OpenBranch
from memoturnd.replication.shipper import Shipper
from memoturnd.seams.clock import Clock
from memoturnd.seams.executor import Executor
from memoturnd.seams.leases import Lease, LiveNode

_TRIES: Final = 2
"""Pushes that may fail before those who wait are left to object storage."""
_log = structlog.get_logger(__name__)
_INLINE_LOG_BYTES: Final = 256 * 1024


class Links(Protocol):
    """The other nodes, as a stream uses them."""

    async def choose(self, branch_id: str) -> Sequence[LiveNode]:
        """Return the nodes that are to hold a branch's tail. Raises RetryableError where there are not enough."""
        ...

    async def push(self, nodes: Sequence[LiveNode], push: Push, data: bytes) -> None:
        """Let every one of `nodes` keep a piece. Raises MemoturnError where one did not: it may have it all the same."""
        ...

    async def record(self, lease: Lease, nodes: Sequence[LiveNode]) -> None:
        """Record the set. Raises FencedError, RetryableError."""
        ...


class TailStream:
    """What this node's sync set holds of one branch that it owns."""

    def __init__(
        self,
        source: OpenBranch,
        shipper: Shipper,
        links: Links,
        *,
        uuid: str,
        lease: Lease,
        epoch: int,
        clock: Clock,
        executor: Executor,
        metrics: Metrics,
        spawn: Tasks,
    ) -> None:
        self.replicated_txid = 0
        """The txid up to which every recorded node has what is not in object storage."""
        self._source = source
        self._shipper = shipper
        self._links = links
        self._uuid = uuid
        self._lease = lease
        self._epoch = epoch
        self._clock = clock
        self._executor = executor
        self._metrics = metrics
        self._spawn = spawn
        self._nodes: Sequence[LiveNode] = ()
        """The recorded nodes, while each of them has all up to the cursor."""
        self._cursor: Capture | None = None
        self._told_txid = 0
        self._pushing = False
        self._waiting: list[tuple[int, asyncio.Future[bool]]] = []
        shipper.on_landed = self._landed

    async def wait(self, txid: int) -> None:
        """Wait until `txid` is held by the whole sync set, or is durable. Raises what Shipper.wait_durable raises."""
        if txid <= max(self.replicated_txid, self._shipper.durable_txid):
            return
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((txid, future))
        if not self._pushing:
            self._pushing = True
            self._spawn(self._run())
        if not await future:
            self._metrics.tail_fallbacks.inc()
            await self._shipper.wait_durable(txid)

    @property
    def has_to_tell(self) -> bool:
        """Return whether the nodes hold what is durable by now, and no push is about to tell them."""
        return bool(self._nodes) and not self._pushing and self._told_txid < self._shipper.durable_txid

    async def tell(self) -> None:
        """Tell the nodes what is durable by now, so that they let go of it; where a push does not do so anyway."""
        if not self.has_to_tell:
            return
        self._pushing = True
        try:
            await self._push(self._nodes, b"")
        except MemoturnError:
            self._end()
        finally:
            self._pushing = False
            if self._waiting:
                self._pushing = True
                self._spawn(self._run())

    def close(self) -> None:
        """Let go of the log; whoever waits is told by the shipper."""
        self._end()
        self._answer(None)

    # ---- pushing

    async def _run(self) -> None:
        """Push until nobody waits."""
        failed = 0
        try:
            while self._waiting and not self._shipper.stopped:
                try:
                    await self._round()
                    failed = 0
                except FencedError:
                    self._end()
                    break
                except (SurpriseError, MemoturnError, OSError):
                    self._end()
                    failed += 1
                    if failed == _TRIES:
                        break
                except Exception as error:  # noqa: BLE001 - whoever waits is left to object storage, and the node goes on
                    _log.error("a tail cannot be sent", branch=self._lease.branch_id, exc_info=error)
                    self._end()
                    break
        finally:
            self._pushing = False
            self._answer(None)

    async def _round(self) -> None:
        """Let every node of the set have all that is committed by now."""
        started_s = self._clock.monotonic_s()
        if not self._nodes:
            await self._begin()
        else:
            self.replicated_txid = await self._send(self._nodes)
        self._answer(self.replicated_txid)
        self._metrics.tail_push_seconds.observe(self._clock.monotonic_s() - started_s)

    async def _begin(self) -> None:
        nodes = await self._links.choose(self._lease.branch_id)
        await self._push(nodes, b"", begins=True)
        txid = await self._send(nodes)
        await self._links.record(self._lease, nodes)
        self._nodes, self.replicated_txid = nodes, txid

    def _current(self) -> Capture:
        """Return the reader of the log, moved to what has landed where that is further, or another form of the state."""
        landed, cursor = self._shipper.capture, self._cursor
        if (
            cursor is None
            or cursor.cursor.txid < landed.cursor.txid
            or (cursor.cursor.txid == landed.cursor.txid and cursor.hashes.checksum != landed.hashes.checksum)
        ):
            if cursor is not None:
                cursor.close()
            self._cursor = cursor = landed.beside_it()
        return cursor

    async def _send(self, nodes: Sequence[LiveNode]) -> int:
        """Push what is committed by now, and return the txid up to which the nodes have all. Raises SurpriseError.

        What is committed meanwhile is for the next round: those that wait for this one must not wait for it as well.
        """
        target_txid = self._source.txid
        while True:
            async with self._source.gate:
                if self._shipper.stopped:  # the log that is here by now may be another ownership's
                    raise FencedError("the branch is not owned any more")
                # Here, since no history is rewritten and nothing is checkpointed while the gate is held.
                cursor = self._current()
                batch = None if cursor.cursor.txid >= target_txid else await self._read(cursor)
            if batch is None:
                return max(cursor.cursor.txid, self._shipper.durable_txid)
            data = await self._encoded(batch, cursor.page_size)
            await self._push(nodes, data)
            cursor.landed(batch)

    async def _read(self, cursor: Capture) -> Batch | None:
        source = self._source
        head_txid, log_frames = source.txid, source.log_frames
        if cursor.pending_bytes(log_frames) <= _INLINE_LOG_BYTES:
            return cursor.read(head_txid=head_txid, log_frames=log_frames)
        return await self._executor.run(lambda: cursor.read(head_txid=head_txid, log_frames=log_frames))

    async def _encoded(self, batch: Batch, page_size: int) -> bytes:
        def encode() -> bytes:
            return segment.encode(
                Kind.SEGMENT,
                batch.rounds,
                page_size=page_size,
                prev_txid=batch.prev_txid,
                epoch=self._epoch,
                checksum_before=batch.checksum_before,
            )[0]

        return encode() if batch.size_bytes <= _INLINE_LOG_BYTES else await self._executor.run(encode)

    async def _push(self, nodes: Sequence[LiveNode], data: bytes, *, begins: bool = False) -> None:
        durable_txid = self._shipper.durable_txid
        push = Push(self._uuid, self._lease.branch_id, self._epoch, durable_txid, begins)
        await self._links.push(nodes, push, data)
        self._told_txid = durable_txid

    def _end(self) -> None:
        """Count on nobody any more; the recorded set stands until another one is."""
        self._nodes = ()
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    # ---- outcomes

    def _landed(self, txid: int) -> None:
        for waited, future in self._waiting:
            if waited <= txid and not future.done():
                future.set_result(True)
        self._waiting = [w for w in self._waiting if not w[1].done()]

    def _answer(self, txid: int | None) -> None:
        """Tell those that wait for `txid` or less that it is held, or (None) all that nobody will hold it."""
        for waited, future in self._waiting:
            if (txid is None or waited <= txid) and not future.done():
                future.set_result(txid is not None)
        self._waiting = [w for w in self._waiting if not w[1].done()]
