"""The replicas of a node: branches that other nodes own, kept up to date for reads that may be a moment old.

The first such read subscribes at the branch's owner, which then sends what it ships (memoturnd.engine.subscribers).
Several times a second each owner is asked, once for all branches followed there, where it stands: that keeps the
subscription, finds what was lost on the way, and tells how old a replica is. A replica that holds all up to the txid
named is complete as of the moment before the question was sent, less the age of what the owner had not shipped then.
Where the owner says nothing the manifest has to do, and the lease service's word: who owned the branch then was alive not
longer than a lease before, and had nothing unshipped that was older than the window for it.
Clocks of two machines are never compared. One that is not read any more is not followed any more.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from memoturnd.core import replica_wire as wire
from memoturnd.core import segment
from memoturnd.core.segment import Kind
from memoturnd.engine import replica
from memoturnd.engine.errands import Errands
from memoturnd.errors import (
    BranchNotFoundError,
    ConflictError,
    CorruptionError,
    InvalidRequestError,
    MemoturnError,
    NotFoundError,
    RetryableError,
)
from memoturnd.metrics import Metrics
from memoturnd.replication.apply import GapError
from memoturnd.replication.compactor import Tasks
from memoturnd.seams.clock import Clock
from memoturnd.seams.leases import Leases, Owner
from memoturnd.seams.peers import JSON, Peers

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch

CONFIRM_S: Final = 0.2
"""How often an owner is asked where it stands."""
ASK_S: Final = 2.0
UNUSED_S: Final = 60.0
"""A replica that was not read for so long is not followed any more."""
REPLICAS_LIMIT: Final = 1024
"""Replicas that a node follows; the one that was read longest ago goes first."""
LOST_S: Final = 0.5
"""How long what an owner has shipped may be on its way before it is fetched from object storage."""
MEET_S: Final = 0.5
"""How long a read waits for the owner's word on its replica; then the manifest has to do."""
OWNER_AGAIN_S: Final = 1.0
"""How long a replica without an owner waits until it looks for one again."""
_WAITING: Final = 16
_log = structlog.get_logger(__name__)


class Replica:
    """What is known of one replica. `owner` is None while nobody is known to own the branch."""

    __slots__ = (
        "asked_s",
        "behind_since_s",
        "branch",
        "busy",
        "found_s",
        "is_silent",
        "meeting",
        "met_s",
        "owner",
        "waiting",
    )

    def __init__(self, branch: "Branch", found_s: float) -> None:
        self.branch = branch
        self.found_s = found_s
        """When the lease service was last asked who owns the branch, and answered; or anything, before that."""
        self.is_silent = False
        """Whether a read has waited for the owner's word in vain, and nothing was heard since: no other one waits."""
        self.owner: Owner | None = None
        self.asked_s = float("-inf")
        """When the lease service was last asked who owns the branch."""
        self.met_s = float("-inf")
        """When a read last had the owner asked."""
        self.meeting = asyncio.Lock()
        self.behind_since_s: float | None = None
        self.busy = asyncio.Lock()
        """Held by who brings it up to date."""
        self.waiting: deque[tuple[int, float]] = deque(maxlen=_WAITING)
        """(txid, moment): once the txid is here, the replica is complete as of that moment."""

    @property
    def followed(self) -> wire.Followed:
        """How its owner is asked about it."""
        ref = self.branch.ref
        return wire.Followed(ref.database.uuid, ref.name, ref.branch_id)

    def reached(self) -> None:
        """Note as of when the replica is complete, given the txid that it is at now."""
        branch = self.branch
        while self.waiting and self.waiting[0][0] <= branch.txid:
            branch.seen_s = max(branch.seen_s, self.waiting.popleft()[1])


