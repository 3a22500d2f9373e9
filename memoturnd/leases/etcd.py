"""Leases in etcd, for a cluster of nodes.

Each node has one lease of etcd, its session, which it renews at a third of its time. The keys of the branches that it owns go
with that lease. What a node may rely on is its own clock: the session stands until the moment before which the last renewal
was asked for, plus the lease's time, less a margin.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from memoturnd.errors import ConfigurationError, CorruptionError, FencedError, NotOwnerError, RetryableError
from memoturnd.leases import etcd_records as records
from memoturnd.leases.etcd_client import CompactedError, EtcdClient, LeaseGoneError
from memoturnd.leases.etcd_records import Entry, Keys, NodeRecord, OwnerRecord
from memoturnd.seams.clock import Clock
from memoturnd.seams.leases import Change, Lease, Lineage, LiveNode, Owner, Placed, Placements, SyncSet

RENEWALS: Final = 3
"""Renewals within the lease's time."""
CALL_SHARE: Final = 0.3
"""Part of the lease's time that one call may take: below a third, so that a failed renewal leaves time for another."""
MARGIN_SHARE: Final = 0.1
"""Part of the lease's time by which a node stops early: clocks do not run equally fast."""
PAGE: Final = 2_000
"""Keys that are read at once."""
LOAD_S: Final = 3.0
LOAD_STEP: Final = 0.05
"""A node's load is told anew at most so often, and when it has changed by so much."""
CLOSE_S: Final = 1.0
_RECORD_TRIES: Final = 3
_AGAIN_S: Final = 0.2
_AGAIN_MAX_S: Final = 2.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is. `instance` is its data directory's own id: the same node again, or another of its name."""

    node_id: str
    address: str
    instance: str


@dataclass(slots=True)
class _Session:
    """A lease of etcd, as of its last renewal."""

    id: str
    since_s: float
    deadline_s: float


