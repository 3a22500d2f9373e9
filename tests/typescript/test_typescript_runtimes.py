"""The client's own tests on the other runtimes that it is for: the oldest Node.js, Deno and Bun; and what the client costs."""

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import httpx
import node_packages
import pytest
from typescript_support import PLATFORM_KEY, Served

pytestmark = [pytest.mark.xdist_group("typescript"), pytest.mark.soak]
RUNTIMES = node_packages.SDK / "runtimes"
TESTS = ("functions", "scripts", "vectors", "surface")
WITHIN_S = 300
OVERHEAD_MS = 0.3


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


def test_it_costs_less_than_a_third_of_a_millisecond(built: Path, served: Served) -> None:
    with httpx.Client(
        base_url=served.node.url, headers={"Authorization": f"Bearer {PLATFORM_KEY}"}
    ) as operator:
        operator.post("/v1/databases", json={"name": "overhead"}).raise_for_status()
        minted = operator.post("/v1/databases/overhead/tokens", json={"scope": "write"}).raise_for_status()

    shown = node_packages.run(str(built / "overhead.js"), served.node.url, minted.json()["token"], "overhead")

    assert json.loads(shown)["overhead_ms"] < OVERHEAD_MS, shown
