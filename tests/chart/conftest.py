"""What the wheels install, once for all tests of the chart and the image."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chart.sandbox import pods_folder


@pytest.fixture(scope="session")
def pods() -> Iterator[Path]:
    """A folder for pods."""
    with pods_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def installed(pods: Path, wheels: list[Path]) -> Path:
    """A folder with what the wheels hold, and the commands in `bin`."""
    folder = pods / "installed"
    options = ["--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder)]
    subprocess.run([*command, *map(str, wheels)], check=True, capture_output=True, timeout=60)
    return folder
