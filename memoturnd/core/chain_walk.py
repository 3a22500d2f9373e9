"""How the objects of a branch follow from each other, proven from their tables alone: no page is unpacked. Pure.

Rounds are applied one after the other to the page hashes of the whole file, and after each the rolling
database checksum must be what the round says; a snapshot must be the very state that the rounds lead to.
Behind an object that cannot be read the walk goes on at the next base.
"""

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby

from memoturnd.core.manifest import Manifest, ObjectRef
from memoturnd.core.pages import PageHashes, lock_page
from memoturnd.core.segment import ARRAY_PAGES, RoundEntry, Segment

Problem = tuple[ObjectRef, str]
"""The object at which a chain does not go on, and why."""


Step = tuple[ObjectRef, ...]
"""A segment, or all parts of a snapshot."""


def walk_steps(chain: Manifest) -> Iterator[Step]:
    """Yield the entries in the order in which a walk takes them: a snapshot before the segment with its txid."""
    groups = [tuple(group) for _, group in groupby(chain.snapshots, key=lambda ref: ref.end)]
    waiting = iter(groups)
    next_group = next(waiting, None)
    for ref in chain.segments:
        while next_group is not None and next_group[0].end <= ref.end:
            yield next_group
            next_group = next(waiting, None)
        yield (ref,)
    if next_group is not None:
        yield next_group
    yield from waiting


class ChainWalk:
    """Takes the objects of a branch by `snapshot` and `segment`, ascending, and tells what does not fit.

    A snapshot of a state inside a segment comes before that segment. `txids` and `sizes_pages` are those of
    the states seen so far, all of which can be restored: 12 bytes each.
    """

    def __init__(self) -> None:
        self.txids = array("Q")
        self.sizes_pages = array("I")
        self.last: RoundEntry | None = None
        """The newest state, None before the first."""
        self._hashes = PageHashes()
        self._at: RoundEntry | None = None
        self._is_known = False
        """Whether `_hashes` are those of the state at `_at` (None: of the empty file)."""
        self._waiting: deque[tuple[ObjectRef, RoundEntry, PageHashes]] = deque()
        """Snapshots that the next segment has to lead to."""

    def snapshot(self, parts: Sequence[tuple[ObjectRef, Segment]]) -> Iterator[Problem]:
        """Take all parts of one snapshot."""
        entry, hashes = parts[0][1].rounds[0], PageHashes()
        for ref, tables in parts:
            found = tables.rounds[0]
            wrong = _part_problem(ref, tables, entry.db_size_pages)
            if found[:4] != entry[:4]:
                wrong = "it is not a part of the same state as the part before it"
            if wrong is not None:
                yield ref, wrong
                return
            _apply(hashes, tables, 0, found)
        if hashes.checksum != entry.checksum:
            yield parts[-1][0], _differs(entry, hashes.checksum)
            return
        self._waiting.append((parts[0][0], entry, hashes))

    def segment(self, ref: ObjectRef, tables: Segment) -> Iterator[Problem]:
        """Take the next segment."""
        yield from self.settle(ref.prev)
        if ref.prev == 0:
            self._hashes, self._at, self._is_known = PageHashes(), None, True
        elif self._at is None or self._at.txid != ref.prev:
            self._lose()  # behind what is lost, or in front of the oldest snapshot
        if self._is_known and tables.checksum_before != self._hashes.checksum:
            found, before = f"{tables.checksum_before:016x}", f"{self._hashes.checksum:016x}"
            yield ref, f"it begins at the database checksum {found}, but the state before it has {before}"
            self._lose()
        first = 0
        for entry in tables.rounds:
            if entry.txid > ref.end:
                break
            yield from self.settle(entry.txid - 1)
            yield from self._round(ref, tables, first, entry)
            yield from self.settle(entry.txid)
            first += entry.pages
        yield from self.settle(ref.end)

    def _round(self, ref: ObjectRef, tables: Segment, first: int, entry: RoundEntry) -> Iterator[Problem]:
        if not self._is_known or (self._at is not None and entry.txid <= self._at.txid):
            return  # the walk goes on, or went on, at a snapshot inside this segment
        if self.last is not None and entry.at_ms < self.last.at_ms:
            yield ref, f"the wall time of txid {entry.txid} lies before that of txid {self.last.txid}"
        _apply(self._hashes, tables, first, entry)
        if self._hashes.checksum != entry.checksum:
            yield ref, f"the chain breaks at txid {entry.txid}: {_differs(entry, self._hashes.checksum)}"
            self._lose()
            return
        self._reach(entry)

    def settle(self, txid: int) -> Iterator[Problem]:
        """Hold the snapshots up to `txid` against the state that the segments led to, or go on from them."""
        while self._waiting and self._waiting[0][1].txid <= txid:
            ref, entry, hashes = self._waiting.popleft()
            if self._is_known and self._at is not None and self._at.txid == entry.txid:
                if self._at[:4] != entry[:4] or self._hashes.to_bytes() != hashes.to_bytes():
                    yield ref, f"it is not the state that the segments lead to at txid {entry.txid}"
                continue
            if self.last is not None and entry.at_ms < self.last.at_ms:
                yield ref, f"its wall time lies before that of txid {self.last.txid}"
            self._hashes, self._is_known = hashes, True
            self._reach(entry)

    def _lose(self) -> None:
        """Know nothing until the next snapshot."""
        self._is_known, self._at = False, None

    def _reach(self, entry: RoundEntry) -> None:
        self._at = self.last = entry
        self.txids.append(entry.txid)
        self.sizes_pages.append(entry.db_size_pages)


def _part_problem(ref: ObjectRef, tables: Segment, db_size_pages: int) -> str | None:
    """Return what is wrong with the pages that a snapshot or a part of one holds: every page of its range is there."""
    first, last = (ref.first_page, ref.last_page) if ref.first_page else (1, db_size_pages)
    pgnos = [pgno for pgno, _ in tables.pages]
    wanted = [pgno for pgno in range(first, last + 1) if pgno != lock_page(tables.page_size)]
    if pgnos != wanted or last > db_size_pages:
        return f"it does not hold each of the pages {first} to {last} of {db_size_pages}"
    return None


def _apply(hashes: PageHashes, tables: Segment, first: int, entry: RoundEntry) -> None:
    if entry.pages < ARRAY_PAGES:
        hashes.apply(dict(tables.page_entries(first, entry.pages)), entry.db_size_pages)
    else:
        hashes.apply_table(tables.page_array(first, entry.pages), entry.db_size_pages)


def _differs(entry: RoundEntry, found: int) -> str:
    return f"the database checksum is {found:016x} instead of {entry.checksum:016x}"
