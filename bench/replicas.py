"""How old what replicas show is, over real processes, at several sizes of a profile; and how long writes wait when its owner stops.

Two nodes and a gateway, authentication on. One client writes a counter through the gateway at a steady rate, another one reads it, as
cached reads, at the node that does not own the profile. What it sees is held against when each write was acknowledged.
"""

import json
import os
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import pairwise
from typing import Final

from bench.fleet import Fleet, Member, running
from bench.machine import watched
from bench.nodes import temporary_folder
from bench.stats import Table, duration, percentile

KEY: Final = "bench-platform-key-of-at-least-32-characters"
_VALUE_BYTES: Final = 256 * 1024
_READ_PAUSE_S: Final = 0.005
_CALL_S: Final = 60.0
_APPEARS_S: Final = 600.0
"""How long a first copy of a large profile may take."""
_COLUMNS: Final = (
    "profile",
    "writes",
    "reads",
    "age disclosed p50",
    "p99",
    "max",
    "age observed p50",
    "p99",
    "max",
    "first copy",
    "owner's stop",
    "longest wait of a write meanwhile",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: sizes of the profile, seconds for each, writes a second."""

    sizes_mb: tuple[int, ...]
    seconds: float
    rate: float


@dataclass(slots=True)
class Seen:
    """Seconds. `acked_s` has when each value of the counter was acknowledged, `reads` (begun, value, age disclosed)."""

    acked_s: list[float] = field(default_factory=list)
    reads: list[tuple[float, int, float]] = field(default_factory=list)
    first_s: float = 0.0
    stop_s: float = 0.0
    wait_s: float = 0.0

    def observed_s(self) -> list[float]:
        """Return of each read how long ago the first write was acknowledged that it does not show."""
        acked_s = self.acked_s
        return [
            max(0.0, begun_s - acked_s[value + 1]) if value + 1 < len(acked_s) else 0.0
            for begun_s, value, _ in self.reads
        ]


class Client:
    """One kept connection, opened again where it breaks."""

    def __init__(self, at: Member, credential: str = KEY) -> None:
        self._headers = {"Authorization": f"Bearer {credential}"}
        self._connection = HTTPConnection(at.host, at.port, timeout=_CALL_S)

    def call(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers. Raises OSError, HTTPException."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            self._connection.request(method, path, body, self._headers | named)
            answer = self._connection.getresponse()
            return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        except (OSError, HTTPException):
            self.close()
            raise

    def put(self, path: str, body: bytes) -> None:
        """Write, and again until it is acknowledged: the window of what is not shipped may be full."""
        key = os.urandom(8).hex()
        deadline_s = time.monotonic() + _CALL_S
        while True:
            status, text, _ = self.call("PUT", path, body, Idempotency_Key=key)
            if status < 300:
                return
            if status not in {429, 503} or time.monotonic() > deadline_s:
                raise RuntimeError(f"PUT {path}: {status} {text[:200]!r}")
            time.sleep(0.02)

    def close(self) -> None:
        """Close the connection; the next call opens it."""
        self._connection.close()


def measure(*, quick: bool) -> list[Table]:
    """Return the table. Raises RuntimeError where etcd or Postgres cannot be had."""
    sizes = Sizes((4,), 1.0, 20.0) if quick else Sizes((1, 16, 1024), 60.0, 10.0)
    table = Table("Age of what replicas show, over real processes", _COLUMNS)
    with temporary_folder() as folder, watched() as busy, running(folder, ttl_s=3 if quick else 10) as fleet:
        gateway: Member | None = None
        nodes: dict[str, Member] = {}
        for number, size_mb in enumerate(sizes.sizes_mb):
            for name in {"n1", "n2"} - nodes.keys():
                nodes[name] = _start(fleet, name)
            gateway = gateway or fleet.start_gateway("g1")  # which is not ready before it knows a node
            seen = _one(fleet, gateway, nodes, f"copied-{number}", size_mb, sizes)
            table.rows.append(_row(size_mb, seen))
    table.notes += [
        f"{busy}.",
        (
            f"{sizes.rate:g} writes a second of one key through the gateway, a cached read every {1000 * _READ_PAUSE_S:g} ms at the other node. "
            "Observed: since when the first write is acknowledged that a read does not show. Asked: 99th percentile below 1 s."
        ),
        "Nodes, gateway, etcd, Postgres and clients share this machine's cores. The object store is a folder.",
    ]
    return [table]


def _start(fleet: Fleet, name: str) -> Member:
    return fleet.start_node(name, PLATFORM_KEY=KEY, AUTH="on", PERSIST_AUTH_KEY="1")


def _one(
    fleet: Fleet, gateway: Member, nodes: dict[str, Member], database: str, size_mb: int, sizes: Sizes
) -> Seen:
    seen, path = Seen(), f"/v1/db/{database}/kv/bench"
    token = _provision(Client(gateway), database)
    writer = Client(gateway, token)
    _fill(writer, path, size_mb)
    writer.call("POST", f"/v1/db/{database}/sync")
    owner = _owner(fleet, database)
    reader = Client(next(node for name, node in nodes.items() if name != owner), token)
    _write(writer, path, seen)
    start_s = time.monotonic()
    _until_copied(reader, path)
    seen.first_s = time.monotonic() - start_s
    ends = threading.Event()
    reads = threading.Thread(target=_read_on, args=(reader, path, seen, ends))
    reads.start()
    until_s = time.monotonic() + sizes.seconds
    while time.monotonic() < until_s:
        _write(writer, path, seen)
        time.sleep(1 / sizes.rate)
    ends.set()
    reads.join()
    _hand_over(nodes.pop(owner), writer, path, seen)
    for client in (writer, reader):
        client.close()
    return seen


def _provision(platform: Client, database: str) -> str:
    """Make a database, and return a token for it. Raises RuntimeError."""
    paths = {"/v1/databases": {"name": database}, f"/v1/databases/{database}/tokens": {"scope": "write"}}
    text = b""
    for path, body in paths.items():
        status, text, _ = platform.call(
            "POST", path, json.dumps(body).encode(), Content_Type="application/json"
        )
        if status >= 300:
            raise RuntimeError(f"POST {path}: {status} {text[:200]!r}")
    platform.close()
    return str(json.loads(text)["token"])


def _fill(writer: Client, path: str, size_mb: int) -> None:
    """Bring a profile to that size, with values that cannot be compressed."""
    for number in range(size_mb * 1024 * 1024 // _VALUE_BYTES):
        writer.put(f"{path}/fill-{number}", os.urandom(_VALUE_BYTES))


def _owner(fleet: Fleet, database: str) -> str:
    records = (json.loads(value) for _, value in fleet.owner_keys())
    return str(next(record["node_id"] for record in records if record["database"].endswith(database)))


def _write(writer: Client, path: str, seen: Seen) -> None:
    writer.put(f"{path}/counter", str(len(seen.acked_s)).encode())
    seen.acked_s.append(time.monotonic())


def _read(reader: Client, path: str) -> tuple[int, bytes, dict[str, str]]:
    return reader.call("GET", f"{path}/counter", Memoturn_Consistency="cached")


def _until_copied(reader: Client, path: str) -> None:
    """Return once the node shows the profile of its own copy. Raises RuntimeError."""
    deadline_s = time.monotonic() + _APPEARS_S
    while time.monotonic() < deadline_s:
        try:
            status, _, headers = _read(reader, path)
        except OSError:
            continue
        if status == 200 and "memoturn-replica-age-ms" in headers:
            return
        time.sleep(_READ_PAUSE_S)
    raise RuntimeError("the other node has no copy")


def _read_on(reader: Client, path: str, seen: Seen, ends: threading.Event) -> None:
    while not ends.wait(_READ_PAUSE_S):
        begun_s = time.monotonic()
        status, body, headers = _read(reader, path)
        if status == 200 and "memoturn-replica-age-ms" in headers:
            seen.reads.append((begun_s, int(body), int(headers["memoturn-replica-age-ms"]) / 1000))


def _hand_over(owner: Member, writer: Client, path: str, seen: Seen) -> None:
    """Stop the owner while writes go on, and note how long it took and how long one waited."""
    stop = threading.Thread(target=lambda: setattr(seen, "stop_s", owner.stop()))
    first = len(seen.acked_s) - 1
    stop.start()
    while stop.is_alive():
        _write(writer, path, seen)
        time.sleep(_READ_PAUSE_S)
    for _ in range(10):
        _write(writer, path, seen)
    seen.wait_s = max(b - a for a, b in pairwise(seen.acked_s[first:]))


def _row(size_mb: int, seen: Seen) -> list[str]:
    disclosed, observed = [age_s for _, _, age_s in seen.reads], seen.observed_s()
    return [
        f"{size_mb} MB",
        f"{len(seen.acked_s):,}",
        f"{len(seen.reads):,}",
        *(duration(percentile(ages, p)) for ages in (disclosed, observed) for p in (0.5, 0.99, 1.0)),
        *(duration(one_s) for one_s in (seen.first_s, seen.stop_s, seen.wait_s)),
    ]
