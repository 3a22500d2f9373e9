"""Retention of one branch: rounds and entries that are past their window go, in one swap of the manifest.

Runs whether or not some node owns the branch: it touches only what is older than the newest base, and its
swap lands only under the epoch, and on the entries, that it was planned on. Objects that are no longer named
stay until the collector has seen them unreachable for its grace.
"""

from collections.abc import Sequence
from functools import partial

from memoturnd.core import layout, retention, segment
from memoturnd.core.manifest import Manifest, ObjectRef, PageRef, Transition
from memoturnd.core.retention import Edit, Entries, Plan, Thin, Windows
from memoturnd.errors import FencedError
from memoturnd.replication.archive import CHECKPOINTS, PINS, Archive
from memoturnd.replication.compactor import REUSE_S
from memoturnd.replication.join import Joined, Writer, thin
from memoturnd.replication.ranged import fetch, named_damage
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore


class Retention:
    """What a node needs to apply the windows to any branch."""

    def __init__(
        self,
        store: ObjectStore,
        archive: Archive,
        executor: Executor,
        clock: Clock,
        randomness: Randomness,
        windows: Windows,
    ) -> None:
        self.windows = windows
        self._randomness = randomness
        self._store = store
        self.archive = archive
        self._executor = executor
        self.clock = clock

    async def apply(self, file: SwapFile[Manifest], windows: Windows | None = None) -> int | None:
        """Apply windows (the node's unless given) to a branch and return when they have work again, in unix ms; None while it is idle.

        A fine window of 0 keeps everything. What moved meanwhile, or would take too long, is left for the next
        time. Raises CorruptionError, StoreUnavailableError.
        """
        windows = windows or self.windows
        if not windows.fine_ms:
            return None
        seen = await file.load(fresh=file.cached is None)
        if seen is None or seen.deleted_at is not None or not seen.head_txid:
            return None
        now_ms = self.clock.now_ms()
        parts = [await self._entries(seen, page) for page in seen.pages]
        parts.append(Entries(None, seen.snapshots, seen.segments))
        kept = await self._kept(seen)
        made = await self._executor.run(
            lambda: retention.plan(parts, kept, now_ms, windows, branch_id=seen.branch_id)
        )
        if not all(edit.is_empty for edit in made.edits):
            work = _Pass(self, seen, made)
            change = await work.prepare()
            try:
                landed = await file.update(change)
            except FencedError:
                return now_ms  # somebody else owns it now: look again
            if not (made.is_whole and work.is_whole) or landed.commit_id == seen.commit_id:
                return now_ms
        return retention.next_due_ms(parts, now_ms, windows, branch_id=seen.branch_id)

    async def unbased_since_ms(self, file: SwapFile[Manifest]) -> int | None:
        """Return the wall time of the oldest commit that no window lets go before there is a snapshot, None without one.

        Raises CorruptionError, StoreUnavailableError.
        """
        seen = await file.load()
        if seen is None or seen.deleted_at is not None or not seen.head_txid:
            return None
        parts = [await self._entries(seen, page) for page in seen.pages]
        return retention.unbased_since_ms([*parts, Entries(None, seen.snapshots, seen.segments)])

    async def _entries(self, seen: Manifest, ref: PageRef) -> Entries:
        page = await self.archive.page(seen.db, ref)
        return Entries(ref, page.snapshots, page.segments)

    async def _kept(self, seen: Manifest) -> set[int]:
        """Return the txids that checkpoints and forks need."""
        checkpoints = (await self.archive.all(CHECKPOINTS, seen)).values()
        pins = (await self.archive.all(PINS, seen)).values()
        return {checkpoint.txid for checkpoint in checkpoints} | {pin.txid for pin in pins}

    async def thinned(self, seen: Manifest, one: Thin) -> list[ObjectRef]:
        """Write what becomes of the segments and return the entries."""
        keys = [layout.object_key(seen.db, ref) for ref in one.inputs]
        blobs = await fetch(self._store, keys)
        work = partial(_thin, keys, blobs, one, Writer(seen.branch_id, seen.epoch, self._randomness))
        outputs = await self._executor.run(work)
        for output in outputs:
            await self._store.put(layout.object_key(seen.db, output.ref), output.data)
        return [output.ref for output in outputs]


class _Pass:
    """One pass over a branch: what its plan needs is written, and named by one swap while it is surely there."""

    def __init__(self, owner: Retention, seen: Manifest, made: Plan) -> None:
        self.is_whole = True
        """Whether all of the plan was prepared: what would take too long is left out."""
        self._owner = owner
        self._seen = seen
        self._made = made
        self._started_s: float | None = None

    async def prepare(self) -> Transition:
        """Write the objects and pages, and return the change that names them."""
        *old, heads = self._made.edits
        pages = await self._pages(old)
        outputs = [await self._thinned(one) for one in heads.thins]
        seen, floor = self._seen, self._made.floor

        def change(current: Manifest) -> Manifest:
            if self._elapsed_s() > REUSE_S:
                return current
            return retention.edited(current, seen, heads, outputs, pages, floor)

        return change

    def _elapsed_s(self) -> float:
        """Return the seconds since the first object was written."""
        return 0.0 if self._started_s is None else self._owner.clock.monotonic_s() - self._started_s

    async def _thinned(self, one: Thin) -> Sequence[ObjectRef]:
        """Return what becomes of adjacent segments: themselves, where half of the time for naming them is over."""
        if self._elapsed_s() > REUSE_S / 2:
            self.is_whole = False
            return one.inputs
        if self._started_s is None:
            self._started_s = self._owner.clock.monotonic_s()
        return await self._owner.thinned(self._seen, one)

    async def _pages(self, edits: Sequence[Edit]) -> list[PageRef]:
        """Return what becomes of the history pages: neighbours with few entries left become one."""
        left = [await self._entries(edit) for edit in edits]
        made: list[PageRef] = []
        for group in retention.joinable_pages([len(one.snapshots) + len(one.segments) for one in left]):
            parts = [left[number] for number in group]
            same = parts[0].page if len(parts) == 1 and edits[group.start].is_empty else None
            snapshots = tuple(ref for part in parts for ref in part.snapshots)
            segments = tuple(ref for part in parts for ref in part.segments)
            if same is not None:
                made.append(same)
            elif snapshots or segments:
                seen = self._seen
                made.append(
                    await self._owner.archive.write_page(seen.db, seen.branch_id, snapshots, segments)
                )
        return made

    async def _entries(self, edit: Edit) -> Entries:
        """Return what is left of a page's entries."""
        segments = list(edit.entries.segments)
        for one in edit.thins:
            at = segments.index(one.inputs[0])
            segments[at : at + len(one.inputs)] = await self._thinned(one)
        return Entries(
            edit.entries.page,
            tuple(ref for ref in edit.entries.snapshots if ref not in edit.dropped),
            tuple(ref for ref in segments if ref not in edit.dropped),
        )


def _thin(keys: Sequence[str], blobs: Sequence[bytes], one: Thin, writer: Writer) -> list[Joined]:
    parts = []
    for key, ref, blob in zip(keys, one.inputs, blobs, strict=True):
        with named_damage(key):
            parts.append(segment.decode(blob, name_hash=ref.hash))
    return thin(parts, one, writer)
