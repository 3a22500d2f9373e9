"""The tour tells the truth, and cleans up after itself."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).resolve().parents[2] / "scripts" / "demo.py"


@pytest.fixture
def tour(tmp_path):
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, str(DEMO)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        yield process
        process.kill()


def nodes_in(folder: Path) -> list[str]:
    """The processes that were started with a data directory in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"MEMOTURN_DATA_DIR={folder}".encode() in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


def test_the_tour_holds_to_its_end_and_leaves_nothing_behind(tour, tmp_path):
    told, _ = tour.communicate(timeout=100)

    assert tour.returncode == 0, told
    assert "claims were checked" in told
    assert list(tmp_path.iterdir()) == []
    assert nodes_in(tmp_path) == []


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_tour_leaves_nothing_behind(tour, tmp_path, sent, code):
    for line in tour.stdout:
        if "A node is ready" in line:
            break
    assert len(nodes_in(tmp_path)) == 1

    tour.send_signal(sent)
    told, _ = tour.communicate(timeout=30)

    assert tour.returncode == code, told
    assert list(tmp_path.iterdir()) == []
    assert nodes_in(tmp_path) == []
