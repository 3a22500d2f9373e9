"""What manifests leave to immutable objects: history pages, and runs of checkpoints, pins and branches.

Pages, runs and the round tables of segments are read through one bounded cache: they never change, so what
was read once stays right. A page or run is written before the swap that names it; one whose swap did not
land is garbage. A large one is encoded, joined and decoded in the executor, so that the event loop goes on.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

import msgspec

from memoturnd.core import keyed, layout, manifest, versioned
from memoturnd.core.keyed import RunRef
from memoturnd.core.manifest import Checkpoint, HistoryPage, Manifest, ObjectRef, PageRef, Pin, replace
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.core.segment import RoundEntry
from memoturnd.errors import CorruptionError
from memoturnd.replication.ranged import fetch_tables
from memoturnd.replication.recent import RecentSegments
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.clock import Clock, Randomness, SystemClock, SystemRandomness
from memoturnd.seams.executor import Executor, InlineExecutor
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

D = TypeVar("D", Manifest, Register)
T = TypeVar("T", bound="Stored")
V = TypeVar("V", Checkpoint, Pin, RegisteredBranch)
W = TypeVar("W")
NAMED_WITHIN_S = 120.0
"""How long after it was written a run may still be named by a swap; the collector's grace is longer."""
CACHE_BYTES = 16 * 1024 * 1024
"""Encoded bytes of pages, runs and round tables that a node keeps decoded; decoded they take a few times as much."""
INLINE_BYTES = 256 * 1024
"""Encoded bytes of pages and runs up to which they are worked on on the event loop."""
ROUND_SIZE_BYTES = 40
"""What a round of a table counts as in that."""
_INDEXED_SIZE_BYTES = 16
"""What a checkpoint counts as in that, once more, where it is found by its txid."""


class Stored(Protocol):
    """What every page and run says of itself."""

    @property
    def format(self) -> int:
        """Return the version of the format that it was written in."""
        ...


class Run(msgspec.Struct, Generic[V], frozen=True):
    """The content of a run: names with what they stand for, null for one that is gone.

    The random `nonce` gives equal content another name, so that no name is used again.
    """

    entries: dict[str, V | None]
    format: int = manifest.FORMAT_VERSION
    nonce: str = ""


@dataclass(frozen=True, slots=True)
class NamedMap(Generic[D, V]):
    """A map of names that document D keeps: where it is in D, and how its runs are called and decoded."""

    kind: str
    run_type: type[Run[V]]
    parts: Callable[[D], tuple[dict[str, V | None], tuple[RunRef, ...]]]
    with_parts: Callable[[D, dict[str, V | None], tuple[RunRef, ...]], D]
    home: Callable[[D], tuple[str, str]]
    """Uuid of the database and id of the branch in whose folder runs lie; no id for the database's own."""


CHECKPOINTS: NamedMap[Manifest, Checkpoint] = NamedMap(
    "checkpoints",
    Run[Checkpoint],
    lambda m: (m.checkpoints, m.checkpoint_runs),
    lambda m, recent, runs: replace(m, checkpoints=recent, checkpoint_runs=runs),
    lambda m: (m.db, m.branch_id),
)
PINS: NamedMap[Manifest, Pin] = NamedMap(
    "pins",
    Run[Pin],
    lambda m: (m.pins, m.pin_runs),
    lambda m, recent, runs: replace(m, pins=recent, pin_runs=runs),
    lambda m: (m.db, m.branch_id),
)
BRANCHES: NamedMap[Register, RegisteredBranch] = NamedMap(
    "branches",
    Run[RegisteredBranch],
    lambda r: (r.branches, r.branch_runs),
    lambda r, recent, runs: replace(r, branches=recent, branch_runs=runs),
    lambda r: (r.uuid, ""),
)


