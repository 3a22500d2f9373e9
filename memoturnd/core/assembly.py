"""Which image of which object each page of a state comes from, decided from the objects' tables alone.

Rounds are applied one after the other: a page's newest image wins, and the rolling database checksum must
come out as each round says. Rounds of a few pages are applied in a plain loop and large ones as arrays, so
that a state of 1 GB (262,144 pages) takes 16 bytes a page and some milliseconds.
"""

from array import array
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memoturnd.core.pages import PageHashes
from memoturnd.core.segment import ARRAY_PAGES, PAGES_PER_BLOCK, Kind, RoundEntry, Segment
from memoturnd.errors import CorruptionError

_INDEX_BITS = np.uint64(32)
_INDEX_MASK = np.uint64(0xFFFFFFFF)
Indexes = npt.NDArray[np.uint64]


class Part(NamedTuple):
    """One object of a plan: its key, its tables, and the last of its txids that belongs to the branch."""

    key: str
    tables: Segment
    end: int


class Assembly(NamedTuple):
    """A state as images of parts: `at` is its round, None where no round was applied."""

    at: RoundEntry | None
    hashes: PageHashes
    where: "array[int]"
    """For each page, 0 for one without an image, or (number of its part + 1) << 32 | index of its image."""
    shortest_pages: int
    """The smallest size that the file had on the way: what lay behind it was cut off, and reads as zeros now."""

    def wanted_of_few(self) -> dict[int, list[int]]:
        """Return by number of the part the ascending indexes of the images taken from it: fast for small states."""
        found: dict[int, list[int]] = {}
        for image in sorted(filter(None, self.where)):
            found.setdefault((image >> 32) - 1, []).append(image & 0xFFFFFFFF)
        return found

    def wanted(self, parts: int) -> list[Indexes]:
        """Return the same for each of so many parts, as arrays."""
        where = np.frombuffer(self.where, dtype=np.uint64)
        used = np.sort(where[where != 0])
        if parts == 1:
            return [used & _INDEX_MASK]
        bounds = np.searchsorted(used, np.arange(1, parts + 2, dtype=np.uint64) << _INDEX_BITS).tolist()
        used &= _INDEX_MASK
        return [used[first:end] for first, end in pairwise(bounds)]


def assemble(parts: Sequence[Part], txid: int, start: tuple[int, PageHashes] | None = None) -> Assembly:
    """Apply the rounds of `parts` up to `txid`, to nothing or to the state `start` (txid, page hashes).

    The first parts may be those of one snapshot, which together are one state. Raises CorruptionError naming
    the part where the rolling checksum does not come out right. Whether `txid` was reached is the caller's
    to see: a part may have rounds for some of its txids only.
    """
    at_txid, hashes = (0, PageHashes()) if start is None else (start[0], start[1].duplicate())
    where = array("Q", bytes(8 * len(hashes)))
    shortest_pages = len(hashes)
    base = _base_parts(parts)
    last: RoundEntry | None = None
    for number, part in enumerate(parts):
        for first, entry in _rounds(part, txid):
            if entry.txid <= at_txid and not 0 < number < base:
                continue
            _apply(hashes, where, number, first, part.tables, entry)
            shortest_pages = min(shortest_pages, entry.db_size_pages)
            if number >= base - 1 and hashes.checksum != entry.checksum:
                raise CorruptionError(
                    f"the chain breaks at txid {entry.txid} in {part.key}: the database checksum is "
                    f"{hashes.checksum:016x} instead of {entry.checksum:016x}"
                )
            last, at_txid = entry, entry.txid
    return Assembly(last, hashes, where, shortest_pages)


def _base_parts(parts: Sequence[Part]) -> int:
    """Return how many of the first parts are one snapshot."""
    if not parts or parts[0].tables.kind is not Kind.SNAPSHOT:
        return 0
    for number, part in enumerate(parts):
        if part.tables.kind is not Kind.SNAPSHOT or part.end != parts[0].end:
            return number
    return len(parts)


def _rounds(part: Part, txid: int) -> Iterator[tuple[int, RoundEntry]]:
    """Yield (index of its first image, round) for the rounds of a part up to `txid` that belong to the branch."""
    first = 0
    for entry in part.tables.rounds:
        if entry.txid > min(txid, part.end):
            return
        yield first, entry
        first += entry.pages


def _apply(
    hashes: PageHashes, where: "array[int]", number: int, first: int, tables: Segment, entry: RoundEntry
) -> None:
    size, image = entry.db_size_pages, (number + 1) << 32 | first
    if len(where) < size:
        where.frombytes(bytes(8 * (size - len(where))))
    if entry.pages < ARRAY_PAGES:
        changes = dict(tables.page_entries(first, entry.pages))
        hashes.apply(changes, size)
        for index, pgno in enumerate(changes, image):
            if 0 < pgno <= size:
                where[pgno - 1] = index
    else:
        table = tables.page_array(first, entry.pages)
        hashes.apply_table(table, size)
        places = table["pgno"] - 1  # page 0, which there is not, becomes one that is too large
        inside = np.flatnonzero(places < size)
        np.frombuffer(where, dtype=np.uint64)[places[inside]] = inside.astype(np.uint64) + np.uint64(image)
    del where[size:]


class Range(NamedTuple):
    """Neighbouring blocks of an object: where they lie in it, and the images wanted from them."""

    start: int
    length: int
    indexes: list[int]


def ranges(tables: Segment, indexes: Indexes, *, most_bytes: int, gap_bytes: int) -> Iterator[Range]:
    """Yield what to read of an object for the images `indexes` (ascending), in ranges of up to `most_bytes`.

    Blocks that nobody wants are read too where they are at most `gap_bytes` between two that are wanted. A
    block larger than `most_bytes` is a range of its own.
    """
    if not len(indexes):
        return
    blocks = np.unique(indexes // np.uint64(PAGES_PER_BLOCK)).tolist()
    first = last = blocks[0]
    for block in blocks[1:]:
        between = tables.span(last + 1, block - 1)[1] if block > last + 1 else 0
        if between > gap_bytes or tables.span(first, block)[1] > most_bytes:
            yield _range(tables, indexes, first, last)
            first = block
        last = block
    yield _range(tables, indexes, first, last)


def _range(tables: Segment, indexes: Indexes, first: int, last: int) -> Range:
    begin, end = np.searchsorted(
        indexes, np.array([first, last + 1], dtype=np.uint64) * np.uint64(PAGES_PER_BLOCK)
    )
    return Range(*tables.span(first, last), indexes[begin:end].tolist())
