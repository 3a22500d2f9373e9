"""The Python packages of this checkout, built once for all workers, and environments that have only what is installed into them.

What the packages depend on comes from `scripts/services get wheels`; nothing else is asked of the network. Where it cannot be
had, tests skip and say why; with MEMOTURN_REQUIRE_SERVICES=1 that is a failure.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import environment
from service_base import UnavailableError
from service_wheels import wheels_for

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECTS = {"memoturn_server": REPOSITORY, "memoturn": REPOSITORY / "sdk" / "python"}
BUILD_S = 120


def built(factory: pytest.TempPathFactory) -> Path:
    """Return the folder with both packages' wheels and sdists, built as the image builds them, by whichever worker comes first."""
    mine = factory.getbasetemp()
    folder = (mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine) / "packages"
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".built").exists():
            for project in PROJECTS.values():
                command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
                subprocess.run(command, cwd=project, check=True, capture_output=True, timeout=BUILD_S)
            (folder / ".built").touch()
    return folder


def dependencies() -> Path:
    """Return the folder with the wheels of all that the packages depend on, or skip."""
    try:
        return wheels_for(Path(sys.executable))
    except UnavailableError as error:
        reason = f"wheels: {error}"
        if os.environ.get("MEMOTURN_REQUIRE_SERVICES") == "1":
            pytest.fail(f"MEMOTURN_REQUIRE_SERVICES=1, and {reason}", pytrace=False)
        pytest.skip(reason)


def interpreter(version: str) -> str | None:
    """Return a Python of that version which runs, on the PATH or of pyenv; None without one."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    for found in (shutil.which(name), *map(str, sorted(pyenv.glob(f"{version}*/bin/{name}")))):
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    return None


def of_a_newcomer(home: Path, wheels: str) -> dict[str, str]:
    """Return the environment of somebody whose home is this folder and whose pip knows these folders of wheels only. Modules are compiled as they are used."""
    ours = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}
    inherited = {
        name: value
        for name, value in environment().items()
        if name not in ours and not name.startswith(("PIP_", "XDG_"))
    }
    return inherited | {
        "HOME": str(home),
        "PATH": f"{_with_python3(home)}:/usr/bin:/bin",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": wheels,
        "PIP_NO_COMPILE": "1",
        "PIP_CONFIG_FILE": os.devnull,
    }


class Fresh:
    """A virtual environment with one package and what that needs, whose commands run as a newcomer's."""

    def __init__(self, folder: Path, wheels: str, *requirements: str, python: str = sys.executable) -> None:
        self.folder = folder
        self.bin = folder / "env" / "bin"
        make = [python, "-m", "venv", "--without-pip", str(folder / "env")]  # a pip of its own takes seconds
        subprocess.run(make, check=True, capture_output=True, timeout=BUILD_S)
        self.environment = of_a_newcomer(folder, wheels)
        self.install(*requirements)

    def install(self, *requirements: str) -> None:
        """Install these into it."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "install", "--quiet"]
        subprocess.run(
            [*pip, *requirements], env=self.environment, check=True, capture_output=True, timeout=BUILD_S
        )

    def run(self, command: str, *arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run one of its commands, with these MEMOTURN_* settings, in a folder from which nothing of the checkout is imported."""
        return subprocess.run(
            [self.bin / command, *arguments],
            cwd=self.folder,
            env=self.environment | {f"MEMOTURN_{name}": value for name, value in settings.items()},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _with_python3(home: Path) -> Path:
    """Return a folder in which `python3` is the interpreter of the tests, outside of their own environment."""
    folder = home / ".python"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "python3").exists():
        (folder / "python3").symlink_to(Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}")
    return folder
