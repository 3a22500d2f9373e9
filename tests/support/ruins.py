"""A database with an object of every kind, built once, and ways to damage one of them."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import msgspec
import pytest
from harness import node_on
from profiles import BY_HAND, everything, manifest_of, put

from memoturnd.core import compaction, layout, manifest, register
from memoturnd.core.manifest import HistoryPage
from memoturnd.core.retention import Windows
from memoturnd.engine.connection import open_connection
from memoturnd.replication import snapshot
from memoturnd.replication.archive import Archive
from memoturnd.replication.restore import restore
from memoturnd.replication.retention import Retention
from memoturnd.replication.verify import Scope, Verifier
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.executor import InlineExecutor
from memoturnd.stores.memory import MemoryStore

HOUR_MS = 3_600_000
WINDOWS = Windows(fine_ms=24 * HOUR_MS, coarse_ms=30 * 24 * HOUR_MS, grain_ms=6 * HOUR_MS)
KINDS = (
    "segment",
    "joined segment",
    "thinned segment",
    "fork's segment",
    "snapshot",
    "snapshot part",
    "page",
    "run of checkpoints",
    "run of pins",
    "run of branches",
    "manifest",
    "fork's manifest",
    "register",
)


class At(SystemClock):
    """A clock whose wall time stands where the test puts it."""

    def __init__(self):
        self.at_ms = 1_000 * 24 * HOUR_MS

    def now_ms(self):
        return self.at_ms


@dataclass
class City:
    """A store with one database: `states` are key-values by branch and txid, `examples` a key of each kind."""

    store: MemoryStore
    home: Path
    uuid: str
    branches: dict[str, str]
    states: dict[str, dict[int, dict]]
    examples: dict[str, str]
    now_ms: int

    def copied(self):
        """Return the same with a store of its own."""
        store = MemoryStore()
        store._objects = dict(self.store._objects)
        store._writes = self.store._writes
        return City(store, self.home, self.uuid, self.branches, self.states, self.examples, self.now_ms)

    def data(self, key):
        return self.store._objects[key].blob.data

    def write(self, key, data):
        self.store._write(key, data)

    def keys(self):
        return sorted(self.store._objects)

    async def chain(self, branch):
        """Return the branch's manifest with the entries of all pages, as far as they can be read."""
        blob = await self.store.get(layout.manifest_key(self.uuid, self.branches[branch]))
        return manifest.decode(blob.data)

    async def restored(self, branch, txid, folder):
        """Return the key-values of a state, restored as a node would."""
        archive = Archive(self.store, cache_bytes=0)
        current = await archive.reaching(await self.chain(branch), txid)
        path = folder / "past.db"
        await restore(self.store, current, txid, path, executor=InlineExecutor(), fsync=False)
        conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=64)
        try:
            return everything(conn)
        finally:
            conn.close()
            for leftover in folder.glob("past.db*"):
                leftover.unlink()

    async def verified(self, folder, *, branch=None, deep=False, seed="s", store=None):
        """Return (findings, summary) of a verification, and hold its other events to what they may be."""
        events = []

        async def report(event):
            events.append(event)

        scope = Scope(self.uuid, "p", True, self.branches, branch, deep, seed)
        verifier = Verifier(
            scope,
            store or self.store,
            InlineExecutor(),
            folder=folder,
            room=enough_room,
            stopping=Event(),
            clock=SystemClock(),
            report=report,
        )
        summary = await verifier.run()
        assert not list(folder.iterdir()), "restored states are removed"
        return events, summary

    @asynccontextmanager
    async def node(self, folder):
        """Run a node that has nothing but the catalog."""
        shutil.copytree(self.home, folder)
        shutil.rmtree(folder / "dbs", ignore_errors=True)
        clock = At()
        clock.at_ms = self.now_ms
        async with node_on(folder, self.store, clock=clock, **BY_HAND) as node:
            yield node


@asynccontextmanager
async def enough_room(_size_bytes):
    yield True


# ---- damage


def flip_first(city, key):
    _flip(city, key, 0)


