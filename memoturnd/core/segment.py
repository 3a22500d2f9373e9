"""The segment format, version 1: page images by commit round, compressed and proven (docs/formats.md).

    header   116 bytes, its own checksum last
    rounds   40 bytes each: txid, wall time, database checksum after it, file size, pages it wrote
    pages    12 bytes each, in round order: page number, page hash
    blocks   12 bytes each: stored size, XXH3-64 of the stored bytes
    tables   8 bytes: XXH3-64 of the three tables
    data     the blocks: 16 page images each (the last one fewer), zstd
    trailer  32 bytes: SHA-256 of everything before it

A snapshot is the same with one round that holds every page. All integers are little-endian. An object's
name carries the first 128 bits of the trailer, so the name proves the bytes and a retry writes the same key.
"""

import hashlib
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import accumulate, pairwise
from typing import NamedTuple

import xxhash
import zstandard

from memoturnd.core.bounds import INTEGER_MAX, PAGE_SIZES
from memoturnd.core.pages import page_hash
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
_TRAILER_SIZE_BYTES = 32
_HEADER_SIZE_BYTES = _HEADER.size + _SUM.size
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


@dataclass(frozen=True, slots=True)
class Segment:
    """A decoded object. Tables are verified; a block is verified when it is read."""

    kind: Kind
    page_size: int
    prev_txid: int
    epoch: int
    checksum_before: int
    rounds: tuple[RoundEntry, ...]
    pages: tuple[tuple[int, int], ...]
    """(page number, page hash) of each stored image, in round order."""
    _blocks: tuple[tuple[int, int], ...]
    _data: bytes
    _data_at: int

    @property
    def checksum_after(self) -> int:
        """Return the database checksum after the last round."""
        return self.rounds[-1].checksum

    def images(self, indexes: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Yield (index, image) for ascending indexes into `pages`, verifying every block and page on the way.

        Raises CorruptionError.
        """
        block_no, block = -1, b""
        decompress = _codecs.decompressor.decompress
        starts = list(accumulate((size for size, _ in self._blocks), initial=self._data_at))
        for index in indexes:
            if index // PAGES_PER_BLOCK != block_no:
                block_no = index // PAGES_PER_BLOCK
                block = self._block(block_no, starts[block_no], decompress)
            at = (index % PAGES_PER_BLOCK) * self.page_size
            image = block[at : at + self.page_size]
            pgno, expected = self.pages[index]
            if page_hash(pgno, image) != expected:
                raise CorruptionError(f"page {pgno} does not match its hash in its segment")
            yield index, image

    def _block(self, number: int, at: int, decompress: Callable[[bytes], bytes]) -> bytes:
        size, expected = self._blocks[number]
        stored = self._data[at : at + size]
        if xxhash.xxh3_64_intdigest(stored) != expected:
            raise CorruptionError(f"block {number} does not match its checksum in its segment")
        wanted = min(PAGES_PER_BLOCK, len(self.pages) - number * PAGES_PER_BLOCK) * self.page_size
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
) -> tuple[bytes, str]:
    """Return (object bytes, name hash of 32 hex digits). Rounds are non-empty and number consecutive txids."""
    invariant(rounds, "a segment holds at least one round")
    invariant(
        all(b.txid == a.txid + 1 for a, b in pairwise(rounds)) and rounds[0].txid > prev_txid,
        "the rounds of a segment are consecutive",
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
    compress = _codecs.compressor.compress
    blocks = [
        compress(b"".join(images[at : at + PAGES_PER_BLOCK])) for at in range(0, len(images), PAGES_PER_BLOCK)
    ]
    tables = b"".join(
        (
            *(_ROUND.pack(r.txid, r.at_ms, r.checksum, r.db_size_pages, len(r.images), 0) for r in rounds),
            *page_table,
            *(_BLOCK.pack(len(block), xxhash.xxh3_64_intdigest(block)) for block in blocks),
        )
    )
    header = _HEADER.pack(
        MAGIC, FORMAT_VERSION, kind, _COMPRESSION_ZSTD, 0, 0, 0, page_size,
        len(rounds), len(images), len(blocks), PAGES_PER_BLOCK, 0,
        prev_txid, rounds[0].txid, rounds[-1].txid, epoch, checksum_before, rounds[-1].checksum, bytes(16),
    )  # fmt: skip
    body = b"".join((header, _sum(header), tables, _sum(tables), *blocks))
    digest = hashlib.sha256(body).digest()
    return body + digest, digest[:16].hex()


def decode(data: bytes, *, name_hash: str | None = None) -> Segment:
    """Return the segment in `data`; every length, the tables and the whole file are verified first.

    With `name_hash` the bytes must also be the ones that the object's name promises. Raises CorruptionError.
    """
    if len(data) < _HEADER_SIZE_BYTES + _SUM.size + _TRAILER_SIZE_BYTES:
        raise CorruptionError(f"a segment of {len(data)} bytes is cut off")
    body = memoryview(data)[:-_TRAILER_SIZE_BYTES]
    digest = hashlib.sha256(body).digest()
    if digest != data[-_TRAILER_SIZE_BYTES:] or (name_hash is not None and digest[:16].hex() != name_hash):
        raise CorruptionError("the segment's bytes do not match its checksum")
    (
        magic, version, kind, compression, cipher, _, _, page_size, round_count, page_count, block_count,
        per_block, _, prev_txid, min_txid, max_txid, epoch, checksum_before, checksum_after, _,
    ) = _HEADER.unpack_from(data)  # fmt: skip
    if magic != MAGIC or _sum(body[: _HEADER.size]) != bytes(body[_HEADER.size : _HEADER_SIZE_BYTES]):
        raise CorruptionError("this is no segment: its header is wrong")
    if kind not in set(Kind) or version != FORMAT_VERSION or compression != _COMPRESSION_ZSTD or cipher != 0:
        raise CorruptionError(
            f"segment format {version} (kind {kind}, compression {compression}, cipher {cipher}) is not readable "
            f"by this version of Memoturn, which reads format {FORMAT_VERSION}; use a newer one"
        )
    if page_size not in PAGE_SIZES:
        raise CorruptionError(
            f"the segment says that a page has {page_size} bytes, which SQLite does not have"
        )
    rounds_end = _HEADER_SIZE_BYTES + round_count * _ROUND.size
    pages_end = rounds_end + page_count * _PAGE.size
    blocks_end = pages_end + block_count * _BLOCK.size
    tables = body[_HEADER_SIZE_BYTES:blocks_end]
    if blocks_end + _SUM.size > len(body) or _sum(tables) != bytes(body[blocks_end : blocks_end + _SUM.size]):
        raise CorruptionError("the segment's tables do not match their checksum")
    rounds = tuple(RoundEntry(*row[:5]) for row in _ROUND.iter_unpack(body[_HEADER_SIZE_BYTES:rounds_end]))
    segment = Segment(
        kind=Kind(kind),
        page_size=page_size,
        prev_txid=prev_txid,
        epoch=epoch,
        checksum_before=checksum_before,
        rounds=rounds,
        pages=tuple(_PAGE.iter_unpack(body[rounds_end:pages_end])),
        _blocks=tuple(_BLOCK.iter_unpack(body[pages_end:blocks_end])),
        _data=data,
        _data_at=blocks_end + _SUM.size,
    )
    stored = sum(size for size, _ in segment._blocks)  # noqa: SLF001 - our own value, being built
    consistent = (
        rounds
        and (rounds[0].txid, rounds[-1].txid, rounds[-1].checksum) == (min_txid, max_txid, checksum_after)
        and sum(r.pages for r in rounds) == page_count
        and per_block == PAGES_PER_BLOCK
        and block_count == -(-page_count // PAGES_PER_BLOCK)
        and segment._data_at + stored == len(body)  # noqa: SLF001
    )
    if not consistent or not _is_chain(segment):
        raise CorruptionError("the segment's header and tables contradict each other")
    return segment


def _is_chain(segment: Segment) -> bool:
    """Return whether rounds follow each other, their numbers are in range, and a page stands once in a round."""
    txid = first = 0
    for number, entry in enumerate(segment.rounds):
        follows = entry.txid == txid + 1 if number else entry.txid > segment.prev_txid
        pages = dict(segment.pages[first : first + entry.pages])
        if not follows or len(pages) != entry.pages or 0 in pages or entry.at_ms > INTEGER_MAX:
            return False
        txid, first = entry.txid, first + entry.pages
    only_round = segment.kind is Kind.SEGMENT or len(segment.rounds) == 1
    return only_round and max(txid, segment.epoch) <= INTEGER_MAX


def _sum(data: bytes | memoryview) -> bytes:
    return _SUM.pack(xxhash.xxh3_64_intdigest(data))
