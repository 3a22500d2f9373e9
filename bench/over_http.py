"""The HTTP harness: one client, one request at a time, against a node in a process of its own.

The original's script opens a TCP connection per request; here every row is measured that way and once more
over a connection that stays open.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from bench import workload
from bench.machine import watched
from bench.nodes import Child, child_node, temporary_folder
from bench.stats import MS, Row, Table, duration, middle
from bench.wire import Client, FreshClient, KeptClient, encode

DIMENSIONS: Final = 64
_SEEDED: Final = 1000


@dataclass(slots=True)
class _Meter:
    client: Client
    quick: bool
    rows: list[Row] = field(default_factory=list)

    def count(self, n: int) -> int:
        """Return how many samples to take where the original takes `n`."""
        return max(5, n // 20) if self.quick else n

    def row(
        self,
        name: str,
        n: int,
        one: Callable[[int], object],
        *,
        published_s: float | None = None,
        target_s: float | None = None,
    ) -> None:
        """Measure `one(i)` for i from 0 to n - 1."""
        samples = []
        for i in range(self.count(n)):
            start_ns = time.perf_counter_ns()
            one(i)
            samples.append((time.perf_counter_ns() - start_ns) / 1e9)
        self.rows.append(
            Row.of(
                str(len(self.rows)),
                name,
                samples,
                published_s=published_s,
                target_s=target_s if target_s is not None else published_s,
                p50=middle,
            )
        )


def _health(meter: _Meter, name: str) -> None:
    meter.row(name, 200, lambda _: meter.client.send("GET", "/health"))


def _database_rows(meter: _Meter, run: str) -> None:
    send = meter.client.send
    name = f"bench-{run}-0"

    def provision(i: int) -> None:
        send("POST", "/v1/databases", encode({"name": f"bench-{run}-{i}"}))

    def sql(q: str, *params: object) -> None:
        send("POST", f"/v1/db/{name}/sql", encode({"stmts": [{"q": q, "params": list(params)}]}))

    def write_and_ship(i: int) -> None:
        sql("INSERT INTO t VALUES (?)", i)
        send("POST", f"/v1/db/{name}/sync")

    meter.row("provision database", 100, provision, published_s=1.61 * MS)
    sql("CREATE TABLE t (n INTEGER)")
    meter.row("hot SQL write", 200, lambda i: sql("INSERT INTO t VALUES (?)", i), published_s=1.59 * MS)
    kv = f"/v1/db/{name}/kv/s/k"
    meter.row(
        "hot KV write",
        200,
        lambda i: send("PUT", f"{kv}{i % 50}", f"v{i}".encode()),
        published_s=1.66 * MS,
    )
    for key in range(50):
        send("PUT", f"{kv}{key}", b"v")
    meter.row("hot KV read", 200, lambda i: send("GET", f"{kv}{i % 50}"), published_s=1.63 * MS)
    meter.row(
        "branch create",
        50,
        lambda i: send("POST", f"/v1/db/{name}/branches", encode({"name": f"b{i}"})),
        published_s=3.01 * MS,
    )
    meter.row("write + segment ship", 50, write_and_ship, published_s=6.54 * MS)
    meter.row(
        "rewind by one commit",
        50,
        lambda _: send("POST", f"/v1/db/{name}/branches/main/rewind", encode({"to": "head~1"})),
        target_s=50 * MS,
    )


def _memory_rows(meter: _Meter, run: str) -> None:
    send = meter.client.send
    profile = f"/v1/memory/bench/http-{run}"
    for body in workload.event_batches(_SEEDED, DIMENSIONS):
        send("POST", f"{profile}/memories", encode(body))
    count = meter.count(200)
    facts, queries = workload.facts(count, DIMENSIONS), workload.queries(count, DIMENSIONS)
    meter.row(
        "memory ingest (typed fact)",
        200,
        lambda i: send("POST", f"{profile}/memories", encode(facts[i])),
        published_s=2.81 * MS,
        target_s=1.0 * MS,
    )
    meter.row(
        "hybrid recall @1k memories",
        200,
        lambda i: send("POST", f"{profile}/recall", encode(queries[i])),
        published_s=4.08 * MS,
        target_s=1.5 * MS,
    )


def rows(client: Client, run: str, *, quick: bool) -> list[Row]:
    """Measure every row through `client`; `run` keeps the names apart from those of other calls."""
    meter = _Meter(client, quick)
    _health(meter, "floor: GET /health")
    _database_rows(meter, run)
    _memory_rows(meter, run)
    _health(meter, "floor, measured again at the end")
    return meter.rows


def _table(title: str, rows: list[Row], how: str) -> Table:
    first, again = rows[0].p50_s, rows[-1].p50_s
    notes = [
        how,
        (
            f"The floor is {duration(first)} before and {duration(again)} after: {abs(again - first) / first:.0%} "
            "apart, which is the noise."
        ),
    ]
    return Table.of_rows(title, rows, notes)


def measure(*, quick: bool) -> list[Table]:
    """Return the table with a connection per request, and the one with a connection that stays open."""
    with temporary_folder() as folder, watched() as busy, child_node(folder) as child:
        fresh, kept = _both(child, quick=quick)
    common = (
        "Child `python -m memoturnd` on loopback, authentication off, object store in a local directory "
        "(fsync of file and folder per object), MEMOTURN_SYNC=normal, MEMOTURN_CONTROL_RATE raised. The "
        "published figures had authentication on, MinIO, and a port-forward of about 1.6 ms in every sample."
    )
    absent = (
        "Documents are measured in process alone. Targets: the design's for ingest and recall, "
        "elsewhere to beat the published p50; rewinding has the bound of the original's docs, for which it "
        "published no figure."
    )
    first = _table("Over HTTP, a connection per request (urllib)", fresh, common)
    first.notes += [absent, f"{busy}."]
    second = _table(
        "Over HTTP, one connection kept open", kept, "The same rows, order and node through a bare socket."
    )
    return [first, second]


def _both(child: Child, *, quick: bool) -> tuple[list[Row], list[Row]]:
    run = f"{os.getpid()}"
    fresh = rows(FreshClient(child.host, child.port), f"{run}a", quick=quick)
    client = KeptClient(child.host, child.port)
    try:
        return fresh, rows(client, f"{run}b", quick=quick)
    finally:
        client.close()
