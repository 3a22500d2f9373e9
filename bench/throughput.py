"""Throughput and latency at 1, 16 and 64 clients over kept connections, on one profile and over 64."""

from typing import Final

from bench import workload
from bench.load import Load, Outcome, Running, Stream
from bench.machine import process_cpu_s, watched
from bench.nodes import Child, child_node, temporary_folder
from bench.stats import Table, duration
from bench.wire import KeptClient, encode

CLIENTS: Final = (1, 16, 64)
OPERATIONS: Final = ("kv read", "kv write", "recall", "ingest", "durable write")
DIMENSIONS: Final = 64
_COLUMNS: Final = (
    "operation",
    "profiles",
    "clients",
    "per second",
    "p50",
    "p99",
    "node cpu",
    "client cpu",
    "refused",
)


def _prepare(child: Child, profiles: list[str], seeded: int) -> None:
    """Store the memories and keys that are read."""
    client = KeptClient(child.host, child.port)
    [seed] = workload.event_batches(seeded, DIMENSIONS, size=seeded)
    body = encode(seed)
    for name in profiles:
        client.send("POST", f"/v1/memory/bench/{name}/memories", body)
        for key in range(100):
            client.send("PUT", f"/v1/db/bench--{name}/kv/s/k{key}", b"v")
        client.send("POST", f"/v1/db/bench--{name}/sync")
    client.close()


def _cell(child: Child, stream: Stream, seconds: float) -> tuple[Outcome, list[str]]:
    before_s = process_cpu_s(child.pid)
    [seen] = Running(Load(child.host, child.port, [stream], seconds)).outcomes()
    node_cpu_s = (process_cpu_s(child.pid) - before_s) / max(1, seen.sent)
    cells = [
        stream.op,
        str(len(stream.profiles)),
        str(stream.clients),
        f"{seen.count / seen.seconds:,.0f}",
        duration(seen.p50_s),
        duration(seen.p99_s),
        duration(node_cpu_s),
        duration(seen.client_cpu_s / max(1, seen.sent)),
        str(seen.refused),
    ]
    return seen, cells


def measure(*, quick: bool) -> list[Table]:
    """Return the table of throughputs."""
    seconds, seeded, spread = (0.1, 50, 4) if quick else (1.5, 1000, 64)
    profiles = [f"p{i}" for i in range(spread)]
    table = Table("Throughput over HTTP, kept connections", _COLUMNS)
    with temporary_folder() as folder, watched() as busy, child_node(folder) as child:
        _prepare(child, profiles, seeded)
        first = 0
        for op in OPERATIONS:
            for names in (profiles,) if quick else (profiles[:1], profiles):
                for clients in CLIENTS[1:2] if quick else CLIENTS:
                    stream = Stream(op, clients, names, DIMENSIONS, first)
                    seen, cells = _cell(child, stream, seconds)
                    first += seen.sent + clients * len(names)
                    table.rows.append(cells)
                    if seen.an_error:
                        table.notes.append(f"{op}, {clients} clients: an answer was {seen.an_error!r}")
    table.notes += [
        (
            f"Each profile holds {seeded:,} memories with {DIMENSIONS}-dim embeddings and 100 keys; facts are "
            f"ingested one per request; {seconds} s per row after 0.3 s of warm-up."
        ),
        (
            "The clients are one asyncio process apart from the node's; `node cpu` and `client cpu` are what a "
            "request costs each process, start-up of the clients included."
        ),
        (
            "Local writes are not fsynced; a durable write is answered when its segment and the manifest lie in the "
            "local object directory, each fsynced."
        ),
        f"{busy}.",
    ]
    return [table]
