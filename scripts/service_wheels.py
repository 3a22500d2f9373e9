"""What the Python packages depend on, as wheels, for tests that install into fresh environments: got once for each set of requirements."""

import hashlib
import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from service_base import BUILD_S, CACHE, Service, UnavailableError, say

CHECKOUT = Path(__file__).resolve().parent.parent
_OURS = "memoturn"
_OF_PYTHON_3_10 = {"exceptiongroup"}
"""What httpx needs besides on Python 3.10, for which wheels of pure Python serve as well."""


class Wheels(Service):
    """There is nothing to start."""

    name = "wheels"

    def get(self, *, quick: bool = False) -> None:
        """Get them unless they are there, for the interpreter of `make setup`."""
        installed = CHECKOUT / ".venv" / "bin" / "python"
        wheels_for(installed if installed.exists() else Path(sys.executable), quick=quick)

    def launch(self) -> None:
        """Start nothing."""

    def running(self) -> bool:
        """Return that nothing runs."""
        return False


def wheels_for(python: Path, *, quick: bool = False) -> Path:
    """Return a folder with all that both packages need at most, for this interpreter. Raises UnavailableError."""
    wanted = requirements()
    key = hashlib.sha256("\n".join([_kind_of(python), *wanted]).encode()).hexdigest()[:16]
    home = CACHE / "wheels" / key
    if home.is_dir():
        return home
    if quick:
        raise UnavailableError("they are not there yet: run `scripts/services get wheels`")
    say("getting the wheels that the Python packages depend on")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as made:
        got = subprocess.run(
            [python, "-m", "pip", "wheel", "--quiet", "--wheel-dir", made, *wanted],
            env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        if got.returncode != 0:
            raise UnavailableError(f"`pip wheel` failed:\n{got.stderr[-2000:]}")
        # Another process may have been faster: what it got is the same.
        if not home.exists():
            Path(made).replace(home)
            Path(made).mkdir()
    return home


def requirements() -> list[str]:
    """Return what both packages say that they need: to run, for their extras but `local`, and to be built."""
    found = set(_OF_PYTHON_3_10)
    for folder in (CHECKOUT, CHECKOUT / "sdk" / "python"):
        told = tomllib.loads((folder / "pyproject.toml").read_text())
        extras = told["project"].get("optional-dependencies", {})
        found.update(told["build-system"]["requires"], told["project"]["dependencies"])
        found.update(*(needs for extra, needs in extras.items() if extra != "local"))
    return sorted(one for one in found if not one.startswith(_OURS))


def _kind_of(python: Path) -> str:
    asked = [
        python,
        "-c",
        "import sys, sysconfig; print(sys.implementation.cache_tag, sysconfig.get_platform())",
    ]
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True).stdout