class EtcdLeases:
    """Leases of one node. `start` before anything else, `keep` beside it.

    `load` tells the part of the node's capacity in use, from 0 to 1; `on_failed_renewal` and `on_renewal` are told
    of each, and of its seconds.
    """

    is_shared = True

    def __init__(
        self,
        client: EtcdClient,
        identity: Identity,
        clock: Clock,
        *,
        ttl_s: int,
        prefix: str,
        load: Callable[[], float] = lambda: 0.0,
        on_failed_renewal: Callable[[], None] = lambda: None,
        on_renewal: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._on_failed_renewal = on_failed_renewal
        self._on_renewal = on_renewal
        self._load_now = load
        self._client = client
        self._identity = identity
        self._clock = clock
        self._ttl_s = ttl_s
        self._keys = Keys(prefix)
        self.lineage = Lineage()
        self._session: _Session | None = None
        self._granting = asyncio.Lock()
        self._wake = asyncio.Event()
        """Lets `keep` look at once."""
        self._held: dict[str, int] = {}
        """Epochs of the branches taken under this session."""
        self._told = (0.0, 0.0)
        """The load that was told last, and when."""

    # ---- the session

    async def start(self) -> None:
        """Get a session. Raises ConfigurationError where another node of this name is there, RetryableError."""
        while True:
            try:
                await self._grant()
            except NameTakenError as error:
                await self._see_it_end(error)
            else:
                return

    async def _see_it_end(self, error: "NameTakenError") -> None:
        """Return when the other node's lease has run out. Raises ConfigurationError when somebody renews it."""
        until_s = self._clock.monotonic_s() + self._ttl_s + 1
        left_s = self._ttl_s
        while left_s > 0:
            answer = await self._client.call("lease/timetolive", {"ID": error.lease})
            before_s, left_s = left_s, int(answer.get("TTL", 0))
            if left_s > before_s or self._clock.monotonic_s() > until_s:
                raise ConfigurationError(
                    f"another node is there as {self._identity.node_id!r}, at {error.address}: "
                    "give each node a MEMOTURN_NODE_ID of its own, or stop the other one"
                ) from error
            await self._clock.sleep(_AGAIN_S)

    async def keep(self) -> None:
        """Renew the session for ever, and get a new one when it is lost."""
        pause_s = self._ttl_s / RENEWALS
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._renew()
                await self._tell_load()
                pause_s = self._ttl_s / RENEWALS
            except (RetryableError, CorruptionError) as error:
                self._on_failed_renewal()
                pause_s = _AGAIN_S
                _log.warning("the lease could not be renewed", left_s=self.left_s, error=str(error))
                await self._clock.sleep(_AGAIN_S)

    async def _renew(self) -> None:
        session = self._session
        if session is None:
            await self._grant()
            return
        sent_s = self._clock.monotonic_s()
        answer = await self._client.call("lease/keepalive", {"ID": session.id}, is_urgent=True)
        ttl_s = int(answer.get("result", {}).get("TTL", 0))
        if ttl_s <= 0:  # of a lease that has expired, without an error
            self._lose(session)
            await self._grant()
        else:
            session.deadline_s = max(session.deadline_s, self._deadline(sent_s, ttl_s))
            self._on_renewal(self._clock.monotonic_s() - sent_s)

    def _deadline(self, sent_s: float, ttl_s: int) -> float:
        return sent_s + min(ttl_s, self._ttl_s) - MARGIN_SHARE * self._ttl_s

    def _lose(self, session: _Session) -> None:
        """Note that a session has ended; what was held under it is not held any more."""
        if self._session is session:
            _log.warning("the lease is lost", held=len(self._held), node=self._identity.node_id)
            self._session = None
            self._held.clear()
            self._wake.set()

    async def _grant(self) -> None:
        """Get a session unless there is one. Raises NameTakenError, RetryableError."""
        async with self._granting:
            if self._session is not None:
                return
            sent_s = self._clock.monotonic_s()
            answer = await self._client.call("lease/grant", {"TTL": str(self._ttl_s)}, is_urgent=True)
            session = _Session(str(answer["ID"]), sent_s, self._deadline(sent_s, int(answer["TTL"])))
            try:
                await self._learn_lineage(
                    session
                )  # that of the lease: naming it proves that etcd still has both
                await self._name(session)
            except BaseException:
                await self._revoke(session)
                raise
            self._session = session
            _log.info("lease granted", session=session.id, ttl_s=self._ttl_s, node=self._identity.node_id)

    async def _learn_lineage(self, session: _Session) -> None:
        """See which lineage etcd is of; an empty one begins another. Raises RetryableError."""
        begun = f"{int(session.id):x}"
        answer = await self._client.call(
            "kv/txn", records.begin_lineage(self._keys.lineage, begun), is_urgent=True
        )
        there = None if records.was_done(answer) else records.found_by(answer)
        lineage_id = begun if there is None else there.value.decode(errors="replace")
        if lineage_id != self.lineage.id:
            self.lineage = Lineage(lineage_id, self._clock.monotonic_s() + self._ttl_s)

    async def _name(self, session: _Session) -> None:
        """Write the node's key under a session. Raises NameTakenError where another instance has written it."""
        key, load = self._keys.node(self._identity.node_id), self._load()
        record = NodeRecord(self._identity.address, self._identity.instance, load)
        revision = 0
        while True:
            answer = await self._client.call(
                "kv/txn",
                records.take_over(key, record, session.id, revision=revision),
                is_urgent=True,
            )
            if records.was_done(answer):
                self._told = (load, self._clock.monotonic_s())
                return
            there = records.found_by(answer)
            revision = 0 if there is None else there.revision
            if there is None or there.lease == session.id:
                continue
            other = records.node_record(there)
            if other.instance != self._identity.instance:
                raise NameTakenError(other.address, there.lease)

    def tell_load(self) -> None:
        """Let others know soon that the node begins or ends to serve."""
        self._wake.set()

    async def _tell_load(self) -> None:
        """Write the node's load where it has changed noticeably."""
        session, load, (told, at_s) = self._session, self._load(), self._told
        now_s = self._clock.monotonic_s()
        is_due = now_s - at_s >= LOAD_S or 1.0 in {load, told}  # who begins or ends to serve says so at once
        if session is None or abs(load - told) < LOAD_STEP or not is_due:
            return
        key = self._keys.node(self._identity.node_id)
        record = NodeRecord(self._identity.address, self._identity.instance, load)
        answer = await self._client.call("kv/txn", records.put_own(key, record, session.id))
        if not records.was_done(answer):
            await self._name(session)
        self._told = (load, now_s)

    def _load(self) -> float:
        return round(min(1.0, max(0.0, self._load_now())), 2)

    async def _revoke(self, session: _Session) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await self._client.call("lease/revoke", {"ID": session.id})
        except LeaseGoneError:
            pass
        except (RetryableError, TimeoutError) as error:
            _log.warning("a lease runs out by itself", ttl_s=self._ttl_s, error=str(error))

    # ---- what can be told without asking anybody

    @property
    def held(self) -> int:
        """How many branches this node owns."""
        return len(self._held)

    @property
    def age_s(self) -> float:
        """How long the session has stood, 0 without one."""
        return 0.0 if self._session is None else self._clock.monotonic_s() - self._session.since_s

    @property
    def left_s(self) -> float:
        """Seconds until this node must stop writing, 0 where it must not write."""
        return max(0.0, self.deadline() - self._clock.monotonic_s())

    def deadline(self) -> float:
        """Return the boot-clock second at which this node must stop writing: 0 without a session."""
        return 0.0 if self._session is None else self._session.deadline_s

    def holds(self, lease: Lease) -> bool:
        """Return whether the lease is this node's last of its branch, of the session that stands, before its deadline."""
        session = self._session
        return (
            session is not None
            and lease.session == session.id
            and self._held.get(lease.branch_id) == lease.epoch
            and self._clock.monotonic_s() < session.deadline_s
        )

    # ---- branches

    async def acquire(self, branch_id: str, *, database: str = "", branch: str = "") -> Lease:
        """Take the branch for this node, always with a new epoch. Raises NotOwnerError naming the owner, RetryableError."""
        record = OwnerRecord(self._identity.node_id, self._identity.address, database, branch)
        key = self._keys.owner(branch_id)
        session, answer = await self._under_session(partial(records.take, key, record))
        while not records.was_done(answer):
            there = records.found_by(answer)
            if there is not None:
                self._refuse_others(branch_id, there)
            # It is this node's own; or it went in between.
            revision = 0 if there is None else there.revision
            session, answer = await self._under_session(
                partial(records.take_over, key, record, revision=revision)
            )
        epoch = records.revision_of(answer)
        if session is not self._session:
            raise RetryableError(f"the lease was lost while branch {branch_id} was taken; try again")
        self._held[branch_id] = max(epoch, self._held.get(branch_id, 0))
        return Lease(branch_id, self._identity.node_id, epoch, session.id, self.lineage)

    def _refuse_others(self, branch_id: str, there: Entry) -> None:
        owner = records.owner_of(there)
        if owner.node_id != self._identity.node_id:
            raise NotOwnerError(
                f"branch {branch_id} belongs to node {owner.node_id} at {owner.address}: send the request there",
                owner,
            )

    async def _under_session(
        self, change: Callable[[str], dict[str, Any]]
    ) -> tuple[_Session, dict[str, Any]]:
        """Run a transaction that names the session, which may have ended without this node knowing. Raises RetryableError."""
        for again in (True, False):
            session = await self._current()
            try:
                return session, await self._client.call("kv/txn", change(session.id))
            except LeaseGoneError:
                self._lose(session)
                if not again:
                    raise
        raise AssertionError("unreachable")

    async def _current(self) -> _Session:
        """Return a session that stands by this node's clock too. Raises RetryableError."""
        if self.left_s == 0:
            await self._renew()
        if self._session is None:
            raise RetryableError("this node has no lease; try again")
        return self._session

    async def release(self, lease: Lease) -> None:
        """Give the branch back, only if `lease` is still the current one. Raises RetryableError."""
        session = self._session
        if (
            session is not None
            and lease.session == session.id
            and self._held.get(lease.branch_id) == lease.epoch
        ):
            del self._held[lease.branch_id]
        key = self._keys.owner(lease.branch_id)
        await self._client.call("kv/txn", records.give_back(key, lease.session, revision=lease.epoch))

    async def owner_of(self, branch_id: str) -> Owner | None:
        """Return the current owner, None when nobody has the branch. Raises RetryableError."""
        entry = await self._read(self._keys.owner(branch_id))
        return None if entry is None else records.owner_of(entry)

    async def sync_set(self, branch_id: str) -> SyncSet | None:
        """Return the set that was recorded last, None where nothing depends on any. Raises RetryableError."""
        entry = await self._read(self._keys.sync(branch_id))
        return None if entry is None else records.sync_set_of(entry)

    async def record_sync_set(self, lease: Lease, members: Sequence[LiveNode]) -> None:
        """Record the set under the lease's epoch, or that there is none. Raises FencedError, RetryableError."""
        value = records.sync_value(lease.epoch, members) if members else None
        owner_key, key = self._keys.owner(lease.branch_id), self._keys.sync(lease.branch_id)
        for _ in range(_RECORD_TRIES):
            before = await self._read(key)
            seen = 0 if before is None else before.revision
            answer = await self._client.call(
                "kv/txn", records.note_sync(owner_key, key, value, revision=lease.epoch, seen=seen)
            )
            if records.was_done(answer):
                return
            owner = records.found_by(answer)
            if owner is None or owner.revision != lease.epoch:
                raise FencedError(f"the lease of branch {lease.branch_id} is not this node's any more")
        raise RetryableError(f"the sync set of branch {lease.branch_id} changes underneath; try again")

    async def _read(self, key: str) -> Entry | None:
        """Read a key from an etcd that has its memory; one that lost it ends the session first. Raises RetryableError."""
        for again in (True, False):
            answer = await self._client.call(
                "kv/txn",
                records.read(key, lineage_key=self._keys.lineage, lineage_id=self.lineage.id),
            )
            if records.was_done(answer):
                return records.found_by(answer)
            if again:
                _log.warning("etcd was emptied or replaced", node=self._identity.node_id)
                if self._session is not None:
                    self._lose(self._session)
                await self._grant()
        raise RetryableError("etcd was emptied just now; try again")

    async def live_nodes(self) -> Sequence[LiveNode]:
        """Return the nodes that are there. Raises RetryableError."""
        entries, _ = await read_range(self._client, *self._keys.nodes)
        return tuple(node for entry in entries if (node := self._keys.node_of(entry)) is not None)

    def watch(self) -> AsyncIterator[Change]:
        """Yield everything, then each change, for ever; after a gap everything again."""
        return watch(self._client, self._keys, self._clock, silence_s=self._ttl_s / RENEWALS)

    async def close(self) -> None:
        """Give everything back at once, and close the connections. `keep` has ended."""
        session, self._session = self._session, None
        self._held.clear()
        if session is not None:
            await self._revoke(session)
        await self._client.close()


class EtcdWatching:
    """Tells who owns what, without a session: for whoever routes and holds nothing."""

    def __init__(self, client: EtcdClient, clock: Clock, *, ttl_s: int, prefix: str) -> None:
        self._client = client
        self._clock = clock
        self._silence_s = ttl_s / RENEWALS
        self._keys = Keys(prefix)

    def watch(self) -> AsyncIterator[Change]:
        """Yield everything, then each change, for ever; after a gap everything again."""
        return watch(self._client, self._keys, self._clock, silence_s=self._silence_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class NameTakenError(RetryableError):
    """Another instance is there under this node's name, at `address`, as long as `lease` lasts."""

    def __init__(self, address: str, lease: str) -> None:
        super().__init__(
            f"another node is there under this one's name, at {address}; try again when it is gone"
        )
        self.address = address
        self.lease = lease


async def read_range(client: EtcdClient, key: str, end: str) -> tuple[list[Entry], int]:
    """Return all keys of a range as of one revision, and that revision. Raises RetryableError."""
    entries: list[Entry] = []
    asked: Mapping[str, Any] = {"key": key, "range_end": end, "limit": str(PAGE)}
    revision = 0
    while True:
        answer = await client.call("kv/range", asked)
        revision = revision or records.revision_of(answer)
        page = records.entries_of(answer)
        entries += page
        if not answer.get("more"):
            return entries, revision
        after = records.encoded(page[-1].key + "\0")
        asked = {"key": after, "range_end": end, "limit": str(PAGE), "revision": str(revision)}


async def watch(client: EtcdClient, keys: Keys, clock: Clock, *, silence_s: float) -> AsyncIterator[Change]:
    """Yield everything, then each change, for ever; after a gap everything again."""
    pause_s = _AGAIN_S
    while True:
        try:
            entries, revision = await read_range(client, *keys.watched)
            pause_s = _AGAIN_S
            yield _placements(keys, entries)
            stream = client.watch(*keys.watched, from_revision=revision + 1, silence_s=silence_s)
            try:
                async for events in stream:
                    for event in events:
                        yield _change(keys, event)
            finally:
                await stream.aclose()
        except CompactedError as error:
            _log.info("placements are read again", reason=str(error))
        except RetryableError as error:
            _log.warning("placements cannot be followed; they are read again", error=str(error))
            await clock.sleep(pause_s)
            pause_s = min(_AGAIN_MAX_S, 2 * pause_s)


def _change(keys: Keys, event: Mapping[str, Any]) -> Change:
    try:
        change = keys.change_of(event)
    except CorruptionError as error:
        raise CompactedError(str(error)) from error  # reading everything leaves it out, and says so
    if change is None:
        raise CompactedError("what a key was before it was removed is not kept any more")
    return change


def _placements(keys: Keys, entries: Sequence[Entry]) -> Placements:
    placed: list[Placed] = []
    nodes: list[LiveNode] = []
    for entry in entries:
        try:
            node, place = keys.node_of(entry), keys.placed_of(entry)
        except CorruptionError as error:
            _log.error("a key of etcd is passed over", error=str(error))
            continue
        if node is not None:
            nodes.append(node)
        if place is not None:
            placed.append(place)
    return Placements(tuple(placed), tuple(nodes))
