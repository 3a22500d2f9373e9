"""The segment format, version 1: page images by commit round, compressed and proven (docs/formats.md).

    header   116 bytes, its own checksum last
    rounds   40 bytes each: txid, wall time, database checksum after it, file size, pages it wrote
    pages    12 bytes each, in round order: page number, page hash
    blocks   12 bytes each: stored size, XXH3-64 of the stored bytes
    tables   8 bytes: XXH3-64 of the three tables
    data     the blocks: 16 page images each (the last one fewer), zstd
    trailer  32 bytes: SHA-256 of everything before it

A snapshot is the same with one round that holds every page, or, as one part of several, those of one range.
All integers are little-endian. An object's name carries the first 128 bits of the trailer, so the name proves
the bytes and a retry writes the same key. Header and tables alone say where each page's bytes are and what
they must be, so single blocks can be read and proven without the rest.
"""

import hashlib
import io
import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import xxhash
import zstandard

from memoturnd.core.bounds import INTEGER_MAX, PAGE_SIZES
from memoturnd.core.pages import PageTable, page_hash, page_table_of
from memoturnd.errors import CorruptionError, invariant

FORMAT_VERSION = 1
PAGES_PER_BLOCK = 16
MAGIC = b"MEMOTURN"
_HEADER = struct.Struct("<8sHBBHHIIIIIIIQQQQQQ16s")
_ROUND = struct.Struct("<QQQIIQ")
_PAGE = struct.Struct("<IQ")
_BLOCK = struct.Struct("<IQ")
_SUM = struct.Struct("<Q")
_COMPRESSION_ZSTD = 1
_NO_NONCE = bytes(16)
_TRAILER_SIZE_BYTES = 32
_HEADER_SIZE_BYTES = _HEADER.size + _SUM.size
ARRAY_PAGES = 48
"""Pages of a round from which arrays are faster than a loop."""
SHORTEST_SIZE_BYTES = _HEADER_SIZE_BYTES + _SUM.size + _TRAILER_SIZE_BYTES
"""No object is smaller: a header, a table sum and a trailer."""
_ZSTD_LEVEL = 1


class _Codecs(threading.local):
    """One compressor and one decompressor a thread: making one costs more than a small segment's work."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_codecs = _Codecs()


class Kind(IntEnum):
    """What an object holds."""

    SEGMENT = 1
    SNAPSHOT = 2


_KINDS = frozenset(map(int, Kind))


class RoundEntry(NamedTuple):
    """One commit round: `at_ms` is unix ms, `checksum` the database's after it."""

    txid: int
    at_ms: int
    checksum: int
    db_size_pages: int
    pages: int


@dataclass(frozen=True, slots=True)
class Round:
    """A commit round to be encoded: its table entry and its page images, each with its page hash."""

    txid: int
    at_ms: int
    checksum: int
    db_size_pages: int
    images: dict[int, bytes]
    hashes: dict[int, int]


