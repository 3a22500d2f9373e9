"""Restore: the state of a branch at a txid, from its objects, to a file.

Every byte is proven on the way: an object that is read whole against its name, the tables of one that is
read in ranges against their checksums and the manifest, each block and page that is used against its own,
and the rolling database checksum after every round. The file appears under its name only when it is whole:
it is written beside it and renamed.

A small state is read and written in one go. Of a large one the tables are read first, then only the blocks
that the state is made of, a few ranges at a time, so that memory does not grow with the file but for its
tables and page hashes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from memoturnd.core import layout, segment
from memoturnd.core.assembly import Assembly, Indexes, Part, Range, assemble, ranges
from memoturnd.core.manifest import Manifest, ObjectRef, plan_from, restore_plan, round_ref, unrestorable
from memoturnd.core.pages import PageHashes
from memoturnd.core.segment import RoundEntry
from memoturnd.errors import CorruptionError
from memoturnd.replication.new_file import NewFile
from memoturnd.replication.ranged import each, each_of, fetch, fetch_range, fetch_tables, named_damage
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore

WHOLE_BYTES = 1024 * 1024
"""Stored bytes up to which all objects of a state are read whole, and held in memory at once."""
RANGE_BYTES = 2 * 1024 * 1024
"""Stored bytes that one request for a part of an object asks for at most."""
_GAP_BYTES = 64 * 1024
"""Bytes that nobody wants which are read along, since another request costs more."""
_INLINE_BYTES = 256 * 1024
_INLINE_RAW_BYTES = 2 * 1024 * 1024
"""Stored and unpacked bytes up to which a restore runs where it is called: less work than a thread hop."""
_KEPT_BYTES = 8 * 1024 * 1024
"""Bytes of small objects, read whole for their tables, that are held until their pages are written."""
_WRITERS = 2
"""Threads that unpack and write for one restore, so that others find one free."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored file: the round it stands at, its page hashes, and its size."""

    at: RoundEntry
    hashes: PageHashes
    size_bytes: int


class Start(NamedTuple):
    """A file that holds an earlier state of the branch; no connection that writes may have it open."""

    path: Path
    state: Restored


async def restore(
    store: ObjectStore,
    manifest: Manifest,
    txid: int,
    path: Path,
    *,
    executor: Executor,
    fsync: bool,
    start: Start | None = None,
) -> Restored:
    """Write the state of the branch at `txid` to `path`, which must not be open in any connection.

    With `start` it may be made from a copy of that file, where this reads less. Raises ConflictError when
    the txid cannot be restored, CorruptionError, StoreUnavailableError, DiskFullError.
    """
    plan, start = _plan(manifest, txid, start)
    if sum(ref.size_bytes for ref in plan) > WHOLE_BYTES:
        return await _Large(store, manifest, txid, plan, NewFile(path, fsync=fsync), executor, start).run()
    keys = [layout.object_key(manifest.db, ref) for ref in plan]
    blobs = await fetch(store, keys)
    parts = list(map(_part, keys, plan, blobs))

    def work() -> Restored:
        made = assemble(parts, txid, _start_state(start))
        restored = _reached(manifest, txid, made, start)
        with NewFile(path, fsync=fsync) as file:
            file.begin(restored.size_bytes, _copied(start, made, manifest.page_size))
            for number, indexes in made.wanted_of_few().items():
                file.write(parts[number].tables, indexes)
            file.finish()
        return restored

    raw_bytes = sum(part.tables.page_count for part in parts) * manifest.page_size
    if start is None and sum(map(len, blobs)) <= _INLINE_BYTES and raw_bytes <= _INLINE_RAW_BYTES:
        return work()
    return await executor.run(work)


async def round_entry(store: ObjectStore, manifest: Manifest, txid: int) -> tuple[int, str]:
    """Return (wall time in unix ms, database checksum in hex) of the round `txid`, which is restorable."""
    if txid == 0:
        return 0, "0" * 16
    ref = round_ref(manifest, txid)
    if ref.max == txid:
        return ref.last_at, ref.after
    for entry in (await fetch_tables(store, manifest.db, ref)).rounds:
        if entry.txid == txid:
            return entry.at_ms, f"{entry.checksum:016x}"
    if ref.is_thinned:
        raise unrestorable(manifest, txid)
    raise CorruptionError(f"{layout.object_key(manifest.db, ref)} does not hold txid {txid}")


