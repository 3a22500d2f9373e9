"""A prototype, measured and not part of the product: a past state that is read while it is being restored.

SQLite opens the state through a VFS of our own. A page that is asked for and not here yet is read from its
object by range, proven, and written into the file; the whole state is brought behind it meanwhile. Against
it stands what the product does: the whole restore first, then SQLite's own VFS.
"""

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw
import numpy as np

from bench.big import MEASURED, fill, opened
from bench.buckets import Backing, backings
from bench.machine import watched
from bench.nodes import node_here, temporary_folder
from bench.stats import Table, duration, percentile
from memoturnd.core import layout
from memoturnd.core.assembly import Part, assemble, ranges
from memoturnd.core.manifest import Manifest, ObjectRef, restore_plan
from memoturnd.core.segment import PAGES_PER_BLOCK
from memoturnd.replication.ranged import each, each_of, fetch_range, fetch_tables
from memoturnd.replication.restore import RANGE_BYTES, restore
from memoturnd.seams.executor import PoolExecutor
from memoturnd.seams.object_store import ObjectStore

_SIZES_MB: Final = (16, 100, 1000)
_QUICK_MB: Final = (2, 8)
_READ_AHEAD_BYTES: Final = 256 * 1024
_FETCH_S: Final = 10.0
_TAKES: Final = 5
_VFS: Final = "memoturn-lazy"
_COLUMNS: Final = (
    "store",
    "file",
    "restored: first key",
    "then 20 keys",
    "then all of it",
    "lazy: first key",
    "then 20 keys",
    "then all of it",
    "lazy, nothing behind: all of it",
    "whole file here: plain / lazy",
)
_ONE_KEY: Final = "SELECT v FROM __memoturn_kv WHERE ns = 'ns' AND k = ?"
_ALL: Final = "SELECT count(*), max(hex(substr(v, length(v), 1))) FROM __memoturn_kv"


