"""Shipping one branch: rounds to a segment, the segment to the store, the manifest swapped, the cursor moved.

One ship of a branch runs at a time; commits that arrive meanwhile share the next segment, and every durable
write that waits for them is answered by one swap. A segment whose swap failed is kept and sent again as it
is: same bytes, same key. Nothing is ever deleted here, least of all after an unknown outcome. It is
one long file because cursor, waiters, window and checkpoint change together, under the same lock and gate.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import NamedTuple, cast

import apsw

from memoturnd.core import compaction, layout, manifest, register, segment, wal
from memoturnd.core.manifest import Manifest, ObjectRef, Transition
from memoturnd.core.pages import PageHashes
from memoturnd.core.segment import Kind
from memoturnd.errors import (
    FencedError,
    MemoturnError,
    NotDurableError,
    OverloadedError,
    RetryableError,
    StoreUnavailableError,
    invariant,
)
from memoturnd.metrics import Metrics
from memoturnd.replication.archive import BRANCHES, Archive
from memoturnd.replication.capture import Batch, Capture, SurpriseError
from memoturnd.replication.compactor import REUSE_S, Compactor, Tasks
from memoturnd.replication.open_branch import OpenBranch
from memoturnd.replication.snapshot import State, object_ref, write_snapshot
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

_INLINE_LOG_BYTES = 256 * 1024
"""Log bytes up to which a segment is read and encoded on the event loop: less work than a thread hop."""
CHECKPOINT_LOG_BYTES = 4 * 1024 * 1024
"""Log size from which a branch is checkpointed when everything in it has been shipped."""
QUIESCE_LOG_BYTES = 16 * 1024 * 1024
"""Log size from which writers are held for one ship, so that the log can be checkpointed at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one branch's unshipped window, and timeouts, in seconds and bytes."""

    unshipped_max_bytes: int
    unshipped_max_age_s: float
    unshipped_wait_s: float
    durable_wait_s: float
    snapshot_named_within_s: float
    """Longest time from a snapshot's first part to the swap that names it, below the collector's grace."""


class _Prepared(NamedTuple):
    """A segment on its way. It keeps its name while the collector cannot have taken what was put under it."""

    batch: Batch
    ref: ObjectRef
    data: bytes
    made_s: float