class Replicas:
    """What this node follows, by branch id, that read longest ago first."""

    def __init__(
        self,
        leases: Leases,
        peers: Peers | None,
        clock: Clock,
        metrics: Metrics,
        spawn: Tasks,
        *,
        node_id: str,
        address: str,
        lease_ttl_s: float,
    ) -> None:
        self._leases = leases
        self._peers = peers
        self._clock = clock
        self._metrics = metrics
        self._errands = Errands(spawn)
        self._node_id = node_id
        self._address = address
        self._lease_ttl_s = lease_ttl_s
        self._began_s = clock.monotonic_s()
        self._all: OrderedDict[str, Replica] = OrderedDict()
        self._asking: set[str] = set()
        self._silent: set[str] = set()
        """Addresses of owners of which it was said that they do not answer."""
        self.oldest_age_s = 0.0
        """Age of the oldest replica, as of the last time that owners were asked."""

    def __len__(self) -> int:
        return len(self._all)

    def close(self) -> None:
        """Follow nothing any more."""
        self._errands.close()
        self._all.clear()

    # ---- what reads call

    def touch(self, branch: "Branch") -> None:
        """Note that a branch is read from its replica: its owner is followed from now on."""
        known = self._all.get(branch.branch_id)
        if known is not None and known.branch is branch:
            self._all.move_to_end(branch.branch_id)
            return
        if self._peers is None or branch.owned is not None:
            return
        self._all[branch.branch_id] = Replica(branch, self._began_s)
        if len(self._all) > REPLICAS_LIMIT:
            self._all.popitem(last=False)

    async def meet(self, branch: "Branch") -> None:
        """Ask the owner of a branch that is read, and of which nothing was heard; not more than once in a while."""
        one = self._all.get(branch.branch_id)
        if one is None:
            return
        heard_s = branch.seen_s
        async with one.meeting:
            if one.is_silent or branch.seen_s > heard_s:
                return  # another read has just asked
            if self._clock.monotonic_s() - one.met_s < OWNER_AGAIN_S:
                return
            one.met_s = self._clock.monotonic_s()
            with suppress(TimeoutError):
                async with asyncio.timeout(MEET_S):
                    await self._begin(one)
            one.is_silent = branch.seen_s <= heard_s

    def reached(self, branch: "Branch") -> None:
        """Note that a branch was brought up to date from object storage."""
        one = self._all.get(branch.branch_id)
        if one is not None:
            one.reached()

    def complete_s(self, branch: "Branch", asked_s: float) -> float:
        """Return as of when nothing is missing in a manifest that was read at `asked_s`, for all that is known of owners."""
        one = self._all.get(branch.branch_id)
        if one is None:
            return asked_s  # who does not follow an owner has found that there is none
        known_s = min(asked_s, one.found_s)
        if one.owner is None and one.found_s > self._began_s:
            return known_s  # there was none
        return known_s - self._lease_ttl_s - branch.services.ship_limits.unshipped_max_age_s

    async def _begin(self, one: Replica) -> None:
        if await self._find_owner(one) and one.owner is not None:
            await self._ask(one.owner.address, [one])

    # ---- asking owners

    async def confirm(self) -> None:
        """Ask every owner where it stands; an owner that has not answered the last question yet is left alone."""
        now_s = self._clock.monotonic_s()
        of_owner: dict[str, list[Replica]] = {}
        oldest_s = 0.0
        for one in list(self._all.values()):
            branch = one.branch
            is_closed = not (branch.hot or branch.users)  # who reads it first opens it
            if branch.owned is not None or is_closed or now_s - branch.used_s > UNUSED_S:
                self._forget(one)
                continue
            if one.owner is not None:
                of_owner.setdefault(one.owner.address, []).append(one)
                age_s = max(0.0, now_s - branch.seen_s)
                if age_s != float("inf"):
                    self._metrics.replica_age_seconds.observe(age_s)
                    oldest_s = max(oldest_s, age_s)
            elif now_s - one.asked_s > OWNER_AGAIN_S and not one.busy.locked():
                self._errands.start("following a branch", self._begin(one))
        self._metrics.replica_oldest_age_seconds.set(oldest_s)
        self.oldest_age_s = oldest_s
        self._silent &= of_owner.keys()
        for address, several in of_owner.items():
            if address not in self._asking:
                self._asking.add(address)
                self._errands.start("a replica", self._ask_once(address, several))

    async def _ask_once(self, address: str, several: list[Replica]) -> None:
        try:
            await self._ask(address, several)
        finally:
            self._asking.discard(address)

    async def _ask(self, address: str, several: list[Replica]) -> None:
        peers, clock = self._peers, self._clock
        if peers is None:
            return
        body = wire.encode(
            wire.Confirm(self._address, [one.followed for one in several[: wire.CONFIRMED_LIMIT]])
        )
        asked_s = clock.monotonic_s()
        try:
            answer = await peers.ask(address, wire.CONFIRM, body=body, headers=JSON, timeout_s=ASK_S)
            confirmed = msgspec.json.decode(answer, type=wire.Confirmed)
        except (MemoturnError, msgspec.MsgspecError) as error:
            if address not in self._silent:  # it is asked several times a second
                self._silent.add(address)
                _log.info("owner does not confirm", address=address, error=str(error))
            for one in several:
                await self._find_owner(one)
            return
        self._silent.discard(address)
        standing = {one.branch_id: one for one in confirmed.branches}
        for one in several:
            found = standing.get(one.branch.branch_id)
            if found is None:
                self._errands.start("a replica", self._look(one))
            else:
                self._hear(one, found, asked_s)

    def _hear(self, one: Replica, standing: wire.Standing, asked_s: float) -> None:
        branch = one.branch
        if branch.owned is not None:
            return
        known = branch.known
        if (
            known is not None
            and known[0].txid == standing.txid
            and f"{known[1].checksum:016x}" != standing.checksum
        ):
            self._errands.start("a replica", self._drop_state(one))  # history was rewritten
            return
        one.is_silent = False
        one.waiting.append((standing.txid, asked_s - standing.unshipped_ms / 1000))
        one.reached()
        if branch.txid >= standing.txid:
            one.behind_since_s = None
        elif one.behind_since_s is None:
            one.behind_since_s = asked_s
        elif asked_s - one.behind_since_s > LOST_S and not one.busy.locked():
            self._errands.start("a replica", self._fetch(one))

    async def _find_owner(self, one: Replica) -> bool:
        """Look up who owns the branch; False where that is not known, or nobody does."""
        asked_s = one.asked_s = self._clock.monotonic_s()
        try:
            owner = await self._leases.owner_of(one.branch.branch_id)
        except RetryableError:
            return False  # who owned it last is asked again
        one.found_s = max(one.found_s, asked_s)
        one.owner = None if owner is None or owner.node_id == self._node_id else owner
        return one.owner is not None

    async def _look(self, one: Replica) -> None:
        """See to a replica whose owner has nothing to say of it: another node owns the branch, or it was deleted."""
        before = one.owner
        if self._clock.monotonic_s() - one.asked_s < OWNER_AGAIN_S or one.busy.locked():
            return
        if await self._find_owner(one) and one.owner != before:
            return  # it is asked next
        await self._fetch(one)

    # ---- bringing up to date

    async def ingest(self, uuid: str, branch_name: str, branch_id: str | None, kind: str, data: bytes) -> int:
        """Apply what an owner has pushed, and return the txid that the replica stands at. Raises NotFoundError where the branch is not followed, ConflictError where it is
        owned here, InvalidRequestError for what is no segment.
        """
        one = self._find(uuid, branch_name, branch_id)
        if one is None:
            raise NotFoundError(f"this node does not follow branch {branch_name} of database {uuid}")
        if one.branch.owned is not None:
            raise ConflictError(f"{one.branch.ref} is owned by this node")
        try:
            pushed = segment.decode(data)
        except CorruptionError as error:
            raise InvalidRequestError(
                f"what was pushed for {one.branch.ref} is not readable: {error}"
            ) from error
        if (pushed.kind is Kind.SNAPSHOT) != (kind == "snapshot"):
            raise InvalidRequestError(f"what was pushed for {one.branch.ref} is no {kind}")
        if kind == "snapshot":
            await self._fetch(one)
            return one.branch.txid
        async with one.busy:
            applied = await self._apply(one, pushed)
        if not applied:
            self._metrics.replica_steps["gap"].inc()
            await self._fetch(one)
        return one.branch.txid

    async def _apply(self, one: Replica, pushed: segment.Segment) -> bool:
        """Apply a segment; False where it does not follow on what is here."""
        branch = one.branch
        async with branch.changing():
            if branch.known is not None and pushed.rounds[-1].txid <= branch.known[0].txid:
                return True
            try:
                with self._metrics.replica_apply_seconds.time():
                    applied = await replica.apply(branch, [pushed])
            except GapError as error:
                _log.info("pushed segment leaves a gap", branch=str(branch.ref), error=str(error))
                return False
        if applied:
            self._metrics.replica_steps["pushed"].inc()
        one.reached()
        return True

    async def _fetch(self, one: Replica) -> None:
        """Bring a replica to the head of the manifest, and drop one whose branch is gone."""
        branch = one.branch
        async with one.busy:
            one.behind_since_s = None
            try:
                await branch.compare()
            except BranchNotFoundError:
                await self._drop_state(one)
                self._forget(one)
            except MemoturnError as error:
                _log.info("replica not brought up to date", branch=str(branch.ref), error=str(error))
            one.reached()

    async def _drop_state(self, one: Replica) -> None:
        """Let go of a file that is not the branch's any more: the next read restores it."""
        self._metrics.replica_steps["dropped"].inc()
        one.waiting.clear()
        one.branch.seen_s = float("-inf")
        await one.branch.let_go()

    async def changed(self, branch_ids: Iterable[str], *, gone: bool = False) -> None:
        """Ask at once about branches of which an owner said that something has happened to them.

        What is `gone` is let go of without a question: should it be there after all, it is restored when it is read.
        """
        several = [one for branch_id in branch_ids if (one := self._all.get(branch_id)) is not None]
        if gone:
            for one in several:
                self._forget(one)
                await self._drop_state(one)
            return
        of_owner: dict[str, list[Replica]] = {}
        for one in several:
            one.asked_s = float("-inf")
            if one.owner is not None:
                of_owner.setdefault(one.owner.address, []).append(one)
            else:
                self._errands.start("following a branch", self._begin(one))
        for address, asked in of_owner.items():
            await self._ask(address, asked)

    def _find(self, uuid: str, branch_name: str, branch_id: str | None) -> Replica | None:
        if branch_id is not None:
            one = self._all.get(branch_id)
            return one if one is not None and one.branch.ref.database.uuid == uuid else None
        for one in self._all.values():
            if (one.branch.ref.database.uuid, one.branch.ref.name) == (uuid, branch_name):
                return one
        return None

    def _forget(self, one: Replica) -> None:
        if self._all.get(one.branch.branch_id) is one:
            del self._all[one.branch.branch_id]
