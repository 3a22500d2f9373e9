"""How many branches a second one node keeps shipped, and what a request costs each client of a store."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from bench.buckets import Backing, backings
from bench.counters import Counters, scrape, settle
from bench.load import Load, Running, Stream, create
from bench.machine import process_cpu_s, watched
from bench.nodes import Child, temporary_folder
from bench.stats import Row, Table, duration
from memoturnd.seams.object_store import Committed, ObjectStore
from memoturnd.stores.open import open_store

BRANCHES: Final = (500, 1000)
AGE_LIMIT_S: Final = 5.0
_LOOK_S: Final = 0.25
_WRITERS: Final = 16
_OBJECT_BYTES: Final = 16 * 1024
_COLUMNS: Final = (
    "object store",
    "branches",
    "writes per second",
    "ships per second",
    "oldest unshipped commit",
    "below 5 s",
    "node cpu per ship",
    "write p99",
    "refused",
)
_CLIENT_COLUMNS: Final = ("object store", "operation", "n", "p50", "p99", "client cpu each")


def _line(child: Child, store: str, names: list[str], seconds: float) -> list[str]:
    """Return the line of so many branches, each written once a second."""
    stream = Stream("kv write", _WRITERS, names, every_s=_WRITERS / len(names))
    before, cpu_s = settle(child), process_cpu_s(child.pid)
    load = Running(Load(child.host, child.port, [stream], seconds))
    looks: list[tuple[float, float]] = []
    age_s = 0.0
    while load.is_running:
        time.sleep(_LOOK_S)
        seen = scrape(child)
        age_s = max(age_s, seen.value("unshipped_age_seconds"))
        looks.append((time.monotonic(), _ships(seen - before)))
    used_s = process_cpu_s(child.pid) - cpu_s
    [wrote] = load.outcomes()
    under_way = [look for look in looks if look[1] > 0] or looks[-1:]  # the clients take a moment to start
    (start_s, first), (end_s, last) = under_way[0], under_way[-1]
    return [
        store,
        f"{len(names):,}",
        f"{wrote.count / wrote.seconds:,.0f}",
        f"{(last - first) / max(_LOOK_S, end_s - start_s):,.0f}",
        duration(age_s),
        "yes" if age_s < AGE_LIMIT_S else "no",
        duration(used_s / max(1.0, last)),
        duration(wrote.p99_s),
        str(wrote.refused),
    ]


def _ships(seen: Counters) -> float:
    return seen.value("ships_total", outcome="committed")


def _lines(backing: Backing, *, quick: bool) -> list[list[str]]:
    """Return a line for each number of branches."""
    counts, seconds = ((8,), 0.5) if quick else (BRANCHES, 6.0)
    place = backing.fresh()
    with (
        temporary_folder() as folder,
        place.node(folder, SHIP_RATE="1000000") as child,
    ):
        names = [f"s{i}" for i in range(max(counts))]
        create(child, names)
        return [_line(child, backing.name, names[:count], seconds) for count in counts]


async def _requests(store: ObjectStore, n: int) -> list[tuple[str, list[float], float]]:
    """Return (operation, seconds of each, processor seconds of all) of what shipping and waking ask for."""
    body, etag = os.urandom(_OBJECT_BYTES), ""
    created = await store.put_if_absent("bench/manifest", body)
    assert isinstance(created, Committed)
    etag = created.etag
    await store.put("bench/first", body)

    async def put(i: int) -> None:
        await store.put(f"bench/{i}", body)

    async def swap(_: int) -> None:
        nonlocal etag
        swapped = await store.put_if_match("bench/manifest", body, etag)
        assert isinstance(swapped, Committed)
        etag = swapped.etag

    async def get(i: int) -> None:
        await store.get(f"bench/{i}")

    one: Callable[[int], Awaitable[None]]
    measured = []
    for name, one in (("PUT", put), ("conditional PUT", swap), ("GET", get)):
        samples, cpu_s = [], time.process_time()
        for i in range(n):
            start_s = time.perf_counter()
            await one(i)
            samples.append(time.perf_counter() - start_s)
        measured.append((name, samples, time.process_time() - cpu_s))
    return measured


def _client_lines(backing: Backing, *, quick: bool) -> list[list[str]]:
    import uvloop

    place = backing.fresh()

    async def run() -> list[tuple[str, list[float], float]]:
        store = open_store(place.url, s3_client=place.settings.get("S3_CLIENT", "aiobotocore"))
        try:
            return await _requests(store, 10 if quick else 300)
        finally:
            await store.close()

    lines = []
    with _environment(place.environment), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for name, samples, cpu_s in runner.run(run()):
            row = Row.of(name, f"{name} of 16 KiB", samples)
            each = duration(cpu_s / row.n)
            lines.append([backing.name, row.name, str(row.n), duration(row.p50_s), duration(row.p99_s), each])
    return lines


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def measure(*, quick: bool) -> list[Table]:
    """Return the table of ships per second, and that of the clients' own cost."""
    ships = Table("Branches that one node keeps shipped", _COLUMNS)
    clients = Table("What a request costs each client of an object store", _CLIENT_COLUMNS)
    with watched() as busy, backings() as stores:
        for backing in stores.all:
            clients.rows += _client_lines(backing, quick=quick)
        for backing in stores.all:
            ships.rows += _lines(backing, quick=quick)
    ships.notes = [
        *stores.notes,
        (
            f"Each branch is written once a second, a key by one of {_WRITERS} clients in turn, whose latency counts "
            "from when the write was due. MEMOTURN_SHIP_RATE is raised from 400, the rest are defaults: 16 ships at a "
            "time, at most one per branch and 200 ms."
        ),
        (
            "A ship takes all that was committed to a branch, so a node that ships n branches a second keeps about 5n "
            "that are written all the time below 5 s, at which their writes wait. The oldest unshipped commit is the "
            "highest of what /metrics said every quarter second. Cpu per ship is the whole node process, with the "
            "writes over HTTP and compaction."
        ),
        "Clients, node and MinIO share this machine's cores: with a machine of its own a node ships more.",
        f"{busy}.",
    ]
    clients.notes = [
        *stores.notes,
        "One request at a time; cpu is the client process's, all its threads, and none of the server's.",
    ]
    return [ships, clients]