def flip_middle(city, key):
    _flip(city, key, len(city.data(key)) // 2)


def flip_last(city, key):
    _flip(city, key, len(city.data(key)) - 1)


def _flip(city, key, at):
    data = bytearray(city.data(key))
    data[at] ^= 0x04
    city.write(key, bytes(data))


def cut_off(city, key):
    city.write(key, city.data(key)[:-20])


def lengthen(city, key):
    city.write(key, city.data(key) + b"\0")


def remove(city, key):
    del city.store._objects[key]


def replace(city, key):
    """Put another object of the same kind in its place, whole as that is."""
    if key.endswith("database.json"):
        known = register.decode(city.data(key))
        city.write(key, register.encode(msgspec.structs.replace(known, uuid="f" * 32)))
        return
    folder = key.rsplit("/", 1)[0]
    same = (lambda other: other.endswith("manifest.json")) if key.endswith("manifest.json") else None
    others = [
        other
        for other in sorted(city.store._objects)
        if other != key and (same(other) if same else other.rsplit("/", 1)[0] == folder)
    ]
    if others:
        city.write(key, city.data(others[0]))
    else:  # the only run of its kind: one with an entry less
        run = msgspec.json.decode(city.data(key))
        run["entries"].popitem()
        city.write(key, msgspec.json.encode(run))


DAMAGE = {
    "a flipped bit in the first byte": flip_first,
    "a flipped bit in the middle": flip_middle,
    "a flipped bit in the last byte": flip_last,
    "cut off": cut_off,
    "longer": lengthen,
    "gone": remove,
    "another of its kind": replace,
}


# ---- building


def build(home):
    """Build the city with its node's files in `home`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "PAGE_ENTRIES", 6)
        patch.setattr(compaction, "SNAPSHOT_MARGIN_BYTES", 0)
        patch.setattr(compaction, "ROUND_COST_BYTES", 0)
        return asyncio.run(_build(home, patch))


async def _build(home, patch):
    store, clock = MemoryStore(), At()
    states = {"main": {}, "own": {}}
    async with node_on(home, store, clock=clock, DRILL_INTERVAL_S="0", **BY_HAND) as node:
        database = await node.databases.create("p")
        main = await node.profile("p")

        async def commit(branch, name, n):
            clock.at_ms += HOUR_MS
            written = await branch.write(put(f"k{n % 7}", f"v{n}" * (1 + n % 90)))
            before = states[name][max(states[name])] if states[name] else {}
            states[name][written.txid] = {**before, f"k{n % 7}": f"v{n}" * (1 + n % 90)}
            await branch.owned.shipper.ship()
            while (job := branch.owned.shipper.compactor.running) is not None:
                await asyncio.wait([job])
                await branch.owned.shipper.ship()

        for n in range(70):
            await commit(main, "main", n)
            if n in {20, 45}:
                await main.owned.shipper.snapshot()
            if n == 32:
                patch.setattr(snapshot, "PART_PAGES", 6)
        services = node._services
        retention = Retention(store, services.archive, InlineExecutor(), clock, services.randomness, WINDOWS)
        await node.branches.checkpoint("p", "main", "early")
        while await retention.apply(main.manifests) == clock.at_ms:
            pass
        for n in range(66):
            await node.branches.create("p", f"f{n:02d}", at=str(main.txid))
            await node.branches.checkpoint("p", "main", f"c{n:02d}")
        await node.branches.create("p", "own", at=str(main.txid))
        own = await node.profile("p", "own")
        states["own"][main.txid] = states["main"][max(states["main"])]
        for n in range(100, 104):
            await commit(own, "own", n)
        for n in range(70, 74):
            await commit(main, "main", n)
        ids = {row.name: row.branch_id for row in await node.branches.list("p")}
        ids["main"] = database.main_branch_id
        current, fork = await manifest_of(store, main), await manifest_of(store, own)
    city = City(store, home, database.uuid, ids, states, {}, clock.at_ms)
    await _only_restorable(city, current)
    city.examples = await _examples(city, current, fork)
    return city


async def _only_restorable(city, current):
    """Drop what retention has thinned away from the model."""
    whole = await Archive(city.store, cache_bytes=0).whole(current)
    archive = Archive(city.store)
    for txid in list(city.states["main"]):
        if manifest.contains(whole, txid) and not manifest.round_ref(whole, txid).is_thinned:
            continue
        ref = manifest.round_ref(whole, txid) if manifest.contains(whole, txid) else None
        rounds = await archive.rounds(city.uuid, ref) if ref is not None else ()
        if all(entry.txid != txid for entry in rounds):
            del city.states["main"][txid]


async def _examples(city, current, fork):
    uuid = city.uuid
    known = register.decode(city.data(layout.register_key(uuid)))
    whole = await Archive(city.store, cache_bytes=0).whole(current)
    key = lambda ref: layout.object_key(uuid, ref)  # noqa: E731 - a name for one call
    segments = [ref for ref in whole.segments if not ref.rounds]
    pages = [
        (ref, msgspec.json.decode(city.data(layout.page_key(uuid, ref)), type=HistoryPage))
        for ref in current.pages
    ]
    return {
        "segment": key(next(ref for ref in reversed(segments) if ref.min == ref.max)),
        "joined segment": key(next(ref for ref in segments if ref.max > ref.min)),
        "thinned segment": key(next(ref for ref in whole.segments if ref.is_thinned)),
        "fork's segment": key(fork.segments[-2]),
        "snapshot": key(next(ref for ref in whole.snapshots if not ref.first_page)),
        "snapshot part": key(next(ref for ref in whole.snapshots if ref.first_page > 1)),
        "page": layout.page_key(uuid, pages[0][0]),
        "run of checkpoints": layout.run_key(uuid, current.checkpoint_runs[0], "checkpoints"),
        "run of pins": layout.run_key(uuid, current.pin_runs[0], "pins"),
        "run of branches": layout.run_key(uuid, known.branch_runs[0], "branches"),
        "manifest": layout.manifest_key(uuid, current.branch_id),
        "fork's manifest": layout.manifest_key(uuid, fork.branch_id),
        "register": layout.register_key(uuid),
    }
