"""A cluster to measure: nodes and gateways as users run them, on one etcd, one Postgres and one folder as the object store."""

import asyncio
import base64
import http.client
import json
import os
import re
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg

from bench.nodes import CHILD_SETTINGS
from memoturnd.leases.etcd_records import Keys

_SCRIPT: Final = Path(__file__).parent.parent / "scripts" / "services"
_START_S: Final = 120.0
_STOP_S: Final = 60.0
_PAUSE_S: Final = 0.01
OPS_PER_TRANSACTION: Final = 128
"""What etcd takes at once unless it is told otherwise."""


@dataclass(slots=True)
class Member:
    """A node, a gateway or what else runs. `started_s` is how long it took from its start to its first good answer to `ready`."""

    name: str
    host: str
    port: int
    process: "subprocess.Popen[bytes]"
    log_path: Path
    ready: str = "/ready"
    started_s: float = 0.0

    @property
    def pid(self) -> int:
        """Return the id of its process."""
        return self.process.pid

    def resident_bytes(self) -> int:
        """Return what it has in memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

    def descriptors(self) -> int:
        """Return how many files and connections it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def counters(self) -> dict[str, float]:
        """Return what its `GET /metrics` says, by name and labels as written."""
        return samples_of(f"http://{self.host}:{self.port}/metrics")

    def wait_until_ready(self) -> None:
        """Return when it is. Raises RuntimeError with its log where it ends or takes too long."""
        deadline_s = time.monotonic() + _START_S
        while time.monotonic() < deadline_s and self.process.poll() is None:
            with suppress(OSError):
                urllib.request.urlopen(f"http://{self.host}:{self.port}{self.ready}", timeout=5).close()
                return
            time.sleep(_PAUSE_S)
        raise RuntimeError(f"{self.name} did not start:\n{self.log_path.read_text()[-4000:]}")

    def stop(self) -> float:
        """End it in order, and return the seconds that this took. Safe to repeat."""
        start_s = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
        return time.monotonic() - start_s

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()


