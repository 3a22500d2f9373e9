"""Disks of a few megabytes that a test fills, and makes read-only."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest


@pytest.fixture
def small_disk() -> Iterator[Callable[..., "SmallDisk"]]:
    """Mount small disks of their own in folders; they go at the end. Skips where mounting is not allowed."""
    with ExitStack() as stack:

        def mount(folder: Path, *, size: str) -> SmallDisk:
            folder.mkdir(parents=True)
            options = ["-o", f"size={size}"]
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)],
                capture_output=True,
                text=True,
                check=False,
            )
            if mounted.returncode:
                pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
            stack.callback(unmount, folder)
            return SmallDisk(folder)

        yield mount


def unmount(folder: Path) -> None:
    while os.path.ismount(folder):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class SmallDisk:
    """A mounted disk that can be filled and made read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no free block."""
        with self._filler.open("ab", buffering=0) as file:
            for size_bytes in (1 << 16, 1 << 12, 1):
                try:
                    while file.write(bytes(size_bytes)):
                        pass
                except OSError:
                    continue

    def make_room(self) -> None:
        self._filler.unlink()

    def read_only(self, on: bool) -> None:
        """Refuse every new file and every new opening for writing; files that are open stay writable."""
        folder = str(self.folder)
        if on:
            subprocess.run(["mount", "--bind", folder, folder], check=True)
            subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        else:
            subprocess.run(["umount", "--lazy", folder], check=True)
