"""A database file whose pages we hold: SQLite reads them through us, and what it writes stays beside them.

    with PageFile(path, page_size) as file:
        file.apply({1: image, ...}, db_size_pages)
        with file.transaction() as conn: ...     # what it writes is in `file.written`, the file itself stays

So one statement can be tried on state after state without a log, a copy or an open of the file by SQLite. The
file is one in WAL mode; SQLite is shown one that is not, and its first page is given back as it was.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Self

import apsw

from memoturnd.engine.connection import ProfileConnection, open_on_pages
from memoturnd.errors import InvariantError

_VFS = "memoturn-pages"
_CACHE_KIB = 2048
_VERSIONS_AT = slice(18, 20)
_WAL, _NO_WAL = b"\x02\x02", b"\x01\x01"
_COUNTERS_AT = (slice(24, 28), slice(92, 100))
"""Of the first page: how often the file changed, when its size was written, and by which SQLite."""
_CHANGE_AT, _CHANGE_BYTES = 24, 16
"""What SQLite looks at to see whether the file has changed since its last transaction."""


class PageFile:
    """The file at `path` (made, and removed at the end), for one thread at a time. `written` is {page number: image}."""

    def __init__(self, path: Path, page_size: int) -> None:
        self.page_size = page_size
        self.size_pages = 0
        """Pages of the file, without what is written beside it."""
        self.written: dict[int, bytes] = {}
        self.looked_at: set[int] = set()
        """Pages that were read since `discard`."""
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._conn: ProfileConnection | None = None
        self._name = _files.add(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close and remove the file; nothing happens where that is done already."""
        if self._fd < 0:
            return
        self.disconnect()
        _files.remove(self._name)
        os.close(self._fd)
        self._fd = -1
        self._path.unlink(missing_ok=True)

    def disconnect(self) -> None:
        """Close the connection: what is read next may be another database."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def apply(self, images: Mapping[int, bytes], db_size_pages: int) -> None:
        """Write a round's pages into the file, and cut or grow it."""
        for pgno, image in images.items():
            if pgno <= db_size_pages:
                os.pwrite(self._fd, image, (pgno - 1) * self.page_size)
        os.ftruncate(self._fd, db_size_pages * self.page_size)
        self.size_pages = db_size_pages

    def discard(self) -> None:
        """Forget what was written beside the file."""
        self.written.clear()
        self.looked_at.clear()

    @property
    def whole_pages(self) -> int:
        """Return the pages of the file together with what is written beside it."""
        return max(self.size_pages, max(self.written, default=0))

    def page(self, pgno: int) -> bytes:
        """Return a page as it is written beside the file, or else stands in it."""
        return self.written.get(pgno) or self.stored(pgno)

    def stored(self, pgno: int) -> bytes:
        """Return a page as it stands in the file; zeros behind its end."""
        image = os.pread(self._fd, self.page_size, (pgno - 1) * self.page_size)
        return image.ljust(self.page_size, b"\0")

    @contextmanager
    def transaction(self) -> Iterator[ProfileConnection]:
        """Give a connection inside a transaction, which commits at the end of the block. Raises apsw.Error."""
        if self._conn is None:
            self._conn = open_on_pages(self._name, _VFS, cache_kib=_CACHE_KIB)
        conn = self._conn
        conn.execute("BEGIN IMMEDIATE")
        try:
            yield conn
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise

    # ---- what SQLite sees

    def read(self, amount: int, offset: int, changes: Iterator[int]) -> bytes:
        """Return bytes as SQLite asks for them; fewer behind the end of the file."""
        if (offset, amount) == (_CHANGE_AT, _CHANGE_BYTES):
            return next(changes).to_bytes(_CHANGE_BYTES, "big")  # each transaction reads everything anew
        pgno, at = divmod(offset, self.page_size)
        pgno += 1
        if pgno > self.whole_pages:
            return b""
        self.looked_at.add(pgno)
        image = self.page(pgno)
        if pgno == 1:
            image = _with(image, _VERSIONS_AT, _NO_WAL)
        return image if amount == self.page_size else image[at : at + amount]

    def write(self, data: bytes, offset: int) -> None:
        """Keep a page that SQLite writes."""
        pgno, at = divmod(offset, self.page_size)
        pgno += 1
        if at or len(data) != self.page_size:
            raise InvariantError(f"SQLite wrote {len(data)} bytes at {offset}, which is no page")
        if pgno == 1:
            before = self.stored(1)
            for place in (_VERSIONS_AT, *_COUNTERS_AT):
                data = _with(data, place, before[place])
            if data == before:
                self.written.pop(1, None)
                return
        self.written[pgno] = data


def _with(image: bytes, place: slice, data: bytes) -> bytes:
    return image[: place.start] + data + image[place.stop :]


class _Opened:
    """What SQLite holds of a PageFile. The names are those of SQLite's own interface."""

    def __init__(self, file: PageFile, changes: Iterator[int]) -> None:
        self._file = file
        self._changes = changes

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        return self._file.read(amount, offset, self._changes)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self._file.write(bytes(data), offset)

    def xFileSize(self) -> int:  # noqa: N802
        return self._file.whole_pages * self._file.page_size

    def xTruncate(self, size_bytes: int) -> None:  # noqa: N802
        raise InvariantError(f"SQLite cut a file without auto-vacuum to {size_bytes} bytes")

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

    def xSectorSize(self) -> int:  # noqa: N802
        return 512

    def xFileControl(self, _op: int, _pointer: int) -> bool:  # noqa: N802
        return False

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False

    def xLock(self, _level: int) -> None:  # noqa: N802
        return

    def xUnlock(self, _level: int) -> None:  # noqa: N802
        return

    def xSync(self, _flags: int) -> None:  # noqa: N802
        return

    def xClose(self) -> None:  # noqa: N802
        return


class _Files(apsw.VFS):
    """The file system in which every PageFile of the process is, by a name of its own."""

    def __init__(self) -> None:
        super().__init__(_VFS, "")
        self._files: dict[str, PageFile] = {}
        self._numbers = count(1)
        self._changes = count(1)
        self._lock = Lock()

    def add(self, file: PageFile) -> str:
        with self._lock:
            name = f"pages-{next(self._numbers)}"
            self._files[name] = file
            return name

    def remove(self, name: str) -> None:
        with self._lock:
            del self._files[name]

    def xFullPathname(self, name: str) -> str:  # noqa: N802
        return name

    def xAccess(self, _name: str, _flags: int) -> bool:  # noqa: N802
        return False

    def xDelete(self, _name: str, _sync_folder: bool) -> None:  # noqa: N802
        return

    def xOpen(  # type: ignore[override]  # noqa: N802 - any object with the methods of a VFSFile will do
        self, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> _Opened:
        plain = name.filename() if isinstance(name, apsw.URIFilename) else name
        if plain not in self._files:
            raise apsw.CantOpenError(f"{plain} is none of the files whose pages are held")
        flags[1] = flags[0]
        return _Opened(self._files[plain], self._changes)


_files = _Files()
