"""The spool: audit events on the node's disk, from the moment before an answer leaves until object storage has them.

    000000000001.spool    a line for each record: `{CRC-32, 8 hex digits} {record}`

A record is `e {stream} {event}`, or `o {stream} {chain} {number} {count} {key}`: the next `count` events of a stream are about
to be put as that object, so that after a crash the same bytes go to the same key. Each record is one write(2), which
survives the process; with `fsync` it survives power loss. A torn last line was of an answer that never left.
"""

import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from memoturnd.core import audit
from memoturnd.core.audit import Waiting
from memoturnd.disk import sync_folder
from memoturnd.errors import CorruptionError

FILE_BYTES: Final = 4 << 20
"""A file that is so large is followed by another one, so that what is flushed can go."""
_CRC_END: Final = 8
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Intent:
    """The object that the next `count` events of a stream were about to become."""

    chain: str
    number: int
    count: int
    key: str


@dataclass(frozen=True, slots=True)
class Found:
    """An event that an earlier process left, and the number of the file that has it."""

    stream: str
    event: Waiting
    file: int


class Spool:
    """The files. `open` comes first; every other method may raise OSError."""

    def __init__(self, folder: Path, *, fsync: bool) -> None:
        self._folder = folder
        self._fsync = fsync
        self._fd = -1
        self._size_bytes = 0
        self.number = 0
        """Number of the file that is being written."""
        self.intents: dict[str, Intent] = {}
        """What was about to be put last, by stream."""
        self.size_bytes = 0
        """Bytes of all files."""
        self._sizes: dict[int, int] = {}

    def open(self) -> list[Found]:
        """Read what an earlier process left, and return the events in their order. The first write begins a new file."""
        found: list[Found] = []
        for number in self._numbers():
            self.number = number
            found += self._read(number)
        self.number += 1
        self._sizes[self.number] = 0
        return found

    def append(self, stream: str, body: bytes) -> None:
        """Write down an event."""
        self._write(b"e %b %b" % (stream.encode(), body))

    def intend(self, stream: str, intent: Intent) -> None:
        """Write down that the next events of a stream are about to become an object."""
        text = f"o {stream} {intent.chain} {intent.number} {intent.count} {intent.key}"
        self.intents[stream] = intent
        self._write(text.encode())

    def probe(self) -> None:
        """Find out whether the disk takes anything."""
        if self._fd < 0:
            self._begin(self.number)
        else:
            os.write(self._fd, b"\n")

    def rotate(self) -> None:
        """Begin another file where the present one is large."""
        if self._fd >= 0 and self._size_bytes >= FILE_BYTES:
            os.close(self._fd)
            self._fd = -1
            self._begin(self.number + 1)

    def empty(self) -> None:
        """Nothing that is written is needed any more."""
        for number in list(self._sizes):
            if number != self.number:
                self.drop(number)
        if self._fd >= 0 and self._size_bytes:
            os.ftruncate(self._fd, 0)
            self.size_bytes -= self._size_bytes
            self._size_bytes = self._sizes[self.number] = 0

    def drop(self, number: int) -> None:
        """Remove a file that is not being written."""
        self._path(number).unlink(missing_ok=True)
        self.size_bytes -= self._sizes.pop(number, 0)

    def close(self) -> None:
        """Close the file; it stays where it holds something."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            if not self._size_bytes:
                with suppress(OSError):
                    self._path(self.number).unlink()

    def _begin(self, number: int) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = os.open(self._path(number), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.number, self._size_bytes = number, 0
        self._sizes[number] = 0
        if self._fsync:
            sync_folder(self._folder)

    def _write(self, record: bytes) -> None:
        if self._fd < 0:
            self._begin(self.number)
        line = b"%08x %b\n" % (zlib.crc32(record), record)
        written = os.write(self._fd, line)
        if written != len(line):
            # The disk took a part. What follows begins a line of its own, and this one does not count.
            os.write(self._fd, b"\n")
            raise OSError(28, "the disk took a part of an audit event")
        if self._fsync:
            os.fdatasync(self._fd)
        self._size_bytes += written
        self._sizes[self.number] = self._size_bytes
        self.size_bytes += written

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("*.spool") if path.stem.isdigit())

    def _read(self, number: int) -> Iterator[Found]:
        data = self._path(number).read_bytes()
        self._sizes[number] = len(data)
        self.size_bytes += len(data)
        lines = data.split(b"\n")
        if lines.pop():
            _log.warning("a torn audit event was never answered and is left out", file=number)
        for line in filter(None, lines):
            record = line[_CRC_END + 1 :]
            if line[:_CRC_END] != b"%08x" % zlib.crc32(record):
                _log.error("a damaged line of the audit spool is left out", file=number)
                continue
            kind, stream, rest = record.split(b" ", 2)
            if kind == b"o":
                chain, object_number, count, key = rest.decode().split(" ")
                self.intents[stream.decode()] = Intent(chain, int(object_number), int(count), key)
                continue
            try:
                yield Found(stream.decode(), audit.waiting_again(rest), number)
            except CorruptionError as error:
                _log.error("an audit event in the spool is left out", file=number, error=str(error))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:012d}.spool"
