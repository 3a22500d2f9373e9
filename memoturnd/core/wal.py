"""SQLite's write-ahead log: committed rounds out of raw bytes, and the bytes of a log that holds given rounds.

Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log . A frame counts only if its salts are
the header's, its checksum continues the chain, and a commit frame follows it; everything behind the last
such frame is a torn write, a rolled-back spill, or a leftover of an earlier generation.

The checksum is a linear recurrence over 32-bit words, `s0 += x[0] + s1; s1 += x[1] + s0` per word pair, so a
whole frame is one dot product with fixed weights (3 us instead of 70 us for a 4 KiB page).
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from memoturnd.core.bounds import PAGE_SIZES

HEADER_SIZE_BYTES = 32
FRAME_HEADER_SIZE_BYTES = 24
_MAGIC_LITTLE_ENDIAN = 0x377F0682
_MAGIC_BIG_ENDIAN = 0x377F0683
_SUPPORTED_VERSION = 3007000
_FRAMES_PER_SLICE = 256  # bounds the arrays made at once to about 1 MiB

Words = npt.NDArray[np.uint32]


class WalPosition(NamedTuple):
    """A place between two frames, proven by what came before it: never a frame number alone."""

    salt1: int
    salt2: int
    frame: int
    """Frames before this place."""
    checksum1: int
    checksum2: int


@dataclass(frozen=True, slots=True)
class WalHeader:
    """The log's header: `start` is the place before its first frame."""

    page_size: int
    big_endian: bool
    start: WalPosition


@dataclass(frozen=True, slots=True)
class WalRound:
    """One committed transaction: the last image of each page it wrote, and the file's size after it."""

    db_size_pages: int
    pages: dict[int, bytes]
    end: WalPosition


def parse_header(data: bytes) -> WalHeader | None:
    """Return the header in the first 32 bytes, or None where they are no valid WAL header."""
    if len(data) < HEADER_SIZE_BYTES:
        return None
    magic, version, page_size, _, salt1, salt2, sum1, sum2 = struct.unpack_from(">8I", data)
    if magic not in {_MAGIC_LITTLE_ENDIAN, _MAGIC_BIG_ENDIAN} or version != _SUPPORTED_VERSION:
        return None
    if page_size not in PAGE_SIZES:
        return None
    big_endian = magic == _MAGIC_BIG_ENDIAN
    words = np.frombuffer(data, dtype=">u4" if big_endian else "<u4", count=6).astype(np.uint32)
    if _checksum(words, 0, 0) != (sum1, sum2):
        return None
    return WalHeader(page_size, big_endian, WalPosition(salt1, salt2, 0, sum1, sum2))


def frame_size_bytes(page_size: int) -> int:
    """Return the bytes that one frame takes in the log."""
    return FRAME_HEADER_SIZE_BYTES + page_size


def offset_of(position: WalPosition, page_size: int) -> int:
    """Return the byte offset of a place in the log file."""
    return HEADER_SIZE_BYTES + position.frame * frame_size_bytes(page_size)


def committed_rounds(data: bytes, start: WalPosition, header: WalHeader) -> list[WalRound]:
    """Return the rounds committed in `data`, the log's bytes from `start` on; stop at the first bad frame."""
    size_bytes = frame_size_bytes(header.page_size)
    count = len(data) // size_bytes
    rounds: list[WalRound] = []
    pages: dict[int, bytes] = {}
    state = (start.checksum1, start.checksum2)
    for first in range(0, count, _FRAMES_PER_SLICE):
        last = min(first + _FRAMES_PER_SLICE, count)
        contributions = _contributions(data, first, last, header)
        for index in range(first, last):
            at = index * size_bytes
            pgno, commit, salt1, salt2, sum1, sum2 = struct.unpack_from(">6I", data, at)
            if salt1 != start.salt1 or salt2 != start.salt2 or pgno == 0:
                return rounds
            state = _advance(state, contributions[index - first], header.page_size)
            if state != (sum1, sum2):
                return rounds
            pages[pgno] = data[at + FRAME_HEADER_SIZE_BYTES : at + size_bytes]
            if commit:
                end = WalPosition(salt1, salt2, start.frame + index + 1, sum1, sum2)
                rounds.append(WalRound(commit, pages, end))
                pages = {}
    return rounds


class LogRound(NamedTuple):
    """A round to be put into a log: the file's size after it, and its (page number, image)s, at least one."""

    db_size_pages: int
    images: Iterable[tuple[int, bytes]]


