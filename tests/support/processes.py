"""Real nodes as child processes: started on a free port, watched, stopped, killed, started again.

    with NodeHome(tmp_path) as home:
        node = home.start()
        httpx.get(f"{node.url}/health")
        node.kill()
        home.lose_disk()
        node = home.start()

A child never inherits MEMOTURN_* variables. Leaving the home kills what still runs.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import httpx

START_S = 30.0
STOP_S = 10.0
"""How long a node may take to stop after SIGTERM: an orchestrator's patience."""


class NodeHome:
    """A data directory, an object store in a folder, and the nodes that run on them one after the other.

    `env` are settings without their prefix; those given to `start` win.
    """

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.bucket = folder / "bucket"
        self.log_path = folder / "node.log"
        self.env = env
        self.nodes: list[RunningNode] = []

    @property
    def object_store(self) -> str:
        """Where its nodes keep their objects, as a URL."""
        return self.env.get("OBJECT_STORE", f"file://{self.bucket}")

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.kill()

    def start(self, *arguments: str, wait: bool = True, port: int | None = None, **env: str) -> "RunningNode":
        """Start a node with these arguments, on a free port unless one is named; with `wait` return once it is ready. It must then be up, or the test fails with its log."""
        port = port or free_port()
        settings = {
            "DATA_DIR": str(self.data_dir),
            "OBJECT_STORE": self.object_store,
            "LISTEN": f"127.0.0.1:{port}",
            "CONTROL_RATE": "10000",
            "LOG_FORMAT": "json",
            **self.env,
            **env,
        }
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [*command(), *arguments],
                env=environment(**settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        node = RunningNode(process, f"http://127.0.0.1:{port}", self)
        self.nodes = [n for n in self.nodes if n.process.poll() is None] + [node]
        if wait:
            node.wait_until_ready()
        return node

    def lose_disk(self) -> None:
        """Delete the data directory, as a machine that is gone does. The object store stays."""
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def log(self) -> str:
        """Return what all nodes have logged so far."""
        return self.log_path.read_text() if self.log_path.exists() else ""


class RunningNode:
    """One child process."""

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, home: NodeHome) -> None:
        self.process = process
        self.url = url
        self.home = home

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_until_ready(self) -> None:
        """Return once the node answers its readiness probe."""
        deadline = time.monotonic() + START_S
        with httpx.Client(timeout=5) as client:
            while time.monotonic() < deadline:
                assert self.alive, f"the node ended with {self.process.returncode}\n{self.home.log()[-4000:]}"
                try:
                    if client.get(f"{self.url}/ready").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(0.02)
        raise AssertionError(f"the node is not ready after {START_S} s\n{self.home.log()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Safe to repeat."""
        if self.alive:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and return the exit code. Fails when the node takes longer than STOP_S."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"the node did not stop in {STOP_S} s\n{self.home.log()[-4000:]}") from error


def command() -> list[str]:
    """Return the command line of a node."""
    return [sys.executable, "-m", "memoturnd"]


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment with these settings as its only MEMOTURN_* variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    return inherited | {f"MEMOTURN_{name}": value for name, value in settings.items()}


def run_node(
    *arguments: str, timeout_s: float = START_S, **settings: str
) -> "subprocess.CompletedProcess[str]":
    """Run a node that is expected to end by itself, and return its exit code and output."""
    return subprocess.run(
        [*command(), *arguments],
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
