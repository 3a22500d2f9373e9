"""States restored to see that they can be: a sample each by itself, or all of them one on top of the other.

A sampled state is made like a wake makes it. To make all of them, each base is restored once and the rounds
behind it are written into the same file one by one, which is what restoring each would have read.
"""

import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from threading import Event

import apsw
import numpy as np

from memoturnd.core import layout
from memoturnd.core.assembly import Range, ranges
from memoturnd.core.manifest import Manifest, ObjectRef
from memoturnd.core.segment import RoundEntry, Segment
from memoturnd.core.verification import TxidRange, is_lost
from memoturnd.engine import schema
from memoturnd.engine.connection import open_immutable
from memoturnd.errors import DiskFullError, MemoturnError, RetryableError
from memoturnd.replication.new_file import write_images
from memoturnd.replication.ranged import fetch_range, fetch_tables
from memoturnd.replication.restore import RANGE_BYTES, restore
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore

_GAP_BYTES = 64 * 1024
_CACHE_KIB = 2048
_STEPS_PER_LOOK = 50_000
Room = Callable[[int], AbstractAsyncContextManager[bool]]
"""Takes so many bytes of the disk's budget while it is held; False where they are not to be had."""
Tell = Callable[[int, str], Awaitable[None]]
"""Takes a txid whose state is not right, and why; called with a good one and an empty text, too."""


class States:
    """Restores states of one database into `folder`, one at a time. `restored` counts them."""

    def __init__(
        self, store: ObjectStore, executor: Executor, *, folder: Path, room: Room, stopping: Event
    ) -> None:
        self.restored = 0
        self._stopping = stopping
        self._store = store
        self._executor = executor
        self._path = folder / "state.db"
        self._room = room

    async def one(self, chain: Manifest, txid: int, size_bytes: int) -> str | None:
        """Restore the state at `txid` and return what SQLite finds wrong with it, None where nothing.

        Raises CorruptionError, ConflictError, StoreUnavailableError, DiskFullError.
        """
        async with self._room(size_bytes) as fits:
            if not fits:
                raise no_room(chain, txid, size_bytes)
            try:
                await restore(self._store, chain, txid, self._path, executor=self._executor, fsync=False)
                self.restored += 1
                return await self._executor.run(
                    partial(inspect, self._path, txid, self._stopping, whole=False)
                )
            finally:
                self._path.unlink(missing_ok=True)

    async def all(
        self, chain: Manifest, lost: list[TxidRange], above_txid: int, size_bytes: int, tell: Tell
    ) -> None:
        """Make every state above `above_txid` and let SQLite check it; none is above `size_bytes`.

        Raises what `one` does.
        """
        async with self._room(size_bytes) as fits:
            if not fits:
                raise no_room(chain, chain.head_txid, size_bytes)
            fd = -1
            try:
                for base, segments in _runs(chain, above_txid):
                    if is_lost(base, lost):
                        continue
                    if fd >= 0:
                        os.close(fd)
                    self._path.unlink(missing_ok=True)
                    if base:
                        await restore(
                            self._store, chain, base, self._path, executor=self._executor, fsync=False
                        )
                    fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    if base > above_txid:
                        await self._look(base, tell)
                    await self._go_on(chain, fd, base, segments, lost, above_txid, tell)
            finally:
                if fd >= 0:
                    os.close(fd)
                self._path.unlink(missing_ok=True)

    async def _go_on(
        self,
        chain: Manifest,
        fd: int,
        base: int,
        segments: list[tuple[ObjectRef, int]],
        lost: list[TxidRange],
        above_txid: int,
        tell: Tell,
    ) -> None:
        """Write the rounds of `segments`, each up to its txid, into the file that holds the state at `base`."""
        for ref, until in segments:
            if is_lost(until, lost) or is_lost(max(ref.min, base + 1), lost):
                return
            tables = await fetch_tables(self._store, chain.db, ref)
            first = 0
            for entry in tables.rounds:
                if base < entry.txid <= until:
                    await self._write(fd, layout.object_key(chain.db, ref), tables, first, entry)
                    if entry.txid > above_txid:
                        await self._look(entry.txid, tell)
                first += entry.pages

    async def _write(self, fd: int, key: str, tables: Segment, first: int, entry: RoundEntry) -> None:
        try:
            os.ftruncate(fd, entry.db_size_pages * tables.page_size)
            inside = [
                first + number
                for number, (pgno, _) in enumerate(tables.page_entries(first, entry.pages))
                if pgno <= entry.db_size_pages
            ]
            if tables.data_bytes:
                await self._executor.run(partial(write_images, fd, tables, inside))
                return
            for piece in _ranges(tables, inside):
                stored = await fetch_range(self._store, key, piece.start, piece.length)
                await self._executor.run(
                    partial(write_images, fd, tables, piece.indexes, stored, piece.start)
                )
        except OSError as error:
            raise DiskFullError(f"writing {self._path} failed: {error.strerror}; make room") from error

    async def _look(self, txid: int, tell: Tell) -> None:
        self.restored += 1
        wrong = await self._executor.run(partial(inspect, self._path, txid, self._stopping, whole=True))
        await tell(txid, wrong or "")


def inspect(path: Path, txid: int, stopping: Event, *, whole: bool) -> str | None:
    """Return what is wrong with the restored file at `path`, by SQLite's integrity check, or its quick one.

    Raises RetryableError when the node stops meanwhile.
    """
    try:
        conn = open_immutable(path, cache_kib=_CACHE_KIB)
        try:
            found = schema.read_meta(conn).txid
            if found != txid:
                return f"the file carries txid {found}"
            conn.set_progress_handler(stopping.is_set, _STEPS_PER_LOOK)
            pragma = "integrity_check(3)" if whole else "quick_check(3)"
            said = [str(row[0]) for row in conn.execute(f"PRAGMA {pragma}", can_cache=False)]
        finally:
            conn.close()
    except apsw.InterruptError as error:
        raise RetryableError("the node is stopping; verify again") from error
    except (apsw.Error, MemoturnError) as error:
        return f"SQLite cannot read it: {error}"
    return None if said == ["ok"] else f"SQLite finds: {'; '.join(said)}"


def no_room(chain: Manifest, txid: int, size_bytes: int) -> DiskFullError:
    """Return the error for a state that the disk's budget has no room for."""
    return DiskFullError(
        f"the state of branch {chain.branch} at txid {txid} takes {size_bytes} bytes, for which there is no room "
        "in MEMOTURN_DISK_BUDGET_BYTES; raise it, or verify on a node with more"
    )


def _runs(chain: Manifest, above_txid: int) -> Iterator[tuple[int, list[tuple[ObjectRef, int]]]]:
    """Yield (txid of a base, segments behind it with the txid up to which they lead to the next base)."""
    bases = sorted({ref.end for ref in chain.snapshots})
    if chain.segments and chain.segments[0].prev == 0:
        bases.insert(0, 0)
    for number, base in enumerate(bases):
        following = bases[number + 1] if number + 1 < len(bases) else chain.head_txid + 1
        if following <= above_txid:
            continue
        behind = [ref for ref in chain.segments if ref.end > base and ref.min < following]
        yield base, [(ref, min(ref.end, following - 1)) for ref in behind]


def _ranges(tables: Segment, indexes: list[int]) -> Iterator[Range]:
    wanted = np.array(indexes, dtype=np.uint64)
    return ranges(tables, wanted, most_bytes=RANGE_BYTES, gap_bytes=_GAP_BYTES)
