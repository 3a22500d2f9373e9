"""Page hashes, the database checksum that rolls over them, and the one page that names a commit round.

The hash of a page is XXH3-64 of its bytes, seeded with its page number, so that two pages that swap places
change the checksum. The checksum of a database is the sum of its pages' hashes modulo 2^64: a round is
applied by subtracting the old hashes and adding the new ones, without touching other pages.
"""

import struct
from array import array
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.errors import CorruptionError

META_PAGE = 2
"""Root page of `__memoturn_meta`: the first table that the schema creates."""
_META_INTEGERS = 5
LOCK_BYTE = 0x40000000
_MASK = 0xFFFFFFFFFFFFFFFF
_LEAF_TABLE_PAGE = 0x0D
_ZEROS = bytes(65536)  # the largest page that SQLite has
_ZERO_HEAD = bytes(64)
_ENTRY = np.dtype([("pgno", "<u4"), ("hash", "<u8")])
PageTable = npt.NDArray[Any]
"""(page number, page hash) entries, 12 bytes each, with the fields `pgno` and `hash`: a segment's page table."""
Words = npt.NDArray[np.uint64]


def page_table_of(data: bytes, first: int, count: int) -> PageTable:
    """Return `count` entries of an encoded page table from entry `first` on, without a copy."""
    return np.frombuffer(data, dtype=_ENTRY, count=count, offset=first * _ENTRY.itemsize)


class RoundMeta(NamedTuple):
    """The row of `__memoturn_meta` as a commit round left it; `at_ms` is unix milliseconds."""

    schema_version: int
    txid: int
    at_ms: int
    epoch: int


def page_hash(pgno: int, image: bytes) -> int:
    """Return the 64-bit hash of one page image; 0 for a page of zeros, which is what an unwritten one reads as."""
    if image[:64] == _ZERO_HEAD and image == _ZEROS[: len(image)]:
        return 0
    return xxhash.xxh3_64_intdigest(image, pgno)


def lock_page(page_size: int) -> int:
    """Return the page that holds SQLite's lock bytes (at 1 GiB): never written, never shipped."""
    return LOCK_BYTE // page_size + 1


class PageHashes:
    """The hash of every page of a database, 0 for a page never written, and their sum modulo 2^64.

    Costs 8 bytes a page in memory (a 10 MB file: 20 KB).
    """

    def __init__(self, hashes: bytes = b"") -> None:
        self._hashes = array("Q", hashes)
        self.checksum = _total(self._words()) if hashes else 0

    def __len__(self) -> int:
        return len(self._hashes)

    def __getitem__(self, pgno: int) -> int:
        return self._hashes[pgno - 1]

    def duplicate(self) -> "PageHashes":
        """Return an independent copy: 8 bytes a page."""
        return PageHashes(self.to_bytes())

    def apply(self, changes: dict[int, int], db_size_pages: int) -> int:
        """Set the hashes of changed pages, cut or grow to the new size, and return the new checksum."""
        self._grow(db_size_pages)
        hashes, checksum = self._hashes, self.checksum
        for pgno, value in changes.items():
            if 0 < pgno <= db_size_pages:
                checksum += value - hashes[pgno - 1]
                hashes[pgno - 1] = value
        self.checksum = checksum & _MASK
        return self._cut(db_size_pages)

    def apply_table(self, table: PageTable, db_size_pages: int) -> int:
        """Do the same with the entries of a page table, whose pages are distinct, without a loop in Python."""
        self._grow(db_size_pages)
        at, words = (
            table["pgno"] - 1,
            self._words(),
        )  # page 0, which there is not, becomes one that is too large
        inside = at < db_size_pages
        at, table = at[inside], table[inside]
        self.checksum = (self.checksum + _total(table["hash"]) - _total(words[at])) & _MASK
        words[at] = table["hash"]
        del words
        return self._cut(db_size_pages)

    def _grow(self, db_size_pages: int) -> None:
        missing = db_size_pages - len(self._hashes)
        if missing > 0:
            self._hashes.frombytes(bytes(8 * missing))

    def _cut(self, db_size_pages: int) -> int:
        if len(self._hashes) > db_size_pages:
            self.checksum = (self.checksum - _total(self._words()[db_size_pages:])) & _MASK
            del self._hashes[db_size_pages:]
        return self.checksum

    def table(self, pgnos: Words) -> bytes:
        """Return the page table of the pages `pgnos`, encoded."""
        made = np.empty(len(pgnos), dtype=_ENTRY)
        made["pgno"], made["hash"] = pgnos, self._words()[pgnos - 1]
        return made.tobytes()

    def _words(self) -> Words:
        """Return the hashes as an array on the same memory; while it lives, they cannot grow or shrink."""
        return np.frombuffer(self._hashes, dtype=np.uint64)

    def preview(self, rounds: Iterable[tuple[dict[int, int], int]]) -> list[int]:
        """Return the checksum after each (changes, file size) in turn, without applying any."""
        changed: dict[int, int] = {}
        size, checksum, checksums = len(self._hashes), self.checksum, []
        for changes, db_size_pages in rounds:
            for pgno in range(db_size_pages + 1, size + 1):  # a smaller file loses its last pages
                before = changed.get(pgno)
                checksum -= self._at(pgno) if before is None else before
                changed[pgno] = 0
            for pgno, value in changes.items():
                if pgno <= db_size_pages:
                    before = changed.get(pgno)
                    checksum += value - (self._at(pgno) if before is None else before)
                    changed[pgno] = value
            size = db_size_pages
            checksums.append(checksum & _MASK)
        return checksums

    def _at(self, pgno: int) -> int:
        return self._hashes[pgno - 1] if pgno <= len(self._hashes) else 0

    def to_bytes(self) -> bytes:
        """Return the hashes as little-endian 64-bit words, page 1 first."""
        return self._hashes.tobytes()


