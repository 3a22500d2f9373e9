"""etcd, as a service of `scripts/services`: one member. Tests that stop a member run three with the same functions."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from service_base import Service, UnavailableError, free_port, install_debian, status_of


class Etcd(Service):
    """One member with its data in a folder of its own, without fsync: nothing in it outlives the tests."""

    name = "etcd"

    def get(self, *, quick: bool = False) -> None:
        if shutil.which("etcd") and shutil.which("etcdctl"):
            return
        # Its packages start no server where no init system runs; one that does keeps to its own ports.
        install_debian("etcd", ["etcd-server", "etcd-client"], quick=quick)

    def launch(self) -> None:
        port, peer = free_port(), free_port()
        data = tempfile.mkdtemp(prefix="memoturn-etcd-")
        state = {"processes": [], "endpoint": f"http://127.0.0.1:{port}", "data": data}
        self.spawn(state, member_command("one", Path(data), port, {"one": peer}))
        self.wait(state, lambda: self.answers(state), "etcd")

    def answers(self, state: dict) -> bool:
        return is_healthy(state["endpoint"])

    def stop(self) -> None:
        state = self.state()
        super().stop()
        if state is not None:
            shutil.rmtree(state["data"], ignore_errors=True)

    def environment(self, state: dict) -> dict[str, str]:
        return {"MEMOTURN_TEST_ETCD_URL": state["endpoint"]}


def member_command(name: str, data: Path, port: int, peers: Mapping[str, int]) -> list[str]:
    """Return the command that runs one member in the foreground; `peers` are the peer ports of all, by name."""
    binary = shutil.which("etcd")
    if binary is None:
        raise UnavailableError("etcd is not installed: `scripts/services get etcd`")
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers[name]}"
    options = {
        "name": name,
        "data-dir": str(data / name),
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": ",".join(f"{one}=http://127.0.0.1:{number}" for one, number in peers.items()),
        "initial-cluster-state": "new",
        "heartbeat-interval": "50",
        "election-timeout": "500",
        "log-level": "warn",
        "logger": "zap",
    }
    return [binary, "--unsafe-no-fsync", *(f"--{option}={value}" for option, value in options.items())]


def is_healthy(endpoint: str) -> bool:
    """Return whether a member has a leader and takes writes."""
    return status_of(f"{endpoint}/health") == 200
