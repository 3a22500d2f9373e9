"""A cluster of real processes on loopback: nodes, gateways, etcd, MinIO and Postgres, with authentication, and every connection
of every node through a proxy that can cut it.

    with running_cluster(folder) as cluster:
        cluster.nodes[0].kill()
        cluster.cut("n2", "etcd")        # who connects, and to whom: "etcd", "bucket", "catalog", or a node
        cluster.mend()

Processes are ended by their ids, whatever happens.
"""

import base64
import contextlib
import json
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from etcd_server import OwnEtcd, own_etcd
from own_minio import OwnMinio, running_minio
from postgres_server import OwnPostgres, own_postgres
from processes import environment
from proxy import Mode
from service_base import free_port

from cluster.namespaces import Namespaces, UnavailableNamespacesError, namespaces
from cluster.wires import Wire, Wires

PLATFORM_KEY = "platform-key-of-the-tests"
CLUSTER_KEY = "cluster-key-of-the-tests"
START_S = 40.0
STOP_S = 15.0
SERVICES = ("etcd", "bucket", "catalog")


class Process:
    """A node or a gateway."""

    def __init__(
        self, name: str, command: list[str], port: int, folder: Path, host: str = "127.0.0.1"
    ) -> None:
        self.name = name
        self.command = command
        self.port = port
        self.host = host
        self.folder = folder
        self.log_path = folder / f"{name}.log"
        self.env: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its own address, around every wire."""
        return f"http://{self.host}:{self.port}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, *, wait: bool = True, **env: str) -> None:
        """Start it, and return once it is ready."""
        assert not self.alive
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=environment() | self.env | {f"MEMOTURN_{name}": value for name, value in env.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self, within_s: float = START_S) -> None:
        """Return once it answers its readiness probe."""
        deadline = time.monotonic() + within_s
        with httpx.Client(timeout=2) as client:
            while time.monotonic() < deadline:
                assert self.alive, f"{self.name} has ended\n{self.log()[-4000:]}"
                with contextlib.suppress(httpx.TransportError):
                    if client.get(f"{self.url}/ready").status_code == 200:
                        return
                time.sleep(0.05)
        raise AssertionError(f"{self.name} is not ready after {within_s} s\n{self.log()[-4000:]}")

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Safe to repeat."""
        if self.process is not None:
            if self.alive:
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: its connections stay open, and nothing answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> float:
        """SIGTERM; return the seconds that it took to end, in order."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_S)
        assert code == 0, f"{self.name} ended with {code}\n{self.log()[-4000:]}"
        return time.monotonic() - began

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""


class Cluster:
    """The processes, and the wires between them. `settings` are of every node, without their prefix.

    Between nodes and gateways there are wires where it is `wired`. A proxy takes connections also for a node that is gone,
    so clients of such a cluster see requests that are lost where others are refused a connection. With `spaces` nodes and gateways have a
    network namespace each, and `Namespaces` cuts them off from one another.
    """

    def __init__(
        self,
        folder: Path,
        etcd: OwnEtcd,
        minio: OwnMinio,
        postgres: OwnPostgres,
        *,
        nodes: int = 3,
        gateways: int = 2,
        ttl_s: int = 3,
        settings: Mapping[str, str] | None = None,
        spaces: Namespaces | None = None,
        wired: bool = False,
    ) -> None:
        self.spaces = spaces
        self.wired = wired and spaces is None
        self.ttl_s = ttl_s
        self.folder = folder
        self.etcd, self.minio, self.postgres = etcd, minio, postgres
        self.wires = Wires(self._pids)
        self.key = Ed25519PrivateKey.generate()
        self.prefix = "/memoturn/"
        self._bucket = f"s3://bucket/{secrets.token_hex(4)}"
        self._settings = dict(settings or {})
        self._wires: dict[tuple[str, str], list[Wire]] = {}
        self.nodes = [self._node(f"n{number + 1}") for number in range(nodes)]
        self.gateways = [self._gateway(f"g{number + 1}") for number in range(gateways)]

    # ---- processes

    @property
    def processes(self) -> list[Process]:
        return [*self.nodes, *self.gateways]

    def process(self, name: str) -> Process:
        """Return a node or a gateway by its name."""
        return next(p for p in self.processes if p.name == name)

    def start(self) -> None:
        """Start every process that does not run, and return once all are ready."""
        waiting = [process for process in self.processes if not process.alive]
        for process in waiting:
            process.start(wait=False)
        for process in waiting:
            process.wait_until_ready()

    def close(self) -> None:
        """End everything."""
        for process in self.processes:
            process.kill()
        self.wires.close()

    def recover(self) -> None:
        """Undo every fault: mend, resume, start what was killed, and return once all are ready."""
        self.mend()
        for process in self.processes:
            if process.alive:
                process.resume()
        if self.minio.process is not None:
            self.minio.process.send_signal(signal.SIGCONT)
        if self.postgres.process is not None:
            self.postgres.process.send_signal(signal.SIGCONT)
        for member in self.etcd.members:
            if member.is_running:
                member.resume()
        self.etcd.start()
        self.start()
        for process in self.processes:
            process.wait_until_ready()

    # ---- faults on connections

    def cut(self, source: str, target: str, mode: Mode = Mode.BLACKHOLE) -> None:
        """Cut what `source` sends to `target`: a service, or a node."""
        if target in SERVICES:
            for wire in self._wires[source, target]:
                wire.cut(None, mode)
        else:
            assert self.wired, "there is no wire between nodes and gateways"
            for wire in self._wires[target, "in"]:
                wire.cut(source, mode)

    def isolate(self, name: str, *, services: tuple[str, ...] = SERVICES) -> None:
        """Cut a node from these services, and from every node and gateway in both directions."""
        for service in services:
            self.cut(name, service)
        for wire in self._wires[name, "in"]:
            wire.cut()
        for node in self.nodes:
            if node.name != name:
                self.cut(name, node.name)

    def mend(self) -> None:
        """Let everything through."""
        if self.spaces is not None:
            self.spaces.mend()
        for wires in self._wires.values():
            for wire in wires:
                wire.mend()

    def wire(self, source: str, target: str) -> list[Wire]:
        """Return the wires from a process to a service, or (`target` is "in") those into a node."""
        return self._wires[source, target]

    # ---- what it is asked

    def bearer(self, credential: str = PLATFORM_KEY) -> dict[str, str]:
        return {"Authorization": f"Bearer {credential}"}

    def token(self, **claims: Any) -> str:
        """Return a token as a node would mint it, an hour long."""
        now = int(time.time())
        payload = {"db": "", "iat": now, "exp": now + 3600, "scope": "admin", **claims}
        return jwt.encode(payload, self.key, algorithm="EdDSA")

    def client(self, process: Process, credential: str = PLATFORM_KEY, timeout_s: float = 20) -> httpx.Client:
        """Return a client of one node or gateway."""
        return httpx.Client(base_url=process.url, headers=self.bearer(credential), timeout=timeout_s)

    def owner(self, database: str, branch: str = "main") -> tuple[str, int] | None:
        """Return the node that owns a branch and its epoch, as etcd has it; None where nobody does."""
        for record, revision in self.owner_records():
            if record["database"].rpartition("/")[2] == database and record["branch"] == branch:
                return record["node_id"], revision
        return None

    def owner_records(self) -> list[tuple[dict[str, Any], int]]:
        """Return every owner key's content and epoch, asked of a member that runs."""
        prefix = f"{self.prefix}owner/"
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        asked = {"key": _base64(prefix), "range_end": _base64(end)}
        member = next(m for m in self.etcd.members if m.is_running)
        answer = self.etcd.call("kv/range", asked, member=member)
        return [
            (json.loads(base64.b64decode(row["value"])), int(row["mod_revision"]))
            for row in answer.get("kvs", [])
        ]

    def owner_node(self, database: str, branch: str = "main") -> Process:
        """Return the process that owns a branch."""
        found = self.owner(database, branch)
        assert found is not None, f"nobody owns {database}@{branch}: {self.owner_records()}"
        return self.process(found[0])

    # ---- making it

    def _pids(self) -> dict[str, int]:
        return {p.name: p.process.pid for p in self.processes if p.process is not None and p.alive}

    def _service_wires(self, name: str, services: tuple[str, ...]) -> None:
        ports = {
            "etcd": [member.port for member in self.etcd.members],
            "bucket": [self.minio.port],
            "catalog": [self.postgres.port],
        }
        for service in services:
            self._wires[name, service] = [self.wires.add(port, listen=self._here) for port in ports[service]]

    @property
    def _here(self) -> str:
        """The address at which processes reach the wires."""
        return self.spaces.address if self.spaces is not None else "127.0.0.1"

    def _etcd_of(self, name: str) -> str:
        return "http://" + ",".join(f"{self._here}:{wire.port}" for wire in self._wires[name, "etcd"])

    def _process(self, name: str, module: str) -> Process:
        command, port = [sys.executable, "-m", module], free_port()
        if self.spaces is None:
            return Process(name, command, port, self.folder)
        host = self.spaces.add(name)
        return Process(name, [*self.spaces.inside(name), *command], port, self.folder, host)

    def _node(self, name: str) -> Process:
        node = self._process(name, "memoturnd")
        self._service_wires(name, SERVICES)
        self._wires[name, "in"] = [self.wires.add(node.port)] if self.wired else []
        [bucket], [catalog] = (self._wires[name, kind] for kind in ("bucket", "catalog"))
        inward = self._wires[name, "in"]
        settings = {
            "DATA_DIR": str(self.folder / name),
            "LISTEN": f"{node.host}:{node.port}",
            "ADVERTISE": f"http://127.0.0.1:{inward[0].port}" if inward else node.url,
            "NODE_ID": name,
            "OBJECT_STORE": self._bucket,
            "CATALOG": self.postgres.url_at(catalog.port).replace("127.0.0.1", self._here),
            "ETCD": self._etcd_of(name),
            "LEASE_TTL_S": str(self.ttl_s),
            "AUTH": "on",
            "PLATFORM_KEY": PLATFORM_KEY,
            "CLUSTER_KEY": CLUSTER_KEY,
            "AUTH_KEY": _encoded(self.key),
            "CONTROL_RATE": "10000",
            "LOG_FORMAT": "json",
            **self._settings,
        }
        server = self.minio.server
        aws = server.environment(AWS_ENDPOINT_URL=f"http://{self._here}:{bucket.port}")
        node.env = aws | {f"MEMOTURN_{key}": value for key, value in settings.items()}
        return node

    def _gateway(self, name: str) -> Process:
        gateway = self._process(name, "gateway")
        self._service_wires(name, ("etcd",))
        settings = {
            "GATEWAY_LISTEN": f"{gateway.host}:{gateway.port}",
            "ETCD": self._etcd_of(name),
            "AUTH": "on",
            "LOG_FORMAT": "json",
        }
        gateway.env = {f"MEMOTURN_{key}": value for key, value in settings.items()}
        return gateway


