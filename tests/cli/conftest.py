"""A real node of its own for these tests, and the command as a function."""

import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fake_embedder import serving_endpoint_beside
from fake_embedder import settings_of as embedder_settings
from fake_model import serving_model_beside
from fake_model import settings_of as model_settings
from memoturn.cli.app import run
from processes import NodeHome, RunningNode

_START_S = 30.0
_STOP_S = 15.0


@dataclass(frozen=True)
class Outcome:
    """What one command did."""

    code: int
    stdout: bytes
    stderr: str

    @property
    def text(self) -> str:
        return self.stdout.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def lines(self) -> list[list[str]]:
        return [line.split("\t") for line in self.text.splitlines()]


Cli = Callable[..., Outcome]


@pytest.fixture(scope="session")
def node_url(tmp_path_factory) -> Iterator[str]:
    """Start a node on a free port in a temporary folder; stop it at the end and see that it stops well."""
    folder = tmp_path_factory.mktemp("node")
    port = _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    environment |= {
        "MEMOTURN_DATA_DIR": str(folder / "data"),
        "MEMOTURN_OBJECT_STORE": f"file://{folder / 'bucket'}",
        "MEMOTURN_LISTEN": f"127.0.0.1:{port}",
        "MEMOTURN_CONTROL_RATE": "1000",
    }
    with (folder / "log").open("wb") as log:
        node = subprocess.Popen([sys.executable, "-m", "memoturnd"], env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, node, (folder / "log").read_text)
        yield url
        node.terminate()
        assert node.wait(_STOP_S) == 0, (folder / "log").read_text()
    finally:
        node.kill()
        node.wait()


PLATFORM_KEY = "platform-key-of-the-tests"


@pytest.fixture(scope="session")
def guarded(tmp_path_factory) -> Iterator[RunningNode]:
    """A node that asks for credentials, with a language model and an embedder; it has to stop well at the end."""
    with ExitStack() as stack:
        settings = {
            **model_settings(stack.enter_context(serving_model_beside())),
            **embedder_settings(stack.enter_context(serving_endpoint_beside())),
            "AUTH": "on",
            "USAGE_FLUSH_S": "1",
        }
        home = NodeHome(tmp_path_factory.mktemp("guarded"), PLATFORM_KEY=PLATFORM_KEY, **settings)
        node = stack.enter_context(home).start()
        yield node
        assert node.stop() == 0, home.log()


@pytest.fixture
def command(capsysbinary, monkeypatch, tmp_path) -> Cli:
    """Run `memoturn` in this process, with bytes on stdin that is no terminal, and no config but the test's own."""
    for name in [name for name in os.environ if name.startswith("MEMOTURN_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def call(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = run(arguments)
        captured = capsysbinary.readouterr()
        return Outcome(int(code), captured.out, captured.err.decode())

    return call


@pytest.fixture
def cli(command, node_url) -> Cli:
    """Run `memoturn` against the node."""
    return lambda *arguments, stdin=b"": command("--url", node_url, *arguments, stdin=stdin)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_until_ready(url: str, node: subprocess.Popen[bytes], log: Callable[[], str]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        assert node.poll() is None, log()
        try:
            if httpx.get(f"{url}/ready", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError(f"the node is not ready after {_START_S} s\n{log()}")
