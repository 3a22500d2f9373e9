"""What the gateway adds: a node and a gateway in processes of their own, on loopback, and the gateway's processor time per request.

The machine's cores are shared by client, gateway and node, so requests per second of the whole say little. What one core of a
gateway can do is one second over its own processor time per request, user and system, while it is kept busy.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import uvloop

from bench.nodes import Child, child_node, temporary_folder
from bench.stats import Table, duration, middle, percentile
from bench.wire import Connection, KeptClient, encode, request_bytes

_DATABASE: Final = "bench"
_PATH: Final = "/v1/db/bench/kv/n/k"
_CLIENTS: Final = 16
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_TARGET_ADDED_S: Final = 0.0006
_TARGET_PER_CORE: Final = 4000


def measure(*, quick: bool) -> list[Table]:
    """Return what was measured."""
    with temporary_folder() as folder:
        (folder / "node").mkdir()
        (folder / "gateway").mkdir()
        with child_node(folder / "node", LISTEN="127.0.0.1:0") as node:
            KeptClient(node.host, node.port).send("POST", "/v1/databases", encode({"name": _DATABASE}))
            KeptClient(node.host, node.port).send("PUT", _PATH, b"x" * 100)
            with _gateway(folder / "gateway", node) as gateway:
                return [_added(node, gateway, quick=quick), _per_core(node, gateway, quick=quick)]


def _gateway(folder: Path, node: Child):  # noqa: ANN202 - a context manager of bench.nodes
    outside = {"BENCH_NODE": f"http://{node.host}:{node.port}", "BENCH_DATABASE": _DATABASE}
    return child_node(folder, module=("bench.gateway_process",), outside=outside)


def _added(node: Child, gateway: Child, *, quick: bool) -> Table:
    """One request at a time, to the node and through the gateway in turn, so that both meet the same noise."""
    table = Table(
        "Added by the gateway, one request at a time on a kept connection",
        ("request", "node p50", "gateway p50", "added p50", "added p99", "target p50"),
    )
    direct, through = KeptClient(node.host, node.port), KeptClient(gateway.host, gateway.port)
    ways: list[tuple[str, Callable[[KeptClient], object]]] = [
        ("GET a key of 100 bytes", lambda client: client.send("GET", _PATH)),
        ("PUT a key of 100 bytes", lambda client: client.send("PUT", _PATH, b"y" * 100)),
    ]
    for name, one in ways:
        samples: tuple[list[float], list[float]] = ([], [])
        for _ in range(100 if quick else 3000):
            for client, taken in zip((direct, through), samples, strict=True):
                start_ns = time.perf_counter_ns()
                one(client)
                taken.append((time.perf_counter_ns() - start_ns) / 1e9)
        node_s, gateway_s = middle(samples[0]), middle(samples[1])
        table.rows.append(
            [
                name,
                duration(node_s),
                duration(gateway_s),
                duration(gateway_s - node_s),
                duration(percentile(samples[1], 0.99) - percentile(samples[0], 0.99)),
                duration(_TARGET_ADDED_S),
            ]
        )
    return table


def _per_core(node: Child, gateway: Child, *, quick: bool) -> Table:
    table = Table(
        f"Processor time of the gateway, {_CLIENTS} clients at once",
        ("request", "requests", "requests/s of all", "processor time each", "requests/s and core", "target"),
        notes=[
            "Each client sends its next request when it has the answer. A core's part is what its own process used."
        ],
    )
    count = 500 if quick else 20_000
    for name, request in [
        ("GET a key of 100 bytes", request_bytes("GET", _PATH)),
        ("PUT a key of 100 bytes", request_bytes("PUT", _PATH, b"y" * 100)),
    ]:
        uvloop.run(_send(gateway, request, count // 10))
        used_s, start_s = _processor_s(gateway.pid), time.monotonic()
        uvloop.run(_send(gateway, request, count))
        took_s, used_s = time.monotonic() - start_s, _processor_s(gateway.pid) - used_s
        target = f"{_TARGET_PER_CORE}" if name.startswith("GET") else ""
        table.rows.append(
            [
                name,
                str(count),
                f"{count / took_s:.0f}",
                duration(used_s / count),
                f"{count / used_s:.0f}",
                target,
            ]
        )
    del node
    return table


async def _send(child: Child, request: bytes, count: int) -> None:
    loop = asyncio.get_running_loop()
    left = count

    async def client() -> None:
        nonlocal left
        transport, connection = await loop.create_connection(Connection, child.host, child.port)
        while left > 0:
            left -= 1
            status = await connection.send(request)
            if status >= 300:
                raise RuntimeError(f"the gateway answered {status}: {connection.last!r}")
        transport.close()

    await asyncio.gather(*(client() for _ in range(_CLIENTS)))


def _processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
