"""What writes cost in requests to the object store, in bytes, and at list prices in money."""

import time
from typing import Final

from bench.buckets import Backing, backings
from bench.counters import CONDITIONAL, Counters, settle
from bench.load import Load, Running, Stream, create
from bench.machine import watched
from bench.nodes import Child, temporary_folder
from bench.stats import Table
from bench.wire import KeptClient

WRITE_USD: Final = 0.005 / 1000
READ_USD: Final = 0.0004 / 1000
"""A PUT or LIST, and a GET, of Amazon S3 Standard in us-east-1; DELETE is free. docs/costs.md says as of when."""
_DURABLE: Final = "Memoturn-Durability: durable\r\n"
_COLUMNS: Final = (
    "what is written",
    "writes",
    "PUT",
    "conditional PUT",
    "GET",
    "range GET",
    "LIST",
    "DELETE",
    "sent",
    "received",
    "USD per million writes",
)


def usd(spent: Counters) -> float:
    """Return what these requests cost at list prices."""
    writes = spent.requests("put", *CONDITIONAL, "list")
    return writes * WRITE_USD + spent.requests("get", "get_range") * READ_USD


def _line(name: str, writes: int, spent: Counters) -> list[str]:
    """Return a line: requests and bytes per 1000 writes."""
    scale = 1000 / max(1, writes)
    kinds = (("put",), CONDITIONAL, ("get",), ("get_range",), ("list",), ("delete",))

    def size(direction: str) -> str:
        return f"{spent.value('store_bytes_total', direction=direction) * scale / 1000:,.0f} KB"

    return [
        name,
        f"{writes:,}",
        *(f"{spent.requests(*kind) * scale:,.1f}" for kind in kinds),
        size("sent"),
        size("received"),
        f"{usd(spent) * 1000 * scale:.2f}",
    ]


def _loaded(child: Child, name: str, stream: Stream, seconds: float) -> list[str]:
    """Return the line of what a stream wrote to profiles that had been written before."""
    create(child, stream.profiles)
    before = settle(child)
    [seen] = Running(Load(child.host, child.port, [stream], seconds, warm_s=0.0)).outcomes()
    return _line(name, seen.sent, settle(child) - before)


def _one_by_one(child: Child, name: str, writes: int, *, durable: bool) -> list[str]:
    """Return the line of writes to one profile, each of which is shipped before the next one."""
    create(child, [name])
    before = settle(child)
    client = KeptClient(child.host, child.port)
    for i in range(writes):
        path, value = f"/v1/db/bench--{name}/kv/s/k{i % 100}", b"v%d" % i
        client.send("PUT", path, value, _DURABLE if durable else "")
        if not durable:
            client.send("POST", f"/v1/db/bench--{name}/sync")
    client.close()
    what = "durable, one at a time" if durable else "local, one at a time, each shipped alone"
    return _line(what, writes, settle(child) - before)


def _first_writes(child: Child, count: int) -> list[str]:
    before = settle(child)
    create(child, [f"first{i}" for i in range(count)])
    return _line("local, the first write of a new profile", count, settle(child) - before)


def _idle(child: Child, profiles: int, seconds: float) -> str:
    """Return how many requests a node with so many branches, all of them open, makes while nothing is asked of it."""
    create(child, [f"idle{i}" for i in range(profiles)])
    settle(child)
    time.sleep(1.0)  # what was created is written down once a second
    before = settle(child)
    time.sleep(seconds)
    spent = settle(child) - before
    return (
        f"Idle: {profiles:,} branches, each written once and all of them open, cost {spent.all_requests:.0f} requests "
        f"in {seconds:g} s."
    )


def _on(place: Backing, table: Table, *, quick: bool) -> str:
    """Fill the table from nodes on this store; return what idleness costs."""
    seconds = 0.3 if quick else 4.0
    with temporary_folder() as folder, place.node(folder) as child:
        singles = 10 if quick else 1000
        table.rows.append(_one_by_one(child, "alone", singles, durable=False))
        table.rows.append(_one_by_one(child, "single", singles, durable=True))
        many = [f"m{i}" for i in range(4 if quick else 64)]
        for name, stream in (
            ("local, one client without a pause, one profile", Stream("kv write", 1, ["burst"])),
            ("durable, 64 at once, one profile", Stream("durable write", 64, ["group"])),
            (f"durable, 64 at once, {len(many)} profiles", Stream("durable write", 64, many)),
        ):
            table.rows.append(_loaded(child, name, stream, seconds))
        table.rows.append(_first_writes(child, 4 if quick else 200))
        return _idle(child, *((4, 0.5) if quick else (1000, 5.0)))


def measure(*, quick: bool) -> list[Table]:
    """Return the table of costs."""
    table = Table("Requests and bytes per 1,000 writes", _COLUMNS)
    with watched() as busy, backings() as stores:
        dearest = stores.dearest
        idle = _on(dearest.fresh(), table, quick=quick)
    table.notes = [
        *stores.notes,
        (
            f"Counted by the node's own counters on: {dearest.name}; a write is a PUT of a key with a value of a few "
            "bytes. Compaction (joined segments, snapshots, history pages) is included as far as it came in that time."
        ),
        (
            "Each shipped alone: a write and then POST .../sync, which is what writes cost that are further apart than the "
            "ship interval (200 ms). A branch that is written all the time ships at most five times a second, however "
            "many writes that is."
        ),
        idle,
        (
            f"Money: arithmetic, not measured: PUT and LIST at {WRITE_USD * 1000:g} USD, GET at {READ_USD * 1000:g} "
            "USD per 1,000, DELETE free, storage and traffic apart (docs/costs.md)."
        ),
        f"{busy}.",
    ]
    return [table]
