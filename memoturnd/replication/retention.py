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
        self._archive = archive
        self._executor = executor
        self._clock = clock

    async def apply(self, file: SwapFile[Manifest]) -> int | None:
        """Apply the windows to a branch and return when they have work again, in unix ms; None while it is idle.

        A fine window of 0 keeps everything.

        What moved meanwhile is left for the next time. Raises CorruptionError, StoreUnavailableError.
        """
        if not self.windows.fine_ms:
            return None
        seen = await file.load(fresh=file.cached is None)
        if seen is None or seen.deleted_at is not None or not seen.head_txid:
            return None
        now_ms = self._clock.now_ms()
        parts = [await self._entries(seen, page) for page in seen.pages]
        parts.append(Entries(None, seen.snapshots, seen.segments))
        made = retention.plan(parts, await self._kept(seen), now_ms, self.windows, branch_id=seen.branch_id)
        if not all(edit.is_empty for edit in made.edits):
            change = await self._prepare(seen, made)
            try:
                await file.update(change)
            except FencedError:
                return now_ms  # somebody else owns it now: look again
            if not made.is_whole:
                return now_ms
        return retention.next_due_ms(parts, now_ms, self.windows, branch_id=seen.branch_id)

    async def _entries(self, seen: Manifest, ref: PageRef) -> Entries:
        page = await self._archive.page(seen.db, ref)
        return Entries(ref, page.snapshots, page.segments)

    async def _kept(self, seen: Manifest) -> set[int]:
        """Return the txids that checkpoints and forks need."""
        checkpoints = (await self._archive.all(CHECKPOINTS, seen)).values()
        pins = (await self._archive.all(PINS, seen)).values()
        return {checkpoint.txid for checkpoint in checkpoints} | {pin.txid for pin in pins}

    async def _prepare(self, seen: Manifest, made: Plan) -> Transition:
        """Write the objects that the plan needs, and return the change that names them while they are fresh."""
        started_s = self._clock.monotonic_s()
        *old, heads = made.edits
        pages = []
        for edit in old:
            page = await self._page(seen, edit)
            if page is not None:
                pages.append(page)
        outputs = [await self._thinned(seen, one) for one in heads.thins]

        def change(current: Manifest) -> Manifest:
            if self._clock.monotonic_s() - started_s > REUSE_S:
                return current
            return retention.edited(current, seen, heads, outputs, pages, made.floor)

        return change

    async def _page(self, seen: Manifest, edit: Edit) -> PageRef | None:
        """Return what becomes of a history page, None where nothing is left of it."""
        if edit.is_empty:
            return edit.entries.page
        segments = list(edit.entries.segments)
        for one in edit.thins:
            at = segments.index(one.inputs[0])
            segments[at : at + len(one.inputs)] = await self._thinned(seen, one)
        kept = tuple(ref for ref in segments if ref not in edit.dropped)
        snapshots = tuple(ref for ref in edit.entries.snapshots if ref not in edit.dropped)
        if not kept and not snapshots:
            return None
        return await self._archive.write_page(seen.db, seen.branch_id, snapshots, kept)

    async def _thinned(self, seen: Manifest, one: Thin) -> list[ObjectRef]:
        """Write what becomes of the segments and return the entries."""
        keys = [layout.object_key(seen.db, ref) for ref in one.inputs]
        blobs = await fetch(self._store, keys)
        work = partial(_thin, keys, blobs, one, Writer(seen.branch_id, seen.epoch, self._randomness))
        outputs = await self._executor.run(work)
        for output in outputs:
            await self._store.put(layout.object_key(seen.db, output.ref), output.data)
        return [output.ref for output in outputs]


def _thin(keys: Sequence[str], blobs: Sequence[bytes], one: Thin, writer: Writer) -> list[Joined]:
    parts = []
    for key, ref, blob in zip(keys, one.inputs, blobs, strict=True):
        with named_damage(key):
            parts.append(segment.decode(blob, name_hash=ref.hash))
    return thin(parts, one, writer)