def _plan(manifest: Manifest, txid: int, start: Start | None) -> tuple[tuple[ObjectRef, ...], Start | None]:
    """Return the objects to read, and the start where they apply to it."""
    plan = restore_plan(manifest, txid)
    if start is None or not _holds(start, manifest.page_size):
        return plan, None
    near = plan_from(manifest, start.state.at.txid, txid)
    if near is None or sum(ref.size_bytes for ref in near) > sum(ref.size_bytes for ref in plan):
        return plan, None
    return near, start


def _holds(start: Start, page_size: int) -> bool:
    """Return whether the start's file is there and as long as its state."""
    try:
        return start.path.stat().st_size == len(start.state.hashes) * page_size
    except OSError:
        return False


def _part(key: str, ref: ObjectRef, blob: bytes) -> Part:
    try:
        return Part(key, segment.decode(blob, name_hash=ref.hash), ref.end)
    except CorruptionError as error:
        raise CorruptionError(f"object {key} is damaged: {error}") from error


def _start_state(start: Start | None) -> tuple[int, PageHashes] | None:
    return None if start is None else (start.state.at.txid, start.state.hashes)


def _copied(start: Start | None, made: Assembly, page_size: int) -> tuple[Path, int] | None:
    """Return the file to begin with, and how many of its bytes are still part of the state."""
    return None if start is None else (start.path, made.shortest_pages * page_size)


def _reached(manifest: Manifest, txid: int, made: Assembly, start: Start | None) -> Restored:
    """Return what was made. Raises where it is not the state at `txid`."""
    at = made.at if made.at is not None or start is None else start.state.at
    if at is None or at.txid != txid:
        if round_ref(manifest, txid).is_thinned:
            raise unrestorable(manifest, txid)
        raise CorruptionError(f"the objects of branch {manifest.branch_id} do not hold txid {txid}")
    return Restored(at, made.hashes, at.db_size_pages * manifest.page_size)


class _Large:
    """The restore of a state that is not held in memory."""

    def __init__(
        self,
        store: ObjectStore,
        manifest: Manifest,
        txid: int,
        plan: Sequence[ObjectRef],
        file: NewFile,
        executor: Executor,
        start: Start | None,
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._txid = txid
        self._plan = plan
        self._file = file
        self._executor = executor
        self._start = start
        self._writing = asyncio.Semaphore(_WRITERS)

    async def run(self) -> Restored:
        """Read and write it."""
        uuid, page_size, run = self._manifest.db, self._manifest.page_size, self._executor.run
        room_bytes = _KEPT_BYTES

        async def read_tables(ref: ObjectRef) -> Part:
            nonlocal room_bytes
            tables = await fetch_tables(self._store, uuid, ref)
            room_bytes -= tables.data_bytes
            key = layout.object_key(uuid, ref)
            return Part(key, tables if room_bytes >= 0 else tables.without_data(), ref.end)

        parts = await each_of(self._plan, read_tables)

        def prepare() -> tuple[Restored, list[Indexes]]:
            made = assemble(parts, self._txid, _start_state(self._start))
            restored = _reached(self._manifest, self._txid, made, self._start)
            self._file.begin(restored.size_bytes, _copied(self._start, made, page_size))
            return restored, made.wanted(len(parts))

        try:
            restored, wanted = await run(prepare)
            wants = (
                (part, piece)
                for part, indexes in zip(parts, wanted, strict=True)
                for piece in ranges(part.tables, indexes, most_bytes=RANGE_BYTES, gap_bytes=_GAP_BYTES)
            )
            await each(wants, self._bring)
            await run(self._file.finish)
        except BaseException:
            await run(self._file.abandon)
            raise
        return restored

    async def _bring(self, want: tuple[Part, Range]) -> None:
        """Read one range and write the pages that are wanted from it."""
        part, (start, length, indexes) = want
        stored = None
        if part.tables.data_bytes:
            start = 0
        else:
            stored = await fetch_range(self._store, part.key, start, length)
        async with self._writing:
            with named_damage(part.key):
                await self._executor.run(
                    partial(self._file.write, part.tables, indexes, stored=stored, stored_at=start)
                )
