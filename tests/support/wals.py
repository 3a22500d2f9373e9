"""Write-ahead logs written by SQLite itself, with what SQLite says the database was after each commit."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from memoturnd.core import wal


@dataclass
class RealWal:
    """A database in WAL mode whose log nobody checkpoints unless told to.

    `states[n]` is the whole database as SQLite serialises it after the n-th commit; `states[0]` is before.
    """

    path: Path
    page_size: int = 4096
    cache_pages: int = 100
    states: list[bytes] = field(default_factory=list)

    def __post_init__(self):
        self.conn = apsw.Connection(str(self.path))
        self.conn.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self.conn.execute(f"PRAGMA page_size={self.page_size}")
        assert self.conn.execute("PRAGMA journal_mode=WAL").get == "wal"
        self.conn.wal_autocheckpoint(0)
        self.conn.execute("PRAGMA synchronous=OFF")
        self.conn.execute(f"PRAGMA cache_size={self.cache_pages}")
        self.states.append(self.conn.serialize("main"))

    def commit(self, *statements):
        self.conn.execute("BEGIN IMMEDIATE")
        for statement in statements:
            self.conn.execute(*statement) if isinstance(statement, tuple) else self.conn.execute(statement)
        self.conn.execute("COMMIT")
        self.states.append(self.conn.serialize("main"))

    def checkpoint(self):
        frames, done = self.conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        assert frames == done
        return frames

    @property
    def log(self):
        return Path(f"{self.path}-wal").read_bytes()

    def close(self):
        self.conn.close()


def parse(log):
    """Return (header, rounds) of a whole log; (None, []) where it has no valid header."""
    header = wal.parse_header(log)
    if header is None:
        return None, []
    return header, wal.committed_rounds(log[wal.HEADER_SIZE_BYTES :], header.start, header)


def apply_rounds(base, rounds, page_size):
    """Return the database after each round, applied one after the other to the bytes of a database."""
    pages = {n + 1: base[n * page_size : (n + 1) * page_size] for n in range(len(base) // page_size)}
    states = []
    for round_ in rounds:
        pages |= round_.pages
        pages = {n: image for n, image in pages.items() if n <= round_.db_size_pages}
        states.append(b"".join(pages[n + 1] for n in range(round_.db_size_pages)))
    return states


def checksum(data, s0, s1, *, big_endian):
    """Return the running checksum over `data`, word by word, as the file format defines it."""
    words = struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data)
    for x, y in zip(words[::2], words[1::2], strict=True):
        s0 = (s0 + x + s1) & 0xFFFFFFFF
        s1 = (s1 + y + s0) & 0xFFFFFFFF
    return s0, s1


def resummed(log, *, big_endian):
    """Return the same log with its checksums in the byte order asked for, as another machine writes it."""
    magic = 0x377F0683 if big_endian else 0x377F0682
    head = struct.pack(">I", magic) + log[4:24]
    sums = checksum(head, 0, 0, big_endian=big_endian)
    out = [head + struct.pack(">2I", *sums)]
    page_size = struct.unpack_from(">I", log, 8)[0]
    step = 24 + page_size
    for at in range(32, len(log) - step + 1, step):
        frame = log[at : at + step]
        sums = checksum(frame[:8] + frame[24:], *sums, big_endian=big_endian)
        out.append(frame[:16] + struct.pack(">2I", *sums) + frame[24:])
    return b"".join(out)
