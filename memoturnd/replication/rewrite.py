"""A branch's chain written again as if the rows that are erased had never been in it.

The chain is walked once, from its base on. Beside the original state at a round stands what it becomes
(memoturnd.replication.erased_state); a segment's new rounds are what changes from one of those to the
next, a snapshot is an image of one. Txids, wall times and what can be restored stay; checksums roll anew. An
object in which nothing changes stays as it is. Rounds in front of the oldest base, which nobody can restore,
are left out. New objects have names that were never used, so a walk that was cut off is begun again.
"""

from bisect import bisect_right
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memoturnd.core import layout, segment
from memoturnd.core.chain_walk import Step, walk_steps
from memoturnd.core.manifest import Manifest, ObjectRef, replace
from memoturnd.core.pages import PageHashes, lock_page
from memoturnd.core.segment import Kind, Round, RoundEntry, Segment
from memoturnd.errors import ConflictError, CorruptionError
from memoturnd.replication.erased_state import Erase, ErasedState
from memoturnd.replication.join import Writer
from memoturnd.replication.ranged import fetch, named_damage
from memoturnd.replication.restore import restore
from memoturnd.replication.snapshot import PART_PAGES, object_ref, raw_blocks
from memoturnd.seams.clock import Clock
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore

NOTE_S = 60.0
"""How often what was written is told."""
_READ_PAGES = 256
ROUNDS_AT_ONCE = 32
"""Rounds that are worked on before the thread is given back."""


class Place(NamedTuple):
    """An object of the chain: its key, and the last of its txids that belongs to the branch."""

    key: str
    end: int


@dataclass(slots=True)
class Replaced:
    """What became of the objects of a database's branches, so that forks share what their parents had written again.

    An object that stays stands for itself. The first part of a snapshot stands for all of them.
    """

    shared: dict[Place, tuple[ObjectRef, ...]] = field(default_factory=dict)
    inside: dict[Place, frozenset[int]] = field(default_factory=dict)
    """Snapshots between the first and the last state of a segment, from which its rounds lead on as well."""

    def of(self, place: Place, ref: ObjectRef, snapshots: Sequence[int]) -> tuple[ObjectRef, ...] | None:
        """Return what an object became in another branch, as this one names it; None where that is not known.

        `snapshots` are the txids of those that this one has.
        """
        found = self.shared.get(place)
        if found is None and ref.upto:
            place = place._replace(end=ref.max)
            found = self.shared.get(place)
        if ref.kind == "segment" and not self.inside.get(place, frozenset()).issuperset(
            snapshots[bisect_right(snapshots, ref.prev) : bisect_right(snapshots, ref.end)]
        ):
            return None
        if found is not None and ref.upto:
            found = tuple(replace(one, upto=0 if one.max == ref.upto else ref.upto) for one in found)
        return found


@dataclass(frozen=True, slots=True)
class Tools:
    """What a rewrite works with. `folder` is one for its files alone."""

    store: ObjectStore
    executor: Executor
    clock: Clock
    folder: Path
    erase: Erase
    note: Callable[[Sequence[ObjectRef]], Awaitable[None]]
    """Told every so often what was written, well before the collector would take it for garbage."""