class Archive:
    """Reads and writes pages and runs of any database. Without an executor all work is done by the caller."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        executor: Executor | None = None,
        clock: Clock | None = None,
        randomness: Randomness | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._store = store
        self._executor = executor or InlineExecutor()
        self._clock = clock or SystemClock()
        self._randomness = randomness or SystemRandomness()
        self.recent = RecentSegments(store)
        self._cache: OrderedDict[str, tuple[object, int]] = OrderedDict()
        self._room_bytes = cache_bytes

    # ---- history

    async def page(self, uuid: str, ref: PageRef) -> HistoryPage:
        """Return a history page. Raises CorruptionError, StoreUnavailableError."""
        return await self._read(layout.page_key(uuid, ref), ref.hash, HistoryPage)

    async def reaching(self, current: Manifest, txid: int) -> Manifest:
        """Return the manifest with those pages brought in that the state at `txid` needs, and no later ones.

        Raises CorruptionError, StoreUnavailableError. Whether the state can be restored is not decided here.
        """
        current = replace(current, pages=tuple(page for page in current.pages if page.min <= txid))
        while current.pages and not _holds_base(current, txid):
            current = await self._with_last_page(current)
        return current

    async def holds(self, current: Manifest, txid: int) -> bool:
        """Return whether `txid` is a commit of the chain. Raises CorruptionError, StoreUnavailableError."""
        return manifest.contains(await self.reaching(current, txid), txid)

    async def whole(self, current: Manifest) -> Manifest:
        """Return the manifest with the entries of all pages in it. Raises CorruptionError, StoreUnavailableError."""
        while current.pages:
            current = await self._with_last_page(current)
        return current

    async def _with_last_page(self, current: Manifest) -> Manifest:
        page = await self.page(current.db, current.pages[-1])
        return replace(
            current,
            pages=current.pages[:-1],
            snapshots=page.snapshots + current.snapshots,
            segments=page.segments + current.segments,
        )

    async def write_page(
        self, uuid: str, branch_id: str, snapshots: tuple[ObjectRef, ...], segments: tuple[ObjectRef, ...]
    ) -> PageRef:
        """Write a history page and return its entry. Raises StoreUnavailableError."""
        page = HistoryPage(snapshots, segments, nonce=self._randomness.hex(8))
        data = msgspec.json.encode(page)
        refs = (*snapshots, *segments)
        ref = PageRef(
            branch=branch_id,
            min=min(r.min for r in refs),
            max=max(r.end for r in refs),
            hash=_hash(data),
            size_bytes=len(data),
            entries=len(refs),
            first_at=min(r.first_at for r in refs),
            last_at=max(r.last_at for r in refs),
        )
        await self._write(layout.page_key(uuid, ref), data, page)
        return ref

    async def rounds(self, uuid: str, ref: ObjectRef) -> tuple[RoundEntry, ...]:
        """Return the round table of an object. Raises CorruptionError, StoreUnavailableError."""
        key = layout.object_key(uuid, ref)
        known = self._known(key)
        if known is not None:
            return cast("tuple[RoundEntry, ...]", known)
        rounds = (await fetch_tables(self._store, uuid, ref)).rounds
        self._keep(key, rounds, ROUND_SIZE_BYTES * len(rounds))
        return rounds

    # ---- names

    async def find(self, names: NamedMap[D, V], document: D, name: str) -> V | None:
        """Return what `name` stands for, None where nothing. Raises CorruptionError, StoreUnavailableError."""
        recent, runs = names.parts(document)
        if name in recent:
            return recent[name]
        for ref in runs:
            entries = await self._run(names, document, ref)
            if name in entries:
                return entries[name]
        return None

    async def all(self, names: NamedMap[D, V], document: D) -> dict[str, V]:
        """Return every name and what it stands for. Raises CorruptionError, StoreUnavailableError."""
        recent, runs = names.parts(document)
        layers: list[Mapping[str, V | None]] = [recent]
        layers += await self._runs(names, document, runs)
        return await self.aside(_size_bytes(runs), lambda: keyed.live(layers))

    async def checkpoints_at(self, current: Manifest, txids: AbstractSet[int]) -> dict[int, list[str]]:
        """Return the checkpoints that name one of `txids`, by txid. Raises CorruptionError, StoreUnavailableError.

        Each run is looked through once for all, and is found by txid from then on.
        """
        found: dict[int, list[str]] = {}
        newer: list[Mapping[str, Checkpoint | None]] = []
        recent, runs = CHECKPOINTS.parts(current)
        for ref in (None, *runs):
            entries = recent if ref is None else await self._run(CHECKPOINTS, current, ref)
            index = _names_by_txid(entries) if ref is None else await self._index(current, ref, entries)
            for txid in txids & index.keys():
                names = [name for name in index[txid] if not any(name in layer for layer in newer)]
                if names:
                    found.setdefault(txid, []).extend(names)
            newer.append(entries)
        return found

    async def _index(
        self, current: Manifest, ref: RunRef, entries: Mapping[str, Checkpoint | None]
    ) -> Mapping[int, Sequence[str]]:
        key = f"{layout.run_key(current.db, ref, CHECKPOINTS.kind)} by txid"
        known = self._known(key)
        if known is not None:
            return cast("Mapping[int, Sequence[str]]", known)
        index = await self.aside(ref.size_bytes, lambda: _names_by_txid(entries))
        self._keep(key, index, _INDEXED_SIZE_BYTES * len(entries))
        return index

    async def flush(self, names: NamedMap[D, V], document: D) -> Callable[[D], D] | None:
        """Write the document's own entries as a run where they have grown many, and return the change that names it.

        The change leaves a document alone whose runs have moved since, or once the run was written too long ago
        to be surely there. None where nothing is due.
        """
        recent, runs = names.parts(document)
        if not keyed.flush_due(recent):
            return None
        flush = keyed.plan_flush(recent, runs)
        older = await self._runs(names, document, flush.joined)
        written_s = self._clock.monotonic_s()
        new = await self._write_run(names, document, flush, older)

        def change(current: D) -> D:
            if self._clock.monotonic_s() - written_s > NAMED_WITHIN_S:
                return current
            parts = keyed.flushed(*names.parts(current), flush, new)
            return current if parts is None else names.with_parts(current, *parts)

        return change

    async def _write_run(
        self, names: NamedMap[D, V], document: D, flush: keyed.Flush, older: list[Mapping[str, V | None]]
    ) -> RunRef | None:
        """Write what the flush joins, `older` being the entries of its runs; None where nothing is left of them."""
        recent, _ = names.parts(document)
        uuid, branch_id = names.home(document)
        nonce = self._randomness.hex(8)

        def joined() -> tuple[Run[V], bytes, RunRef] | None:
            entries = keyed.join(flush, older, recent)
            if not entries:
                return None
            run = names.run_type(entries, nonce=nonce)
            data = msgspec.json.encode(run)
            return run, data, RunRef(branch_id, len(entries), _hash(data), len(data))

        made = await self.aside(_size_bytes(flush.joined), joined)
        if made is None:
            return None
        run, data, ref = made
        await self._write(layout.run_key(uuid, ref, names.kind), data, run)
        return ref

    async def _runs(
        self, names: NamedMap[D, V], document: D, refs: tuple[RunRef, ...]
    ) -> list[Mapping[str, V | None]]:
        return [await self._run(names, document, ref) for ref in refs]

    async def _run(self, names: NamedMap[D, V], document: D, ref: RunRef) -> Mapping[str, V | None]:
        uuid, _ = names.home(document)
        run = await self._read(layout.run_key(uuid, ref, names.kind), ref.hash, names.run_type)
        return run.entries

    # ---- objects

    async def _write(self, key: str, data: bytes, decoded: object) -> None:
        await self._store.put(key, data)
        self._keep(key, decoded, len(data))

    async def _read(self, key: str, name_hash: str, kind: type[T]) -> T:
        known = self._known(key)
        if known is not None:
            return cast("T", known)
        try:
            data = (await self._store.get(key)).data
        except ObjectMissingError as error:
            raise CorruptionError(
                f"object {key} is named by a manifest, but the store has lost it"
            ) from error
        decoded = await self.aside(len(data), lambda: _decoded(key, data, name_hash, kind))
        self._keep(key, decoded, len(data))
        return decoded

    async def aside(self, size_bytes: int, work: Callable[[], W]) -> W:
        """Do work on so many encoded bytes: in the executor where the event loop would wait for it."""
        return work() if size_bytes <= INLINE_BYTES else await self._executor.run(work)

    def _known(self, key: str) -> object | None:
        if key not in self._cache:
            return None
        self._cache.move_to_end(key)
        return self._cache[key][0]

    def _keep(self, key: str, decoded: object, size_bytes: int) -> None:
        if key not in self._cache:
            self._cache[key] = decoded, size_bytes
            self._room_bytes -= size_bytes
        while self._room_bytes < 0:
            _, (_, freed_bytes) = self._cache.popitem(last=False)
            self._room_bytes += freed_bytes


async def update_names(
    archive: Archive, names: NamedMap[D, V], file: SwapFile[D], transition: Callable[[D], D]
) -> D:
    """Apply `transition`, which changes `names`, and keep the document small; return what then stands.

    The run is written before the swap that adds the name which fills it up, so most changes cost one swap
    and one in RECENT_LIMIT one more object. Raises what SwapFile.update raises.
    """
    current = await file.load()
    flush = await archive.flush(names, current) if current is not None else None

    def change(document: D) -> D:
        return transition(document if flush is None else flush(document))

    return await file.update(change)


def _names_by_txid(checkpoints: Mapping[str, Checkpoint | None]) -> dict[int, list[str]]:
    """Return the names of one layer of checkpoints by the txid that they name, without those that are gone."""
    index: dict[int, list[str]] = {}
    for name, checkpoint in checkpoints.items():
        if checkpoint is not None:
            index.setdefault(checkpoint.txid, []).append(name)
    return index


def _decoded(key: str, data: bytes, name_hash: str, kind: type[T]) -> T:
    """Return the content of an object whose name carries this hash. Raises CorruptionError."""
    if _hash(data) != name_hash:
        raise CorruptionError(f"object {key} is damaged: its bytes do not match its name")
    decoded = versioned.read(
        lambda document: msgspec.json.decode(document, type=kind),
        data,
        what=f"object {key}",
        newest=manifest.FORMAT_VERSION,
    )
    if isinstance(decoded, HistoryPage) and not decoded.is_whole:
        raise CorruptionError(f"object {key} contradicts itself")
    return decoded


def _size_bytes(runs: tuple[RunRef, ...]) -> int:
    return sum(run.size_bytes for run in runs)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).digest()[:16].hex()


def _holds_base(current: Manifest, txid: int) -> bool:
    """Return whether the entries in the manifest itself reach down to a base of the state at `txid`."""
    return any(ref.end <= txid for ref in current.snapshots) or any(
        ref.is_base and ref.min <= txid for ref in current.segments[:1]
    )
