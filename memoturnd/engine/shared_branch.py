"""A branch where nodes share branches: what it does may count only while this node's lease stands.

A lease ends by the clock, without anybody saying so. So it is looked at before a round is taken, after the COMMIT and
after a read, just before the answer is released; memoturnd.seams.leases.Leases.holds asks nobody. What was committed
and cannot be vouched for by the lease any more is vouched for by the manifest: its compare-and-swap lands only while no
other owner stands there. A branch whose lease has ended is not closed: copies are still shown of it, and its next write,
or read of the newest state, takes it over again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from memoturnd.core import lineage
from memoturnd.core.consistency import Consistency
from memoturnd.core.durability import Durability
from memoturnd.engine import takeover
from memoturnd.engine.branch import Branch
from memoturnd.engine.consistency import Reading, reading
from memoturnd.engine.owner_of import refuse_elsewhere
from memoturnd.engine.ownership import Owned
from memoturnd.engine.writer import NotRunError
from memoturnd.errors import (
    FencedError,
    MemoturnError,
    NotDurableError,
    NotOwnerError,
    RetryableError,
    StoreUnavailableError,
)
from memoturnd.seams.leases import Lease
from memoturnd.seams.profile import ReadOp, Seen, Work, WriteOp, Written

T = TypeVar("T")

LAST_SHIP_S = 5.0
"""How long a branch whose lease has ended tries to ship what it has before it is looked at anew."""
CLOSE_AGAIN_S = 0.005
"""How often a branch that is handed over is looked at whether what has begun on it has ended."""
CACHED_AGE_S = 1.0
"""Age from which a copy that nobody brings up to date is compared with the manifest before it is shown."""
OTHERS_FIRST_S = 1.0
"""How long a branch that was given back because another node asked is not taken again here."""
_LOOK_S = 0.02
_NEVER = float("-inf")
_log = structlog.get_logger(__name__)


class SharedBranch(Branch):
    """A branch of which other nodes may be the owner."""

    _settled: Lease | None = None
    """The lease under which the local file became the branch's: while it stands, nobody else has moved it on."""
    _lapsed = False
    """Whether the lease ended under which the open file is owned."""
    _loads = 0
    """How many comparisons with the manifest were begun."""
    _loaded = 0
    """The last of them that came to its end."""
    _compared_s = float("-inf")
    """When it was begun."""
    _held: asyncio.Event | None = None
    """Set at the end of the time for which nothing begins here."""
    _others_first_s = float("-inf")
    """Until when other nodes may take the branch, and this one does not."""

    # ---- the lease

    def holds(self) -> bool:
        """Return whether the local file is the branch's newest state, because this node is its owner."""
        settled = self._settled
        if settled is None or settled is not self.lease or self._fenced or self._lapsed:
            return False
        if not self.services.leases.holds(settled):
            return False
        self.seen_s = self.services.clock.monotonic_s()
        return True

    @property
    def is_ours(self) -> bool:
        """Return whether this node owns the branch now, open or not."""
        return self.holds()

    def lapse(self) -> None:
        """Stop writing: the lease has ended. What waits was not applied, and is taken up by the next owner, which may be this node."""
        if self._lapsed or self._fenced or self.owned is None:
            return
        self._lapsed = True
        self.services.metrics.leases_lapsed.inc()
        _log.warning("lease ended", branch=str(self.ref), epoch=self.owned.epoch)
        self.owned.writer.stop(
            NotRunError(f"this node's lease of {self.ref} ended; nothing was applied: send it again")
        )

    def may_commit(self) -> bool:
        """Return whether the lease stands; where it does not, the branch stops writing. For the commit queue."""
        if self.holds():
            return True
        self.lapse()
        return False

    async def own(self) -> Owned:
        """Take the branch for writing, anew where the lease has ended; see Branch.own. Raises NotOwnerError."""
        if not self.holds():
            self.lapse()
            while self.services.clock.monotonic_s() < self._others_first_s and not self._gone:
                await refuse_elsewhere(self.services, self)
                await self.services.clock.sleep(_LOOK_S)
            if self.owned is not None:  # until the lease service answers, what is open here can be shown
                await self.services.leases.owner_of(self.branch_id)
        return await super().own()

    @asynccontextmanager
    async def held_off(self) -> AsyncIterator[None]:
        """Let no read or write begin here inside the block, which is short; what is under way goes on. Raises RetryableError."""
        if self._held is not None:
            raise RetryableError(f"{self.ref} is being given back already; try again")
        held = self._held = asyncio.Event()
        try:
            yield
        finally:
            self._held = None
            held.set()

    def lets_others_first(self) -> None:
        """Leave the branch, which was just given back, to whoever asked for it."""
        self._others_first_s = self.services.clock.monotonic_s() + OTHERS_FIRST_S

    async def wake(self) -> None:
        """Open the file for reading; see Branch.wake."""
        try:
            await super().wake()
        except NotOwnerError:
            if self.may_hold_more:
                raise
            await super().wake()  # what was here is seen to, so that a copy can be fetched

    def fenced(self, error: FencedError) -> None:
        """Stop writing at once: another owner stands in the manifest. What this node has more than it is seen to soon."""
        was_fenced, self._fenced = self._fenced, True
        self.moves.note()
        if self.owned is not None:
            self.owned.writer.stop(
                NotRunError(f"{self.ref} has another owner by now; nothing was applied: send it again")
            )
        if not was_fenced:
            _log.warning("another owner stands in the manifest", branch=str(self.ref), error=str(error))
            self.services.spawn(self._see_to_tail())

    async def _see_to_tail(self) -> None:
        try:
            await self.take_up()
        except MemoturnError as error:
            _log.info("a tail is seen to at the next use", branch=str(self.ref), error=str(error))
        except Exception:  # noqa: BLE001 - the boundary of a background task: a fault here must not stop the node
            _log.exception("a tail could not be seen to", branch=str(self.ref))

    async def close(self, *, compact: bool = False) -> bool:
        """Go from hot to warm; see Branch.close."""
        closed = await super().close(compact=compact)
        if self.owned is None:
            self._lapsed = False
        return closed

    async def hand_over(self) -> bool:
        """Ship, close and give back the branch while it is asked for: what has begun ends, what comes waits until it is away.

        False where its file may hold more. Raises what shipping raises.
        """
        if self.owned is not None and not self._fenced:
            await self.owned.shipper.ship()  # most of it, while writes go on
        async with self.held_off():
            while not (await self.close() and await self.give_back()):
                if not self.hot and self.may_hold_more:
                    return False
                await self.services.clock.sleep(CLOSE_AGAIN_S)
            return True

    async def _refuse_to_take(self) -> None:
        """Raise NotOwnerError that names another node, with the lease given back, because this node stops."""
        if self.lease is not None and not self.may_hold_more:
            await takeover.give_back(self)
        heir = await self.services.draining.heir(self.ref.database.qualified_name)
        raise NotOwnerError(
            f"this node stops, and takes {self.ref} no more: send the request to another one", heir
        )

    async def _take_over(self) -> None:
        if self.services.draining.has_begun:
            await self._refuse_to_take()
        self._settled = None
        asked_s, before = self.services.clock.monotonic_s(), self.lease
        try:
            await super()._take_over()
        except BaseException:
            if self.lease is not before:
                self._leave_to_others()
            raise
        self.seen_s = max(self.seen_s, asked_s)
        self._settled = self.owned.lease if self.owned is not None else None

    def _leave_to_others(self) -> None:
        """Let other nodes have the branch, which could not be taken here, unless this node has commits that nobody else has.

        What its sync set holds is for whoever takes it next.
        """
        lease = self.lease
        if lease is not None and not self.may_hold_more:
            self.lease = None
            self.services.tails.is_anothers(self.branch_id)
            self.services.unreleased.note(lease)

    async def _leave_fenced_state(self) -> None:
        if self._lapsed:
            await self._ship_last()
            self._fenced = True
        if self._fenced:
            self._settled = None
        await super()._leave_fenced_state()
        self._lapsed = False

    async def _ship_last(self) -> None:
        """Ship what was committed under the lease that has ended, if the store lets it: nobody may have been here since."""
        owned = self.owned
        if owned is None:
            return
        try:
            async with asyncio.timeout(LAST_SHIP_S):
                await owned.shipper.ship()
        except (MemoturnError, TimeoutError) as error:
            _log.warning("not shipped", branch=str(self.ref), error=str(error))
        owned.shipper.stop(
            NotRunError(f"this node's lease of {self.ref} ended; nothing was applied: send it again"),
            landing=NotDurableError(
                f"the write to {self.ref} is committed on this node, whose lease ended meanwhile, and whether it "
                "stands is not known; do not repeat it: read the branch"
            ),
        )

    # ---- writes

    async def write(
        self, op: WriteOp[T], *, durability: Durability = Durability.LOCAL, work: Work = Work.POINT
    ) -> Written[T]:
        """Apply `op`; see Branch.write. Raises NotOwnerError where another node owns the branch."""
        changed = False
        if self._held is not None:
            await self._held.wait()

        def noted(conn: object, now_ms: int) -> tuple[T, bool]:
            nonlocal changed
            value, changed = op(conn, now_ms)  # type: ignore[arg-type]
            return value, changed

        self.users += 1
        try:
            for is_last in (False, True):
                if not self.holds():
                    await self.own()
                try:
                    written = await super().write(noted, durability=durability, work=work)
                except NotRunError:
                    if is_last:
                        raise
                    continue
                except (FencedError, NotDurableError):
                    raise
                except MemoturnError:
                    if is_last or self.holds():
                        raise
                    continue  # it was refused by a state that may be an old one
                if self.holds() or (changed and written.durability is Durability.DURABLE):
                    return (
                        written  # a takeover that could not ask the sync set knows nothing of what it holds
                    )
                if changed:
                    return await self._vouched(written)
            raise RetryableError(
                f"the lease of {self.ref} ended while it was written; nothing was applied: send it again"
            )
        finally:
            self.leave()

    async def _vouched(self, written: Written[T]) -> Written[T]:
        """Return a write once the manifest holds it. Raises NotDurableError, FencedError."""
        owned = self.owned
        if owned is None:
            raise NotDurableError(
                f"txid {written.txid} of {self.ref} is committed on this node, whose lease ended meanwhile, and whether "
                "it stands is not known; do not repeat the write: read the branch"
            )
        self.lapse()
        await owned.shipper.wait_durable(written.txid)
        return Written(written.value, written.txid, owned.shipper.durable_txid, Durability.DURABLE)

    async def sweep(self, op: WriteOp[int]) -> int:
        """Run housekeeping where this node owns the branch; see Branch.sweep."""
        if not self.holds():
            return 0
        try:
            return await super().sweep(op)
        except NotRunError:
            return 0

    # ---- reads

    async def read(self, op: ReadOp[T], *, min_txid: int = 0, work: Work = Work.POINT) -> Seen[T]:
        """Run `op` on one state as new as the request asks for; see Branch.read.

        Raises NotOwnerError where that is with another node.
        """
        if self._held is not None:
            await self._held.wait()
        self.users += 1
        try:
            if self.holds() and min_txid <= self.txid:
                try:
                    seen = await super().read(op, work=work)
                except MemoturnError:
                    if self.holds():
                        raise
                else:
                    if self.holds():
                        return seen
            asks = reading()
            if await asks.of(self.ref.database.qualified_name) is Consistency.CACHED:
                return await self._read_copy(op, min_txid, work, asks)
            for _ in range(2):
                await self._come_up()
                was_ours = self.holds()
                seen = await super().read(op, min_txid=min_txid, work=work)
                if not was_ours or self.holds():
                    return seen
            raise RetryableError(f"the lease of {self.ref} ended while it was read; send it again")
        finally:
            self.leave()

    async def _read_copy(self, op: ReadOp[T], min_txid: int, work: Work, asks: Reading) -> Seen[T]:
        """Read what is here, brought up to date where it is old and the store answers.

        Where neither the owner nor the lease service nor the store does, it is shown as it is, with the age that it has.
        """
        clock, replicas = self.services.clock, self.services.replicas
        replicas.touch(self)
        if self.owned is None and not (self._ready or self._empty):
            await self.wake()
        if self.owned is None and self._is_unheard():
            await replicas.meet(self)
        if self.owned is None and (min_txid > self.txid or self._is_unheard()):
            try:
                await self.compare()
            except StoreUnavailableError:
                if not self._ready or self.seen_s == _NEVER:
                    raise  # nothing is here, or what was never known to be the newest state: it has no age
            replicas.reached(self)
        if min_txid > self.txid:  # its owner has it, or nobody
            await self._come_up()
        as_of_s = self.seen_s  # what is brought up to date meanwhile may not be what is read
        seen = await super().read(op, min_txid=min_txid, work=work)
        if not self.holds():
            as_of_s = min(as_of_s, self.seen_s)
            if as_of_s == _NEVER:
                raise RetryableError(f"the copy of {self.ref} was replaced meanwhile; send the read again")
            asks.shown(max(0.0, clock.monotonic_s() - as_of_s))
        return seen

    def _is_unheard(self) -> bool:
        """Return whether neither the owner nor the manifest was asked for a while, or not about what is here now."""
        return (
            self.seen_s == _NEVER
            or self.services.clock.monotonic_s() - max(self.seen_s, self._compared_s) > CACHED_AGE_S
        )

    # ---- what others have done

    async def _come_up(self) -> None:
        """Make sure that the local file is the newest state, and that nobody else has a newer one. Raises NotOwnerError."""
        leases = self.services.leases
        if self.holds():
            return
        self.lapse()
        await refuse_elsewhere(self.services, self)
        if self._lapsed or self._fenced or await leases.sync_set(self.branch_id) is not None:
            await self.own()  # what its last owner acknowledged may be on the disks of others
            return
        await self.compare()
        current = self.manifests.cached
        if current is not None and lineage.is_forgotten(current, leases.lineage.id) and not self.holds():
            await self.own()  # neither its owner nor who holds its commits is known any more

    async def compare(self) -> None:
        """Let the local file be the head of the manifest as it stands now; those who wait here meanwhile share the answer."""
        begun = self._loads
        if not (self._ready or self._empty):
            await self.wake()
        async with self._transition:
            if self.owned is not None or self._loaded > begun:
                return
            self._loads += 1
            number, asked_s = self._loads, self.services.clock.monotonic_s()
            if await takeover.take_newest(self):
                self._ready, self._empty = True, False
            self._loaded, self._compared_s = number, asked_s
            # What its owner has not shipped is not in the manifest.
            self.seen_s = max(self.seen_s, self.services.replicas.complete_s(self, asked_s))
