"""The client's own tests on the other runtimes that it is for: the oldest Node.js, Deno and Bun."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import node_packages
import pytest
from conftest import Served

pytestmark = [pytest.mark.xdist_group("typescript"), pytest.mark.soak]
RUNTIMES = node_packages.SDK / "runtimes"
TESTS = ("functions", "scripts", "vectors", "surface")
WITHIN_S = 300


@pytest.fixture(scope="module")
def runtimes(packages: None) -> Path:
    """The folder of the runtimes' programs."""
    node_packages.with_packages(RUNTIMES)
    return RUNTIMES / "node_modules" / ".bin"


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize(
    ("runtime", "arguments"),
    [
        ("node", ["--test"]),
        ("deno", ["test", "-A", "--no-check", "--no-lock"]),
        ("bun", ["test", "--timeout", "60000"]),
    ],
)
def test_on(
    runtime: str,
    arguments: Sequence[str],
    name: str,
    built: Path,
    served: Served,
    runtimes: Path,
    tmp_path: Path,
) -> None:
    command = [str(runtimes / runtime), *arguments, f"build/test/{name}.test.js"]

    done = subprocess.run(
        command,
        cwd=node_packages.SDK,
        env=os.environ | served.env | {"DENO_DIR": str(tmp_path), "DENO_NO_UPDATE_CHECK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-10000:]


def test_it_is_the_oldest_node_that_the_package_names(runtimes: Path) -> None:
    shown = subprocess.run([runtimes / "node", "--version"], capture_output=True, text=True, check=True)

    assert shown.stdout.startswith("v18.")
