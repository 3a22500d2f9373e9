"""Real nodes for end-to-end tests."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import NodeHome


@pytest.fixture
def home(tmp_path: Path) -> Iterator[NodeHome]:
    """A data directory, an object store, and the nodes on them."""
    with NodeHome(tmp_path / "home") as home:
        yield home


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
            stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
            return SmallDisk(folder)

        yield mount


class SmallDisk:
    """A mounted disk that can be filled and made read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no free block."""
        with self._filler.open("ab") as file:
            for size_bytes in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size_bytes))
                        file.flush()
                except OSError:
                    continue

    def make_room(self) -> None:
        self._filler.unlink()

    def read_only(self, on: bool) -> None:
        mode = "ro" if on else "rw"
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.folder)], check=True)
