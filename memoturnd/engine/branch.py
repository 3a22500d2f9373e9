"""One branch: the state machine that owns its path, and the reads and writes that go through it.

    COLD   nothing local (an empty branch has no manifest, or one that stands at txid 0)
    WARM   the file, closed, everything shipped
    HOT    open; `owned` besides where this node may write it

Every change of state happens under `_transition`; going down a tier also needs that nobody uses the branch.
A read opens the file without taking a lease. The first write takes the lease, raises the epoch in the
manifest, and only then serves. A read never drops local state: what the manifest does not hold is shipped,
or kept as another branch. How the file comes to be right is memoturnd.engine.takeover's part.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar, cast

from memoturnd.core import wal
from memoturnd.core.database_settings import NO_RULES, LevelRules
from memoturnd.core.durability import Durability
from memoturnd.core.manifest import Manifest
from memoturnd.core.pages import PageHashes
from memoturnd.engine import schema, takeover
from memoturnd.engine.budget import within_deadline, within_steps
from memoturnd.engine.connection import (
    PAGE_SIZE_BYTES,
    ProfileConnection,
    disk_refusals_told,
    open_connection,
)
from memoturnd.engine.files import BranchFiles
from memoturnd.engine.guard import OverBudgetError
from memoturnd.engine.kept import Kept
from memoturnd.engine.moves import Moves
from memoturnd.engine.ownership import BranchRef, Owned
from memoturnd.engine.readers import Readers, ReopenedError
from memoturnd.engine.services import Services, Surroundings
from memoturnd.errors import (
    BranchNotFoundError,
    FencedError,
    InvariantError,
    PreconditionFailedError,
    invariant,
)
from memoturnd.replication.capture import Cursor
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import MAIN
from memoturnd.seams.executor import Executor
from memoturnd.seams.leases import Lease
from memoturnd.seams.profile import ReadOp, Seen, Work, WriteOp, Written

T = TypeVar("T")
MIN_TXID_WAIT_S = 2.0
_MAIN_CACHE_KIB = 112
_READER_CACHE_KIB = 64
_INLINE_SCAN_BYTES = 2 * 1024 * 1024
"""File size up to which a scan runs on the event loop."""
_REOPENED = 3
"""How often a read is tried again whose file was opened anew before its turn came."""
_COMPACT_OBJECTS = 4
"""Objects that a restore may read before a branch that goes cold gets a snapshot."""


class Branch:
    """A branch of a database, in whatever tier it is. Implements memoturnd.seams.profile.Profile."""

    def __init__(self, ref: BranchRef, services: Services, surroundings: Surroundings) -> None:
        self.ref = ref
        self.services = services
        self.surroundings = surroundings
        self.files = BranchFiles(
            services.branches_folder, ref.database.uuid, ref.branch_id, fsync=services.sync == "full"
        )
        self.manifests: SwapFile[Manifest] = services.manifest_file(ref.database.uuid, ref.branch_id)
        self.rules: LevelRules = NO_RULES
        """What is set for the database, as of the last request."""
        self.owned: Owned | None = None
        self.lease: Lease | None = None
        self.taken: Lease | None = None
        """The lease under which a takeover came to its end: before that, what others hold may not be here yet."""
        """The lease that this node last took of the branch, and did not give back."""
        self.known: tuple[Cursor, PageHashes] | None = None
        """Cursor and page hashes of the file while it is not owned, where they are known."""
        self.gate = asyncio.Lock()
        self.moves = Moves()
        """Tells who follows the branch that it has moved."""
        self.txid = 0
        self.at_ms = 0
        self.ceiling = 0
        """Highest txid that the manifest lets this node commit, while it owns the branch."""
        self.log_frames = 0
        self.log_syncs = False
        """Whether the next commit starts the log anew, which fsyncs its header whatever the sync mode."""
        self.users = 0
        self.was_open = False
        """Whether this process has had the file open: an earlier one's may be of a history that was rewritten since."""
        self.used_s = services.clock.monotonic_s()
        self.seen_s = float("-inf")
        """When the local file was known to be the newest durable state, by the monotonic clock."""
        self.disk_bytes = 0
        """Bytes on disk when last looked at: at closing, and at opening."""
        self._kept: Kept | None = None
        """What is kept in memory of the open file."""
        self._conn: ProfileConnection | None = None
        self._readers = Readers(services.readers, services.clock.monotonic_s)
        self._ready = False
        """Whether the open file is settled, so that it may be read: not while it is being taken over."""
        self._empty = False
        self._fenced = False
        self._gone = False
        self._durable_txid = 0
        self._transition = asyncio.Lock()

    # ---- what surfaces use

    @property
    def branch_id(self) -> str:
        """Return the branch's id, which no other branch ever has."""
        return self.ref.branch_id

    @property
    def durable_txid(self) -> int:
        """Return the newest txid known to be in object storage."""
        return self.owned.shipper.durable_txid if self.owned is not None else self._durable_txid

    @property
    def conn(self) -> ProfileConnection:
        """Return the main connection of the open branch."""
        if self._conn is None:
            raise InvariantError(f"{self.ref} is not open")
        return self._conn

    @property
    def hot(self) -> bool:
        """Return whether the file is open."""
        return self._conn is not None

    @property
    def size_bytes(self) -> int:
        """Return about how large the open database is: as of its last ship, or else its opening."""
        if self.owned is None:
            return self.disk_bytes
        return PAGE_SIZE_BYTES * len(self.owned.capture.hashes) + self.owned.shipper.unshipped_bytes

    @property
    def is_large(self) -> bool:
        """Return whether whatever is in proportion to the file is too much for the event loop."""
        return self.size_bytes > _INLINE_SCAN_BYTES

    async def write(
        self, op: WriteOp[T], *, durability: Durability = Durability.LOCAL, work: Work = Work.POINT
    ) -> Written[T]:
        """Apply `op` in a commit round; see memoturnd.seams.profile.Profile.write."""
        self.users += 1
        try:
            owned = self.owned
            if owned is None or self._fenced:
                owned = await self.own()
            shipper = owned.shipper
            if shipper.dirty_since_s is not None and shipper.crowded():
                await shipper.wait_for_room()
            value, txid = await owned.writer.submit(op, work)
            level = owned.reached(txid)
            if durability or self.services.durability:  # nothing is waited for at the lowest level
                level = await owned.reach(txid, max(durability, self.services.durability))
            return Written(value, txid, shipper.durable_txid, level)
        finally:
            self.leave()

    async def read(self, op: ReadOp[T], *, min_txid: int = 0, work: Work = Work.POINT) -> Seen[T]:
        """Run `op` on one state at or above `min_txid`; see memoturnd.seams.profile.Profile.read."""
        for _ in range(_REOPENED):
            try:
                return await self._read(op, min_txid, work)
            except ReopenedError:
                continue  # a replica's file is opened anew with every segment
        return await self._read(op, min_txid, work)

    async def _read(self, op: ReadOp[T], min_txid: int, work: Work) -> Seen[T]:
        self.users += 1
        try:
            while not (self._ready or self._empty) or self._fenced or min_txid > self.txid:
                if not (self._ready or self._empty) or self._fenced:
                    await self.wake()
                if min_txid > self.txid:
                    await self._reach(min_txid)
            conn = self._conn
            if conn is None:
                return await self.read_empty(op, work)
            if not self.gate.locked():
                if work is Work.POINT or (work is Work.SCAN and not self.is_large):
                    return Seen(op(conn, self.services.clock.now_ms()), self.txid, self.durable_txid)
                if work is Work.USER:
                    try:
                        clock = self.services.clock
                        value = within_steps(conn, clock, self, lambda: op(conn, clock.now_ms()))
                        return Seen(value, self.txid, self.durable_txid)
                    except OverBudgetError:
                        pass  # it takes longer than the event loop may be held: the pool does it
            if work.is_users:
                return await self._read_in_pool(op, self.services.user_executor)
            async with self._readers.reading():
                if not self._ready:
                    raise ReopenedError(f"{self.ref} was closed while a read waited; send it again")
                return await self._read_in_pool(op, self.services.executor)
        finally:
            self.leave()

    async def read_empty(self, op: ReadOp[T], work: Work) -> Seen[T]:
        """Run `op` on a profile without data: a shared one, but for what a user wrote and may take long."""
        if not work.is_users:
            return Seen(op(takeover.empty_profile(), self.services.clock.now_ms()), 0, 0)

        def run() -> T:
            conn = takeover.make_empty_profile()
            try:
                return self._read_transaction(conn, op)[0]
            finally:
                conn.close()

        return Seen(await self.services.user_executor.run(run), 0, 0)

    async def _read_in_pool(self, op: ReadOp[T], executor: Executor) -> Seen[T]:
        """Run `op` beside the writer, in a transaction that fixes the state and its txid."""
        readers, generation = self._readers, self._readers.generation

        def run() -> tuple[T, int]:
            conn = readers.take(generation, lambda: self._connect(read_only=True))
            try:
                return self._read_transaction(conn, op)
            finally:
                readers.give(conn, generation)

        value, txid = await executor.run(run)
        return Seen(value, txid, self.durable_txid)

    def _read_transaction(self, conn: ProfileConnection, op: ReadOp[T]) -> tuple[T, int]:
        conn.execute("BEGIN")
        try:
            txid = schema.read_meta(conn).txid
            deadlines, now_ms = self.services.writer_settings.deadlines, self.services.clock.now_ms()
            return within_deadline(conn, deadlines, lambda: op(conn, now_ms)), txid
        finally:
            if conn.in_transaction:
                conn.execute("ROLLBACK")

    async def _reach(self, min_txid: int) -> None:
        """Wait for a state at or above `min_txid`; where this node does not own the branch, fetch it."""
        clock = self.services.clock
        deadline_s = clock.monotonic_s() + MIN_TXID_WAIT_S
        pause_s = 0.005
        while self.txid < min_txid:
            if clock.monotonic_s() >= deadline_s:
                raise PreconditionFailedError(
                    f"{self.ref} is at txid {self.txid}, not at {min_txid} yet; "
                    "check that the txid came from this branch, or try again"
                )
            if self.owned is None:
                await self._refresh()
            if self.txid < min_txid:
                await clock.sleep(pause_s)
                pause_s = min(0.1, 2 * pause_s)

    def leave(self) -> None:
        """End one use of the branch, begun by counting `users` up."""
        self.users -= 1
        self.used_s = self.services.clock.monotonic_s()

    # ---- going up

    async def wake(self) -> None:
        """Open the file for reading, restoring it where it is not here. Takes no lease."""
        await self.surroundings.make_room(self)
        async with self._transition:
            await self._leave_fenced_state()
            if self._ready or self._empty:
                return
            self._refuse_if_gone()
            metrics, started_s = self.services.metrics, self.services.clock.monotonic_s()
            tier = await takeover.open_for_reading(self)
            if tier is not None and not self._is_older():
                self._ready = self._conn is not None
            else:
                # The last process may have left commits here that are not in object storage; or an older release
                # wrote the file, which only its owner brings up to date.
                tier = "unsettled"
                await self._take_over()
            metrics.wakes[tier].inc()
            metrics.wake_seconds[tier].observe(self.services.clock.monotonic_s() - started_s)

    def _is_older(self) -> bool:
        """Return whether the open file has an older schema than this release reads."""
        conn = self._conn
        return conn is not None and schema.read_meta(conn).schema_version < schema.SCHEMA_VERSION

    async def take_up(self) -> None:
        """See to commits that an earlier process or ownership left here without shipping them, if there are any."""
        is_open = self._ready or self._empty
        files = self.files
        if self._fenced or (
            not is_open and files.owner() is not None and files.clean(self.services.boot_id) is None
        ):
            await self.wake()

    async def own(self) -> Owned:
        """Take the branch for writing: lease, epoch in the manifest, the local file settled, a writer."""
        await self.surroundings.make_room(self)
        async with self._transition:
            await self._leave_fenced_state()
            if self.owned is None:
                self._refuse_if_gone()
                await self._take_over()
            invariant(self.owned is not None, "a takeover that returns makes an owner", branch=self.ref)
            return cast("Owned", self.owned)

    async def _take_over(self) -> None:
        async with self._readers.held_back():  # reads end first: the file may be replaced here
            self._ready = False
            try:
                self.owned = await takeover.take_over(self)
            except BaseException:
                self.close_connections()  # what is here was not settled: nobody may read or drop it
                self.known = None
                raise
            self._ready, self._empty = True, False

    async def compare(self) -> None:
        """Take the newer state where another node has moved the branch on; nothing unshipped is here then."""
        async with self._transition:
            if self.owned is None and await takeover.take_newest(self):
                self._ready, self._empty = True, False

    async def replace_by(self, prepared: Path) -> None:
        """Put the file `prepared`, a newer state that is all in object storage, in the place of one that is only read.

        Called inside the transition lock. Reads end first; a user's goes on in the state that it began with.
        """
        invariant(self.owned is None, "what is written here is not replaced", branch=self.ref)
        async with self.gate, self._readers.held_back():
            self.close_connections()
            self.known = None
            self.files.unmark()
            await self.services.executor.run(lambda: self.files.replace_main(prepared))
            self.open_file()
            self._ready, self._empty = True, False

    async def _refresh(self) -> None:
        await self.compare()

    async def _leave_fenced_state(self) -> None:
        """After a fence: close everything, so that the file is looked at anew. Its commits stay on disk."""
        if not self._fenced:
            return
        if self.owned is not None:
            await self.owned.shipper.compactor.stop()
        async with self.gate, self._readers.held_back():
            self.close_connections()
            self.manifests.forget()
            self.known = None
            self.owned = None
            self._fenced = False

    def fenced(self, error: FencedError) -> None:
        """Stop writing at once: another owner stands in the manifest."""
        self._fenced = True
        self.moves.note()
        if self.owned is not None:
            self.owned.writer.stop(error)

    @property
    def is_ours(self) -> bool:
        """Return whether this node owns the branch now."""
        return self.owned is not None and not self._fenced

    def may_commit(self) -> bool:
        """Return whether this node's lease of the branch stands."""
        return self.is_ours

    @property
    def is_fenced(self) -> bool:
        """Return whether another owner was found in the manifest, so that the file must be looked at anew."""
        return self._fenced

    @property
    def is_gone(self) -> bool:
        """Return whether the branch was deleted."""
        return self._gone

    def _refuse_if_gone(self) -> None:
        if self._gone:
            raise BranchNotFoundError(f"{self.ref} was deleted")

    # ---- the file, for takeover

    def open_file(self) -> None:
        """Open the main connection and learn at which txid the file stands.

        Raises DiskFullError, RetryableError where the disk refuses it, apsw.NotADBError, apsw.CorruptError.
        """
        self._kept = self.services.memory.open()
        with disk_refusals_told(self.files.main):
            conn = self._connect(read_only=False)
            try:
                meta = schema.read_meta(conn)
                schema.check_version(meta)
            except BaseException:
                conn.close()
                raise
        self.txid, self.at_ms = meta.txid, meta.at_ms
        self.log_frames = 0
        self.log_syncs = True
        self.disk_bytes = self.files.size_bytes()
        conn.set_wal_hook(self._log_grew)
        self._conn = conn
        self.was_open = True
        self.moves.note()

    def look_at_log(self) -> None:
        """Count the frames of the log by its size: SQLite's hook does not speak of a backup's commit."""
        size_bytes = self.files.wal.stat().st_size
        self.log_frames = max(self.log_frames, size_bytes // wal.frame_size_bytes(PAGE_SIZE_BYTES))

    def _log_grew(self, _conn: object, _database: str, frames: int) -> int:
        self.log_frames = frames
        return 0

    def _connect(self, *, read_only: bool) -> ProfileConnection:
        conn = open_connection(
            str(self.files.main),
            read_only=read_only,
            sync=self.services.sync,
            cache_kib=_READER_CACHE_KIB if read_only else _MAIN_CACHE_KIB,
        )
        conn.kept = self._kept
        return conn

    def close_connections(self) -> None:
        """Close every connection and the log's descriptor, leaving the files as they are."""
        self._ready = False
        if self.owned is not None:
            self.owned.capture.close()
            self.owned.shipper.stopped = True
            self.owned.tail.close()
            self.services.scheduler.drop(self.owned.shipper)
        self._close_files()

    def _close_files(self) -> None:
        self._readers.close()
        if self._conn is not None:
            self._conn.set_wal_hook(None)
            self._conn.close()
        self._conn = None
        if self._kept is not None:
            self._kept.close()

    async def close_for_a_log(self, *, wait_s: float) -> None:
        """Close every connection but the main one; see Readers.close_all. The engine's reads are held back."""
        self._ready = False
        await self._readers.close_all(self.services.clock, wait_s=wait_s)

    @asynccontextmanager
    async def reopening(self) -> AsyncIterator[bool]:
        """Let a copy that is only read be brought up to date inside the block: no read runs, none begins.

        Called inside `changing`. Says False where there is none to bring up to date: the branch is owned, or its file is
        not open. Leaving the block with an error drops the file: the next read restores it.
        """
        if self.owned is not None or not self._ready or self._fenced:
            yield False
            return
        async with self._readers.held_back():
            try:
                yield True
                self._ready = True
            except BaseException:
                self.close_connections()
                self.manifests.forget()
                self.known = None
                self.files.remove()
                raise

    def stands_empty(self) -> None:
        """Note that the branch has no state yet: reads see an empty profile."""
        self._empty = True

    def is_durable_at(self, txid: int) -> None:
        """Note what object storage holds, for a file that is only read."""
        self._durable_txid = txid
        self.moves.note()

    # ---- going down

    @property
    def idle(self) -> bool:
        """Return whether nobody uses the branch now."""
        return self.users == 0 and not self.gate.locked() and not self._readers.busy

    async def close(self, *, compact: bool = False) -> bool:
        """Go from hot to warm: ship, close, leave a clean mark. False when somebody still uses the branch.

        With `compact` a state that takes many objects to restore gets a snapshot first. Raises what shipping
        raises; the branch then stays hot.
        """
        async with self._transition:
            if self._conn is None:
                self._empty = False
                return True
            if self._fenced:
                await self._leave_fenced_state()
                return True
            owned = self.owned
            if owned is not None:
                await owned.shipper.compactor.stop()
                await owned.shipper.ship()
                current = self.manifests.cached
                if compact and current is not None and takeover.restore_reads(current) > _COMPACT_OBJECTS:
                    await owned.shipper.snapshot()
                await owned.shipper.compactor.stop()
            if not self.idle or (owned is not None and self.txid != owned.shipper.durable_txid):
                return False
            if owned is not None:
                self.known = owned.capture.cursor, owned.capture.hashes
                self._durable_txid = owned.shipper.durable_txid
            self.close_connections()
            self.owned = None
            if self.known is not None:
                self.files.write_clean(self.services.boot_id, *self.known)
            self.known = None
            self.manifests.forget()
            self.disk_bytes = self.files.size_bytes()
            return True

    async def evict(self) -> bool:
        """Go cold: ship, give the lease back, delete the local files. False when somebody uses the branch."""
        if not await self._is_shipped():
            return False
        async with self._transition:
            if self._conn is not None or self.users:
                return False
            if self.may_hold_more:
                return False
            await takeover.give_back(self)
            await self.services.executor.run(self.files.remove)
            self.txid = self.disk_bytes = 0
            return True

    async def _is_shipped(self) -> bool:
        """Close the branch; files that an earlier boot left are looked at first. False when it is in use."""
        if not await self.close(compact=True):
            return False
        if self.files.owner() is None or self.files.clean(self.services.boot_id) is not None:
            return True
        await self.wake()  # proves them, or ships, or keeps aside
        return await self.close(compact=True)

    async def give_back(self) -> bool:
        """Release the closed branch: the next owner need not skip the txids that were reserved here.

        False where it is open, or its file may hold commits that are not in object storage: those keep theirs.
        """
        async with self._transition:
            if self._conn is not None or self.may_hold_more:
                return False
            await takeover.give_back(self)
            return True

    async def hand_over(self) -> bool:
        """Ship, close and give back the branch; False where somebody still uses it, or its file may hold more."""
        return await self.close() and await self.give_back()

    @property
    def may_hold_more(self) -> bool:
        """Return whether the closed file may hold commits that are not in object storage."""
        return self.files.owner() is not None and self.files.clean(self.services.boot_id) is None

    async def sweep(self, op: WriteOp[int]) -> int:
        """Run housekeeping as a write, where this node owns the branch and its ships keep up; return how much it did.

        It does not count as use.
        """
        owned = self.owned
        if owned is None or self._fenced or owned.shipper.crowded():
            return 0
        self.users += 1
        try:
            work = Work.HEAVY if self.is_large else Work.POINT  # removing one large value may take long, too
            done: int = (await owned.writer.submit(op, work))[0]
            return done
        finally:
            self.users -= 1

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """Let the branch neither go down nor be woken or taken over inside the block."""
        async with self._transition:
            yield

    async def replace_file(self, prepared: Path) -> None:
        """Put the file `prepared`, another form of the state that stands, in the place of the open one.

        The gate is held inside `changing`, and all that was committed is shipped. Reads end first.
        """
        owned = self.owned
        invariant(owned is not None and self._conn is not None, "an open branch is replaced", branch=self.ref)
        txid = self.txid
        async with self._readers.held_back():
            self._ready = False
            self._close_files()
            cast("Owned", owned).capture.close()
            await self.services.executor.run(lambda: self.files.replace_main(prepared))
            self.open_file()
            invariant(self.txid == txid, "the state stays the same one", branch=self.ref)
            self._ready = True

    async def let_go(self) -> None:
        """Remove the local files of a branch that is not owned, and forget its manifest: history was rewritten.

        Files that may hold commits which are not in object storage stay; whoever takes them over looks at them.
        """
        async with self._transition:
            if self.owned is not None or (self._conn is None and self.may_hold_more):
                return
            async with self.gate, self._readers.held_back():
                self.close_connections()
                self.manifests.forget()
                self.known, self._empty = None, False
                await self.services.executor.run(self.files.remove)
                self.txid = self.disk_bytes = 0

    async def destroy(self) -> None:
        """Drop the branch and its local files for good; what is queued fails with BranchNotFoundError."""
        self._gone = True
        self.moves.note()
        async with self._transition:
            if self.owned is not None:
                error = BranchNotFoundError(f"{self.ref} was deleted")
                self.owned.writer.stop(error)
                self.owned.shipper.stop(error)
                await self.owned.shipper.compactor.stop()
                await self.owned.shipper.settled()
            async with self.gate, self._readers.held_back():
                self.close_connections()
                self.owned = None
                self._empty = False
                await self.services.executor.run(self.files.remove)
            await self.services.tails.abandon(self.lease)
            if self.lease is not None:
                self.services.unreleased.note(self.lease)
                self.lease = None
        self.services.subscribers.changed(self.branch_id, gone=True)

    @property
    def is_main(self) -> bool:
        """Return whether this is the branch that every database has."""
        return self.ref.name == MAIN
