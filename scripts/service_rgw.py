"""Ceph's S3 server, as a service of `scripts/services`."""

import secrets
import shutil
import subprocess
import uuid

from service_base import (
    START_S,
    Service,
    UnavailableError,
    free_port,
    install_debian,
    s3_environment,
    say,
    status_of,
)


class Rgw(Service):
    """Ceph's S3 server on a cluster of one monitor and one store in memory: the second dialect."""

    name = "rgw"
    programs = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph", "monmaptool")

    def get(self, *, quick: bool = False) -> None:
        if all(shutil.which(program) for program in self.programs):
            return
        install_debian("Ceph", ["ceph-mon", "ceph-osd", "radosgw", "ceph-common"], quick=quick)

    def launch(self) -> None:
        try:
            self.launch_once()
        except UnavailableError as error:
            say(f"rgw: {error}; trying once more")  # one cold start in four hangs before the store is up
            self.folder.mkdir(parents=True, exist_ok=True)
            self.launch_once()

    def launch_once(self) -> None:
        port, monitor = free_port(), free_port()
        state = {
            "processes": [],
            "endpoint": f"http://127.0.0.1:{port}",
            "access": f"dev{secrets.token_hex(6)}",
            "secret": secrets.token_hex(20),
        }
        fsid, osd = str(uuid.uuid4()), str(uuid.uuid4())
        conf = self.configure(fsid, monitor, port)
        monmap = str(self.folder / "monmap")
        self.run(
            "monmaptool",
            "--create",
            "--clobber",
            "--fsid",
            fsid,
            "--addv",
            "a",
            f"[v1:127.0.0.1:{monitor}]",
            monmap,
        )
        self.run("ceph-mon", *conf, "-i", "a", "--mkfs", "--monmap", monmap)
        self.spawn(state, ["ceph-mon", *conf, "-i", "a", "-f"])
        self.wait(
            state, lambda: self.ok("ceph", *conf, "--connect-timeout", "3", "osd", "new", osd), "the monitor"
        )
        self.run("ceph-osd", *conf, "-i", "0", "--mkfs", "--osd-uuid", osd)
        self.spawn(state, ["ceph-osd", *conf, "-i", "0", "-f"])
        self.wait(
            state,
            lambda: "1 up" in self.ok("ceph", *conf, "--connect-timeout", "3", "osd", "stat"),
            "the object store daemon",
        )
        self.spawn(state, ["radosgw", *conf, "-n", "client.rgw", "-f"])
        self.wait(state, lambda: self.answers(state), "radosgw")
        self.run(
            "radosgw-admin",
            *conf,
            "user",
            "create",
            "--uid=dev",
            "--display-name=dev",
            f"--access-key={state['access']}",
            f"--secret-key={state['secret']}",
        )

    def configure(self, fsid: str, monitor: int, port: int) -> list[str]:
        """Write ceph.conf, and return the arguments that name it."""
        low = free_port()
        for folder in ("mon", "osd", "rgw", "run"):
            (self.folder / folder).mkdir(exist_ok=True)
        (self.folder / "ceph.conf").write_text(
            RGW_CONF.format(folder=self.folder, fsid=fsid, monitor=monitor, port=port, low=low, high=low + 90)
        )
        return ["-c", str(self.folder / "ceph.conf")]

    def run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        if done.returncode != 0:
            self.stop()
            raise UnavailableError(f"{command[0]} failed: {done.stderr[-1000:]}")

    def ok(self, *command: str) -> str:
        """Return what a command prints, empty when it fails."""
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except subprocess.TimeoutExpired:
            return ""
        return (done.stdout + done.stderr or "done") if done.returncode == 0 else ""

    def answers(self, state: dict) -> bool:
        return status_of(state["endpoint"]) == 200

    def environment(self, state: dict) -> dict[str, str]:
        return s3_environment("RGW", state)


RGW_CONF = """
[global]
fsid = {fsid}
mon host = v1:127.0.0.1:{monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms bind msgr2 = false
ms bind port min = {low}
ms bind port max = {high}
run dir = {folder}/run
admin socket = {folder}/run/$name.asok
log file = {folder}/$name.log
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
mon allow pool size one = true
mon max pg per osd = 1000
mon data avail crit = 1
[mon.a]
mon data = {folder}/mon
[osd]
osd objectstore = memstore
memstore device bytes = 2147483648
osd data = {folder}/osd
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw data = {folder}/rgw
rgw dynamic resharding = false
"""