class LazyState:
    """A state at `path`, of which only those pages are there that were asked for, or that came behind."""

    def __init__(self, store: ObjectStore, manifest: Manifest, txid: int, path: Path) -> None:
        self._store = store
        self._manifest = manifest
        self._txid = txid
        self.path = path
        self._loop = asyncio.get_running_loop()
        self._parts: list[Part] = []
        self._where = np.zeros(0, dtype=np.uint64)
        self.size_bytes = 0
        self.page_size = manifest.page_size
        self._fd = -1
        self.here = bytearray()
        """1 for each page that is in the file, page 1 first."""
        self.asked = 0
        """Requests that a read had to wait for."""

    async def open(self) -> None:
        """Read the tables and make the file, as large as the state and empty."""
        uuid = self._manifest.db

        async def one(ref: ObjectRef) -> Part:
            tables = await fetch_tables(self._store, uuid, ref)
            return Part(layout.object_key(uuid, ref), tables.without_data(), ref.end)

        self._parts = await each_of(restore_plan(self._manifest, self._txid), one)
        made = await asyncio.to_thread(assemble, self._parts, self._txid)
        assert made.at is not None
        self._where = np.frombuffer(made.where, dtype=np.uint64)
        self.here = bytearray((self._where == 0).astype(np.uint8).tobytes())
        self._wanted = made.wanted(len(self._parts))
        self.size_bytes = made.at.db_size_pages * self.page_size
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.ftruncate(self._fd, self.size_bytes)

    def read(self, length: int, at: int) -> bytes:
        """Return bytes of the state; called by SQLite, in a thread that may wait for the store."""
        first, last = at // self.page_size, (at + length - 1) // self.page_size
        for page in range(first, min(last + 1, len(self.here))):
            if not self.here[page]:
                self._bring_around(page)
        return os.pread(self._fd, length, at)

    def _bring_around(self, page: int) -> None:
        """Bring the block that has a page, and what lies behind it in the same object, up to some hundred KiB."""
        number, index = (int(self._where[page]) >> 32) - 1, int(self._where[page]) & 0xFFFFFFFF
        tables, indexes = self._parts[number].tables, self._wanted[number]
        first = last = index // PAGES_PER_BLOCK
        blocks = -(-tables.page_count // PAGES_PER_BLOCK)
        while last + 1 < blocks and tables.span(first, last + 1)[1] <= _READ_AHEAD_BYTES:
            last += 1
        begin, end = np.searchsorted(indexes, [first * PAGES_PER_BLOCK, (last + 1) * PAGES_PER_BLOCK])
        start, length = tables.span(first, last)
        part = self._parts[number]
        waited = asyncio.run_coroutine_threadsafe(
            fetch_range(self._store, part.key, start, length), self._loop
        )
        self.asked += 1
        self._write(number, indexes[begin:end].tolist(), waited.result(_FETCH_S), start)

    async def bring_all(self, executor: PoolExecutor) -> None:
        """Bring everything that is not here yet."""
        pieces = (
            (number, piece)
            for number, part in enumerate(self._parts)
            for piece in ranges(part.tables, self._wanted[number], most_bytes=RANGE_BYTES, gap_bytes=65536)
        )

        async def bring(item: tuple[int, Any]) -> None:
            number, (start, length, indexes) = item
            stored = await fetch_range(self._store, self._parts[number].key, start, length)
            await executor.run(lambda: self._write(number, indexes, stored, start))

        await each(pieces, bring)

    def _write(self, number: int, indexes: list[int], stored: bytes, start: int) -> None:
        for pgno, image in self._parts[number].tables.numbered_images(indexes, stored, start):
            os.pwrite(self._fd, image, (pgno - 1) * self.page_size)
            self.here[pgno - 1] = 1

    def close(self) -> None:
        """Close and remove the file."""
        os.close(self._fd)
        self.path.unlink()


class _LazyVfs(apsw.VFS):
    """Opens the states that were put into `states`, by path."""

    def __init__(self) -> None:
        super().__init__(_VFS, "")
        self.states: dict[str, LazyState] = {}

    def xOpen(self, name: Any, flags: list[int]) -> "_LazyVfsFile":  # noqa: N802 - SQLite's name
        return _LazyVfsFile(self.states[name.filename() if hasattr(name, "filename") else name], flags)


class _LazyVfsFile:
    """What SQLite reads; it never writes, locks or syncs an immutable file."""

    def __init__(self, state: LazyState, _flags: list[int]) -> None:
        self._state = state

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return self._state.read(amount, offset)

    def xFileSize(self) -> int:  # noqa: N802
        return self._state.size_bytes

    def xClose(self) -> None:  # noqa: N802
        return

    def xFileControl(self, _op: int, _pointer: int) -> bool:  # noqa: N802
        return False

    def xSectorSize(self) -> int:  # noqa: N802
        return 4096

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xLock(self, _level: int) -> None:  # noqa: N802
        return

    def xUnlock(self, _level: int) -> None:  # noqa: N802
        return

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xSync(self, _flags: int) -> None:  # noqa: N802
        return


_vfs = _LazyVfs()


def _connect(path: Path, vfs: str | None) -> apsw.Connection:
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI
    uri = f"file:{path}?immutable=1"
    return apsw.Connection(uri, flags=flags, **({"vfs": vfs} if vfs else {}))


@dataclass(slots=True)
class _Times:
    """Seconds from the wish to read on: to the first key, to 20 more, to all of it."""

    first_s: float
    keys_s: float
    all_s: float


def _read(conn: apsw.Connection, keys: int, start_s: float, *, whole: bool = True) -> _Times:
    """Read one key, then 20 others, then all; runs in a thread."""
    rng = random.Random(5)
    names = [f"k{rng.randrange(keys)}" for _ in range(21)]
    assert conn.execute(_ONE_KEY, (names[0],)).fetchall()
    first_s = time.perf_counter() - start_s
    for name in names[1:]:
        assert conn.execute(_ONE_KEY, (name,)).fetchall()
    keys_s = time.perf_counter() - start_s
    if whole:
        assert conn.execute(_ALL).fetchall()[0][0] >= keys
    return _Times(first_s, keys_s, time.perf_counter() - start_s)


async def _restored(
    store: ObjectStore, current: Manifest, folder: Path, keys: int, pool: PoolExecutor
) -> _Times:
    path = folder / "restored.db"
    start_s = time.perf_counter()
    await restore(store, current, current.head_txid, path, executor=pool, fsync=False)

    def work() -> _Times:
        conn = _connect(path, None)
        try:
            return _read(conn, keys, start_s)
        finally:
            conn.close()

    try:
        return await pool.run(work)
    finally:
        path.unlink()


async def _lazy(
    store: ObjectStore, current: Manifest, folder: Path, keys: int, pool: PoolExecutor, *, behind: bool
) -> tuple[_Times, float]:
    """Return the times of a lazy read, and what reading all of it takes once everything is here."""
    path = folder / "lazy.db"
    start_s = time.perf_counter()
    state = LazyState(store, current, current.head_txid, path)
    await state.open()
    _vfs.states[str(path)] = state
    bringing = asyncio.create_task(state.bring_all(pool)) if behind else None

    def work(begun_s: float) -> _Times:
        conn = _connect(path, _VFS)
        try:
            return _read(conn, keys, begun_s)
        finally:
            conn.close()

    times = await pool.run(lambda: work(start_s))
    if bringing is not None:
        await bringing
    assert all(state.here) or not behind
    again_s = time.perf_counter()
    again = await pool.run(lambda: work(again_s))
    del _vfs.states[str(path)]
    state.close()
    return times, again.all_s


async def _plain(store: ObjectStore, current: Manifest, folder: Path, keys: int, pool: PoolExecutor) -> float:
    """Return what reading all of a file takes that is here, through SQLite's own VFS."""
    path = folder / "plain.db"
    await restore(store, current, current.head_txid, path, executor=pool, fsync=False)

    def work() -> _Times:
        conn = _connect(path, None)
        try:
            return _read(conn, keys, time.perf_counter())
        finally:
            conn.close()

    await pool.run(work)
    times = await pool.run(work)
    path.unlink()
    return times.all_s


def _middle(samples: list[float]) -> str:
    return duration(percentile(samples, 0.5))


async def _one(name: str, store: ObjectStore, folder: Path, size_mb: int) -> list[str]:
    async with node_here(folder, sync="normal", store=store) as node:
        await node.databases.create("big")
        profile = await node.profile("big")
        keys = await fill(node, profile, size_mb)
        assert profile.owned is not None
        await profile.owned.shipper.snapshot()
        current = await profile.manifests.load(fresh=True)
    assert current is not None
    pool = PoolExecutor(4)
    eager = [await _restored(store, current, folder, keys, pool) for _ in range(_TAKES)]
    lazy = [await _lazy(store, current, folder, keys, pool, behind=True) for _ in range(_TAKES)]
    alone = [await _lazy(store, current, folder, keys, pool, behind=False) for _ in range(2)]
    plain_s = await _plain(store, current, folder, keys, pool)
    pool.close()
    size_bytes = sum(ref.size_bytes for ref in restore_plan(current, current.head_txid))
    return [
        name,
        f"{size_mb} MB, {size_bytes / 1e6:.0f} MB stored",
        _middle([t.first_s for t in eager]),
        _middle([t.keys_s for t in eager]),
        _middle([t.all_s for t in eager]),
        _middle([t.first_s for t, _ in lazy]),
        _middle([t.keys_s for t, _ in lazy]),
        _middle([t.all_s for t, _ in lazy]),
        _middle([t.all_s for t, _ in alone]),
        f"{duration(plain_s)} / {_middle([again_s for _, again_s in lazy])}",
    ]


async def _all(found: Sequence[Backing], sizes_mb: Sequence[int]) -> list[list[str]]:
    rows = []
    for backing in found:
        for size_mb in sizes_mb:
            with temporary_folder() as folder:
                async with opened(backing) as store:
                    rows.append(await _one(backing.name, store, folder, size_mb))
            print(" | ".join(rows[-1]), flush=True)
    return rows


def measure(run: Callable[[Any], Any], *, quick: bool) -> list[Table]:
    """Return the table of lazy reads. `run` runs a coroutine on the event loop to use."""
    with backings() as found, watched() as busy:
        rows = run(_all(found.all[:MEASURED], _QUICK_MB if quick else _SIZES_MB))
    notes = [
        (
            f"The median of {_TAKES}. Times count from the wish to read a state of which nothing is here. A key's value is "
            "256 KiB. `nothing behind` is the lazy read without the restore of the rest beside it; `whole file here` is "
            "20 keys and all of it once more."
        ),
        *found.notes,
        f"{busy}.",
    ]
    return [Table("Lazy reads of past states: a prototype", _COLUMNS, rows, notes)]
