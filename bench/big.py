"""Large profiles: what a small change, a snapshot and a restore cost at 10 MB, 100 MB and 1 GB.

On an object store in a local directory, and on MinIO through the default client where MinIO can be had.
"""

import asyncio
import ctypes
import gc
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.buckets import Backing, backings
from bench.machine import watched
from bench.nodes import node_here, temporary_folder
from bench.stats import Table, duration, percentile
from memoturnd.core.manifest import Manifest
from memoturnd.engine.branch import Branch
from memoturnd.node import Node
from memoturnd.replication.restore import restore
from memoturnd.seams.catalog import MAIN
from memoturnd.seams.executor import PoolExecutor
from memoturnd.seams.object_store import ObjectStore
from memoturnd.stores.open import open_store
from memoturnd.surfaces import kv

_SIZES_MB: Final = (10, 100, 1000)
_QUICK_MB: Final = (2, 8)
_VALUE_BYTES: Final = 256 * 1024
_WRITES: Final = 50
_PAUSE_S: Final = 0.005
MEASURED: Final = 2
"""Stores of `backings` that are measured: what comes behind differs by the client only."""
_COLUMNS: Final = (
    "store",
    "file",
    "objects",
    "write + ship p50",
    "p99",
    "snapshot",
    "its parts",
    "local write p50 / p99 / max meanwhile",
    "durable write p50 / p99 / max meanwhile",
    "its memory",
    "restore",
    "its memory",
)


@dataclass(slots=True)
class _Seen:
    """What one size cost: seconds and bytes."""

    file_bytes: int = 0
    object_bytes: int = 0
    ships_s: list[float] = field(default_factory=list)
    snapshot_s: float = 0.0
    parts: int = 0
    local_s: list[float] = field(default_factory=list)
    durable_s: list[float] = field(default_factory=list)
    snapshot_bytes: int = 0
    restore_s: float = 0.0
    restore_bytes: int = 0

    def cells(self, store: str) -> list[str]:
        return [
            store,
            _size(self.file_bytes),
            _size(self.object_bytes),
            duration(percentile(self.ships_s, 0.5)),
            duration(percentile(self.ships_s, 0.99)),
            duration(self.snapshot_s),
            str(self.parts),
            _spread(self.local_s),
            _spread(self.durable_s),
            _size(self.snapshot_bytes),
            duration(self.restore_s),
            _size(self.restore_bytes),
        ]


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:,.1f} MB"


def _spread(samples: list[float]) -> str:
    return " / ".join(duration(percentile(samples, p)) for p in (0.5, 0.99, 1.0)) if samples else "-"


