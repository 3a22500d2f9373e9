"""A file that is written beside its name and takes it when it is whole, so that a name never stands for half a state."""

import os
import secrets
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
        # A name of its own: another process may write to the same target meanwhile.
        self._part = target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
        self._file: BinaryIO | None = None

    def open(self) -> BinaryIO:
        """Begin it. Raises FileExistsError where the target is there and is not to be overwritten, OSError."""
        self._check()
        self._file = self._part.open("xb")
        return self._file

    def keep(self) -> None:
        """Let it take the target's name, safely on the disk. Raises FileExistsError where that came to be meanwhile."""
        assert self._file is not None
        with self._file as file:
            file.flush()
            os.fsync(file.fileno())
        self._check()
        self._part.replace(self._target)

    def drop(self) -> None:
        """Remove it."""
        if self._file is not None:
            self._file.close()
        with suppress(OSError):
            self._part.unlink()

    def _check(self) -> None:
        if self._target.exists() and not self._overwrite:
            raise FileExistsError(f"{self._target} exists already")
