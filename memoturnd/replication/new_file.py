"""A database file that is being made: it lies beside its name, and takes it when it is whole."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from memoturnd.core.segment import Segment
from memoturnd.disk import sync_folder
from memoturnd.errors import DiskFullError

_RUN_PAGES = 256
"""Pages written at once: below the system's limit of buffers in one call."""


class NewFile:
    """The file to be at `path`. Several threads may `write` at once; the rest is for one at a time."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".restoring")
        self._fsync = fsync
        self._fd = -1

    def begin(self, size_bytes: int, start: tuple[Path, int] | None = None) -> None:
        """Make the file with zeros, or with the first so many bytes of another one. Raises DiskFullError."""
        try:
            if start is not None:
                shutil.copyfile(start[0], self._temporary)
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if start is None else 0)
            self._fd = os.open(self._temporary, flags, 0o600)
            if start is not None:
                os.fchmod(self._fd, 0o600)
                os.ftruncate(self._fd, start[1])
            os.ftruncate(self._fd, size_bytes)
        except OSError as error:
            raise self._refused(error) from error

    def write(
        self, tables: Segment, indexes: Iterable[int], *, stored: bytes | None = None, stored_at: int = 0
    ) -> None:
        """Write images of a segment to their places; `stored` as in Segment.numbered_images.

        Raises CorruptionError, DiskFullError.
        """
        try:
            write_images(self._fd, tables, indexes, stored, stored_at)
        except OSError as error:
            raise self._refused(error) from error

    def finish(self) -> None:
        """Let the file appear under its name. Raises DiskFullError."""
        try:
            if self._fsync:
                os.fsync(self._fd)
            self._close()
            self._temporary.rename(self._path)
            if self._fsync:
                sync_folder(self._path.parent)
        except OSError as error:
            raise self._refused(error) from error

    def abandon(self) -> None:
        """Remove what there is, unless it is finished."""
        if self._fd >= 0:
            self._close()
            with suppress(OSError):
                self._temporary.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abandon()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def _refused(self, error: OSError) -> DiskFullError:
        return DiskFullError(
            f"restoring to {self._path} failed: {error.strerror}; make room or mend the folder, then try again"
        )


def write_images(
    fd: int, tables: Segment, indexes: Iterable[int], stored: bytes | None = None, stored_at: int = 0
) -> None:
    """Write images of a segment to their places in a database file; `stored` as in Segment.numbered_images.

    Raises CorruptionError, OSError.
    """
    for first, images in _runs(tables.numbered_images(indexes, stored, stored_at)):
        _write_all(fd, images, (first - 1) * tables.page_size)


def _write_all(fd: int, images: list[bytes], at: int) -> None:
    if os.pwritev(fd, images, at) != sum(map(len, images)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a short write says no more


def _runs(pages: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first page number, images) for runs of pages that lie side by side in the file."""
    first, run = 0, list[bytes]()
    for pgno, image in pages:
        if run and (pgno != first + len(run) or len(run) >= _RUN_PAGES):
            yield first, run
            run = []
        if not run:
            first = pgno
        run.append(image)
    if run:
        yield first, run
