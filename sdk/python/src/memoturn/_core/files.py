"""A file that is written beside its name and takes it when it is whole, so that a name never stands for half a state."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

Progress = Callable[[int, int], None]
"""Called with the bytes that have moved so far, and those in all."""

CHUNK_BYTES: Final = 256 * 1024


def reading(path: Path) -> BinaryIO:
    """Open a file to be read. Raises OSError."""
    return path.open("rb")


def closing(file: BinaryIO) -> None:
    """Close a file."""
    file.close()


class Part:
    """The file beside `target`."""

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        self._target = target
        self._overwrite = overwrite
        self._part = target.with_name(f".{target.name}.part")
        self._file: BinaryIO | None = None

    def open(self) -> BinaryIO:
        """Begin it. Raises FileExistsError where the target is there and is not to be overwritten, OSError."""
        if self._target.exists() and not self._overwrite:
            raise FileExistsError(f"{self._target} exists already")
        self._file = self._part.open("wb")
        return self._file

    def keep(self) -> None:
        """Let it take the target's name, safely on the disk."""
        assert self._file is not None
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._part.replace(self._target)

    def drop(self) -> None:
        """Remove it."""
        if self._file is not None:
            self._file.close()
        with suppress(OSError):
            self._part.unlink()