def encode_log(
    rounds: Iterable[LogRound], *, page_size: int, salt1: int, salt2: int
) -> Iterator[bytes | bytearray]:
    """Yield the bytes of a whole log that holds `rounds`, each one transaction, about 1 MiB at a time.

    Images beyond the size of their round's file are left out. The salts are random 32-bit numbers.
    """
    head = struct.pack(">6I", _MAGIC_LITTLE_ENDIAN, _SUPPORTED_VERSION, page_size, 0, salt1, salt2)
    state = _checksum(np.frombuffer(head, dtype="<u4"), 0, 0)
    yield head + struct.pack(">2I", *state)
    header = WalHeader(page_size, big_endian=False, start=WalPosition(salt1, salt2, 0, *state))
    size_bytes, frames = frame_size_bytes(page_size), _frames(rounds)
    while taken := list(islice(frames, _FRAMES_PER_SLICE)):
        data = bytearray().join(
            part
            for pgno, commit, image in taken
            for part in (struct.pack(">6I", pgno, commit, salt1, salt2, 0, 0), image)
        )
        for index, contribution in enumerate(_contributions(data, 0, len(taken), header)):
            state = _advance(state, contribution, page_size)
            struct.pack_into(">2I", data, index * size_bytes + 16, *state)
        yield data


def _frames(rounds: Iterable[LogRound]) -> Iterator[tuple[int, int, bytes]]:
    """Yield (page number, commit field, image); the last frame of a round commits it."""
    for size, images in rounds:
        waiting: tuple[int, bytes] | None = None
        for pgno, image in images:
            if not 0 < pgno <= size:
                continue
            if waiting is not None:
                yield waiting[0], 0, waiting[1]
            waiting = pgno, image
        if waiting is not None:
            yield waiting[0], size, waiting[1]


def _contributions(data: bytes | bytearray, first: int, last: int, header: WalHeader) -> list[list[int]]:
    """Return what the words of each frame in [first, last) add to the two running sums."""
    size_bytes = frame_size_bytes(header.page_size)
    dtype = ">u4" if header.big_endian else "<u4"
    count = (last - first) * size_bytes // 4
    words: npt.NDArray[Any] = np.frombuffer(data, dtype=dtype, count=count, offset=first * size_bytes)
    if header.big_endian:
        words = words.astype(np.uint32)
    frames = words.reshape(last - first, size_bytes // 4)
    weights = _weights(header.page_size)
    head = FRAME_HEADER_SIZE_BYTES // 4
    # The sum runs over the frame header's first two words, then over the page; uint32 arithmetic wraps.
    sums: list[list[int]] = np.einsum("fw,kw->fk", frames[:, head:], weights[:, 2:]).tolist()
    (a, b), (c, d) = weights[:, :2].tolist()
    for total, (x, y) in zip(sums, frames[:, :2].tolist(), strict=True):
        total[0] += a * x + b * y
        total[1] += c * x + d * y
    return sums


def _advance(state: tuple[int, int], contribution: list[int], page_size: int) -> tuple[int, int]:
    (a, b), (c, d) = _power((page_size + 8) // 8)
    s0, s1 = state
    return (
        (a * s0 + b * s1 + contribution[0]) & 0xFFFFFFFF,
        (c * s0 + d * s1 + contribution[1]) & 0xFFFFFFFF,
    )


def _checksum(words: Words, s0: int, s1: int) -> tuple[int, int]:
    """Return the sums over a short array of words, word by word as SQLite defines them."""
    for index in range(0, len(words), 2):
        s0 = (s0 + int(words[index]) + s1) & 0xFFFFFFFF
        s1 = (s1 + int(words[index + 1]) + s0) & 0xFFFFFFFF
    return s0, s1


@lru_cache(maxsize=4)
def _power(pairs: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return [[1, 1], [1, 2]] to the power `pairs`, modulo 2^32: what a run of pairs does to the old sums."""
    a, b, c, d = 1, 0, 0, 1
    for _ in range(pairs):
        a, b, c, d = a + c, b + d, a + 2 * c, b + 2 * d
    return (a & 0xFFFFFFFF, b & 0xFFFFFFFF), (c & 0xFFFFFFFF, d & 0xFFFFFFFF)


@lru_cache(maxsize=4)
def _weights(page_size: int) -> Words:
    """Return, for each running sum, the weight of every word of a frame (2 header words and the page).

    The pair (x, y) adds (x, x + y) to (s0, s1); every later pair multiplies that by [[1, 1], [1, 2]].
    """
    pairs = (page_size + 8) // 8
    first, second = weights = np.empty((2, 2 * pairs), dtype=np.uint32)
    a, b, c, d = 1, 0, 0, 1
    for pair in reversed(range(pairs)):
        first[2 * pair], first[2 * pair + 1] = (a + b) & 0xFFFFFFFF, b & 0xFFFFFFFF
        second[2 * pair], second[2 * pair + 1] = (c + d) & 0xFFFFFFFF, d & 0xFFFFFFFF
        a, b, c, d = (v & 0xFFFFFFFF for v in (a + c, b + d, a + 2 * c, b + 2 * d))
    return weights
