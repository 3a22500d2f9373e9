"""Pages of a database file without what SQLite does not use of them: remains of rows that are gone. Pure.

Of a b-tree page that is the gap between cell pointers and cells, the inside of free blocks, and fragments; of
the list of free pages everything but the numbers in it; of the last overflow page of a cell what lies behind
its payload. Sources: https://www.sqlite.org/fileformat2.html, sections 1.5 and 1.6. No page of a file below
128 GiB can be taken for another kind: overflow pages and trunks of the free list begin with a page number.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from memoturnd.errors import CorruptionError

PAGES_MAX = (2 << 24) - 1
"""Pages of a file up to which the first byte of a page tells its kind."""
_TABLE_LEAF, _TABLE_INNER, _INDEX_LEAF, _INDEX_INNER = 13, 5, 10, 2
_KINDS = frozenset({_TABLE_LEAF, _TABLE_INNER, _INDEX_LEAF, _INDEX_INNER})
_INNER = frozenset({_TABLE_INNER, _INDEX_INNER})
_FILE_HEADER_BYTES = 100
_FREE_LIST_AT = 32
_LEAST_CELL_BYTES = 4
_HEADER = struct.Struct(">BHHHB")
_NUMBER = struct.Struct(">I")
_PAIR = struct.Struct(">HH")
_MORE = 0x80
_VARINT_BYTES = 9

Page = Callable[[int], bytes]
"""Returns the image of a page by its number."""


class Spill(NamedTuple):
    """A payload that goes on in overflow pages: the first of them, and how many bytes they hold."""

    first: int
    size_bytes: int


def is_btree(image: bytes, pgno: int) -> bool:
    """Return whether a page that is in use is one of a table or an index."""
    return image[_FILE_HEADER_BYTES if pgno == 1 else 0] in _KINDS


def scrub_btree(image: bytes, pgno: int) -> tuple[bytes, tuple[Spill, ...]]:
    """Return a b-tree page without what is not used of it, and the payloads that go on elsewhere.

    The page is the same object where nothing changes. Raises CorruptionError for one that contradicts itself.
    """
    try:
        return _scrubbed(image, pgno)
    except (IndexError, struct.error) as error:
        raise CorruptionError(
            f"page {pgno} is no page of a table or an index, although it says so"
        ) from error


def _scrubbed(image: bytes, pgno: int) -> tuple[bytes, tuple[Spill, ...]]:
    head = _FILE_HEADER_BYTES if pgno == 1 else 0
    kind, free_block, cells, content, fragments = _HEADER.unpack_from(image, head)
    pointers_at = head + (12 if kind in _INNER else 8)
    gap_at, size = pointers_at + 2 * cells, len(image)
    content = content or 65536
    if not gap_at <= content <= size:
        raise IndexError
    pointers = struct.unpack_from(f">{cells}H", image, pointers_at)
    spills = tuple(_spills(image, kind, pointers))
    gap_bytes = content - gap_at
    if not free_block and not fragments:
        if image.count(0, gap_at, content) == gap_bytes:
            return image, spills
        return b"".join((image[:gap_at], bytes(gap_bytes), image[content:])), spills
    made = bytearray(size)
    made[:gap_at] = image[:gap_at]
    for at in pointers:
        end = at + _cell_bytes(image, kind, at)
        if at < content or end > size:
            raise IndexError
        made[at:end] = image[at:end]
    while free_block:
        following, block_bytes = _PAIR.unpack_from(image, free_block)
        made[free_block : free_block + 4] = image[free_block : free_block + 4]
        if following and following < free_block + max(block_bytes, _LEAST_CELL_BYTES):
            raise IndexError
        free_block = following
    if made == image:
        return image, spills
    return bytes(made), spills


def _spills(image: bytes, kind: int, pointers: tuple[int, ...]) -> Iterator[Spill]:
    if kind == _TABLE_INNER:
        return
    size = len(image)
    most = _most_local(size, kind)
    child = 4 if kind in _INNER else 0
    for at in pointers:
        if image[at + child] < _MORE:
            continue  # below 128 bytes, which any page has room for
        payload, body = _varint(image, at + child)
        if payload > most:
            if kind == _TABLE_LEAF:
                _, body = _varint(image, body)
            local = _local(size, payload, most)
            yield Spill(_NUMBER.unpack_from(image, body + local)[0], payload - local)


def _cell_bytes(image: bytes, kind: int, at: int) -> int:
    start, size = at, len(image)
    if kind in _INNER:
        at += 4
    payload, at = _varint(image, at)  # of an inner page of a table: the key, and nothing more
    if kind == _TABLE_INNER:
        return at - start
    if kind == _TABLE_LEAF:
        _, at = _varint(image, at)
    most = _most_local(size, kind)
    stored = payload if payload <= most else _local(size, payload, most) + 4
    return max(_LEAST_CELL_BYTES, at + stored - start)


def _most_local(size: int, kind: int) -> int:
    """Return how much of a payload stays on a page at most."""
    return size - 35 if kind == _TABLE_LEAF else (size - 12) * 64 // 255 - 23


def _local(size: int, payload: int, most: int) -> int:
    """Return how much stays of a payload that is too large."""
    least = (size - 12) * 32 // 255 - 23
    local = least + (payload - least) % (size - 4)
    return local if local <= most else least


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for step in range(_VARINT_BYTES - 1):
        byte = data[at + step]
        value = (value << 7) | (byte & 0x7F)
        if byte < _MORE:
            return value, at + step + 1
    return (value << 8) | data[at + 8], at + _VARINT_BYTES


# ---- overflow pages


def last_overflow(page: Page, spill: Spill, page_size: int) -> tuple[int, int]:
    """Return the last page of a payload, and how many of its bytes are used. Raises CorruptionError."""
    pgno, left = spill.first, spill.size_bytes
    while left > page_size - 4:
        (pgno,) = _NUMBER.unpack_from(page(pgno))
        left -= page_size - 4
        if pgno == 0:
            raise CorruptionError("a payload ends before its last overflow page")
    return pgno, 4 + left


def without_tail(image: bytes, used: int) -> bytes:
    """Return an overflow page without what lies behind its payload."""
    if image.count(0, used) == len(image) - used:
        return image
    return image[:used] + bytes(len(image) - used)


# ---- free pages


class FreePages(NamedTuple):
    """The free pages of a file: those that list others, with the bytes of them that do, and those that hold nothing."""

    trunks: dict[int, int]
    leaves: frozenset[int]


def free_pages(page: Page) -> FreePages:
    """Return the free pages of a file. Raises CorruptionError where their list contradicts itself."""
    (trunk,) = _NUMBER.unpack_from(page(1), _FREE_LIST_AT)
    trunks: dict[int, int] = {}
    leaves: list[int] = []
    while trunk:
        image = page(trunk)
        following, count = struct.unpack_from(">II", image)
        used = 8 + 4 * count
        if trunk in trunks or used > len(image):
            raise CorruptionError(f"the list of free pages goes round in a circle at page {trunk}")
        trunks[trunk] = used
        leaves += struct.unpack_from(f">{count}I", image, 8)
        trunk = following
    return FreePages(trunks, frozenset(leaves))
