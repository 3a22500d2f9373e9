"""Verification of one branch: its entries, the objects they name, how those follow from each other, its states."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

from memoturnd.core import layout, manifest
from memoturnd.core.chain_walk import ChainWalk, Problem, Step, walk_steps
from memoturnd.core.manifest import HistoryPage, Manifest, ObjectRef, PageRef, Rewind, replace
from memoturnd.core.verification import (
    FORK_AROUND,
    REPORT_IT,
    RESTORE_A_COPY,
    FindingKind,
    TxidRange,
    choose_sample,
    holds,
    is_lost,
    lost_by,
    lost_by_page,
    order_problems,
    page_problem,
)
from memoturnd.errors import ConflictError, CorruptionError, DiskFullError
from memoturnd.replication.archive import CHECKPOINTS, PINS
from memoturnd.replication.check import MISSING, Checked, Damage
from memoturnd.replication.ledger import Ledger
from memoturnd.replication.ranged import each_of, fetch_tables
from memoturnd.replication.verify_names import read_names
from memoturnd.replication.verify_states import States
from memoturnd.seams.object_store import ObjectStore

OBJECTS_AT_ONCE = 8
"""Objects that are read and proven before the walk takes them."""
NAMED_SAMPLE = 8
"""Checkpoints of a branch that are restored unless all states are."""
RANDOM_SAMPLE = 4
"""States of a branch, besides the oldest and the newest, that are restored unless all are."""
_EVER = 1 << 62


class MovedOnError(Exception):
    """The branch was changed while it was verified: what is missing is not named any more."""


class BranchCheck:
    """Verifies the branch whose manifest is `current`. With `deep` every state is restored, else a sample."""

    def __init__(
        self, store: ObjectStore, ledger: Ledger, states: States, current: Manifest, *, deep: bool, seed: str
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._states = states
        self._current = current
        self._deep = deep
        self._seed = seed
        self._key = layout.manifest_key(current.db, current.branch_id)
        self._chain = current
        """The manifest with the entries of every page that can be read."""
        self._lost: list[TxidRange] = []
        self._walk = ChainWalk()
        self._shared_txid = 0
        """Up to here it is the history of a branch that was verified before."""

    async def run(self) -> None:
        """Verify it. Raises MovedOnError when it has to be begun anew, StoreUnavailableError."""
        broken = await self._pages()
        damaged = self._document_damaged
        checkpoints = await read_names(self._ledger, CHECKPOINTS, self._current, damaged)
        await read_names(self._ledger, PINS, self._current, damaged)
        for ref, what in order_problems(self._chain):
            if not any(page.min <= ref.prev <= page.max for page in broken):
                await self._contradicts(ref, what)
        proven = await self._objects()
        await self._head()
        named = {f"checkpoint {name}": c.txid for name, c in checkpoints.items()}
        named |= {f"the rewind of txid {r.txid}": r.to_txid for r in self._kept_rewinds()}
        for what, txid in named.items():
            await self._reference(what, txid)
        await self._restore(list(named.values()))
        self._ledger.prove(proven)

    # ---- what is told

    async def _tell(
        self, kind: FindingKind, key: str, what: str, lost: Sequence[TxidRange], todo: str
    ) -> None:
        self._lost += lost
        await self._ledger.tell(kind, self._current.branch, key, what, tuple(lost), todo)

    async def _contradicts(self, ref: ObjectRef, what: str) -> None:
        key = layout.object_key(self._current.db, ref)
        await self._tell("contradiction", key, what, lost_by(self._chain, ref), REPORT_IT)

    async def _document_damaged(self, key: str, damage: Damage) -> None:
        await self._confirm(key, damage)
        await self._tell(damage.kind, key, damage.what, (), RESTORE_A_COPY)

    async def _confirm(self, key: str, damage: Damage) -> None:
        """Raise MovedOnError where what is missing is not named any more by the manifest as it stands now."""
        if damage != MISSING:
            return
        fresh = await self._ledger.checker.document(self._key, manifest.decode)
        if isinstance(fresh, Damage):
            if fresh == MISSING:
                raise MovedOnError
            return
        if fresh.commit_id != self._current.commit_id and key not in await self._keys(fresh):
            raise MovedOnError

    async def _keys(self, current: Manifest) -> set[str]:
        """Return the keys that a manifest and its pages name."""
        uuid, refs = current.db, [*current.objects]
        for page in current.pages:
            found = await self._ledger.checker.listed(
                layout.page_key(uuid, page), page.hash, page.size_bytes, HistoryPage
            )
            if isinstance(found, HistoryPage):
                refs += [*found.snapshots, *found.segments]
        keys = {layout.object_key(uuid, ref) for ref in refs}
        keys |= {layout.page_key(uuid, page) for page in current.pages}
        keys |= {layout.run_key(uuid, run, "checkpoints") for run in current.checkpoint_runs}
        return keys | {layout.run_key(uuid, run, "pins") for run in current.pin_runs}

    # ---- history pages

    async def _pages(self) -> list[PageRef]:
        """Bring the entries of history pages in; return the pages that cannot be read."""
        current = self._current
        broken: list[tuple[PageRef, Damage]] = []
        pages: list[HistoryPage] = []
        for ref in current.pages:
            found = await self._page(ref)
            if isinstance(found, HistoryPage):
                pages.append(found)
            else:
                broken.append((ref, found))
        parts: list[HistoryPage | Manifest] = [*pages, current]
        self._chain = replace(
            current,
            pages=(),
            snapshots=tuple(ref for part in parts for ref in part.snapshots),
            segments=tuple(ref for part in parts for ref in part.segments),
        )
        for ref, damage in broken:
            self._ledger.is_blind = True
            lost = lost_by_page(self._chain, ref)
            await self._tell(damage.kind, layout.page_key(current.db, ref), damage.what, lost, RESTORE_A_COPY)
        return [ref for ref, _ in broken]

    async def _page(self, ref: PageRef) -> HistoryPage | Damage:
        ledger, key = self._ledger, layout.page_key(self._current.db, ref)
        ledger.expect(1)
        ledger.name(key)
        ledger.see(key)
        found = await ledger.checker.listed(key, ref.hash, ref.size_bytes, HistoryPage)
        await ledger.step()
        if isinstance(found, Damage):
            await self._confirm(key, found)
            return found
        wrong = page_problem(ref, found)
        return found if wrong is None else Damage("contradiction", wrong)

    # ---- objects

    async def _objects(self) -> list[ObjectRef]:
        """Prove every object, and that each follows from those before it; return the entries that hold."""
        steps = list(walk_steps(self._chain))
        known, proven = self._known(steps), list[ObjectRef]()
        for ref in (ref for step in steps for ref in step):
            self._ledger.name(layout.object_key(self._current.db, ref))
        self._ledger.expect(sum(map(len, steps[known:])))
        for step in steps[_last_base(steps, known) : known]:  # proven before: the tables alone will do
            tables = await each_of(step, partial(fetch_tables, self._store, self._current.db))
            self._take([Checked(ref, found, None) for ref, found in zip(step, tables, strict=True)])
        if known:
            self._shared_txid = min(steps[known - 1][0].end, self._current.head_txid)
        for batch in _batches(steps[known:]):
            refs = [ref for step in batch for ref in step]
            found = iter(await each_of(refs, self._prove))
            for step in batch:
                checked = [next(found) for _ in step]
                if await self._took(checked):
                    proven += step
        return proven

    def _known(self, steps: Sequence[Step]) -> int:
        """Return how many of the first steps were proven in a branch before."""
        for number, step in enumerate(steps):
            if not all(map(self._ledger.is_proven, step)):
                return number
        return len(steps)

    async def _prove(self, ref: ObjectRef) -> Checked:
        checked = await self._ledger.checker.object(ref, self._current.page_size)
        self._ledger.see(layout.object_key(self._current.db, ref))
        await self._ledger.step()
        return checked

    async def _took(self, checked: Sequence[Checked]) -> bool:
        """Let the walk take a step; False, and told of, where it is damaged or does not fit."""
        whole = True
        for one in checked:
            if one.damage is not None:
                whole = False
                key = layout.object_key(self._current.db, one.ref)
                await self._confirm(key, one.damage)
                lost = lost_by(self._chain, one.ref)
                await self._tell(
                    one.damage.kind, key, one.damage.what, lost, f"{RESTORE_A_COPY}; {FORK_AROUND}"
                )
        problems: list[Problem] = []
        if whole:
            problems = self._take(checked)
        elif checked[0].ref.kind == "segment":  # the walk goes on at a snapshot inside it, or at the next one
            problems = list(self._walk.settle(checked[0].ref.end))
        for ref, what in problems:
            await self._contradicts(ref, what)
        return whole and not problems

    def _take(self, checked: Sequence[Checked]) -> list[Problem]:
        parts = [(one.ref, one.tables) for one in checked if one.tables is not None]
        if parts[0][0].kind == "snapshot":
            return list(self._walk.snapshot(parts))
        return list(self._walk.segment(*parts[0]))

    # ---- what the manifest says of the whole

    async def _head(self) -> None:
        """Hold the end of the chain against the head that the manifest names."""
        for ref, what in list(self._walk.settle(_EVER)):
            await self._contradicts(ref, what)
        current, last = self._current, self._walk.last
        if current.head_txid == 0 or is_lost(current.head_txid, self._lost):
            return
        found = (0, 0, "") if last is None else (last.txid, last.at_ms, f"{last.checksum:016x}")
        said = (current.head_txid, current.head_at, current.head_checksum)
        if found != said:
            what = f"the chain ends at (txid, time, checksum) {found}, but its head is {said}"
            lost = ((min(found[0] + 1, said[0]), said[0]),) if found[0] != said[0] else ()
            await self._tell("contradiction", self._key, what, lost, REPORT_IT)

    async def _reference(self, what: str, txid: int) -> None:
        """Tell where something names a state that cannot be restored, though retention has not passed it."""
        txids = self._walk.txids
        if not txids or txid < txids[0] or holds(txids, txid) or is_lost(txid, self._lost):
            return
        await self._tell(
            "unrestorable", self._key, f"{what} names txid {txid}, which cannot be restored", (), REPORT_IT
        )

    def _kept_rewinds(self) -> Iterator[Rewind]:
        """Yield the rewinds to states that retention has not thinned away."""
        for rewind in self._current.rewinds:
            txid = rewind.to_txid
            if not any(ref.is_thinned and ref.min <= txid <= ref.end for ref in self._chain.segments):
                yield rewind

    # ---- states

    async def _restore(self, named: Sequence[int]) -> None:
        own = self._own()
        try:
            if self._deep and own:
                self._ledger.expect(len(own))
                size_bytes = max(self._walk.sizes_pages) * self._current.page_size
                await self._states.all(self._chain, self._lost, own[0] - 1, size_bytes, self._looked)
                return
            chosen = choose_sample(
                own, named, seed=self._seed, named_limit=NAMED_SAMPLE, random_limit=RANDOM_SAMPLE
            )
            self._ledger.expect(len(chosen))
            for txid in chosen:
                await self._one(txid)
        except DiskFullError as error:
            self._ledger.unfinished.append(str(error))
        except CorruptionError as error:
            await self._surprised(error)

    def _own(self) -> list[int]:
        """Return the txids to restore: those that no branch before had."""
        return [t for t in self._walk.txids if t > self._shared_txid and not is_lost(t, self._lost)]

    async def _one(self, txid: int) -> None:
        at = bisect_left(self._walk.txids, txid)
        size_bytes = self._walk.sizes_pages[at] * self._current.page_size
        try:
            wrong = await self._states.one(self._chain, txid, size_bytes)
        except ConflictError as error:
            wrong = str(error)
        await self._looked(txid, wrong or "")

    async def _looked(self, txid: int, wrong: str) -> None:
        await self._ledger.step()
        if wrong:
            what = f"the state at txid {txid} is not right: {wrong}"
            await self._tell("unrestorable", self._key, what, ((txid, txid),), REPORT_IT)

    async def _surprised(self, error: CorruptionError) -> None:
        """Begin anew where objects were replaced between their proof and a restore, else tell."""
        fresh = await self._ledger.checker.document(self._key, manifest.decode)
        if isinstance(fresh, Damage) or fresh.commit_id != self._current.commit_id:
            raise MovedOnError from error
        await self._tell("unrestorable", self._key, f"a state cannot be restored: {error}", (), REPORT_IT)


def _last_base(steps: Sequence[Step], until: int) -> int:
    """Return the number of the last step before `until` from which a walk can begin."""
    for number in range(until - 1, -1, -1):
        if steps[number][0].is_base:
            return number
    return 0


def _batches(steps: Iterable[Step]) -> Iterator[list[Step]]:
    batch: list[Step] = []
    for step in steps:
        if batch and sum(map(len, batch)) + len(step) > OBJECTS_AT_ONCE:
            yield batch
            batch = []
        batch.append(step)
    if batch:
        yield batch
