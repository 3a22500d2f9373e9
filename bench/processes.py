"""What each process of a small installation takes, at rest and under a steady load: memory and processor time.

The requests and limits of the Helm chart follow from it. Each process is counted by itself, by what the system says of it: neighbours on the
machine change how long a request waits, and hardly what it costs.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from bench import fleet
from bench.buckets import Backing, backings
from bench.machine import process_cpu_s, watched
from bench.nodes import temporary_folder
from bench.stats import Table
from bench.wire import KeptClient, encode

_VALUES: Final = Path(__file__).parent.parent / "charts" / "memoturn" / "values.yaml"
_PER_S: Final = 50
"""Of each of three: writes and recalls through the gateway, tool calls through the MCP server."""
_SESSIONS: Final = 64
_PROFILES: Final = 200
_COLUMNS: Final = (
    "process",
    "memory at rest",
    "under load",
    "processor at rest",
    "under load",
    "the chart asks for",
    "and allows",
)
_IN_CHART: Final = {
    "node": "dataplane",
    "gateway": "gateway",
    "control plane": "controlPlane",
    "MCP server": "mcp",
    "etcd": "etcd",
    "Postgres": "postgres",
    "MinIO": "minio",
}
_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}

Taken = dict[str, tuple[int, float]]
"""By process: bytes in memory at the end, and the share of a core that it used."""


def measure(*, quick: bool) -> list[Table]:
    """Return what was measured. Raises RuntimeError where etcd or Postgres cannot be had."""
    rest_s, load_s = (1.0, 2.0) if quick else (20.0, 60.0)
    table = Table("Processes of a small installation", _COLUMNS)
    with (
        temporary_folder() as folder,
        watched() as busy,
        backings() as stores,
        fleet.running(folder, ttl_s=10) as here,
    ):
        migration = _migration(here)
        roots = _started(here, stores.dearest)
        at_rest = _during(roots, lambda: time.sleep(rest_s))
        _seed(here)
        under_load = _during(roots, lambda: _load(here, load_s))
        for member in reversed(here.members):
            member.stop()
    for name in roots:
        (rest_bytes, rest), (load_bytes, load) = at_rest[name], under_load[name]
        table.rows.append(
            [name, _mib(rest_bytes), _mib(load_bytes), _milli(rest), _milli(load), *_chart(name)]
        )
    table.rows.append(
        ["migration", "-", _mib(migration[0]), "-", f"{migration[1]:.2f} s", *_chart("migration")]
    )
    table.notes = [
        f"{busy}.",
        *stores.notes,
        (
            f"One of each on one machine, the default settings. Load: {load_s:g} s with {_PER_S} writes, {_PER_S} recalls and {_PER_S} tool calls (recalls) "
            f"a second over {_PROFILES} profiles; the MCP server keeps {_SESSIONS} sessions."
        ),
        (
            "Memory is what is resident; of Postgres, whose processes share it, their parts together. Processor is of one core, 1000m. The migration's row has its "
            "peak, and the processor time that making the whole schema took."
        ),
    ]
    return [table]


# ---- what runs


def _started(here: fleet.Fleet, store: Backing) -> dict[str, int]:
    """Start everything, and return the first process of each by its name."""
    with _environment(store.environment):
        node = here.start_node("n1", OBJECT_STORE=store.url)
        control = here.start_control("control", OBJECT_STORE=store.url)
    gateway = here.start_gateway("g1")
    mcp = here.start_mcp("mcp", f"http://{gateway.host}:{gateway.port}")
    roots = {
        "node": node.pid,
        "gateway": gateway.pid,
        "control plane": control.pid,
        "MCP server": mcp.pid,
        "etcd": _service(here, "etcd"),
        "Postgres": _service(here, "postgres"),
    }
    if "AWS_ENDPOINT_URL" in store.environment:
        roots["MinIO"] = _serving(urlsplit(store.environment["AWS_ENDPOINT_URL"]).netloc)
    return roots


@contextmanager
def _environment(more: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _service(here: fleet.Fleet, name: str) -> int:
    """Return the first process of a service that `scripts/services` has started."""
    return int(
        json.loads((here.folder / "services" / name / "state.json").read_text())["processes"][0]["pid"]
    )


def _serving(address: str) -> int:
    """Return the process that was told to serve this address. Raises RuntimeError where there is none."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_text().split("\0")
        except OSError:
            continue
        if address in words:
            return int(entry.parent.name)
    raise RuntimeError(f"nobody serves {address}")