@dataclass(frozen=True)
class Segment:
    """The header and tables of an object, verified, and its bytes where it was read whole.

    A block is verified when it is unpacked, a page when it is taken out.
    """

    kind: Kind
    page_size: int
    prev_txid: int
    epoch: int
    checksum_before: int
    rounds: tuple[RoundEntry, ...]
    page_count: int
    _page_table: bytes
    _blocks: tuple[tuple[int, int], ...]
    """(stored size, checksum) of each block."""
    _starts: tuple[int, ...]
    """Where each block starts in the object, and where the last one ends."""
    _data: bytes = b""

    @property
    def checksum_after(self) -> int:
        """Return the database checksum after the last round."""
        return self.rounds[-1].checksum

    @property
    def data_bytes(self) -> int:
        """Return how many bytes of the object are held, beside the tables: all or none."""
        return len(self._data)

    def without_data(self) -> "Segment":
        """Return the tables alone, so that the object's bytes can be let go."""
        return replace(self, _data=b"")

    @cached_property
    def pages(self) -> tuple[tuple[int, int], ...]:
        """Return (page number, page hash) of each stored image, in round order."""
        return tuple(self.page_entries(0, self.page_count))

    def page_entries(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Return (page number, page hash) of `count` images from index `first` on."""
        return _PAGE.iter_unpack(self._page_table[first * _PAGE.size : (first + count) * _PAGE.size])

    def page_array(self, first: int, count: int) -> PageTable:
        """Return the same as one array with the fields `pgno` and `hash`."""
        return page_table_of(self._page_table, first, count)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Return (offset, length) in the object of the blocks `first` to `last`."""
        return self._starts[first], self._starts[last + 1] - self._starts[first]

    def images(self, indexes: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (index, image) for ascending indexes of images, verifying every block and page on the way.

        Raises CorruptionError.
        """
        for index, (_, image) in zip(indexes, self.numbered_images(indexes), strict=True):
            yield index, image

    def numbered_images(
        self, indexes: Iterable[int], stored: bytes | None = None, stored_at: int = 0
    ) -> Iterator[tuple[int, bytes]]:
        """Yield the same as (page number, image).

        They are taken from `stored`, the object's bytes from offset `stored_at` on, where it was not read
        whole. Raises CorruptionError.
        """
        data, data_at = (self._data, 0) if stored is None else (stored, stored_at)
        block_no, block = -1, b""
        decompress, entry_at, page_size = _codecs.decompressor.decompress, _PAGE.unpack_from, self.page_size
        for index in indexes:
            if index // PAGES_PER_BLOCK != block_no:
                block_no = index // PAGES_PER_BLOCK
                at = self._starts[block_no] - data_at
                block = self._unpacked(block_no, data[at : at + self._blocks[block_no][0]], decompress)
            at = (index % PAGES_PER_BLOCK) * page_size
            image = block[at : at + page_size]
            pgno, expected = entry_at(self._page_table, index * _PAGE.size)
            if page_hash(pgno, image) != expected:
                raise CorruptionError(f"page {pgno} does not match its hash in its segment")
            yield pgno, image

    def _unpacked(self, number: int, stored: bytes, decompress: Callable[[bytes], bytes]) -> bytes:
        if xxhash.xxh3_64_intdigest(stored) != self._blocks[number][1]:
            raise CorruptionError(f"block {number} does not match its checksum in its segment")
        wanted = min(PAGES_PER_BLOCK, self.page_count - number * PAGES_PER_BLOCK) * self.page_size
        try:
            # Looked at first: the decompressor allocates whatever the block itself says that it holds.
            size_bytes = zstandard.frame_content_size(stored)
            if size_bytes != wanted:
                raise CorruptionError(f"block {number} holds {size_bytes} bytes instead of {wanted}")
            return decompress(stored)
        except zstandard.ZstdError as error:
            raise CorruptionError(f"block {number} does not decompress: {error}") from error


def encode(
    kind: Kind,
    rounds: Sequence[Round],
    *,
    page_size: int,
    prev_txid: int,
    epoch: int,
    checksum_before: int,
    nonce: bytes = _NO_NONCE,
) -> tuple[bytes, str]:
    """Return (object bytes, name hash of 32 hex digits). Rounds are non-empty and their txids ascend.

    Another `nonce` of 16 bytes gives the same content another name.
    """
    invariant(rounds, "a segment holds at least one round")
    invariant(
        all(b.txid > a.txid for a, b in pairwise(rounds)) and rounds[0].txid > prev_txid,
        "the rounds of a segment ascend",
        prev_txid=prev_txid,
        txids=[r.txid for r in rounds[:3]],
    )
    page_table: list[bytes] = []
    images: list[bytes] = []
    for round_ in rounds:
        hashes = round_.hashes
        for pgno, image in round_.images.items():
            page_table.append(_PAGE.pack(pgno, hashes[pgno]))
            images.append(image)
    return encode_stream(
        kind,
        [RoundEntry(r.txid, r.at_ms, r.checksum, r.db_size_pages, len(r.images)) for r in rounds],
        b"".join(page_table),
        (b"".join(images[at : at + PAGES_PER_BLOCK]) for at in range(0, len(images), PAGES_PER_BLOCK)),
        page_size=page_size,
        prev_txid=prev_txid,
        epoch=epoch,
        checksum_before=checksum_before,
        nonce=nonce,
    )


def encode_stream(
    kind: Kind,
    rounds: Sequence[RoundEntry],
    page_table: bytes,
    raw_blocks: Iterable[bytes],
    *,
    page_size: int,
    prev_txid: int,
    epoch: int,
    checksum_before: int,
    nonce: bytes = _NO_NONCE,
) -> tuple[bytes, str]:
    """Return (object bytes, name hash), taking the images from `raw_blocks`: PAGES_PER_BLOCK each, joined.

    `page_table` is as in the format. Holds the compressed object and one raw block in memory.
    """
    pages = len(page_table) // _PAGE.size
    block_count = -(-pages // PAGES_PER_BLOCK)
    tables_size_bytes = len(rounds) * _ROUND.size + len(page_table) + block_count * _BLOCK.size
    compress = _codecs.compressor.compress
    block_table: list[bytes] = []
    out = io.BytesIO()
    out.seek(_HEADER_SIZE_BYTES + tables_size_bytes + _SUM.size)
    for raw in raw_blocks:
        block = compress(raw)
        block_table.append(_BLOCK.pack(len(block), xxhash.xxh3_64_intdigest(block)))
        out.write(block)
    tables = b"".join((*(_ROUND.pack(*entry, 0) for entry in rounds), page_table, *block_table))
    invariant(len(tables) == tables_size_bytes, "there is a raw block for every 16 pages of the table")
    header = _HEADER.pack(
        MAGIC, FORMAT_VERSION, kind, _COMPRESSION_ZSTD, 0, 0, 0, page_size,
        len(rounds), pages, block_count, PAGES_PER_BLOCK, 0,
        prev_txid, rounds[0].txid, rounds[-1].txid, epoch, checksum_before, rounds[-1].checksum, nonce,
    )  # fmt: skip
    out.seek(0)
    out.write(b"".join((header, _sum(header), tables, _sum(tables))))
    digest = hashlib.sha256(out.getbuffer()).digest()
    out.seek(0, io.SEEK_END)
    out.write(digest)
    return out.getvalue(), digest[:16].hex()


def decode(data: bytes, *, name_hash: str | None = None) -> Segment:
    """Return the segment in `data`; every length, the tables and the whole file are verified first.

    With `name_hash` the bytes must also be the ones that the object's name promises. Raises CorruptionError.
    """
    if len(data) < SHORTEST_SIZE_BYTES:
        raise CorruptionError(f"a segment of {len(data)} bytes is cut off")
    digest = hashlib.sha256(memoryview(data)[:-_TRAILER_SIZE_BYTES]).digest()
    if digest != data[-_TRAILER_SIZE_BYTES:] or (name_hash is not None and digest[:16].hex() != name_hash):
        raise CorruptionError("the segment's bytes do not match its checksum")
    return decode_tables(data, len(data), whole=True)


def tables_end(data: bytes, size_bytes: int) -> int:
    """Return where the tables end in an object of `size_bytes`, whose first SHORTEST_SIZE_BYTES `data` holds.

    Verifies the header. Raises CorruptionError.
    """
    return _header(data, size_bytes)[0]


def _header(data: bytes, size_bytes: int) -> tuple[int, tuple[Any, ...]]:
    """Return (where the tables end, the header's fields)."""
    if min(len(data), size_bytes) < SHORTEST_SIZE_BYTES:
        raise CorruptionError(f"a segment of {min(len(data), size_bytes)} bytes is cut off")
    fields = _HEADER.unpack_from(data)
    magic, version, kind, compression, cipher, _, _, page_size, rounds, pages, blocks = fields[:11]
    if magic != MAGIC or _sum(data[: _HEADER.size]) != data[_HEADER.size : _HEADER_SIZE_BYTES]:
        raise CorruptionError("this is no segment: its header is wrong")
    if kind not in _KINDS or version != FORMAT_VERSION or compression != _COMPRESSION_ZSTD or cipher != 0:
        raise CorruptionError(
            f"segment format {version} (kind {kind}, compression {compression}, cipher {cipher}) is not readable "
            f"by this version of Memoturn, which reads format {FORMAT_VERSION}; use a newer one"
        )
    if page_size not in PAGE_SIZES:
        raise CorruptionError(
            f"the segment says that a page has {page_size} bytes, which SQLite does not have"
        )
    end = _HEADER_SIZE_BYTES + rounds * _ROUND.size + pages * _PAGE.size + blocks * _BLOCK.size + _SUM.size
    if end > size_bytes - _TRAILER_SIZE_BYTES:
        raise CorruptionError(f"the segment's tables do not fit into its {size_bytes} bytes")
    return end, fields


def decode_tables(data: bytes, size_bytes: int, *, whole: bool = False) -> Segment:
    """Return the segment of `size_bytes` whose first bytes, up to the end of its tables at least, are `data`.

    Verifies header and tables; with `whole`, `data` is the object. Raises CorruptionError.
    """
    data_at, fields = _header(data, size_bytes)
    (
        _, _, kind, _, _, _, _, page_size, round_count, page_count, block_count,
        per_block, _, prev_txid, min_txid, max_txid, epoch, checksum_before, checksum_after, _,
    ) = fields  # fmt: skip
    view = memoryview(data)
    rounds_end = _HEADER_SIZE_BYTES + round_count * _ROUND.size
    pages_end = rounds_end + page_count * _PAGE.size
    blocks_end = pages_end + block_count * _BLOCK.size
    if _sum(view[_HEADER_SIZE_BYTES:blocks_end]) != view[blocks_end:data_at]:
        raise CorruptionError("the segment's tables do not match their checksum")
    rounds = tuple(RoundEntry(*row[:5]) for row in _ROUND.iter_unpack(view[_HEADER_SIZE_BYTES:rounds_end]))
    blocks = tuple(_BLOCK.iter_unpack(view[pages_end:blocks_end]))
    starts = tuple(accumulate((size for size, _ in blocks), initial=data_at))
    consistent = (
        rounds
        and (rounds[0].txid, rounds[-1].txid, rounds[-1].checksum) == (min_txid, max_txid, checksum_after)
        and sum(r.pages for r in rounds) == page_count
        and per_block == PAGES_PER_BLOCK
        and block_count == -(-page_count // PAGES_PER_BLOCK)
        and starts[-1] == size_bytes - _TRAILER_SIZE_BYTES
    )
    made = Segment(
        kind=Kind(kind),
        page_size=page_size,
        prev_txid=prev_txid,
        epoch=epoch,
        checksum_before=checksum_before,
        rounds=rounds,
        page_count=page_count,
        _page_table=bytes(view[rounds_end:pages_end]),
        _blocks=blocks,
        _starts=starts,
        _data=data if whole else b"",
    )
    if not consistent or not _is_chain(made):
        raise CorruptionError("the segment's header and tables contradict each other")
    return made


def _is_chain(segment: Segment) -> bool:
    """Return whether rounds ascend, their numbers are in range, and a page stands once in a round."""
    txid, first = segment.prev_txid, 0
    for entry in segment.rounds:
        if entry.txid <= txid or entry.at_ms > INTEGER_MAX or not _are_distinct(segment, first, entry.pages):
            return False
        txid, first = entry.txid, first + entry.pages
    only_round = segment.kind is Kind.SEGMENT or len(segment.rounds) == 1
    return only_round and max(txid, segment.epoch) <= INTEGER_MAX


def _are_distinct(segment: Segment, first: int, count: int) -> bool:
    """Return whether `count` images from index `first` on are of pages that there are, each another one."""
    if count < ARRAY_PAGES:
        pages = dict(segment.page_entries(first, count))
        return len(pages) == count and 0 not in pages
    pgnos = np.unique(segment.page_array(first, count)["pgno"])
    return len(pgnos) == count and bool(pgnos[0] > 0)


def _sum(data: bytes | memoryview) -> bytes:
    return _SUM.pack(xxhash.xxh3_64_intdigest(data))
