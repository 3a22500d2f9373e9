"""The object store that all nodes share, and what must hold at the moment at which anything lands in it."""

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from memoturnd.core import layout, manifest, register, segment
from memoturnd.core.manifest import Checkpoint, Manifest, ObjectRef, Pin
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.errors import CorruptionError
from memoturnd.replication.archive import BRANCHES, CHECKPOINTS, PINS, Archive
from memoturnd.seams.object_store import Blob, Committed, ObjectInfo, ObjectMissingError
from memoturnd.stores.memory import MemoryStore
from simulation.world import NodeClock, World

T = TypeVar("T")
_GHOST_S = 2.0
"""How long a listing may show what is gone, or not show what is new."""
_KEEPING_S = 60.0
"""How long a node may take to keep aside what its branch came to hold meanwhile.

It finds commits on its disk that the manifest, which names another owner, lacks. That owner may find the same commits
at a member of the sync set, and ship them while the first is keeping them. Both hold them then: nothing is lost, and
nothing is wrong in either branch. What the branch held before that the node must see.
"""


def at_once(work: Awaitable[T]) -> T:
    """Run a coroutine that never suspends."""
    assert isinstance(work, Coroutine)
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the in-memory store suspended")


class Bucket:
    """Every object, and the first sight of each manifest that lands."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects = MemoryStore(NodeClock(world.loop))
        self.seen: dict[str, Manifest] = {}
        """Branch id to the newest manifest that landed."""
        self.registers: dict[str, Register] = {}
        self.forked_at: dict[str, tuple[str, int]] = {}
        """Branch id to (parent's id, txid) for every branch that was made from another."""
        self.gone: set[str] = set()
        """Ids of branches that somebody deleted: their manifest, or their place in the register."""
        self.children: dict[str, int] = {}
        self.held: dict[str, dict[int, float]] = {}
        """Branch id to every txid that its manifest ever named, each with the virtual second of its first sight."""
        self._verified: set[str] = set()
        self._deleted: list[tuple[float, ObjectInfo]] = []

    # ---- requests, as they arrive

    def apply(self, operation: str, *args: Any) -> Any:
        """Do a request now. Raises what the store raises."""
        result = at_once(getattr(self.objects, operation)(*args))
        key = args[0]
        if operation == "delete":
            self._was_deleted(key)
        elif operation in {"put_if_absent", "put_if_match"} and isinstance(result, Committed):
            if key.endswith("/manifest.json"):
                self._manifest_landed(args[1])
            elif key.endswith("/database.json"):
                self._register_landed(args[1])
        return result

    def listing(self, prefix: str, *, lag: bool) -> list[ObjectInfo]:
        """Return a listing; with `lag` one that is a little behind."""
        rows = self._rows(prefix)
        if not lag:
            return rows
        now_s = self.world.loop.time()
        young_ms = NodeClock(self.world.loop).now_ms() - int(_GHOST_S * 1000)
        rows = [info for info in rows if info.modified_ms < young_ms]
        self._deleted = [(at_s, info) for at_s, info in self._deleted if now_s - at_s < _GHOST_S]
        known = {info.key for info in rows}
        ghosts = {i.key: i for _, i in self._deleted if i.key.startswith(prefix) and i.key not in known}
        return sorted([*rows, *ghosts.values()], key=lambda info: info.key)

    def _rows(self, prefix: str) -> list[ObjectInfo]:
        found: list[ObjectInfo] = []

        async def collect() -> None:
            found.extend([info async for info in self.objects.list(prefix)])

        at_once(collect())
        return found

    # ---- what stands

    def get(self, key: str) -> Blob | None:
        """Return an object, None where there is none."""
        try:
            return at_once(self.objects.get(key))
        except ObjectMissingError:
            return None

    def manifest(self, uuid: str, branch_id: str) -> Manifest | None:
        """Return the manifest that stands now, None where there is none or its branch was deleted."""
        if self.get(layout.manifest_key(uuid, branch_id)) is None:
            return None
        newest = self.seen[branch_id]
        return newest if newest.deleted_at is None else None

    def whole(self, current: Manifest) -> Manifest:
        """Return a manifest with the entries of its history pages in it."""
        return at_once(Archive(self.objects).whole(current))

    def branches(self, known: Register) -> dict[str, RegisteredBranch]:
        """Return the branches of a register that are not deleted, by name."""
        named = at_once(Archive(self.objects).all(BRANCHES, known))
        return {name: branch for name, branch in named.items() if not register.is_deleted_name(name)}

    def checkpoints(self, current: Manifest) -> dict[str, Checkpoint]:
        """Return the checkpoints of a branch."""
        return at_once(Archive(self.objects).all(CHECKPOINTS, current))

    def pins(self, current: Manifest) -> dict[str, Pin]:
        """Return the pins of a branch, by the id of the fork."""
        return at_once(Archive(self.objects).all(PINS, current))

    # ---- what must hold as it lands

    def _manifest_landed(self, data: bytes) -> None:
        world, new = self.world, manifest.decode(data)
        old = self.seen.get(new.branch_id)
        self.seen[new.branch_id] = new
        if new.deleted_at is not None:
            self.gone.add(new.branch_id)
        label = f"manifest of {new.branch_id}"
        self._require_named(new)
        held, now_s = self.held.setdefault(new.branch_id, {}), world.loop.time()
        for ref in (self.whole(new) if old is None else new).objects:
            is_state = ref.kind == "snapshot" or ref.is_thinned
            for txid in [ref.end] if is_state else range(ref.min, ref.end + 1):
                held.setdefault(txid, now_s)
        if old is None:
            self._branch_appeared(new)
            return
        if new.branch_id in self.gone:
            return  # a create that was held up may bring back the manifest of a branch that nobody finds any more
        world.require(new.epoch >= old.epoch, f"{label}: epoch went from {old.epoch} to {new.epoch}")
        world.require(
            new.head_txid >= old.head_txid, f"{label}: head went from {old.head_txid} to {new.head_txid}"
        )
        known = {ref.hash for ref in old.objects}
        for ref in new.objects:
            world.require(
                ref.hash in known or ref.epoch == new.epoch,
                f"{label}: an object of epoch {ref.epoch} landed under epoch {new.epoch}",
            )

    def _branch_appeared(self, new: Manifest) -> None:
        world, known = self.world, self.registers.get(new.db)
        registered = known is not None and new.branch_id in _ids(self.branches(known))
        world.require(
            registered or new.branch_id in self.gone,
            f"branch {new.branch} has a manifest before it stands in the register",
        )
        if new.parent is None or new.deleted_at is not None:
            return  # or the tombstone of a fork that was given up before it was made
        self.forked_at[new.branch_id] = (new.parent.branch_id, new.head_txid)
        if new.parent.txid:  # a recovered branch holds objects of its own, and needs no pin
            self.children[new.branch_id] = new.parent.txid
            self.check_pin(new)
            return
        source = self.manifest(new.db, new.parent.branch_id)
        since_s = self.held.get(new.parent.branch_id, {}).get(new.head_txid, 0.0)
        world.require(
            source is None
            or world.loop.time() - since_s < _KEEPING_S
            or not manifest.contains(self.whole(source), new.head_txid),
            f"branch {new.branch} keeps txid {new.head_txid}, which {new.parent.branch} has itself",
        )

    def check_pin(self, child: Manifest) -> None:
        """Require the parent's pin of a fork that is registered, while both exist."""
        known = self.registers.get(child.db)
        if known is None or child.parent is None or child.branch_id not in self.children:
            return
        if child.branch_id not in _ids(self.branches(known)):
            return
        parent = self.manifest(child.db, child.parent.branch_id)
        self.world.require(
            parent is None or child.branch_id in self.pins(parent),
            f"fork {child.branch} is not pinned by its parent",
        )

    def _register_landed(self, data: bytes) -> None:
        new = register.decode(data)
        old = self.registers.get(new.uuid)
        self.registers[new.uuid] = new
        if old is not None:
            self.gone |= _ids(self.branches(old)) - _ids(self.branches(new))

    def _require_named(self, owner: Manifest) -> None:
        """Require that everything that a manifest names is there and sound."""
        try:
            for key, ref in self._named(owner).items():
                if key not in self._verified:
                    self._require_object(owner, key, ref)
        except CorruptionError as error:
            self.world.violated(f"the manifest of {owner.branch} names what is not there: {error}")

    def _named(self, owner: Manifest) -> dict[str, ObjectRef | None]:
        """Return the key of everything that a manifest names, with its entry if it is a segment or snapshot."""
        named: dict[str, ObjectRef | None] = {layout.page_key(owner.db, ref): None for ref in owner.pages}
        named |= {layout.run_key(owner.db, ref, "checkpoints"): None for ref in owner.checkpoint_runs}
        named |= {layout.run_key(owner.db, ref, "pins"): None for ref in owner.pin_runs}
        whole = self.whole(owner) if owner.pages else owner
        return named | {layout.object_key(owner.db, ref): ref for ref in whole.objects}

    def _require_object(self, owner: Manifest, key: str, ref: ObjectRef | None) -> None:
        blob = self.get(key)
        if blob is None:
            self.world.violated(f"the manifest of {owner.branch} names {key}, which does not exist")
            return
        if ref is not None:
            segment.decode(blob.data, name_hash=ref.hash)
        self._verified.add(key)

    def _was_deleted(self, key: str) -> None:
        self._deleted.append((self.world.loop.time(), ObjectInfo(key, 0, 0)))
        if key.endswith("/manifest.json"):
            self.gone.add(key.split("/")[-2])
        if key not in self._verified:
            return
        self._verified.discard(key)
        for known in self.registers.values():
            for name, branch in self.branches(known).items():
                current = self.manifest(known.uuid, branch.id)
                if current is not None and key in self._named(current):
                    self.world.violated(f"{key} was deleted, and branch {name} names it")


def _ids(branches: dict[str, RegisteredBranch]) -> set[str]:
    return {branch.id for branch in branches.values()}
