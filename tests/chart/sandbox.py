"""Programs as their pods run them: the environment that was rendered and no other, nobody in particular as the user, no capabilities,
a root that cannot be written, and of folders only those that are mounted.

The code is what the wheels hold, the interpreter and the libraries are those of the tests. It takes root, and mount namespaces.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest
from service_base import free_port

from chart.rendering import Objects

USER = 65532
START_S = 60.0
PATH = "/opt/memoturn/bin:/opt/python/bin:/usr/bin:/bin"
IMAGE_ENV = {
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "HOME": "/tmp",
    "MEMOTURN_DATA_DIR": "/var/lib/memoturn",
}
"""What the image sets, besides where its commands are."""
_SCRIPT = r"""
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /opt
mkdir /opt/memoturn /opt/python /opt/libraries
mount --bind "$INSTALLED" /opt/memoturn
mount --bind "$PYTHON" /opt/python
mount --bind "$LIBRARIES" /opt/libraries
mount -t tmpfs tmpfs /var/lib
mkdir /var/lib/memoturn
mount -t tmpfs tmpfs /run
mkdir -p /run/secrets
mount --bind "$POD/secrets" /run/secrets
[ ! -d "$POD/data" ] || mount --bind "$POD/data" /var/lib/memoturn
mount --bind "$POD/tmp" /tmp
for there in /opt /opt/memoturn /opt/python /opt/libraries /var/lib /run /run/secrets /dev/shm /; do
  mount -o remount,bind,ro "$there"
done
cd /
exec setpriv --reuid "$NOBODY" --regid "$NOBODY" --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs -- \
  env -i "$@"
