"""How late the node's event loop runs while heavy work goes on, and what small profiles feel of it.

Each kind of heavy work is measured alone, then all of it at once; 50 small profiles read and write keys
meanwhile, at a fixed pace.
"""

import os
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import workload
from bench.lag_node import TICK_S
from bench.load import BULK_ITEMS, Load, Outcome, Running, Stream
from bench.machine import watched
from bench.nodes import Child, child_node, temporary_folder
from bench.stats import MS, Table, duration, percentile
from bench.wire import KeptClient, encode

TARGET_S: Final = 20 * MS
SMALL_PROFILES: Final = 50
DIMENSIONS: Final = 256
_PACE_S: Final = 0.1
_NUMBERS: Final = 8000
_BLOB_BYTES: Final = 1024 * 1024
_COLUMNS: Final = (
    "meanwhile",
    "lag p50",
    "lag p99",
    "p99 by time",
    "lag max",
    "target",
    "timer / time",
    "small p50",
    "small p99",
    "small max",
    "heavy work done, p50 each",
)


@dataclass(frozen=True, slots=True)
class _Phase:
    """Heavy streams that ran together, when, and what was seen."""

    name: str
    start_s: float
    end_s: float
    small: Outcome
    heavy: list[tuple[str, Outcome]]


_HEAVY: Final = {
    "recall": ("recall over the large profile", "large"),
    "user scan": ("user SQL that scans for seconds", "scanned"),
    "bulk ingest": (f"ingests of {BULK_ITEMS} with embeddings", "bulk"),
    "restore": ("restores of over 10 MB", "blobs"),
    "durable write": ("durable writes", "durable"),
}


def _prepare(child: Child, memories: int, blobs: int) -> None:
    """Build the large profile, the one to restore, the table to scan, and the small ones."""
    client = KeptClient(child.host, child.port)
    for body in workload.event_batches(memories, DIMENSIONS, size=500):
        client.send("POST", "/v1/memory/bench/large/memories", encode(body))
    small = [f"small{i}" for i in range(SMALL_PROFILES)]
    for i, name in enumerate(("blobs", "scanned", "durable", "bulk", *small)):
        client.send(
            "POST", f"/v1/memory/bench/{name}/memories", encode({"memories": [workload.event(i, None)]})
        )
    for key in range(blobs):
        client.send("PUT", f"/v1/db/bench--blobs/kv/s/k{key}", os.urandom(_BLOB_BYTES))
    numbers = f"WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {_NUMBERS})"
    for q in ("CREATE TABLE numbers (v INTEGER)", f"INSERT INTO numbers {numbers} SELECT x FROM c"):
        client.send("POST", "/v1/db/bench--scanned/sql", encode({"stmts": [{"q": q}]}))
    for name in small:
        for key in range(100):
            client.send("PUT", f"/v1/db/bench--{name}/kv/s/k{key}", b"v")
    for name in ("large", "blobs", "scanned", "durable", "bulk", *small):
        client.send("POST", f"/v1/db/bench--{name}/sync")
    client.close()


def _run(child: Child, name: str, ops: list[str], seconds: float, first: int) -> _Phase:
    small = Stream("kv mixed", SMALL_PROFILES, [f"small{i}" for i in range(SMALL_PROFILES)], every_s=_PACE_S)
    heavy = [Stream(op, 1, [_HEAVY[op][1]], DIMENSIONS, first) for op in ops]
    loads = [Running(Load(child.host, child.port, [stream], seconds)) for stream in heavy]
    start_s = time.monotonic()
    [small_seen] = Running(Load(child.host, child.port, [small], seconds)).outcomes()
    end_s = time.monotonic()
    return _Phase(
        name,
        start_s,
        end_s,
        small_seen,
        [(op, load.outcomes()[0]) for op, load in zip(ops, loads, strict=True)],
    )


def _phases(child: Child, seconds: float, *, quick: bool) -> list[_Phase]:
    phases = [_run(child, "small profiles alone", [], seconds, 0)]
    for at, (op, (name, _)) in enumerate(_HEAVY.items()):
        if quick:
            break
        phases.append(_run(child, name, [op], seconds, 1000 * (at + 1)))
    phases.append(_run(child, "all of it", list(_HEAVY), 3 * seconds, 100_000))
    return phases


def _lags(path: Path) -> list[tuple[float, float]]:
    seen = array("d")
    seen.frombytes(path.read_bytes())
    return list(zip(seen[::2], seen[1::2], strict=True))


def _by_time(lags: list[float]) -> list[float]:
    """Return the lag at each millisecond: a timer that was late by L stands for all that would have been due."""
    return [late - tick * TICK_S for late in lags for tick in range(1 + int(late / TICK_S))]


def _mark(lag_s: float) -> str:
    return "met" if lag_s <= TARGET_S else "MISSED"


def _cells(phase: _Phase, lags: list[tuple[float, float]]) -> list[str]:
    within = [lag for at, lag in lags if phase.start_s <= at <= phase.end_s] or [0.0]
    p99_s, by_time_s = percentile(within, 0.99), percentile(_by_time(within), 0.99)
    done = ", ".join(f"{op} {seen.count} of {duration(seen.p50_s)}" for op, seen in phase.heavy)
    return [
        phase.name,
        duration(percentile(within, 0.5)),
        duration(p99_s),
        duration(by_time_s),
        duration(max(within)),
        duration(TARGET_S),
        f"{_mark(p99_s)} / {_mark(by_time_s)}",
        duration(phase.small.p50_s),
        duration(phase.small.p99_s),
        duration(phase.small.max_s),
        done or "-",
    ]


def measure(*, quick: bool, stacks: bool = False) -> list[Table]:
    """Return the table of loop lag; with `stacks` also print what the loop executed while it was overdue."""
    seconds, memories, blobs = (0.4, 300, 2) if quick else (4.0, 10_000, 12)
    with temporary_folder() as folder, watched() as busy:
        path = folder / "lags"
        module = ("bench.lag_node", str(path), *(["--stacks"] if stacks else []))
        with child_node(folder, module=module) as child:
            _prepare(child, memories, blobs)
            phases = _phases(child, seconds, quick=quick)
        lags = _lags(path)
        if stacks:
            print(path.with_suffix(".stacks").read_text())
    table = Table("Event-loop lag under heavy work", _COLUMNS, [_cells(phase, lags) for phase in phases])
    failed = [
        f"{op}: {seen.refused} refused, such as {seen.an_error!r}"
        for phase in phases
        for op, seen in (*phase.heavy, ("kv mixed", phase.small))
        if seen.refused
    ]
    table.notes = [
        (
            "Lag is how late a 1 ms timer on the node's own loop fires (a loop that is free reads up to 1 ms). `p99 by "
            "time` weighs a stall by its length: it is what somebody waits who comes at any moment."
        ),
        (
            f"{SMALL_PROFILES} small profiles each send a key read or write every {_PACE_S * 1000:.0f} ms; their "
            f"latency counts from when a request was due. The large profile has {memories:,} memories with "
            f"{DIMENSIONS}-dim embeddings, a restore is a fork of a profile with {blobs} MiB of keys, read and deleted."
        ),
        (
            "One client sends each kind of heavy work without a pause, from a process of its own: on few cores they, "
            "the node's threads and its loop compete for the processor."
        ),
        *failed,
        f"{busy}.",
    ]
    return [table]