def _migration(here: fleet.Fleet) -> tuple[int, float]:
    """Make the schema in a new database: return the peak of memory in bytes and the processor time in seconds."""
    here.rows("CREATE DATABASE migrated")
    url = urlsplit(here.catalog_url)._replace(path="/migrated").geturl()
    process = subprocess.Popen(
        [sys.executable, "-m", "control_plane", "migrate"],
        env=os.environ | {"MEMOTURN_CATALOG": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the migration ended with {process.returncode}")
    return used.ru_maxrss * 1024, used.ru_utime + used.ru_stime


# ---- what it takes


def _during(roots: dict[str, int], what: Callable[[], object]) -> Taken:
    """Return what each process, with those that it has started, takes while something is done."""
    before_s = {name: _cpu_s(_family(pid)) for name, pid in roots.items()}
    start_s = time.monotonic()
    what()
    elapsed_s = time.monotonic() - start_s
    return {
        name: (
            _memory_bytes(_family(pid)),
            max(0.0, _cpu_s(_family(pid)) - before_s[name]) / elapsed_s,
        )
        for name, pid in roots.items()
    }


def _family(pid: int) -> list[int]:
    """Return a process and all that it has started."""
    found = [pid]
    for one in found:
        children = Path(f"/proc/{one}/task/{one}/children").read_text().split()
        found += [int(child) for child in children]
    return found


def _cpu_s(pids: list[int]) -> float:
    return sum(process_cpu_s(pid) for pid in pids)


def _memory_bytes(pids: list[int]) -> int:
    """Of one process what is resident; of several their proportional parts, or memory that they share would count for each."""
    name = "Rss:" if len(pids) == 1 else "Pss:"
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() for pid in pids]
    return sum(int(line.split()[1]) * 1024 for lines in rollups for line in lines if line.startswith(name))


# ---- load


def _seed(here: fleet.Fleet) -> None:
    """Make the profiles, so that each recall finds one."""
    client = _client(here)
    for number in range(_PROFILES):
        _write_and_recall(client, number)
    client.close()


def _client(here: fleet.Fleet) -> KeptClient:
    gateway = next(one for one in here.members if one.name == "g1")
    return KeptClient(gateway.host, gateway.port)


def _load(here: fleet.Fleet, seconds: float) -> None:
    mcp = next(one for one in here.members if one.name == "mcp")
    client, url = _client(here), f"http://{mcp.host}:{mcp.port}/mcp"
    sessions = [_opened(url) for _ in range(_SESSIONS)]

    async def all_of_it() -> None:
        until_s = time.monotonic() + seconds
        await asyncio.gather(
            _steadily(until_s, lambda number: _write_and_recall(client, number)),
            _steadily(until_s, lambda number: _tool_call(url, sessions[number % _SESSIONS], number)),
        )

    asyncio.run(all_of_it())
    client.close()


async def _steadily(until_s: float, one: Callable[[int], object]) -> None:
    number, due_s = 0, time.monotonic()
    while due_s < until_s:
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        await asyncio.to_thread(one, number)
        number, due_s = number + 1, due_s + 1 / _PER_S


def _write_and_recall(client: KeptClient, number: int) -> None:
    profile = f"/v1/memory/bench/p{number % _PROFILES}"
    fact = {"type": "fact", "topic_key": f"topic {number}", "summary": f"likes the colour {number}"}
    client.send("POST", f"{profile}/memories", encode({"memories": [fact]}))
    client.send("POST", f"{profile}/recall", encode({"query": "which colour"}))


def _opened(url: str) -> str:
    """Open a session of the MCP server, and return its id."""
    asked = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    with _rpc(url, "initialize", asked) as answer:
        answer.read()
        return str(answer.headers["Mcp-Session-Id"])


def _tool_call(url: str, session: str, number: int) -> None:
    arguments = {"profile": f"bench/p{number % _PROFILES}", "query": "which colour"}
    with _rpc(url, "tools/call", {"name": "memory_recall", "arguments": arguments}, session) as answer:
        told = answer.read()
    if b'"isError":true' in told:
        raise RuntimeError(f"the MCP server answers a recall with {told[:300]!r}")


def _rpc(url: str, method: str, parameters: dict[str, Any], session: str | None = None) -> Any:
    body = encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
    headers = _HEADERS if session is None else {**_HEADERS, "Mcp-Session-Id": session}
    return urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60)


# ---- the table


def _chart(name: str) -> list[str]:
    """Return what the chart asks for and allows a process, as it writes it."""
    values = yaml.safe_load(_VALUES.read_text())
    part = values["catalog"]["migration"] if name == "migration" else values[_IN_CHART[name]]
    resources = part["resources"]
    return [f"{resources[kind]['cpu']}, {resources[kind]['memory']}" for kind in ("requests", "limits")]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):.0f} MiB"


def _milli(share: float) -> str:
    return f"{1000 * share:.0f}m"
