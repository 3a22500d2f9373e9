"""Real workers behind their gateway."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from processes import NodeHome, RunningNode

CHANGE_S = 30.0


class Workers:
    """`memoturnd --workers N` on a home's data directory."""

    def __init__(self, home: NodeHome, workers: int = 2, **env: str) -> None:
        self.home = home
        self._logged = len(home.log())
        self.node: RunningNode = home.start("--workers", str(workers), **env)
        self.url = self.node.url

    def started(self, process: str) -> list[int]:
        """Return the ids of the processes of that name that were started, in order."""
        lines = [json.loads(line) for line in self.home.log()[self._logged :].splitlines() if line[:1] == "{"]
        return [one["pid"] for one in lines if one["event"] == "started" and one["process"] == process]

    def kill(self, process: str) -> None:
        """SIGKILL the present process of that name."""
        os.kill(self.started(process)[-1], signal.SIGKILL)

    def wait_for_restart(self, process: str, times: int) -> None:
        """Return once a process of that name was started so often."""
        wait_until(lambda: len(self.started(process)) >= times)

    def owners(self) -> dict[str, str]:
        """Return the worker that owns each database, as the lease table has it."""
        with contextlib.closing(apsw.Connection(str(self.home.data_dir / "leases" / "leases.db"))) as table:
            return dict(
                table.execute("SELECT database, node_id FROM owners WHERE node_id IS NOT NULL").fetchall()
            )

    def owner(self, name: str) -> str:
        """Return the process name of the worker that owns the profile `app/{name}`."""
        owners = {database.rpartition("--")[2]: worker for database, worker in self.owners().items()}
        return owners[name].replace("-", " ")


def wait_until(done, seconds: float = CHANGE_S) -> float:
    """Return how many seconds it took until `done()` was true."""
    started_s = time.monotonic()
    while not done():
        assert time.monotonic() - started_s < seconds, "it did not happen"
        time.sleep(0.02)
    return time.monotonic() - started_s


@pytest.fixture
def home(tmp_path: Path) -> Iterator[NodeHome]:
    with NodeHome(tmp_path / "home") as home:
        yield home
        kill_children(home)


def kill_children(home: NodeHome) -> None:
    """Kill what a killed supervisor may have left: each process by its id, if it still is what was started."""
    for line in home.log().splitlines():
        if line[:1] == "{" and (one := json.loads(line))["event"] == "started":
            with contextlib.suppress(OSError):
                if b"memoturnd" in Path(f"/proc/{one['pid']}/cmdline").read_bytes():
                    os.kill(one["pid"], signal.SIGKILL)
