"""SQLite's write-ahead log."""

import struct
import tempfile
from pathlib import Path
from random import Random

from fuzz_target import INTERESTING, BreachError, Target, same
from wals import RealWal, checksum, parse, resummed

from memoturnd.core import wal
from memoturnd.core.wal import HEADER_SIZE_BYTES, WalHeader, WalRound

Log = tuple[WalHeader, list[WalRound]]


def read(data: bytes) -> Log | None:
    """Read the header and every round; there is nothing that the parser may raise."""
    header, rounds = parse(data)
    return None if header is None else (header, rounds)


def again(log: Log) -> None:
    """Write the rounds as a log of their own, and compare; reading on from a place finds the rest."""
    header, rounds = log
    data = written(header, rounds)
    other, found = parse(data)
    same(
        (header, [(r.db_size_pages, r.pages) for r in rounds]),
        (other, [(r.db_size_pages, r.pages) for r in found]),
    )
    if found:
        at = wal.offset_of(found[0].end, header.page_size)
        same(found[1:], wal.committed_rounds(data[at:], found[0].end, header))
    if any(pgno < 1 or len(image) != header.page_size for r in rounds for pgno, image in r.pages.items()):
        raise BreachError("a round has a page that is none")


def written(header: WalHeader, rounds: list[WalRound]) -> bytes:
    """Return the log that SQLite would write for these rounds, with the header's page size and salts."""
    start = header.start
    magic = 0x377F0683 if header.big_endian else 0x377F0682
    head = struct.pack(">6I", magic, 3007000, header.page_size, 0, start.salt1, start.salt2)
    sums = checksum(head, 0, 0, big_endian=header.big_endian)
    if sums != (start.checksum1, start.checksum2):  # the checkpoint number of the original was another
        head, sums = _head_with_sums(header)
    out = [head + struct.pack(">2I", *sums)]
    for round_ in rounds:
        for left, (pgno, image) in zip(range(len(round_.pages), 0, -1), round_.pages.items(), strict=True):
            begin = struct.pack(">2I", pgno, round_.db_size_pages if left == 1 else 0)
            sums = checksum(begin + image, *sums, big_endian=header.big_endian)
            out.append(begin + struct.pack(">4I", start.salt1, start.salt2, *sums) + image)
    return b"".join(out)


def _head_with_sums(header: WalHeader) -> tuple[bytes, tuple[int, int]]:
    """Return the header whose checkpoint number gives the sums that were read.

    The first sum after the number's word grows by it, and by what else stands in the header in fixed multiples.
    """
    start, magic = header.start, 0x377F0683 if header.big_endian else 0x377F0682
    zero = struct.pack(">6I", magic, 3007000, header.page_size, 0, start.salt1, start.salt2)
    base = checksum(zero, 0, 0, big_endian=header.big_endian)
    number = (start.checksum1 - base[0]) & 0xFFFFFFFF
    order = ">" if header.big_endian else "<"
    head = zero[:12] + struct.pack(order + "I", number) + zero[16:]
    return head, checksum(head, 0, 0, big_endian=header.big_endian)


def mend(data: bytes) -> bytes:
    """Return the log with the checksums of its header and frames made right, and every salt that of the header."""
    if len(data) < HEADER_SIZE_BYTES:
        return data
    big = data[:4] == b"\x37\x7f\x06\x83"
    head = (b"\x37\x7f\x06\x83" if big else b"\x37\x7f\x06\x82") + struct.pack(">I", 3007000) + data[8:24]
    sums = checksum(head, 0, 0, big_endian=big)
    out = [head + struct.pack(">2I", *sums)]
    page_size = struct.unpack_from(">I", head, 8)[0]
    step = 24 + page_size
    if page_size % 8 or not 0 < page_size <= len(data):
        return out[0] + data[HEADER_SIZE_BYTES:]
    at = HEADER_SIZE_BYTES
    while at + step <= len(data):
        begin, image = data[at : at + 8], data[at + 24 : at + step]
        sums = checksum(begin + image, *sums, big_endian=big)
        out.append(begin + head[16:24] + struct.pack(">2I", *sums) + image)
        at += step
    return b"".join((*out, data[at:]))


def mutate(data: bytes, rng: Random) -> bytes:
    """Change the page size, or the beginning of a frame, then make the checksums right."""
    body = bytearray(data)
    if len(body) < HEADER_SIZE_BYTES + 24:
        return mend(data)
    kind = rng.randrange(4)
    if kind == 0:
        body[8:12] = rng.choice(INTERESTING).to_bytes(8, "big")[-4:]
    elif kind == 1:
        at = rng.randrange(HEADER_SIZE_BYTES, len(body) - 4)
        body[at : at + 4] = rng.choice(INTERESTING).to_bytes(8, "big")[-4:]
    elif kind == 2:
        step = 24 + (struct.unpack_from(">I", body, 8)[0] or 1)
        at = HEADER_SIZE_BYTES + step * rng.randrange(1 + len(body) // step) + rng.choice((0, 4, 8))
        if at + 4 <= len(body):
            body[at : at + 4] = rng.choice((0, 1, 2, 3, 1 << 31)).to_bytes(4, "big")
    return mend(bytes(body)) if rng.random() < 0.8 else bytes(body)


def seeds() -> list[bytes]:
    """Return logs that SQLite wrote, in both byte orders, and one that was torn."""
    logs = []
    with tempfile.TemporaryDirectory() as folder:
        for page_size in (512, 1024):
            real = RealWal(Path(folder) / f"{page_size}.db", page_size=page_size)
            real.commit("CREATE TABLE t (id INTEGER PRIMARY KEY, v)", "INSERT INTO t (v) VALUES (1)")
            real.commit(("INSERT INTO t (v) VALUES (randomblob(?))", (page_size,)))
            real.commit("DELETE FROM t")
            logs.append(real.log)
            real.close()
    return [*logs, resummed(logs[0], big_endian=True), logs[0][:-100]]


TARGET = Target(
    name="wal",
    modules=("memoturnd.core.wal",),
    read=read,
    again=again,
    mutate=mutate,
    seeds=seeds,
    multiple=16,
    constant=4 << 20,  # the weights of a page of 64 KiB, kept for the sizes in use
)
