"""Three ways to bring a file up to date by a segment, at several sizes: the product's, and two that were rejected.

log     the connections are closed, a log that holds the rounds is put beside the file, it is opened again
swap    the file is copied, the pages are written into the copy, the connections are closed, the copy is renamed
backup  the pages are written into a second file that is kept beside; SQLite's backup API copies that over the open one
"""

import gc
import os
import random
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from bench.nodes import temporary_folder
from bench.stats import Table, duration, percentile
from memoturnd.core.wal import LogRound
from memoturnd.engine import schema
from memoturnd.engine.connection import ProfileConnection, open_connection
from memoturnd.replication.apply import write_log

_SIZES_MB: Final = (1, 16, 1024)
_QUICK_MB: Final = (1, 4)
_ROUNDS: Final = 10
_PAGES: Final = 6
"""Pages that one round changes: what an ingest of a fact with its embedding touches."""
_PAGE_BYTES: Final = 4096
_TAKES: Final = {1: 60, 16: 40}
_COLUMNS: Final = (
    "file",
    "way",
    "segment",
    "whole p50",
    "p99",
    "reads held back p50",
    "p99",
    "bytes written",
)


class _Take(NamedTuple):
    """One segment applied: seconds in all, seconds that no read could begin, bytes written."""

    whole_s: float
    held_s: float
    written_bytes: int


def _open(path: Path) -> ProfileConnection:
    return open_connection(str(path), read_only=False, sync="normal", cache_kib=112)


def _make(path: Path, size_mb: int) -> None:
    conn = _open(path)
    conn.execute("BEGIN")
    schema.create(conn)
    for n in range(size_mb * 256):
        conn.execute("INSERT INTO __memoturn_kv(ns, k, v) VALUES ('t', ?, ?)", (f"k{n:09}", os.urandom(3600)))
    conn.execute("COMMIT")
    conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    conn.close()
    path.with_name(path.name + "-wal").unlink(missing_ok=True)


def _pages(path: Path) -> int:
    return path.stat().st_size // _PAGE_BYTES


def _segment(path: Path, seed: int) -> list[LogRound]:
    """Return rounds that change pages all over the file: here with the images that they have already."""
    count = _pages(path)
    chosen = random.Random(seed)
    with path.open("rb") as file:  # no connection is open yet
        rounds = []
        for _ in range(_ROUNDS):
            images = [
                (pgno, os.pread(file.fileno(), _PAGE_BYTES, (pgno - 1) * _PAGE_BYTES))
                for pgno in sorted({1, 2, *chosen.sample(range(3, count), _PAGES - 2)})
            ]
            rounds.append(LogRound(count, images))
    return rounds


def _newest(rounds: list[LogRound]) -> dict[int, bytes]:
    return {pgno: image for one in rounds for pgno, image in one.images}


def _write_pages(path: Path, images: dict[int, bytes]) -> None:
    fd = os.open(path, os.O_WRONLY)
    for pgno, image in images.items():
        os.pwrite(fd, image, (pgno - 1) * _PAGE_BYTES)
    os.close(fd)


def _look(conn: ProfileConnection) -> None:
    conn.execute("SELECT count(*) FROM (SELECT 1 FROM __memoturn_kv LIMIT 10)").fetchall()


class _Log:
    """The product's way; see memoturnd.engine.replaying."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.conn = _open(path)
        self._wal = path.with_name(path.name + "-wal")

    def apply(self, rounds: list[LogRound]) -> _Take:
        begun_s = time.perf_counter()
        self.conn.execute("PRAGMA synchronous=off", can_cache=False)
        self.conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        self.conn.close()
        size_bytes = write_log(self._wal, rounds, page_size=_PAGE_BYTES, salts=(1, 2), fsync=False)
        self.conn = _open(self.path)
        _look(self.conn)
        took_s = time.perf_counter() - begun_s
        return _Take(took_s, took_s, 2 * size_bytes)


class _Swap:
    """A copy of the whole file, and a rename."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.conn = _open(path)

    def apply(self, rounds: list[LogRound]) -> _Take:
        begun_s = time.perf_counter()
        copy = self.path.with_name("copy.db")
        shutil.copyfile(self.path, copy)
        _write_pages(copy, _newest(rounds))
        held_s = time.perf_counter()
        self.conn.close()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        copy.rename(self.path)
        self.conn = _open(self.path)
        _look(self.conn)
        now_s = time.perf_counter()
        return _Take(now_s - begun_s, now_s - held_s, self.path.stat().st_size)


class _Backup:
    """SQLite's backup API, from a second file that is kept beside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.conn = _open(path)
        self._second = path.with_name("second.db")
        shutil.copyfile(path, self._second)
        # What a backup reads from must not be in WAL mode, or its own log would have to be made as well.
        self._wal = path.with_name(path.name + "-wal")

    def apply(self, rounds: list[LogRound]) -> _Take:
        begun_s = time.perf_counter()
        _write_pages(self._second, _newest(rounds))
        source = apsw.Connection(str(self._second), flags=apsw.SQLITE_OPEN_READWRITE)
        with self.conn.backup("main", source, "main") as backup:
            backup.step(-1)
        source.close()
        _look(self.conn)
        written = self._wal.stat().st_size
        took_s = time.perf_counter() - begun_s
        # The log would grow by the whole file each time: it has to be checkpointed, which writes the file once more.
        self.conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        whole_s = time.perf_counter() - begun_s
        return _Take(whole_s, took_s, 2 * written)


_WAYS: Final[dict[str, Callable[[Path], _Log | _Swap | _Backup]]] = {
    "log": _Log,
    "swap": _Swap,
    "backup": _Backup,
}


def _measure(folder: Path, size_mb: int, takes: int) -> list[list[str]]:
    made = folder / f"{size_mb}.db"
    _make(made, size_mb)
    rows = []
    for name, way in _WAYS.items():
        path = folder / f"{size_mb}-{name}.db"
        shutil.copyfile(made, path)
        segments = [_segment(path, seed) for seed in range(takes)]
        one = way(path)
        gc.collect()
        taken = [one.apply(rounds) for rounds in segments]
        one.conn.close()
        rows.append(
            [
                f"{size_mb:,} MB",
                name,
                f"{_ROUNDS} rounds, {_ROUNDS * _PAGES} pages",
                duration(percentile([t.whole_s for t in taken], 0.5)),
                duration(percentile([t.whole_s for t in taken], 0.99)),
                duration(percentile([t.held_s for t in taken], 0.5)),
                duration(percentile([t.held_s for t in taken], 0.99)),
                f"{taken[-1].written_bytes / 1e6:,.1f} MB",
            ]
        )
        for left in folder.glob(f"{size_mb}-{name}.db*"):
            left.unlink()
        with suppress(FileNotFoundError):
            (folder / "second.db").unlink()
    made.unlink()
    return rows


def measure(*, quick: bool) -> list[Table]:
    """Return the table of the ways to apply a segment."""
    rows: list[list[str]] = []
    with temporary_folder() as folder:
        for size_mb in _QUICK_MB if quick else _SIZES_MB:
            rows += _measure(Path(folder), size_mb, 3 if quick else _TAKES.get(size_mb, 6))
    return [Table("Applying a segment to a replica: three ways", _COLUMNS, rows)]