"""


class Pod:
    """One pod of a part: its folders, and its container's process. `secrets` are those of the namespace, by name and key."""

    def __init__(
        self,
        folder: Path,
        installed: Path,
        objects: Objects,
        part: str,
        name: str,
        secrets: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.folder, self.installed, self.name = folder / name, installed, name
        self.container = objects.container(part)
        self.spec = objects.pods()[part]["spec"]
        self.secrets = secrets
        self.port = free_port()
        self.addresses = {f"{host}:8080": f"127.0.0.1:{self.port}" for host in ("0.0.0.0", "192.0.2.1")}
        """What in the environment is elsewhere on this machine, where all pods have one address, and a port each."""
        self.overrides: dict[str, str] = {}
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.mounts = {one["mountPath"]: one["name"] for one in self.container["volumeMounts"]}
        self.make()

    def make(self) -> None:
        """Make its folders, empty, and its secrets: as for a pod that is new."""
        shutil.rmtree(self.folder, ignore_errors=True)
        volumes = {one["name"]: one for one in self.spec["volumes"]}
        wanted = {"/tmp": "tmp", "/var/lib/memoturn": "data"}
        for mount in set(self.mounts) & set(wanted):
            (self.folder / wanted[mount]).mkdir(parents=True)
            os.chown(self.folder / wanted[mount], USER, USER)
        for mount, volume in self.mounts.items():
            source = volumes[volume].get("secret")
            if source:
                place = self.folder / "secrets" / mount.removeprefix("/run/secrets/")
                place.mkdir(parents=True)
                for item in source["items"]:
                    file = place / item["path"]
                    file.write_text(self.secrets[source["secretName"]][item["key"]])
                    os.chown(file, 0, USER)
                    file.chmod(source["defaultMode"])
        (self.folder / "secrets").mkdir(exist_ok=True)

    def env(self, *, ip: str) -> dict[str, str]:
        """The variables of the container, as the kubelet fills them in."""
        env: dict[str, str] = {}
        for one in self.container["env"]:
            value = self._value(one, ip)
            if value is not None:
                for name, known in env.items():
                    value = value.replace(f"$({name})", known)
                env[one["name"]] = value
        return env

    def _value(self, variable: dict[str, Any], ip: str) -> str | None:
        match variable.get("valueFrom"):
            case None:
                return variable.get("value", "")
            case {"secretKeyRef": ref}:
                found = self.secrets[ref["name"]].get(ref["key"])
                assert found is not None or ref.get("optional"), ref
                return found
            case {"fieldRef": {"fieldPath": path}}:
                return {"metadata.name": self.name, "status.podIP": ip}[path]
        raise AssertionError(variable)

    def _here(self, text: str) -> str:
        for there, here in self.addresses.items():
            text = text.replace(there, here)
        return text

    def start(self, *, wait: bool = True) -> None:
        """Start its container, and return once its readiness probe is answered."""
        own_port = str(self.container["ports"][0]["containerPort"]) if "ports" in self.container else ""
        words = (str(self.port) if word == own_port else word for word in self.container["command"])
        program, *arguments = words
        env = {name: self._here(value) for name, value in self.env(ip="192.0.2.1").items()} | self.overrides
        command = sandboxed(env, f"/opt/memoturn/bin/{program}", *arguments)
        with (self.folder.parent / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=outside(self.folder, self.installed),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Return once its readiness probe is answered."""
        path = self.container["readinessProbe"]["httpGet"]["path"]
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} has ended\n{self.log()}"
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(self.url + path, timeout=5).status_code == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{self.name} is not ready\n{self.log()}")

    def run(self, within_s: float = START_S) -> int:
        """Run its container to the end, and return its exit code."""
        self.start(wait=False)
        assert self.process is not None
        return self.process.wait(within_s)

    def end(self) -> None:
        """SIGTERM, and no more."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Return the exit code, within what the pod has for it."""
        assert self.process is not None
        sleep_s = self.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        return self.process.wait(self.spec["terminationGracePeriodSeconds"] - sleep_s)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        self.end()
        return self.ended()

    def kill(self) -> None:
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return (self.folder.parent / f"{self.name}.log").read_text(errors="replace")[-4000:]


def sandboxed(env: Mapping[str, str], *arguments: str) -> list[str]:
    """Return the command line that runs Python in a sandbox, with these variables and what the image sets."""
    inside = {
        **IMAGE_ENV,
        **env,
        "PATH": PATH,
        "PYTHONPATH": "/opt/memoturn:/opt/libraries",
        "LD_LIBRARY_PATH": "/opt/python/lib",
    }
    variables = [f"{name}={value}" for name, value in inside.items()]
    return ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh", *variables, "python3", *arguments]


def outside(folder: Path, installed: Path) -> dict[str, str]:
    """Return what the script that makes the sandbox has to know."""
    return {
        "PATH": os.environ["PATH"],
        "INSTALLED": str(installed),
        "PYTHON": sys.base_prefix,
        "LIBRARIES": sysconfig.get_path("purelib"),
        "POD": str(folder),
        "NOBODY": str(USER),
    }


def run_command(
    folder: Path, installed: Path, program: str, *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Run one command of the image to its end, with nothing but a folder for what is temporary. `-c` is Python's own."""
    for name in ("tmp", "secrets"):
        (folder / name).mkdir(parents=True)
    os.chown(folder / "tmp", USER, USER)
    first = program if program == "-c" else f"/opt/memoturn/bin/{program}"
    return subprocess.run(
        sandboxed({}, first, *arguments),
        env=outside(folder, installed),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextlib.contextmanager
def pods_folder() -> Iterator[Path]:
    """Give a folder for pods that nobody in particular can reach; skip where pods cannot be run."""
    if os.getuid() != 0:
        _go_without("pods are run in mount namespaces, which takes root")
    tried = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False, timeout=10)
    if tried.returncode != 0:
        _go_without(f"mount namespaces cannot be had: {tried.stderr.decode().strip()}")
    folder = Path(tempfile.mkdtemp(prefix="memoturn-pods-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _go_without(reason: str) -> NoReturn:
    if os.environ.get("MEMOTURN_REQUIRE_SERVICES") == "1":
        pytest.fail(f"MEMOTURN_REQUIRE_SERVICES=1, and {reason}", pytrace=False)
    pytest.skip(reason)
