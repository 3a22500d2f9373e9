"""One branch's states without the rows that are erased: each is made from the original state, and kept as what changed.

    O   the original state at a round, in a PageFile
    E   what it becomes: the rows deleted, and every page cleaned of what SQLite does not use (core/scrub)

E is a function of O alone, so whoever walks the same rounds comes to the same pages, from wherever he began. From
round to round only what may have changed is looked at: the round's own pages, what SQLite writes when it
deletes the rows now, what it wrote so one round before, and free pages that came or went.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from memoturnd.core import scrub
from memoturnd.core.pages import PageHashes, lock_page, page_hash
from memoturnd.core.scrub import FreePages
from memoturnd.core.segment import Round, RoundEntry
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import CorruptionError
from memoturnd.replication.page_file import PageFile

Erase = Callable[[ProfileConnection], int]
"""Deletes the named rows from a past state, of whatever schema version, and returns how many there were.

It runs inside a transaction and must come to the same result each time. What it does not find is no error.
"""
_LOADED_PAGES = 1024
"""Pages of a whole state that are looked at together."""
_NOTHING_FREE = FreePages({}, frozenset())


class ErasedState:
    """O in a file at `path` (made, and removed by `close`), and what E is. For one thread at a time."""

    def __init__(self, path: Path, page_size: int, erase: Erase, *, only_look: bool = False) -> None:
        self.txid = 0
        """Of the state that it stands at; 0 for the empty file."""
        self.hashes = PageHashes()
        """The page hashes of E."""
        self.rows = 0
        """How many rows were deleted from the state."""
        self._original = PageHashes()
        self._file = PageFile(path, page_size)
        self._zeros = bytes(page_size)
        self._erase = erase
        self._only_look = only_look
        """Whether it is only counted what would be deleted; then `hashes` and `image` say nothing."""
        self._free = _NOTHING_FREE
        self._owners: dict[int, int] = {}
        """Of the last overflow pages: the page on which their payload begins."""

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    @property
    def size_pages(self) -> int:
        """Return the pages of E."""
        return self._file.whole_pages

    @property
    def is_original(self) -> bool:
        """Return whether E is O: nothing was erased, and nothing had to be cleaned."""
        return self.hashes.checksum == self._original.checksum and len(self.hashes) == len(self._original)

    def load(self, parts: Iterable[Mapping[int, bytes]], entry: RoundEntry) -> None:
        """Stand at a whole state, given in parts, whose checksum is in `entry`. Raises CorruptionError."""
        for images in parts:
            self._file.apply(images, entry.db_size_pages)
            self._original.apply(
                {pgno: page_hash(pgno, image) for pgno, image in images.items()}, entry.db_size_pages
            )
        self._check(entry)
        self._run(erase_again=True)
        if not self._only_look:
            for first in range(1, self.size_pages + 1, _LOADED_PAGES):
                self._changes(set(range(first, min(first + _LOADED_PAGES, self.size_pages + 1))))
        self.txid = entry.txid

    def advance(
        self,
        entry: RoundEntry,
        images: dict[int, bytes],
        sums: dict[int, int],
        others: Iterable[PageHashes] = (),
    ) -> Round:
        """Apply O's next round and return E's: what changed since the last state, or between `others` and this one.

        Every page that O's round has is in it. Raises CorruptionError where the round does not fit.
        """
        file = self._file
        doubtful = set(images) | set(file.written)
        same = file.size_pages == entry.db_size_pages and self.txid != 0
        erase_again = not (
            same and file.looked_at.isdisjoint(images) and file.written.keys().isdisjoint(images)
        )
        file.apply(images, entry.db_size_pages)
        self._original.apply(sums, entry.db_size_pages)
        self._check(entry)
        self._run(erase_again=erase_again)
        if self._only_look:
            self.txid = entry.txid
            return Round(entry.txid, entry.at_ms, entry.checksum, entry.db_size_pages, {}, {})
        doubtful.update(file.written)
        found: dict[int, tuple[bytes, int]] = {}
        for pgno, image, sum_, changed in self._changes(doubtful):
            if changed or pgno in images:
                found[pgno] = image, sum_
        for hashes in others:
            for pgno in self._different(hashes):
                image = self.image(pgno)
                found[pgno] = image, page_hash(pgno, image)
        self.txid = entry.txid
        return Round(
            entry.txid,
            entry.at_ms,
            self.hashes.checksum,
            self.size_pages,
            {pgno: image for pgno, (image, _) in found.items()},
            {pgno: sum_ for pgno, (_, sum_) in found.items()},
        )

    def _different(self, hashes: PageHashes) -> Iterator[int]:
        """Yield the pages of E whose hashes are not those."""
        for pgno in range(1, len(self.hashes) + 1):
            if pgno > len(hashes) or hashes[pgno] != self.hashes[pgno]:
                yield pgno

    def _check(self, entry: RoundEntry) -> None:
        if self._original.checksum != entry.checksum:
            raise CorruptionError(
                f"the chain breaks at txid {entry.txid}: the database checksum is {self._original.checksum:016x} "
                f"instead of {entry.checksum:016x}"
            )

    def _run(self, *, erase_again: bool) -> None:
        """Delete the rows from O, where what was looked at for it last time has changed."""
        file = self._file
        if not erase_again:
            return
        file.discard()
        if file.size_pages:
            with file.transaction() as conn:
                self.rows = self._erase(conn)

    # ---- from pages of O, with what deleting wrote, to pages of E

    def _changes(self, doubtful: set[int]) -> list[tuple[int, bytes, int, bool]]:
        """Bring the hashes of E up to date; return (page, image, hash, whether that is new) of what was doubtful."""
        file, free = self._file, self._free
        size = file.whole_pages
        if 1 in doubtful or not doubtful.isdisjoint(free.trunks):
            self._free = scrub.free_pages(file.page)
            doubtful |= free.leaves ^ self._free.leaves
            doubtful |= free.trunks.keys() ^ self._free.trunks.keys()
        skipped = lock_page(file.page_size)
        pgnos = {pgno for pgno in doubtful if pgno <= size and pgno != skipped}
        clean: dict[int, bytes] = {}
        tails: dict[int, int] = {}
        for pgno in pgnos:
            image = file.page(pgno)
            if not self._is_free(pgno) and scrub.is_btree(image, pgno):
                clean[pgno], spills = scrub.scrub_btree(image, pgno)
                for spill in spills:
                    last, used = scrub.last_overflow(file.page, spill, file.page_size)
                    tails[last], self._owners[last] = used, pgno
        changes: dict[int, int] = {}
        found = []
        for pgno in sorted(pgnos | tails.keys()):
            made = clean.get(pgno)
            image = made if made is not None else self._other_image(pgno, tails.get(pgno))
            sum_ = page_hash(pgno, image)
            before = self.hashes[pgno] if pgno <= len(self.hashes) else 0
            changes[pgno] = sum_
            found.append((pgno, image, sum_, sum_ != before))
        self.hashes.apply(changes, size)
        return found

    def _is_free(self, pgno: int) -> bool:
        return pgno in self._free.leaves or pgno in self._free.trunks

    def image(self, pgno: int) -> bytes:
        """Return a page of E. Raises CorruptionError where it is not the one whose hash is known."""
        image = self._file.page(pgno)
        if not self._is_free(pgno) and scrub.is_btree(image, pgno):
            image = scrub.scrub_btree(image, pgno)[0]
        else:
            image = self._other_image(pgno, None)
        if page_hash(pgno, image) != self.hashes[pgno]:
            raise CorruptionError(f"page {pgno} of the state at txid {self.txid} came out in two ways")
        return image

    def _other_image(self, pgno: int, used: int | None) -> bytes:
        """Return what becomes of a page that is not in a table or an index; of an overflow page `used` bytes may be known."""
        image = self._file.page(pgno)
        if pgno in self._free.leaves:
            return self._zeros
        trunk = self._free.trunks.get(pgno)
        if trunk is not None:
            return scrub.without_tail(image, trunk)
        if used is None and pgno in self._owners and not any(image[:4]):
            used = self._used(pgno, self._owners[pgno])
        return image if used is None else scrub.without_tail(image, used)

    def _used(self, pgno: int, owner: int) -> int | None:
        """Return how many bytes of an overflow page are used, None where it is not the last of a payload of `owner`."""
        file = self._file
        image = file.page(owner)
        if owner > file.whole_pages or self._is_free(owner) or not scrub.is_btree(image, owner):
            return None
        for spill in scrub.scrub_btree(image, owner)[1]:
            last, used = scrub.last_overflow(file.page, spill, file.page_size)
            if last == pgno:
                return used
        return None