def _total(words: Words) -> int:
    """Return the sum of 64-bit words modulo 2^64."""
    return int(words.sum(dtype=np.uint64))


def parse_meta_page(image: bytes) -> RoundMeta:
    """Return the single row of `__memoturn_meta` from its page image.

    The page is a leaf of a table b-tree with one cell; see
    https://www.sqlite.org/fileformat2.html#b_tree_pages . Raises CorruptionError on anything else.
    """
    try:
        if image[0] != _LEAF_TABLE_PAGE or image[3:5] != b"\x00\x01":
            raise CorruptionError("page 2 does not hold the one row of __memoturn_meta")
        at = struct.unpack_from(">H", image, 8)[0]
        _, at = _varint(image, at)  # payload size
        _, at = _varint(image, at)  # rowid
        header_size, body = _varint(image, at)
        end = at + header_size
        values: list[int] = []
        value_at = end
        while body < end and len(values) < _META_INTEGERS:  # behind them there is text, from version 3 on
            serial, body = _varint(image, body)
            value, value_at = _integer(image, value_at, serial)
            values.append(value)
        _, schema_version, txid, at_ms, epoch = values
    except (IndexError, ValueError, struct.error) as error:
        raise CorruptionError("page 2 does not hold the one row of __memoturn_meta") from error
    meta = RoundMeta(schema_version, txid, at_ms, epoch)
    if any(not 0 <= value <= INTEGER_MAX for value in meta):
        raise CorruptionError(f"page 2 holds a row of __memoturn_meta that no node writes: {meta}")
    return meta


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(8):
        byte = data[at + step]
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:  # noqa: PLR2004 - the continuation bit
            return value, at + step + 1
    return (value << 8) | data[at + 8], at + 9


_INTEGER_SIZE_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _integer(data: bytes, at: int, serial: int) -> tuple[int, int]:
    if serial in {0, 8, 9}:  # NULL (the rowid alias), 0, 1
        return (1 if serial == 9 else 0), at  # noqa: PLR2004 - serial type 9 is the constant 1
    size = _INTEGER_SIZE_BYTES.get(serial)
    if size is None:
        raise ValueError(f"serial type {serial} is no integer")
    if at + size > len(data):
        raise IndexError("the row ends behind its page")
    return int.from_bytes(data[at : at + size], "big", signed=True), at + size