class ChainRewrite:
    """Takes the steps of one branch's chain, ascending, and writes what becomes of them.

    `became` tells the entries for the manifest. `close` it.
    """

    def __init__(
        self, tools: Tools, chain: Manifest, writer: Writer, replaced: Replaced, *, only_look: bool = False
    ) -> None:
        self._made: dict[Place, tuple[ObjectRef, ...]] = {}
        self._taken: list[Step] = []
        self.rows = 0
        """The most rows that a state lost."""
        self.rounds_checked = self.pages_searched = self.rounds_rewritten = 0
        self._only_look = only_look
        self._tools = tools
        self._uuid = chain.db
        self._chain = replace(chain, pages=(), snapshots=(), segments=())
        self._page_size = chain.page_size
        self._writer = writer
        self._replaced = replaced
        self._states = 0
        self._main: ErasedState | None = None
        self._side: ErasedState | None = None
        """The newest snapshot's state, where no round of a segment leads to it."""
        self._others: list[tuple[int, PageHashes]] = []
        """Such snapshots since the last round of the walk: txid and page hashes of what they became."""
        self._waiting: list[Step] = []
        self._inside: list[int] = []
        """Snapshots that were passed since the beginning of the segment."""
        self._unnoted: list[ObjectRef] = []
        self._noted_s = tools.clock.monotonic_s()

    async def close(self) -> None:
        """Remove the files of the walk."""
        states = {id(state): state for state in (self._main, self._side) if state is not None}
        self._main = self._side = None
        for state in states.values():
            await self._tools.executor.run(state.close)

    @property
    def head(self) -> tuple[int, int] | None:
        """Return (txid, checksum) of the newest state that was reached, None before the first."""
        main = self._main
        return None if main is None else (main.txid, main.hashes.checksum)

    async def take(self, chain: Manifest) -> bool:
        """Take the steps of `chain` that are new; False where those taken before are not in it any more.

        Raises CorruptionError where an object is damaged or lost, StoreUnavailableError, and what erasing raises.
        """
        steps = list(walk_steps(chain))
        if steps[: len(self._taken)] != self._taken:
            return False
        for step in steps[len(self._taken) :]:
            if step[0].kind == "snapshot":
                self._waiting.append(step)
            else:
                await self._segment(step[0])
            self._taken.append(step)
        await self._settle(chain.head_txid)
        return True

    def became(self, refs: Sequence[ObjectRef]) -> tuple[ObjectRef, ...]:
        """Return the entries that stand for those that were taken."""
        return tuple(made for ref in refs for made in self._made[self.place(ref)])

    def place(self, ref: ObjectRef) -> Place:
        """Return where an entry stands."""
        return Place(layout.object_key(self._uuid, ref), ref.end)

    # ---- what other branches share

    async def share(self, chain: Manifest) -> None:
        """Begin behind what is known of the chain from a branch that was taken before, which holds the same objects.

        To be called before anything is taken. The state there is restored, so that the walk goes on from it.
        """
        steps, known, count = list(walk_steps(chain)), dict[Place, tuple[ObjectRef, ...]](), 0
        snapshots = [ref.end for ref in chain.snapshots]
        for number, step in enumerate(steps, 1):
            made = [self._replaced.of(self.place(ref), ref, snapshots) for ref in step]
            if None in made:
                break
            known.update(
                (self.place(ref), one) for ref, one in zip(step, made, strict=True) if one is not None
            )
            if step[0].kind == "segment":  # a snapshot behind it may lie inside the next one
                count = number
        if not count:
            return
        try:
            state = await self._restored(chain, steps[count - 1][0].end)
        except ConflictError:
            return  # the round that stands there was thinned away
        self._main, self._taken = state, steps[:count]
        self._made = {self.place(ref): known[self.place(ref)] for step in self._taken for ref in step}
        self.rows = state.rows
        shared = [ref for step in self._taken for ref in step if ref.kind == "segment"]
        self.rounds_checked = sum(ref.rounds or ref.end - ref.min + 1 for ref in shared)

    async def _restored(self, chain: Manifest, txid: int) -> ErasedState:
        """Return a state that stands at `txid`. Raises ConflictError where that cannot be restored."""
        tools, path = self._tools, self._tools.folder / "start.db"
        state = self._new_state()
        try:
            restored = await restore(tools.store, chain, txid, path, executor=tools.executor, fsync=False)
            await tools.executor.run(lambda: state.load(_pages_of(path, self._page_size), restored.at))
        except BaseException:
            await tools.executor.run(state.close)
            raise
        finally:
            path.unlink(missing_ok=True)
        return state

    # ---- segments

    async def _segment(self, ref: ObjectRef) -> None:
        await self._settle(ref.prev)
        self._inside.clear()
        await self._stand_at(ref.prev)
        part = await self._fetch(ref)
        was_original = self._main is not None and self._main.is_original
        prev = 0 if self._main is None else self._main.txid
        before = 0 if self._main is None else self._main.hashes.checksum
        entries = [entry for entry in part.rounds if entry.txid <= ref.end]
        rounds: list[Round] = []
        first = done = 0
        while done < len(entries):
            await self._settle(entries[done].txid - 1)
            count = self._until_snapshot(entries, done)
            batch = entries[done : done + count]
            if self._main is not None:
                if not rounds and self._main.txid != prev:  # the walk begins at a snapshot inside the segment
                    prev, before, was_original = self._main.txid, self._main.hashes.checksum, False
                rounds += await self._tools.executor.run(partial(self._advance, part, first, batch))
            first += sum(entry.pages for entry in batch)
            done += count
            await self._settle(batch[-1].txid)
        self.rounds_checked += len(rounds)
        if self._only_look:
            if not self.rows and len(rounds) == len(part.rounds):
                self._keep((ref,))
            return
        if was_original and len(rounds) == len(entries) and _is_same(part, rounds):
            self._keep((ref,))
        else:
            await self._write_segment(ref, part, rounds, prev, before)

    def _until_snapshot(self, entries: Sequence[RoundEntry], done: int) -> int:
        """Return how many rounds may be taken at once: none goes past a snapshot that waits."""
        until = self._waiting[0][0].end if self._waiting else None
        count = 0
        for entry in islice(entries, done, done + ROUNDS_AT_ONCE):
            if until is not None and entry.txid > until and count:
                break
            count += 1
        return count

    async def _stand_at(self, prev: int) -> None:
        """Let the walk stand at the state that a segment applies to, or nowhere where that is not known."""
        main, side = self._main, self._side
        if prev == 0:
            self._main = self._new_state()
        elif main is not None and main.txid == prev:
            return
        else:
            self._main, self._side = (side, None) if side is not None and side.txid == prev else (None, side)
        self._others.clear()
        if main is not None and main is not self._side:
            await self._tools.executor.run(main.close)

    def _advance(self, part: Segment, first: int, entries: Sequence[RoundEntry]) -> list[Round]:
        """Return the rounds that become of `entries`, whose images begin at index `first`. Runs in the pool."""
        main = self._main
        rounds: list[Round] = []
        for entry in entries:
            if main is not None and entry.txid > main.txid:
                indexes = range(first, first + entry.pages)
                images = dict(part.numbered_images(indexes))
                self.pages_searched += len(images)
                others = [hashes for txid, hashes in self._others if txid > main.txid]
                rounds.append(
                    main.advance(entry, images, dict(part.page_entries(first, entry.pages)), others)
                )
                self._others.clear()
                self.rows = max(self.rows, main.rows)
            first += entry.pages
        return rounds

    async def _write_segment(
        self, ref: ObjectRef, part: Segment, rounds: list[Round], prev: int, before: int
    ) -> None:
        place = self.place(ref)
        if not rounds:
            self._made[place] = ()
            return
        is_shared = len(rounds) == len(part.rounds)

        def encoded() -> tuple[bytes, ObjectRef]:
            nonce = bytes.fromhex(self._writer.randomness.hex(16))
            data, name = segment.encode(
                Kind.SEGMENT,
                rounds,
                page_size=part.page_size,
                prev_txid=prev,
                epoch=self._writer.epoch,
                checksum_before=before,
                nonce=nonce,
            )
            made = object_ref(
                "segment", rounds, prev, self._writer.epoch, self._writer.branch_id, len(data), name
            )
            is_cut = prev != ref.prev
            first = rounds[0].txid if is_cut else ref.min
            count = len(rounds) if ref.rounds or len(rounds) != rounds[-1].txid - first + 1 else 0
            first_at = made.first_at if is_cut else ref.first_at
            return data, replace(made, min=first, first_at=first_at, rounds=count)

        data, made = await self._tools.executor.run(encoded)
        await self._put(made, data)
        self.rounds_rewritten += len(rounds)
        self._made[place] = (made,)
        if is_shared:
            self._replaced.shared[place] = (made,)
            self._replaced.inside[place] = frozenset(self._inside)

    # ---- snapshots

    async def _settle(self, txid: int) -> None:
        """Write the snapshots of states up to `txid`; one that no round leads to may be where the walk goes on."""
        while self._waiting and self._waiting[0][0].end <= txid:
            step = self._waiting.pop(0)
            main, end = self._main, step[0].end
            self._inside.append(end)
            if main is not None and main.txid == end:
                await self._snapshot(step, main)
                continue
            state = await self._load(step)
            await self._snapshot(step, state)
            if main is None:
                self._main = state
                continue
            self._others.append((end, state.hashes))
            side, self._side = self._side, state
            if side is not None:
                await self._tools.executor.run(side.close)

    async def _load(self, step: Step) -> ErasedState:
        """Return a state that stands at a snapshot."""
        state = await self._restored(replace(self._chain, snapshots=step), step[0].end)
        self.rows = max(self.rows, state.rows)
        self.rounds_checked += 1
        self.pages_searched += state.size_pages
        return state

    async def _snapshot(self, step: Step, state: ErasedState) -> None:
        if self._only_look:
            if not self.rows:
                self._keep(step)
            return
        if state.is_original:
            self._keep(step)
            return
        at_ms, size = step[0].last_at, state.size_pages
        refs: list[ObjectRef] = []
        for first in range(1, size + 1, PART_PAGES):
            data, ref = await self._tools.executor.run(partial(self._part, state, at_ms, first))
            await self._put(ref, data)
            refs.append(ref)
        self.rounds_rewritten += 1
        self._made.update({self.place(ref): () for ref in step})
        self._made[self.place(step[0])] = self._replaced.shared[self.place(step[0])] = tuple(refs)
        self._replaced.shared.update({self.place(ref): () for ref in step[1:]})

    def _part(self, state: ErasedState, at_ms: int, first: int) -> tuple[bytes, ObjectRef]:
        """Return (object bytes, entry) of the part of a snapshot that starts at page `first`. Runs in the pool."""
        known, writer = state.hashes, self._writer
        last = min(first + PART_PAGES - 1, len(known))
        pgnos = np.arange(first, last + 1, dtype=np.uint64)
        pgnos = pgnos[pgnos != lock_page(self._page_size)]
        entry = RoundEntry(state.txid, at_ms, known.checksum, len(known), len(pgnos))
        data, name = segment.encode_stream(
            Kind.SNAPSHOT,
            [entry],
            known.table(pgnos),
            raw_blocks(state.image(pgno) for pgno in pgnos.tolist()),
            page_size=self._page_size,
            prev_txid=0,
            epoch=writer.epoch,
            checksum_before=0,
            nonce=bytes.fromhex(writer.randomness.hex(16)),
        )
        ref = object_ref("snapshot", [entry], 0, writer.epoch, writer.branch_id, len(data), name)
        return data, replace(ref, first_page=first, last_page=last) if len(known) > PART_PAGES else ref

    # ---- objects

    def _keep(self, step: Step) -> None:
        for ref in step:
            place = self.place(ref)
            self._made[place] = self._replaced.shared[place] = (ref,)
            self._replaced.inside[place] = frozenset(self._inside)

    def _new_state(self) -> ErasedState:
        self._states += 1
        return ErasedState(
            self._tools.folder / f"state-{self._states}",
            self._page_size,
            self._tools.erase,
            only_look=self._only_look,
        )

    async def _fetch(self, ref: ObjectRef) -> Segment:
        key = layout.object_key(self._uuid, ref)
        (data,) = await fetch(self._tools.store, [key])

        def decoded() -> Segment:
            with named_damage(key):
                part = segment.decode(data, name_hash=ref.hash)
            if part.page_size != self._page_size:
                raise CorruptionError(f"object {key} has pages of {part.page_size} bytes")
            return part

        return await self._tools.executor.run(decoded)

    async def _put(self, ref: ObjectRef, data: bytes) -> None:
        tools = self._tools
        await tools.store.put(layout.object_key(self._uuid, ref), data)
        self._unnoted.append(ref)
        if tools.clock.monotonic_s() - self._noted_s > NOTE_S:
            await tools.note(self._unnoted)
            self._unnoted, self._noted_s = [], tools.clock.monotonic_s()


def _pages_of(path: Path, page_size: int) -> Iterator[dict[int, bytes]]:
    """Yield the pages of a file that no connection has open, some at a time, without the lock page."""
    first, skipped = 1, lock_page(page_size)
    with path.open("rb") as file:
        while data := file.read(_READ_PAGES * page_size):
            images = (data[at : at + page_size] for at in range(0, len(data), page_size))
            yield {pgno: image for pgno, image in enumerate(images, first) if pgno != skipped}
            first += _READ_PAGES


def _is_same(part: Segment, rounds: Sequence[Round]) -> bool:
    """Return whether the rounds are the first ones of the object."""
    first = 0
    for entry, round_ in zip(part.rounds, rounds, strict=False):
        if (entry.checksum, entry.db_size_pages) != (round_.checksum, round_.db_size_pages):
            return False
        if dict(part.page_entries(first, entry.pages)) != round_.hashes:
            return False
        first += entry.pages
    return True