class Peak:
    """How much more memory the process holds at its peak than when this began, from Linux's VmHWM."""

    def __init__(self) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # else what earlier work has freed hides what this takes
        Path("/proc/self/clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def grown_bytes(self) -> int:
        """Return the growth so far."""
        return max(0, self._read("VmHWM") - self._before)

    @staticmethod
    def _read(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def value(rng: random.Random) -> bytes:
    """Return a value half of which does not compress, as embeddings do not and text does."""
    words = [rng.randbytes(6).hex() for _ in range(200)]
    text = " ".join(rng.choices(words, k=_VALUE_BYTES // 26)).encode()
    return rng.randbytes(_VALUE_BYTES - len(text)) + text


async def fill(node: Node, profile: Branch, size_mb: int) -> int:
    """Write values until the profile has the size, ship them, and return how many keys there are."""
    rng = random.Random(size_mb)
    keys = size_mb * 1_000_000 // _VALUE_BYTES
    for n in range(keys):
        await kv.put(profile, "ns", f"k{n}", value(rng))
        if n % 32 == 0:
            await node.branches.sync(profile.ref.database.name, MAIN)
    await node.branches.sync(profile.ref.database.name, MAIN)
    return keys


async def _snapshot(node: Node, profile: Branch, seen: _Seen) -> Manifest:
    """Put a snapshot while one stream of local writes and one of durable writes go on."""
    assert profile.owned is not None
    running = True

    async def write(samples: list[float], *, durable: bool) -> None:
        n = 0
        await asyncio.sleep(_PAUSE_S)  # let the snapshot begin
        while running:
            await asyncio.sleep(_PAUSE_S)
            start_s = time.perf_counter()
            await kv.put(profile, "small", f"{durable}{n % 100}", b"v" * 100)
            if durable:
                await node.branches.sync(profile.ref.database.name, MAIN)
            samples.append(time.perf_counter() - start_s)
            n += 1

    peak = Peak()
    writers = [
        asyncio.create_task(write(seen.local_s, durable=False)),
        asyncio.create_task(write(seen.durable_s, durable=True)),
    ]
    start_s = time.perf_counter()
    shipper = profile.owned.shipper
    async with shipper.compactor.held():
        await shipper._snapshot_beside_writes()  # noqa: SLF001 - what the compactor runs when one is due
    seen.snapshot_s = time.perf_counter() - start_s
    running = False
    await asyncio.gather(*writers)
    await node.branches.sync(profile.ref.database.name, MAIN)  # its swap names the snapshot
    seen.snapshot_bytes = peak.grown_bytes()
    current = await profile.manifests.load(fresh=True)
    assert current is not None
    last = current.snapshots[-1].max
    parts = [ref for ref in current.snapshots if ref.max == last]
    seen.parts, seen.object_bytes = len(parts), sum(ref.size_bytes for ref in parts)
    return current


async def _restore(store: ObjectStore, current: Manifest, folder: Path, seen: _Seen) -> None:
    """Restore the newest snapshot's state to a file."""
    executor = PoolExecutor(4)
    target = folder / "restored.db"
    peak = Peak()
    start_s = time.perf_counter()
    restored = await restore(
        store, current, current.snapshots[-1].max, target, executor=executor, fsync=False
    )
    seen.restore_s = time.perf_counter() - start_s
    seen.restore_bytes = peak.grown_bytes()
    executor.close()
    seen.file_bytes = restored.size_bytes
    target.unlink()


async def _one(store: ObjectStore, folder: Path, size_mb: int) -> _Seen:
    seen = _Seen()
    async with node_here(folder, sync="normal", store=store) as node:
        await node.databases.create("big")
        profile = await node.profile("big")
        await fill(node, profile, size_mb)
        for n in range(_WRITES):
            start_s = time.perf_counter()
            await kv.put(profile, "small", f"s{n}", b"v" * 100)
            await node.branches.sync("big", MAIN)
            seen.ships_s.append(time.perf_counter() - start_s)
        current = await _snapshot(node, profile, seen)
        await _restore(store, current, folder, seen)
    return seen


@asynccontextmanager
async def opened(backing: Backing) -> AsyncIterator[ObjectStore]:
    """Open a fresh place in a store in this process."""
    os.environ |= backing.environment
    store = open_store(backing.fresh().url)
    try:
        yield store
    finally:
        await store.close()


async def _all(found: Sequence[Backing], sizes_mb: Sequence[int]) -> list[list[str]]:
    rows = []
    for backing in found:
        for size_mb in sizes_mb:
            with temporary_folder() as folder:
                async with opened(backing) as store:
                    seen = await _one(store, folder, size_mb)
            rows.append(seen.cells(backing.name))
            print(" | ".join(rows[-1]), flush=True)
    return rows


def measure(run: Callable[[Any], Any], *, quick: bool) -> list[Table]:
    """Return the table of large profiles. `run` runs a coroutine on the event loop to use."""
    with backings() as found, watched() as busy:
        rows = run(_all(found.all[:MEASURED], _QUICK_MB if quick else _SIZES_MB))
    notes = [
        (
            "One profile of 256 KiB key-values, half of whose bytes do not compress. `write + ship`: one key of 100 bytes "
            f"written and synced, {_WRITES} times. `snapshot`: of the whole file, while one stream of local and one of "
            "durable writes go on, each 5 ms after the one before. `restore`: that snapshot to a file, without fsync. "
            "Memory is the growth of the process's peak resident size; objects are those of the snapshot."
        ),
        *found.notes,
        f"{busy}.",
    ]
    return [Table("Large profiles", _COLUMNS, rows, notes)]
