"""Node.js and the packages of the TypeScript client's tests: those of its lock file, as `scripts/services get node` gets them.

Where they cannot be had, tests skip and say why; with MEMOTURN_REQUIRE_SERVICES=1 that is a failure.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from service_base import UnavailableError
from service_node import link_packages

SDK = Path(__file__).resolve().parents[2] / "sdk" / "typescript"
VECTORS = SDK.parent / "vectors"
BUILD_S = 120


def refuse(reason: str) -> None:
    """Skip, or fail where services are required."""
    if os.environ.get("MEMOTURN_REQUIRE_SERVICES") == "1":
        pytest.fail(f"MEMOTURN_REQUIRE_SERVICES=1, and {reason}", pytrace=False)
    pytest.skip(reason)


def node() -> str:
    """Return the path of Node.js."""
    found = shutil.which("node")
    if found is None:
        refuse("there is no Node.js on the PATH")
    assert found is not None
    return found


def with_packages(folder: Path) -> None:
    """Link the packages of a folder's lock file into it."""
    node()
    try:
        link_packages(folder)
    except UnavailableError as error:
        refuse(f"npm: {error}")


def run(*arguments: str, cwd: Path = SDK, timeout_s: float = BUILD_S, **env: str) -> str:
    """Run Node.js in the client's folder and return what it printed. Fails with all of it when it fails."""
    done = subprocess.run(
        [node(), *arguments],
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, f"node {' '.join(arguments)}\n{done.stdout[-20000:]}"
    return done.stdout