@contextlib.contextmanager
def running_cluster(
    folder: Path,
    *,
    members: int = 1,
    nodes: int = 3,
    gateways: int = 2,
    ttl_s: int = 3,
    settings: Mapping[str, str] | None = None,
    in_namespaces: bool = False,
    wired: bool = False,
) -> Iterator[Cluster]:
    """Run a cluster; skip where a service of it cannot be had. `members` are etcd's; a lease of a node lasts `ttl_s`."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(3) as pool:
        # Each takes a second or two to come up, so all at once.
        made = [
            pool.submit(stack_of, make)
            for make in (
                lambda: own_etcd(members),
                lambda: running_minio(folder / "minio"),
                own_postgres,
            )
        ]
        started = []
        for future in made:
            entered, service = future.result()
            stack.push(entered)
            started.append(service)
        etcd, minio, postgres = started
        migrate(postgres.url)
        spaces = None
        if in_namespaces:
            try:
                spaces = stack.enter_context(namespaces())
            except UnavailableNamespacesError as error:
                pytest.skip(str(error))
        cluster = Cluster(
            folder,
            etcd,
            minio,
            postgres,
            nodes=nodes,
            gateways=gateways,
            ttl_s=ttl_s,
            settings=settings,
            spaces=spaces,
            wired=wired,
        )
        stack.callback(cluster.close)
        cluster.start()
        yield cluster


def stack_of(make: Any) -> tuple[contextlib.ExitStack, Any]:
    """Enter a context in this thread, to be left in another."""
    stack = contextlib.ExitStack()
    return stack, stack.enter_context(make())


def migrate(url: str) -> None:
    """Make the catalog's schema."""
    done = subprocess.run(
        [sys.executable, "-m", "control_plane", "migrate"],
        env=environment(CATALOG=url),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _encoded(key: Ed25519PrivateKey) -> str:
    kinds = serialization
    return _base64(key.private_bytes(kinds.Encoding.DER, kinds.PrivateFormat.PKCS8, kinds.NoEncryption()))


def _base64(data: str | bytes) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()
