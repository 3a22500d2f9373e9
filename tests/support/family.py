"""A database in a store, without a node: its steps are taken one by one, so that a test can put a pass between any two."""

import hashlib

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.core import garbage, layout, manifest
from memoturnd.core import register as registers
from memoturnd.core.manifest import Checkpoint, Manifest, ObjectRef, Pin
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.errors import StoreUnavailableError
from memoturnd.metrics import Metrics
from memoturnd.replication.archive import BRANCHES, CHECKPOINTS, PINS, Archive, update_names
from memoturnd.replication.collector import Collector, Graces
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import SystemRandomness
from memoturnd.seams.executor import InlineExecutor
from memoturnd.seams.object_store import ObjectMissingError
from memoturnd.stores.memory import MemoryStore

UUID = "0" * 32
GRACE_S = 600
DELETE_GRACE_S = 86_400


class Sizes:
    """Keeps what the collector says of what databases store. Implements memoturnd.replication.collector.Sizes."""

    def __init__(self):
        self.begun = 0
        self.heard = []

    def listing(self, uuid):
        self.begun += 1

    def listed(self, uuid, size_bytes):
        self.heard.append(size_bytes)


class MovedClock:
    """Time that passes only when a test, or somebody who sleeps, says so."""

    def __init__(self, at_s=1_000_000.0):
        self.at_s = at_s

    def now_ms(self):
        return round(self.at_s * 1000)

    def monotonic_s(self):
        return self.at_s

    async def sleep(self, seconds):
        self.at_s += seconds


class Watched:
    """A store that lets a test act before the n-th request, of those made through it."""

    def __init__(self, inner):
        self.inner = inner
        self.requests = 0
        self.before = {}
        self.is_cut = False

    def cut(self, at):
        """Let the request `at`, and every later one, fail: whoever uses this store ends there."""

        async def act():
            self.is_cut = True

        self.before[at] = act

    async def _step(self):
        self.requests += 1
        act = self.before.pop(self.requests, None)
        if act is not None:
            await act()
        if self.is_cut:
            raise StoreUnavailableError("cut off")

    def __getattr__(self, name):
        async def request(*args):
            await self._step()
            return await getattr(self.inner, name)(*args)

        return request

    async def list(self, prefix):
        await self._step()
        async for info in self.inner.list(prefix):
            yield info


