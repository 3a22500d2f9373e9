"""An etcd for tests: MEMOTURN_TEST_ETCD_URL, or one that `scripts/services` starts for this session.

Tests share it, each under a prefix of its own (`fresh_prefix`). One that stops, pauses or wipes it runs `own_etcd`. Where
none can be had, tests skip and say why; with MEMOTURN_REQUIRE_SERVICES=1 that is a failure.
"""

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import service_etcd
from service_base import UnavailableError, free_port

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "services"
VARIABLE = "MEMOTURN_TEST_ETCD_URL"
REPORT: list[str] = []
"""What the end of the run says about it."""


def fresh_prefix() -> str:
    """Return a place that nobody has used."""
    return f"/t-{secrets.token_hex(8)}/"


@contextmanager
def session_etcd() -> Iterator[str]:
    """Give the address of a server, started unless there is one; skip where none can be had."""
    folder = None
    given = os.environ.get(VARIABLE)
    if not given:
        folder = tempfile.mkdtemp(prefix="memoturn-test-services-")
        started = _services(folder, "start", "--quick", "etcd")
        found = re.search(rf"^export {VARIABLE}='?([^'\n]*)'?$", started.stdout, flags=re.MULTILINE)
        given = found and found[1]
    try:
        if not given:
            REPORT.append(f"no etcd: {started.stderr.strip()}")
            _skip(REPORT[-1])
        REPORT.append(f"etcd at {given.rpartition('@')[2].removeprefix('http://')}")
        yield given
    finally:
        if folder is not None:
            _services(folder, "stop")
            shutil.rmtree(folder, ignore_errors=True)


class Member:
    """One member, which may be killed, paused, and started again on its data."""

    def __init__(self, name: str, data: Path, peers: dict[str, int]) -> None:
        self.name, self.port = name, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._data = data
        self._command = service_etcd.member_command(name, data, self.port, peers)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `OwnEtcd.wait` waits."""
        with (self._data / f"{self.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=subprocess.DEVNULL, stderr=log, cwd=self._data
            )

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        self._process.send_signal(signal.SIGSTOP)
        # Its threads stop one after the other.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Safe to repeat."""
        if self.is_running:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


class OwnEtcd:
    """A server of one test alone, of one member or three."""

    def __init__(self, members: int = 1) -> None:
        self.data = Path(tempfile.mkdtemp(prefix="memoturn-own-etcd-"))
        names = [f"m{number}" for number in range(members)]
        peers = {name: free_port() for name in names}
        self.members = [Member(name, self.data, peers) for name in names]

    @property
    def url(self) -> str:
        """The setting that names all members."""
        return "http://" + ",".join(f"127.0.0.1:{member.port}" for member in self.members)

    def start(self) -> None:
        """Start the members that do not run, and return when all answer."""
        for member in self.members:
            if not member.is_running:
                member.start()
        self.wait()

    def wait(self) -> None:
        """Return when every member that runs has a leader."""
        deadline = time.monotonic() + 30
        for member in self.members:
            while member.is_running and not service_etcd.is_healthy(member.url):
                assert time.monotonic() < deadline, f"{member.name} of etcd did not come up"
                time.sleep(0.02)
            assert member.is_running, (self.data / f"{member.name}.log").read_text()[-2000:]

    def leader(self) -> Member:
        """Return the member that leads."""
        for member in self.members:
            status = self.call("maintenance/status", member=member)
            if status["header"]["member_id"] == status["leader"]:
                return member
        raise AssertionError("no member says that it leads")

    def call(self, path: str, body: dict | None = None, *, member: Member | None = None) -> dict:
        """Ask a member (the first) without the client under test."""
        url = f"{(member or self.members[0]).url}/v3/{path}"
        asked = urllib.request.Request(url, json.dumps(body or {}).encode(), method="POST")
        with urllib.request.urlopen(asked, timeout=5) as answer:
            return json.load(answer)

    def wipe(self) -> None:
        """Lose all data, revisions included, and start again."""
        for member in self.members:
            member.kill()
            shutil.rmtree(self.data / member.name, ignore_errors=True)
        self.start()

    def stop(self) -> None:
        for member in self.members:
            member.kill()
        shutil.rmtree(self.data, ignore_errors=True)


@contextmanager
def own_etcd(members: int = 1) -> Iterator[OwnEtcd]:
    """Run a server for one test; skip where etcd is not installed."""
    try:
        server = OwnEtcd(members)
    except UnavailableError as error:
        _skip(str(error))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _skip(reason: str) -> None:
    if os.environ.get("MEMOTURN_REQUIRE_SERVICES") == "1":
        pytest.fail(f"MEMOTURN_REQUIRE_SERVICES=1, and {reason}", pytrace=False)
    pytest.skip(reason)


def _services(folder: str, *command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(SCRIPT), *command],
        env=os.environ | {"MEMOTURN_SERVICES_DIR": folder},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
