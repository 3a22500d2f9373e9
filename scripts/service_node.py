"""The packages that tests take from npm: those of a lock file, got once for each content of it, outside of the checkout."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from service_base import BUILD_S, CACHE, Service, UnavailableError, say

SDK = Path(__file__).resolve().parent.parent / "sdk" / "typescript"


class NodePackages(Service):
    """What the tests of the TypeScript client need besides Node.js. There is nothing to start."""

    name = "node"

    def get(self, *, quick: bool = False) -> None:
        """Get the packages unless they are there."""
        packages_of(SDK, quick=quick)

    def launch(self) -> None:
        """Start nothing."""

    def running(self) -> bool:
        """Return that nothing runs."""
        return False


def packages_of(folder: Path, *, quick: bool = False) -> Path:
    """Return the `node_modules` of a folder's lock file. Raises UnavailableError."""
    lock = folder / "package-lock.json"
    key = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    home = CACHE / "node" / f"{folder.name}-{key}"
    if (home / "node_modules").is_dir():
        return home / "node_modules"
    npm = shutil.which("npm")
    if npm is None:
        raise UnavailableError("there is no Node.js with npm on the PATH")
    if quick:
        raise UnavailableError("its packages are not there yet: run `scripts/services get node`")
    say(f"getting the packages of {folder.name} by npm")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as made:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(folder / name, made)
        install(npm, Path(made))
        # Another process may have been faster: what it got is the same.
        if not home.exists():
            Path(made).replace(home)
            Path(made).mkdir()
    return home / "node_modules"


def link_packages(folder: Path) -> None:
    """Link the packages of a folder's lock file into it, unless it has some of its own. Raises UnavailableError."""
    packages = packages_of(folder)
    link = folder / "node_modules"
    if link.is_symlink() and link.readlink() == packages:
        return
    if link.is_symlink():
        link.unlink()
    if not link.exists():
        link.symlink_to(packages)


def install(npm: str, folder: Path) -> None:
    """Run `npm ci`. Raises UnavailableError."""
    done = subprocess.run(
        [npm, "ci", "--no-audit", "--no-fund", "--no-update-notifier"],
        cwd=folder,
        env=os.environ | {"NODE_ENV": ""},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode != 0:
        raise UnavailableError(f"`npm ci` failed:\n{done.stderr[-2000:]}")
