"""What every service of `scripts/services` is made of: a folder, processes that outlive the script, and ports."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "memoturn"
MINIO = "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c"
START_S = 60.0
STOP_S = 10.0
BUILD_S = 1500


class UnavailableError(Exception):
    """The service cannot be had here; the message says why."""


class Service:
    """One service and its folder: `state.json` says what was started."""

    name = ""

    def __init__(self, root: Path) -> None:
        self.folder = root / self.name
        self.state_path = self.folder / "state.json"

    def start(self, *, quick: bool) -> None:
        """Start it unless it runs. Raises UnavailableError."""
        if self.running():
            return
        self.stop()
        self.get(quick=quick)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.launch()

    def get(self, *, quick: bool = False) -> None:
        """Get the program unless it is there. Raises UnavailableError."""
        raise NotImplementedError

    def launch(self) -> None:
        """Start it. What `get` gets is there."""
        raise NotImplementedError

    def answers(self, state: dict) -> bool:
        raise NotImplementedError

    def environment(self, state: dict) -> dict[str, str]:
        raise NotImplementedError

    # ---- processes

    def state(self) -> dict | None:
        try:
            return json.loads(self.state_path.read_text())
        except FileNotFoundError:
            return None

    def running(self) -> bool:
        state = self.state()
        return state is not None and all(alive(p) for p in state["processes"]) and self.answers(state)

    def stop(self) -> None:
        """Stop it, and remove its folder. Does nothing when it does not run."""
        state = self.state()
        for process in reversed(state["processes"] if state else []):
            end(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, state: dict, command: list[str], **environment: str) -> None:
        """Start a process that outlives this one, and write it down before anything else."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env=os.environ | environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        state["processes"].append({"pid": process.pid, "born": born(process.pid)})
        self.state_path.touch(mode=0o600)
        self.state_path.write_text(json.dumps(state))

    def wait(self, state: dict, ready: Callable[[], bool], what: str, within_s: float = START_S) -> None:
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if ready():
                return
            if not all(alive(process) for process in state["processes"]):
                break
            time.sleep(0.1)
        tail = (self.folder / "log").read_text(errors="replace")[-2000:]
        self.stop()
        raise UnavailableError(f"{what} did not come up\n{tail}")


def go_binary(name: str, module: str, *, quick: bool = False) -> Path:
    """Return a program built from a Go module, built at most once per version and user."""
    marker = CACHE / "bin" / f"{name}.version"
    binary = CACHE / "bin" / name
    if binary.exists() and (not marker.exists() or marker.read_text() == module):
        return binary
    if quick:
        raise UnavailableError(f"{name} is not built yet: run `scripts/services get {name}`")
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise UnavailableError(f"{name} is built with Go 1.24 or newer, and there is no `go` on the PATH")
    say(f"building {module}; this takes minutes, once")
    binary.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=binary.parent) as folder:
        built = subprocess.run(
            [go, "install", module],
            env=os.environ | {"GOBIN": folder},
            capture_output=True,
            text=True,
            timeout=BUILD_S,
            check=False,
        )
        if built.returncode != 0:
            raise UnavailableError(f"{module} does not build:\n{built.stderr[-2000:]}")
        (Path(folder) / Path(module.partition("@")[0]).name).replace(binary)
    marker.write_text(module)
    return binary


def free_port() -> int:
    """Return a free port below those that the system gives to outgoing connections."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def born(pid: int) -> str | None:
    """Return when a process started, in ticks since boot: with its id it names one process, and no later one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def alive(process: dict) -> bool:
    return process["born"] is not None and born(process["pid"]) == process["born"]


def end(process: dict) -> None:
    """Ask a process to end, then end it; only if it is still the one that was started."""
    for number, within_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, STOP_S)):
        if not alive(process):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(process["pid"], number)
        deadline = time.monotonic() + within_s
        while alive(process) and time.monotonic() < deadline:
            reap(process["pid"])
            time.sleep(0.05)


def reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def status_of(url: str) -> int:
    """Return the status that a GET is answered with, 0 without an answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def s3_environment(kind: str, state: dict) -> dict[str, str]:
    names = {"ENDPOINT": "endpoint", "ACCESS_KEY": "access", "SECRET_KEY": "secret"}
    return {f"MEMOTURN_TEST_{kind}_{name}": state[key] for name, key in names.items()}


def install_debian(name: str, packages: list[str], *, quick: bool) -> None:
    """Install Debian's packages of `name`. Raises UnavailableError where that cannot be done, or not be quick."""
    if quick or os.getuid() != 0 or not shutil.which("apt-get"):
        raise UnavailableError(f"not installed: `apt-get install {' '.join(packages)}` on Debian")
    say(f"installing Debian's packages of {name}")
    installed = subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if installed.returncode != 0:
        raise UnavailableError(f"the packages of {name} do not install:\n{installed.stderr[-2000:]}")


def say(text: str) -> None:
    print(f"services: {text}", file=sys.stderr, flush=True)
