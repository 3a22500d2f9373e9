"""Wires tell who connects, and cut one client without the other."""

import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from processes import free_port
from proxy import Mode

from cluster.wires import Wires

ASK = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2)"


@pytest.fixture
def server(tmp_path: Path):
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield port
    finally:
        process.kill()
        process.wait()


def ask(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
        return answer.status


def test_one_client_is_cut_off_and_another_is_not(server: int):
    others: dict[str, int] = {}
    wires = Wires(lambda: {"me": os.getpid(), **others})
    try:
        wire = wires.add(server)
        for _ in range(100):
            try:
                assert ask(wire.port) == 200
                break
            except OSError:
                continue
        for mode in (Mode.REFUSE, Mode.RESET, Mode.BLACKHOLE):
            wire.cut("me", mode)
            with pytest.raises(OSError):
                ask(wire.port)
            other = subprocess.run([sys.executable, "-c", ASK, f"http://127.0.0.1:{wire.port}/"], check=False)
            assert other.returncode == 0, mode
            wire.mend()
            assert ask(wire.port) == 200
        wire.cut()
        other = subprocess.run(
            [sys.executable, "-c", ASK, f"http://127.0.0.1:{wire.port}/"], check=False, capture_output=True
        )
        assert other.returncode != 0
    finally:
        wires.close()