class Family:
    """One database with branch `main`, the collector for it, and what happens to branches."""

    def __init__(self, *, graces=None, store_clock=None):
        self.clock = MovedClock()
        self.store = MemoryStore(store_clock or self.clock)
        self.catalog = SqliteCatalog(":memory:")
        self.metrics = Metrics()
        self.graces = graces or Graces(GRACE_S * 1000, DELETE_GRACE_S * 1000)
        self.archive = Archive(self.store, clock=self.clock)
        self.main = "f" * 16
        self.serial = 0
        self.sizes = Sizes()
        self.is_busy = False

    async def begin(self):
        new = Register(uuid=UUID, name="db", created_at=1, branches={"main": RegisteredBranch(self.main, 1)})
        await self.register().create(new)
        first = Manifest(db=UUID, branch_id=self.main, branch="main", created_at=1)
        await self.manifest(self.main).create(first)
        return self

    def collector(self, store=None, clock=None):
        store = store or self.store
        return Collector(
            store,
            Archive(store),
            self.catalog,
            register_file=lambda uuid: self.register(store),
            manifest_file=lambda uuid, branch_id: self.manifest(branch_id, store),
            graces=self.graces,
            clock=clock or self.clock,
            randomness=SystemRandomness(),
            executor=InlineExecutor(),
            metrics=self.metrics,
            sizes=self.sizes,
            is_busy=lambda: self.is_busy,
        )

    def collect(self, store=None, clock=None):
        return self.collector(store, clock).collect(UUID)

    def later(self, seconds):
        self.clock.at_s += seconds

    # ---- documents

    def register(self, store=None):
        return self._file(layout.register_key(UUID), registers, store)

    def manifest(self, branch_id, store=None):
        return self._file(layout.manifest_key(UUID, branch_id), manifest, store)

    def _file(self, key, module, store):
        return SwapFile(
            store or self.store,
            key,
            encode=module.encode,
            decode=module.decode,
            randomness=SystemRandomness(),
            clock=self.clock,
        )

    async def standing(self, branch_id=None):
        return await self.manifest(branch_id or self.main).load()

    async def branches(self):
        return await self.archive.all(BRANCHES, await self.register().load())

    async def keys(self, part=""):
        return {info.key async for info in self.store.list(layout.database_prefix(UUID)) if part in info.key}

    async def lost(self):
        """Return what a registered branch names and the store does not have."""
        return await self.named() - await self.keys()

    async def remembered(self):
        """Return the keys that a pass has marked and not deleted yet."""
        try:
            known = garbage.decode((await self.store.get(layout.garbage_key(UUID))).data)
        except ObjectMissingError:
            return set()
        return {layout.database_prefix(UUID) + key for mark in known.marks for key in mark.keys}

    async def named(self):
        """Return the keys of all objects, pages and runs that a registered branch names."""
        archive, named = Archive(self.store), set()
        for branch in (await archive.all(BRANCHES, await self.register().load())).values():
            current = await self.standing(branch.id)
            if current is not None:
                for page in current.pages:
                    named.add(layout.page_key(UUID, page))
                whole = await archive.whole(current)
                named |= {layout.object_key(UUID, ref) for ref in whole.objects}
                named |= {layout.run_key(UUID, run, "checkpoints") for run in current.checkpoint_runs}
                named |= {layout.run_key(UUID, run, "pins") for run in current.pin_runs}
        return named

    # ---- an owner's steps

    async def upload(self, branch_id=None, *, kind="segment"):
        """Put the next object of a branch, which nothing names yet, and return its ref."""
        branch_id = branch_id or self.main
        head = (await self.standing(branch_id)).head_txid
        self.serial += 1
        data = f"{kind} {self.serial}".encode()
        ref = ObjectRef(
            kind=kind,
            branch=branch_id,
            prev=head if kind == "segment" else 0,
            min=head + 1 if kind == "segment" else head,
            max=head + 1 if kind == "segment" else head,
            epoch=0,
            hash=hashlib.sha256(data).hexdigest()[:32],
            size_bytes=len(data),
            first_at=self.clock.now_ms(),
            last_at=self.clock.now_ms(),
            after="0" * 16,
        )
        await self.store.put(layout.object_key(UUID, ref), data)
        return ref

    async def name(self, ref):
        """Let the branch's manifest name an uploaded object."""

        def change(current):
            if ref.kind == "snapshot":
                return manifest.add_snapshot(current, (ref,), epoch=current.epoch)
            return manifest.append_segments(current, (ref,), epoch=current.epoch)

        await self.manifest(ref.branch).update(change)
        return ref

    async def ship(self, branch_id=None):
        return await self.name(await self.upload(branch_id))

    async def drop_history(self, branch_id=None):
        """Put a snapshot of the head, and let go of everything before it."""
        branch_id = branch_id or self.main
        ref = await self.name(await self.upload(branch_id, kind="snapshot"))
        await self.manifest(branch_id).update(
            lambda m: manifest.replace(m, snapshots=(ref,), segments=(), pages=())
        )

    async def archive_history(self, branch_id=None):
        """Move the branch's own entries, but for the last, into a history page."""
        branch_id = branch_id or self.main
        current = await self.standing(branch_id)
        old, rest = current.segments[:-1], current.segments[-1:]
        if not old:
            return
        page = await self.archive.write_page(UUID, branch_id, (), old)
        await self.manifest(branch_id).update(
            lambda m: manifest.replace(m, segments=rest, pages=(*m.pages, page))
        )

    async def checkpoints(self, count, branch_id=None):
        for number in range(count):
            await update_names(
                self.archive,
                CHECKPOINTS,
                self.manifest(branch_id or self.main),
                lambda m, name=f"c{number}": manifest.set_checkpoint(m, name, Checkpoint(m.head_txid, 1)),
            )

    # ---- a fork's steps

    async def enter(self, name, branch_id, parent="main", *, expires_at=None):
        txid = (await self.standing(await self.id_of(parent))).head_txid
        entry = RegisteredBranch(branch_id, self.clock.now_ms(), parent, txid, expires_at, is_new=True)
        await update_names(
            self.archive, BRANCHES, self.register(), lambda r: registers.add_branch(r, name, entry)
        )
        return txid

    async def pin(self, name, branch_id, parent="main"):
        """Pin the parent and return the child's manifest, which is not created yet."""
        parent_id = await self.id_of(parent)
        pinned = await update_names(
            self.archive,
            PINS,
            self.manifest(parent_id),
            lambda m: manifest.pin(m, branch_id, Pin(name, m.head_txid)),
        )
        return manifest.fork(
            await self.archive.reaching(pinned, pinned.head_txid),
            branch_id=branch_id,
            branch=name,
            txid=pinned.head_txid,
            head_at=pinned.head_at,
            head_checksum=pinned.head_checksum,
            created_at=1,
            expires_at=None,
        )

    async def create(self, child):
        return await self.manifest(child.branch_id).create(child)

    async def fork(self, name, branch_id, parent="main"):
        await self.enter(name, branch_id, parent)
        assert await self.create(await self.pin(name, branch_id, parent))
        return branch_id

    async def id_of(self, name):
        return (await self.branches())[name].id

    # ---- deletion

    async def delete(self, name):
        now_ms = self.clock.now_ms()
        branch = (await self.branches())[name]
        entry = registers.replace(branch, is_new=False)
        await self.register().update(lambda r: registers.delete_branch(r, name, entry, at_ms=now_ms))
        await self.manifest(branch.id).update(lambda m: manifest.delete(m, at_ms=now_ms))

    async def undelete(self, name, branch_id):
        branch = (await self.branches()).get(registers.deleted_name(name, branch_id))
        if branch is None:
            return False
        await self.register().update(lambda r: registers.undelete_branch(r, name, branch))
        await self.manifest(branch_id).update(manifest.undelete)
        return True