class Shipper:
    """The replication state of one branch that this node owns under `epoch`."""

    def __init__(
        self,
        source: OpenBranch,
        capture: Capture,
        manifests: SwapFile[Manifest],
        store: ObjectStore,
        archive: Archive,
        *,
        uuid: str,
        branch_id: str,
        epoch: int,
        limits: Limits,
        clock: Clock,
        executor: Executor,
        metrics: Metrics,
        wake: Callable[[bool], None],
        uploads: Callable[[], None],
        lets_go: Callable[[], None],
        shipped: Callable[[bytes | None], None],
        fenced: Callable[[FencedError], None],
        landed: Callable[[], None],
        randomness: Randomness,
        compaction_slots: asyncio.Semaphore,
        spawn: Tasks,
    ) -> None:
        self.epoch = epoch
        self.capture = capture
        self.manifests = manifests
        self.durable_txid = capture.cursor.txid
        self.dirty_since_s: float | None = None
        self.failed: BaseException | None = None
        self._stop_error: MemoturnError | None = None
        self.stopped = False
        self.surprises = 0
        self.on_landed: Callable[[int], None] = lambda _txid: None
        """Told of each txid up to which all is durable."""
        self.label = f"{uuid}/{branch_id}"
        self._uuid = uuid
        self._branch_id = branch_id
        self._source = source
        self._store = store
        self._archive = archive
        self._limits = limits
        self._clock = clock
        self._executor = executor
        self._metrics = metrics
        self._wake = wake
        self._uploads = uploads
        self._lets_go = lets_go
        self._shipped = shipped
        self._fenced = fenced
        self._note_landed = landed
        self._lock = asyncio.Lock()
        self._prepared: _Prepared | None = None
        self._checkpointed_frames = 0
        self._sent_txid = 0
        """The highest txid of which the swap was sent, whatever became of it."""
        self._reading_file = False
        """Whether a snapshot reads the database file, which no checkpoint may change meanwhile."""
        self._since_capture_s: float | None = None
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self._room: list[asyncio.Future[None]] = []
        self._notes: list[Transition] = []
        self._randomness = randomness
        self.compactor = Compactor(
            store,
            archive,
            epoch=epoch,
            attach=self.attach,
            land=self._land_notes,
            snapshot=self._snapshot_beside_writes,
            slots=compaction_slots,
            spawn=spawn,
            executor=executor,
            clock=clock,
            randomness=randomness,
            metrics=metrics,
        )

    # ---- what writers see

    def committed(self) -> None:
        """Note that a round was committed."""
        if self.dirty_since_s is None:
            self.dirty_since_s = self._clock.monotonic_s()
            self._wake(False)
        elif self._since_capture_s is None:
            self._since_capture_s = self._clock.monotonic_s()

    @property
    def unshipped_bytes(self) -> int:
        """Return the log bytes that have not landed."""
        return self.capture.pending_bytes(self._source.log_frames) if self.dirty_since_s is not None else 0

    @property
    def unshipped_age_s(self) -> float:
        """Return how long the oldest unshipped commit has waited."""
        return 0.0 if self.dirty_since_s is None else self._clock.monotonic_s() - self.dirty_since_s

    @property
    def urgent(self) -> bool:
        """Return whether somebody waits for the next ship; those who were answered but have not run yet do not."""
        return any(not future.done() for future in (*(waiter for _, waiter in self._waiters), *self._room))

    def crowded(self) -> bool:
        """Return whether the unshipped window is at its bound, so that writes must wait."""
        if self.dirty_since_s is None:
            return False
        return (
            self.unshipped_bytes > self._limits.unshipped_max_bytes
            or self.unshipped_age_s > self._limits.unshipped_max_age_s
        )

    async def wait_for_room(self) -> None:
        """Wait until the unshipped window is below its bound. Raises OverloadedError when that takes too long."""
        try:
            async with asyncio.timeout(self._limits.unshipped_wait_s):
                while self.crowded():
                    await self._wait(self._room)
        except TimeoutError as error:
            self._metrics.shed["unshipped_window"].inc()
            raise OverloadedError(
                f"{self.unshipped_bytes} bytes committed up to {self.unshipped_age_s:.1f} s ago are not in object "
                "storage yet, which is the bound of what this node may lose; the write was not applied: try again"
            ) from error

    async def wait_durable(self, txid: int) -> None:
        """Wait until the manifest holds `txid`.

        Raises NotDurableError where that takes too long: the write stands at level local. Raises FencedError
        where another owner has taken the branch without it: the write is kept as another branch.
        """
        if txid <= self.durable_txid:
            return
        if self._stop_error is not None:
            raise self._stop_error
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((txid, future))
        self._wake(True)
        try:
            async with asyncio.timeout(self._limits.durable_wait_s):
                await future
        except TimeoutError as error:
            raise NotDurableError(
                f"txid {txid} is committed on this node but not in object storage yet"
                f"{f' ({self.failed})' if self.failed else ''}; do not repeat the write: POST .../sync to wait for it"
            ) from error
        finally:
            self._waiters = [w for w in self._waiters if w[1] is not future]

    async def _wait(self, queue: list[asyncio.Future[None]]) -> None:
        if self._stop_error is not None:
            raise self._stop_error
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(future)
        self._wake(True)
        try:
            await future
        finally:
            if future in queue:
                queue.remove(future)

    # ---- shipping

    def _land_notes(self) -> None:
        """Ask for a ship that lands the notes that still wait."""
        if self._notes and not self.stopped:
            self._wake(False)

    def attach(self, note: Transition) -> None:
        """Let `note`, an idempotent change, land with the next swap, whoever causes it and however often it fails."""
        self._notes.append(note)

    async def ship(self, *, then: Transition | None = None) -> int:
        """Ship everything committed so far and return the durable txid.

        `then` is a change of the manifest that lands together with the last segment, or alone where there
        was nothing to ship. Raises FencedError, StoreUnavailableError, CorruptionError, and what `then` raises.
        """
        current = self.manifests.cached
        if current is not None:
            await self.compactor.keep_up(current)
        async with self._lock:
            if self.stopped:
                if then is None and self.durable_txid == self._source.txid:
                    return self.durable_txid
                raise FencedError("the branch is no longer shipped from here; send the request again")
            started_s = self._clock.monotonic_s()
            shipped, target = False, self._source.txid
            try:
                while self.durable_txid < target:
                    if self._stop_error is not None:
                        raise self._stop_error
                    await self._ship_next(then, target)
                    shipped = True
                if not shipped and (then is not None or self._notes):
                    await self._swap(then or (lambda m: m))
                await self._tidy()
            except FencedError as error:
                await self._answer_what_landed()
                self._note_failure(error)
                if then is None and self.durable_txid >= target:
                    return self.durable_txid
                raise
            except (MemoturnError, OSError) as error:
                self._note_failure(error)
                raise
            self.failed = None
            if shipped:
                self._metrics.ship_committed.inc()
                self._metrics.ship_seconds.observe(self._clock.monotonic_s() - started_s)
            return self.durable_txid

    async def _ship_next(self, then: Transition | None, target: int, *, holding_gate: bool = False) -> None:
        """Land the next segment, or, where the log cannot be trusted, a snapshot of the whole state."""
        if self._prepared is not None and self._clock.monotonic_s() - self._prepared.made_s > REUSE_S:
            self._prepared = await self._renamed(self._prepared)
        if self._prepared is None:
            try:
                self._prepared = await self._prepare(holding_gate=holding_gate)
            except SurpriseError as error:
                self.surprises += 1
                self._metrics.ship_surprises.inc()
                self.failed = error
                await self._ship_whole_state(then, holding_gate=holding_gate)
                return
        batch, ref, data, made_s = self._prepared
        await self._put(ref, data)

        def land(current: Manifest) -> Manifest:
            self._refuse_stale(made_s)
            grown = manifest.append_segments(current, (ref,), epoch=self.epoch)
            return then(grown) if then is not None and ref.max >= target else grown

        self._sent_txid = ref.max
        await self._swap(land)
        self.capture.landed(batch)
        self._prepared = None
        self._metrics.segment_bytes.observe(ref.size_bytes)
        self._landed(ref.max)
        self._shipped(data)

    async def _prepare(self, *, holding_gate: bool) -> _Prepared:
        """Capture the next rounds inside the commit's critical section, and encode them outside it."""
        source = self._source
        small = self.unshipped_bytes <= _INLINE_LOG_BYTES

        def read() -> Batch:
            batch = self.capture.read(head_txid=source.txid, log_frames=source.log_frames)
            if batch is None:
                raise SurpriseError("nothing to ship, although the head is above the cursor")
            return batch

        async with nullcontext() if holding_gate else source.gate:
            batch = read() if small else await self._executor.run(read)
            self._since_capture_s = None

        made_s = self._clock.monotonic_s()
        if small:
            return self._encoded(batch, made_s)
        return await self._executor.run(lambda: self._encoded(batch, made_s))

    def _encoded(self, batch: Batch, made_s: float, nonce: bytes = bytes(16)) -> _Prepared:
        data, name_hash = segment.encode(
            Kind.SEGMENT,
            batch.rounds,
            page_size=self.capture.page_size,
            prev_txid=batch.prev_txid,
            epoch=self.epoch,
            checksum_before=batch.checksum_before,
            nonce=nonce,
        )
        ref = object_ref(
            "segment", batch.rounds, batch.prev_txid, self.epoch, self._branch_id, len(data), name_hash
        )
        return _Prepared(batch, ref, data, made_s)

    async def _renamed(self, prepared: _Prepared) -> _Prepared:
        """Return the segment under a new name: it was put so long ago that it may count as garbage by now."""
        nonce = bytes.fromhex(self._randomness.hex(16))
        made_s = self._clock.monotonic_s()
        return await self._executor.run(lambda: self._encoded(prepared.batch, made_s, nonce))

    # ---- whole states

    async def _ship_whole_state(self, then: Transition | None, *, holding_gate: bool) -> None:
        """Land a snapshot of the state as SQLite has it, and start a new chain of segments behind it."""
        source = self._source
        if not holding_gate:
            await self.compactor.stop()  # it may be reading the file
        async with nullcontext() if holding_gate else source.gate:
            await self._checkpoint()
            txid, at_ms = source.txid, source.at_ms
            self._since_capture_s = None
        await self._snapshot(txid, at_ms, then)
        self._landed(txid)
        self._shipped(None)

    async def snapshot(self) -> None:
        """Ship what is unshipped, then put a snapshot of the head, so that a restore reads one object."""
        async with self.compactor.held():  # a job of its own may be reading the file
            await self.ship()
            async with self._lock:
                async with self._source.gate:
                    if self._source.txid != self.durable_txid:
                        return
                    await self._checkpoint()
                    at_ms = self._source.at_ms
                await self._snapshot(self.durable_txid, at_ms, None)

    async def replace_history(
        self,
        finish: Callable[[], Awaitable[Transition | None]],
        reopen: Callable[[Manifest], Awaitable[PageHashes | None]],
    ) -> bool:
        """Put another chain in the place of the one that stands, with the same head, and let the file follow it.

        Nothing is committed meanwhile, and all is shipped when `finish` is asked for the change of the manifest (None:
        it cannot be made now). `reopen` opens the file that belongs to the manifest that then stands, and returns
        its page hashes; None where the change is not in it. No compaction may run. Where this ends with an error
        behind the swap, the branch is taken over anew, which proves the file. Raises what a ship raises.
        """
        async with self._lock, self._source.gate:
            if self.stopped:
                raise FencedError("the branch is no longer shipped from here; send the request again")
            try:
                while self.durable_txid < self._source.txid:
                    await self._ship_next(None, self._source.txid, holding_gate=True)
                if self._notes:
                    await self._swap(lambda m: m)
                change = await finish()
            except FencedError as error:
                self._note_failure(error)
                raise
            if change is None:
                return False
            try:
                hashes = await reopen(await self._swapped(change))
            except BaseException:
                self._note_failure(FencedError("history was being rewritten; send the request again"))
                raise
            if hashes is None:
                return False
            self.capture.restart_at(self.durable_txid, hashes)
            self._checkpointed_frames = 0
            self._shipped(None)
            return True

    async def _swapped(self, change: Transition) -> Manifest:
        await self._swap(change)
        current = self.manifests.cached
        invariant(current is not None, "a swap that landed leaves the manifest known", branch=self.label)
        return cast("Manifest", current)

    async def _snapshot_beside_writes(self) -> None:
        """Put a snapshot of what is durable while writes and ships go on; it is named by the next ship's swap.

        Raises RetryableError where the log cannot be checkpointed now, CorruptionError where the file is not
        what was shipped.
        """
        async with self._lock, self._source.gate:
            if self.stopped:
                return
            while self.durable_txid < self._source.txid:
                await self._ship_next(None, self._source.txid, holding_gate=True)
            await self._checkpoint()
            self._checkpointed_frames = self._source.log_frames
            txid, at_ms = self.durable_txid, self._source.at_ms
            self._reading_file = True
        try:
            put_s = self._clock.monotonic_s()
            refs, _ = await self._put_snapshot(txid, at_ms)
        finally:
            self._reading_file = False

        def land(current: Manifest) -> Manifest:
            return compaction.without_idle_snapshots(manifest.add_snapshot(current, refs, epoch=self.epoch))

        self.attach(self.compactor.fresh(put_s, land, within_s=self._limits.snapshot_named_within_s))

    async def _snapshot(self, txid: int, at_ms: int, then: Transition | None) -> None:
        """Put the database file, which a checkpoint has just made whole at `txid`, as a snapshot, and name it.

        Writers go on meanwhile: they append to the log, and only this object checkpoints.
        """
        put_s = self._clock.monotonic_s()
        refs, known = await self._put_snapshot(txid, at_ms)

        def land(current: Manifest) -> Manifest:
            self._refuse_stale(put_s)
            grown = compaction.without_idle_snapshots(manifest.add_snapshot(current, refs, epoch=self.epoch))
            return then(grown) if then is not None else grown

        self._sent_txid = max(self._sent_txid, txid)
        await self._swap(land)
        if txid > self.capture.cursor.txid:
            self.capture.restart_at(txid, known)

    async def _put_snapshot(self, txid: int, at_ms: int) -> tuple[tuple[ObjectRef, ...], PageHashes]:
        capture = self.capture
        return await write_snapshot(
            self._store,
            self._executor,
            capture.database_path,
            State(txid, at_ms, self.epoch, capture.page_size),
            uuid=self._uuid,
            branch_id=self._branch_id,
            nonce=bytes.fromhex(self._randomness.hex(16)),
            known=capture.hashes_at(txid),
        )

    async def _checkpoint(self) -> None:
        """Move the whole log into the database file; the gate is held. Raises RetryableError behind a reader."""
        conn = self._source.conn
        moved: list[bool] = []

        def work() -> None:
            frames, done = conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            moved.append(frames == done)

        try:
            await self._executor.run(work)
        finally:  # who is cancelled meanwhile leaves a log that may restart all the same
            if any(moved):
                self.capture.checkpointed(self._source.txid)
                self._source.log_syncs = True
        if not all(moved):
            raise RetryableError("a reader holds the log; the checkpoint is tried again later")

    async def _tidy(self) -> None:
        """Checkpoint a long log once all of it has landed."""
        source = self._source
        if self._log_bytes() < CHECKPOINT_LOG_BYTES or self._reading_file:
            return
        try:
            async with source.gate:
                while self.durable_txid < source.txid:
                    if self._log_bytes() < QUIESCE_LOG_BYTES:
                        return
                    await self._ship_next(None, source.txid, holding_gate=True)
                await self._checkpoint()
                self._checkpointed_frames = source.log_frames
        except RetryableError as error:
            # All is shipped; a busy reader or store only puts the tidying off until the next ship.
            self.failed = error

    def _log_bytes(self) -> int:
        """Return the bytes in the log since its last checkpoint."""
        if self._source.log_frames < self._checkpointed_frames:  # the log has restarted since
            self._checkpointed_frames = 0
        frames = self._source.log_frames - self._checkpointed_frames
        return frames * wal.frame_size_bytes(self.capture.page_size)

    # ---- store

    def _refuse_stale(self, put_s: float) -> None:
        """Raise RetryableError where an object was put so long ago that it may be gone when a swap names it."""
        if self._clock.monotonic_s() - put_s > self._limits.snapshot_named_within_s:
            raise RetryableError("an upload took too long to be named, and is made again under another name")

    async def _put(self, ref: ObjectRef, data: bytes) -> None:
        self._uploads()  # before it: a pass of the collector comes after what is left behind here
        key = layout.object_key(self._uuid, ref)
        await self._store.put(key, data)
        self._archive.recent.keep(key, data)

    async def _swap(self, transition: Transition) -> None:
        notes = tuple(self._notes)

        def with_notes(current: Manifest) -> Manifest:
            changed = transition(current)
            for note in notes:
                changed = note(changed)
            return changed

        try:
            current = await self.manifests.update(with_notes)
        except ObjectMissingError as error:
            raise await self._vanished() from error
        del self._notes[: len(notes)]
        if notes:
            self._lets_go()  # what compaction has replaced
        self._source.ceiling = current.txid_ceiling
        if not self._notes:
            self.compactor.look(current)
        self._metrics.manifest_bytes.observe(self.manifests.size_bytes)

    async def _vanished(self) -> MemoturnError:
        """Say why the manifest is gone: only the register can tell a deletion from a store that lost it."""
        key = layout.register_key(self._uuid)
        try:
            known = register.decode((await self._store.get(key)).data)
        except ObjectMissingError:
            known = None
        if known is None or (
            known.state == "live"
            and self._branch_id in {b.id for b in (await self._archive.all(BRANCHES, known)).values()}
        ):
            return StoreUnavailableError(
                f"the object store has lost {self.manifests.key}: bring it back, or check MEMOTURN_OBJECT_STORE"
            )
        return FencedError("the branch was deleted")

    # ---- outcomes

    def _landed(self, txid: int) -> None:
        self.durable_txid = txid
        self._note_landed()
        more = self._source.txid > txid
        self.dirty_since_s = (self._since_capture_s or self.dirty_since_s) if more else None
        self.on_landed(txid)
        for waited, future in self._waiters:
            if waited <= txid and not future.done():
                future.set_result(None)
        if not self.crowded():
            for future in self._room:
                if not future.done():
                    future.set_result(None)

    async def _answer_what_landed(self) -> None:
        """After a fence, answer those whose commits are in the chain all the same.

        A swap whose answer was lost may have landed, and the next owner have built on it. A txid stands for one
        commit for ever, so one that the chain holds is ours. Where that cannot be read, nobody is told to repeat.
        """
        txid, current = self._sent_txid, self.manifests.cached
        if txid <= self.durable_txid:
            return
        try:
            if current is not None and await self._archive.holds(current, txid):
                self._landed(txid)
        except MemoturnError as error:
            unknown = NotDurableError(
                f"another node owns the branch now, and whether it has txid {txid} is not known yet ({error}); "
                "do not repeat the write: read the branch"
            )
            for waited, future in self._waiters:
                if waited <= txid and not future.done():
                    future.set_exception(unknown)

    def _note_failure(self, error: BaseException) -> None:
        self.failed = error
        if isinstance(error, FencedError):
            self._metrics.ship_lost.inc()
            self.stop(error)
            self._fenced(error)
        else:
            self._metrics.ship_failed.inc()

    async def settled(self) -> None:
        """Wait until no ship is under way."""
        async with self._lock:
            return

    def stop(self, error: MemoturnError, *, landing: MemoturnError | None = None) -> None:
        """Fail everybody who waits, now and later: nothing more is shipped from here.

        `landing` is for those whose commits wait to land, `error` (as for them, without it) for those that wait to commit.
        """
        self.stopped = True
        self._stop_error = landing or error
        for future in (waiter for _, waiter in self._waiters):
            if not future.done():
                future.set_exception(landing or error)
        for future in self._room:
            if not future.done():
                future.set_exception(error)