@dataclass(slots=True)
class Fleet:
    """What runs. The object store is the folder `objects`, so that its objects can be counted."""

    folder: Path
    etcd_url: str
    catalog_url: str
    ttl_s: int
    prefix: str = "/memoturn/"
    members: list[Member] = field(default_factory=list)
    cluster_key: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def objects(self) -> Path:
        """The folder of the object store."""
        return self.folder / "objects"

    def start_node(self, name: str, **settings: str) -> Member:
        """Start a node with a data directory of its own, empty unless a node of that name was here before."""
        port = _free_port()
        return self._start(
            name,
            "memoturnd",
            port,
            CHILD_SETTINGS
            | self._shared(self.prefix)
            | {
                "MEMOTURN_DATA_DIR": str(self.folder / name),
                "MEMOTURN_LISTEN": f"127.0.0.1:{port}",
                "MEMOTURN_NODE_ID": name,
                "MEMOTURN_OBJECT_STORE": f"file://{self.objects}",
                "MEMOTURN_CATALOG": self.catalog_url,
                "MEMOTURN_CLUSTER_KEY": self.cluster_key,
            }
            | {f"MEMOTURN_{key}": value for key, value in settings.items()},
        )

    def start_control(self, name: str, **settings: str) -> Member:
        """Start a control plane by itself."""
        port = _free_port()
        known = {
            "MEMOTURN_DATA_DIR": str(self.folder / name),
            "MEMOTURN_LISTEN": f"127.0.0.1:{port}",
            "MEMOTURN_OBJECT_STORE": f"file://{self.objects}",
            "MEMOTURN_CATALOG": self.catalog_url,
            "MEMOTURN_CLUSTER_KEY": self.cluster_key,
            "MEMOTURN_LOG_FORMAT": "json",
        } | {f"MEMOTURN_{key}": value for key, value in settings.items()}
        return self._start(name, "control_plane serve", port, known)

    def start_mcp(self, name: str, url: str) -> Member:
        """Start an MCP server over HTTP that speaks to `url`."""
        port = _free_port()
        settings = {"MEMOTURN_URL": url, "MEMOTURN_MCP_PORT": str(port)}
        return self._start(name, "memoturn mcp --http", port, settings, ready="/health")

    def start_gateway(self, name: str, prefix: str | None = None) -> Member:
        """Start a gateway, for the cluster of the nodes unless another prefix says where to look."""
        port = _free_port()
        settings = self._shared(prefix or self.prefix) | {"MEMOTURN_GATEWAY_LISTEN": f"127.0.0.1:{port}"}
        return self._start(name, "gateway", port, settings)

    def _shared(self, prefix: str) -> dict[str, str]:
        return {
            "MEMOTURN_ETCD": self.etcd_url,
            "MEMOTURN_ETCD_PREFIX": prefix,
            "MEMOTURN_LEASE_TTL_S": str(self.ttl_s),
            "MEMOTURN_LOG_FORMAT": "json",
        }

    def _start(
        self, name: str, command: str, port: int, settings: dict[str, str], *, ready: str = "/ready"
    ) -> Member:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MEMOTURN_")}
        log_path = self.folder / f"{name}.log"
        start_s = time.monotonic()
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command.split()], env=inherited | settings, stdout=log, stderr=log
            )
        member = Member(name, "127.0.0.1", port, process, log_path, ready)
        self.members.append(member)
        member.wait_until_ready()
        member.started_s = time.monotonic() - start_s
        return member

    # ---- etcd

    def etcd(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Ask etcd."""
        request = urllib.request.Request(
            f"{self.etcd_url}/v3/{path}", json.dumps(body).encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def etcd_counters(self) -> dict[str, float]:
        """Return what etcd's own `GET /metrics` says."""
        return samples_of(f"{self.etcd_url}/metrics")

    def owner_keys(self, prefix: str | None = None) -> list[tuple[bytes, bytes]]:
        """Return every owner's key and value."""
        start = f"{prefix or self.prefix}owner/".encode()
        end = start[:-1] + bytes([start[-1] + 1])
        answer = self.etcd("kv/range", {"key": _base64(start), "range_end": _base64(end)})
        return [
            (base64.b64decode(row["key"]), base64.b64decode(row["value"])) for row in answer.get("kvs", ())
        ]

    def put_all(self, pairs: Sequence[tuple[str, bytes]]) -> None:
        """Put keys, encoded already, many to a transaction."""
        for first in range(0, len(pairs), OPS_PER_TRANSACTION):
            some = pairs[first : first + OPS_PER_TRANSACTION]
            puts = [{"request_put": {"key": key, "value": _base64(value)}} for key, value in some]
            self.etcd("kv/txn", {"success": puts})

    def delete_all(self, prefix: str) -> None:
        """Delete what is below a prefix."""
        start = prefix.encode()
        end = start[:-1] + bytes([start[-1] + 1])
        self.etcd("kv/deleterange", {"key": _base64(start), "range_end": _base64(end)})

    # ---- the catalog

    def rows(self, statement: str) -> list[Any]:
        """Run a statement of ours on the catalog, over a connection of its own."""

        async def run() -> list[Any]:
            connection = await asyncpg.connect(self.catalog_url)
            try:
                return list(await connection.fetch(statement))
            finally:
                await connection.close()

        return asyncio.run(run())

    def number(self, statement: str) -> float:
        """Return the one number that a statement gives."""
        return float(self.rows(statement)[0][0])

    # ---- the bucket

    def bucket(self) -> tuple[int, int]:
        """Return how many objects there are, and their bytes."""
        sizes = [path.stat().st_size for path in self.objects.rglob("*") if path.is_file()]
        return len(sizes), sum(sizes)


class Watcher:
    """Counts what etcd sends to one who follows nodes and owners, as each gateway does."""

    def __init__(self, fleet: Fleet) -> None:
        self.events = 0
        self.size_bytes = 0
        address = urlsplit(fleet.etcd_url)
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port or 0)
        key, end = Keys(fleet.prefix).watched
        asked = {"create_request": {"key": key, "range_end": end, "prev_kv": True, "progress_notify": True}}
        self._connection.request("POST", "/v3/watch", json.dumps(asked))
        # Taken before the answer, which would keep it to itself.
        self._socket = self._connection.sock
        self._answer = self._connection.getresponse()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(OSError, http.client.HTTPException, ValueError):
            while line := self._answer.readline():
                self.size_bytes += len(line)
                self.events += len(json.loads(line).get("result", {}).get("events", ()))

    def close(self) -> None:
        """Stop following."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._connection.close()


@contextmanager
def running(folder: Path, *, ttl_s: int) -> Iterator[Fleet]:
    """Yield a fleet without nodes; all of it ends with the block. Raises RuntimeError where a service cannot be had."""
    started = _services(folder, "start", "--quick", "etcd", "postgres")
    try:
        found = dict(re.findall(r"^export MEMOTURN_TEST_(\w+)=(.*)$", started.stdout, re.MULTILINE))
        if started.returncode or not {"ETCD_URL", "POSTGRES_URL"} <= found.keys():
            raise RuntimeError(
                " ".join((started.stderr or "scripts/services started nothing").split())[-300:]
            )
        catalog_url = shlex.split(found["POSTGRES_URL"])[0]
        _migrate(catalog_url)
        fleet = Fleet(folder, shlex.split(found["ETCD_URL"])[0], catalog_url, ttl_s)
        try:
            yield fleet
        finally:
            for member in fleet.members:
                if member.process.poll() is None:
                    member.kill()
    finally:
        _services(folder, "stop")


def samples_of(url: str) -> dict[str, float]:
    """Return the samples of a page of metrics, by name and labels as written."""
    with urllib.request.urlopen(url, timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def total(samples: dict[str, float], name: str, *parts: str) -> float:
    """Return the sum of the samples of a name whose labels have all these parts."""
    return sum(
        value
        for key, value in samples.items()
        if key.partition("{")[0] == name and all(part in key for part in parts)
    )


def _services(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(_SCRIPT), *arguments],
        env=os.environ | {"MEMOTURN_SERVICES_DIR": str(folder / "services")},
        capture_output=True,
        text=True,
        timeout=_START_S,
        check=False,
    )


def _migrate(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "control_plane", "migrate"],
        env=os.environ | {"MEMOTURN_CATALOG": url},
        capture_output=True,
        text=True,
        timeout=_START_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the catalog's schema was not made: {done.stderr[-500:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
