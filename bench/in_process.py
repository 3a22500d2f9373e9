"""The in-process harness: the engine called directly, one operation at a time, over an in-memory store.

Each sample starts with what a request's JSON has been decoded to and calls the function that the HTTP route
calls, so checking the fields counts, and decoding, routing and sockets do not.
"""

import asyncio
import cProfile
import io
import pstats
import shutil
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from bench import workload
from bench.machine import watched
from bench.nodes import node_here, temporary_folder
from bench.stats import MS, US, Row, Table, duration
from memoturnd.core import names
from memoturnd.engine.branch import Branch
from memoturnd.node import Node
from memoturnd.seams.catalog import MAIN
from memoturnd.surfaces import (
    collections,
    document_queries,
    documents,
    kv,
    kv_batch,
    memories,
    recall,
    sql,
    turn_search,
    turns,
    vector_search,
    vectors,
)

DIMENSIONS: Final = 256
_DATABASE: Final = "agent-0"
_FORKS_STANDING: Final = 10_000
_BATCH_PUTS: Final = 100
_BATCH_DOCUMENTS: Final = 100
_VECTORS_SEEDED: Final = 10_000
_TURNS_SEEDED: Final = 10_000
_PROFILED_FUNCTIONS: Final = 14

One = Callable[[int], Awaitable[object]]


@dataclass(slots=True)
class Meter:
    """Times operations. With `quick` a twentieth of them; with `profile` prints where each row's time goes."""

    quick: bool = False
    profile: bool = False
    rows: list[Row] = field(default_factory=list)

    def count(self, n: int) -> int:
        """Return how many samples to take where the original takes `n`."""
        return max(5, n // 20) if self.quick else n

    async def row(
        self,
        key: str,
        name: str,
        n: int,
        one: One,
        *,
        before: One | None = None,
        published_s: float | None = None,
        target_s: float | None = None,
    ) -> Row:
        """Measure `one(i)` for i from 0 to n - 1, each after an untimed `before(i)`."""
        samples = []
        profiler = cProfile.Profile() if self.profile else None
        for i in range(self.count(n)):
            if before is not None:
                await before(i)
            if profiler is not None:
                profiler.enable()
            start_ns = time.perf_counter_ns()
            await one(i)
            samples.append((time.perf_counter_ns() - start_ns) / 1e9)
            if profiler is not None:
                profiler.disable()
        row = Row.of(key, name, samples, published_s=published_s, target_s=target_s)
        self.rows.append(row)
        if profiler is not None:
            print(f"{key} {name}\n{_where_time_goes(profiler, len(samples))}")
        return row


def _where_time_goes(profiler: cProfile.Profile, n: int) -> str:
    """Return the functions in which a profiled row spent most, in microseconds per sample."""
    stats: Any = pstats.Stats(profiler, stream=io.StringIO())
    found = sorted(stats.stats.items(), key=lambda entry: -entry[1][2])[:_PROFILED_FUNCTIONS]
    lines = ["   own us  with callees us    calls  function"]
    for (path, line, name), (_, calls, own_s, with_callees_s, _) in found:
        place = name if path == "~" else f"{'/'.join(path.split('/')[-2:])}:{line} {name}"
        lines.append(f"{own_s / n * 1e6:9.1f}  {with_callees_s / n * 1e6:15.1f}  {calls / n:7.1f}  {place}")
    return "\n".join(lines) + "\n"


def _batch(q: str, *params: object) -> dict[str, object]:
    return {"stmts": [{"q": q, "params": list(params)}]}


async def _sql(profile: Branch, q: str, *params: object) -> list[dict[str, Any]]:
    return (await sql.run(profile, sql.parse_batch(_batch(q, *params)))).value


async def _provisioning(node: Node, meter: Meter) -> None:
    async def provision(i: int) -> None:
        await node.databases.create(f"agent-{i}")

    await meter.row("1", "provision database", 500, provision, published_s=17 * US, target_s=25 * US)


async def _sql_and_kv_writes(node: Node, meter: Meter) -> None:
    profile = await node.profile(_DATABASE)
    await _sql(profile, workload.CREATE_TABLE)

    async def insert(i: int) -> None:
        await _sql(profile, workload.INSERT, f"value-{i}")

    await meter.row("2", "hot SQL write", 1000, insert, published_s=16 * US, target_s=32 * US)

    async def put(i: int) -> None:
        await kv.put(profile, "ns", f"k{i % 100}", b"v")

    await put(0)
    await meter.row("3a", "hot KV write", 2000, put)


async def _kv_reads(node: Node, meter: Meter, key: str = "3b", name: str = "hot KV read") -> Row:
    profile = await node.profile(_DATABASE)
    for i in range(100):
        await kv.put(profile, "ns", f"k{i}", b"v")

    async def get(i: int) -> None:
        await kv.get(profile, "ns", f"k{i % 100}")

    return await meter.row(key, name, 5000, get, published_s=3 * US, target_s=6 * US)


async def _kv_batches(node: Node, meter: Meter) -> None:
    profile = await node.profile(_DATABASE)
    body = {"puts": [{"key": f"k{n}", "value": "v"} for n in range(_BATCH_PUTS)]}

    async def put_many(_i: int) -> None:
        await kv_batch.apply(profile, "ns", kv_batch.parse_batch(body))

    await meter.row("3a+", f"KV batch of {_BATCH_PUTS} puts", 500, put_many)

    async def count(_i: int) -> None:
        by, ttl_s = kv.parse_increment({"by": 1})
        await kv.increment(profile, "ns", "n", by, ttl_s=ttl_s)

    await meter.row("3a++", "KV increment", 1000, count)


async def _documents(node: Node, meter: Meter) -> None:
    """Insert and find as the original does, then what it has no rows for, among ten times as many documents."""
    profile = await node.profile(_DATABASE)

    async def insert(i: int) -> None:
        await documents.insert(profile, "memories", documents.parse_insert({"docs": [workload.document(i)]}))

    count = meter.count(1000)
    await meter.row("4a", "document insert", 1000, insert, published_s=15 * US, target_s=30 * US)
    await collections.create_index(profile, "memories", collections.parse_index({"path": "n"}))

    async def find(i: int) -> None:
        wanted = document_queries.parse_find({"filter": {"n": i % count}})
        seen = await document_queries.find(profile, "memories", wanted)
        assert len(seen.value["docs"]) == 1

    await meter.row("4b", "indexed document find", 2000, find, target_s=1 * MS)

    async def insert_many(i: int) -> None:
        docs = [workload.document(n) for n in range(_BATCH_DOCUMENTS * i, _BATCH_DOCUMENTS * (i + 1))]
        await documents.insert(profile, "memories", documents.parse_insert({"docs": docs}))

    await meter.row("4a+", f"insert of {_BATCH_DOCUMENTS} indexed documents", 100, insert_many)

    async def page(i: int) -> None:
        asked = {"filter": {"kind": "fact", "n": {"$gte": i}}, "sort": {"n": -1}, "limit": 20}
        await document_queries.find(profile, "memories", document_queries.parse_find(asked))

    await meter.row("4b+", "page of 20 documents, sorted by an index", 1000, page)

    async def scan(i: int) -> None:
        await document_queries.count(
            profile, "memories", document_queries.parse_count({"filter": {"text": f"bench {i}"}})
        )

    await meter.row("4b++", "count without an index, @11,000", 100, scan)

    async def update(i: int) -> None:
        change = {"filter": {"n": i % count, "kind": "fact"}, "update": {"$inc": {"seen": 1}}}
        await documents.update(profile, "memories", documents.parse_update(change))

    await meter.row("4c+", "update of an indexed document", 1000, update)


async def _vectors(node: Node, meter: Meter) -> str:
    database, seeded = "vectors", meter.count(_VECTORS_SEEDED)
    await node.databases.create(database)
    profile = await node.profile(database)
    matrix = workload.embeddings(range(seeded), DIMENSIONS).tolist()
    start_s = time.perf_counter()
    for first in range(0, seeded, 500):
        batch = [
            {"id": f"v{n}", "embedding": matrix[n], "metadata": {"n": n}}
            for n in range(first, min(first + 500, seeded))
        ]
        await vectors.upsert(profile, "c", vectors.parse_upsert({"vectors": batch}))
    seed_s = time.perf_counter() - start_s
    await node.branches.sync(database, MAIN)

    async def upsert(i: int) -> None:
        item = {"id": f"v{i % seeded}", "embedding": matrix[(i + 1) % seeded], "metadata": {"n": i}}
        await vectors.upsert(profile, "c", vectors.parse_upsert(item))

    await meter.row("10a+", f"vector upsert ({DIMENSIONS}-dim)", 500, upsert)

    async def search(i: int, **rest: object) -> None:
        query = vector_search.parse_query({"vector": matrix[(7 * i) % seeded], "k": 10, **rest})
        assert len((await vector_search.search(profile, "c", query)).value) == 10

    await meter.row("10b+", f"vector search @{seeded:,}", 300, search)

    async def search_filtered(i: int) -> None:
        await search(i, filter={"n": {"$gte": seeded // 2}})

    await meter.row(
        "10c+", f"vector search @{seeded:,} under a filter that lets half through", 200, search_filtered
    )

    async def add_and_search(i: int) -> None:
        item = {"id": f"w{i}", "embedding": matrix[i]}
        await vectors.upsert(profile, "c", vectors.parse_upsert(item))
        await search(i)

    await meter.row("10d+", f"vector added, then searched @{seeded:,}", 200, add_and_search)

    async def change_and_search(i: int) -> None:
        item = {"id": f"v{i}", "embedding": matrix[(i + 2) % seeded]}
        await vectors.upsert(profile, "c", vectors.parse_upsert(item))
        await search(i)

    await meter.row("10e+", f"vector replaced, then searched @{seeded:,}", 200, change_and_search)
    return f"10 was seeded with {seeded:,} vectors in batches of 500 in {duration(seed_s)}."


async def _turns(node: Node, meter: Meter) -> str:
    database, seeded = "turns", meter.count(_TURNS_SEEDED)
    await node.databases.create(database)
    profile = await node.profile(database)
    matrix = workload.embeddings(range(seeded), DIMENSIONS).tolist()

    def turn(n: int, vector: list[float] | None = None) -> dict[str, Any]:
        words = " ".join(workload.WORDS[(n * step) % len(workload.WORDS)] for step in (1, 3, 7))
        return {"role": "user", "content": f"turn{n % 997} about {words}", "embedding": vector}

    start_s = time.perf_counter()
    for first in range(0, seeded, 1000):
        batch = [turn(n, matrix[n]) for n in range(first, min(first + 1000, seeded))]
        parsed, _ = turns.parse_turns({"turns": batch})
        await turns.append(profile, f"s{first // 1000 % 4}", parsed)
    seed_s = time.perf_counter() - start_s
    await node.branches.sync(database, MAIN)

    async def append(i: int) -> None:
        await turns.append(profile, "one", [turns.parse_turn(turn(i))])

    await meter.row("11a+", "turn append", 1000, append)

    async def append_many(i: int) -> None:
        parsed, _ = turns.parse_turns({"turns": [turn(1000 * i + n) for n in range(1000)]})
        await turns.append(profile, "many", parsed)

    await meter.row("11b+", "append of 1,000 turns", 10, append_many)

    async def page(i: int) -> None:
        await turns.read(profile, "s0", turns.Page(after=i % 100, limit=100))

    await meter.row("11c+", "page of 100 turns", 1000, page)

    async def search(**body: object) -> None:
        wanted = turn_search.parse_search({"k": 10, **body})
        assert (await turn_search.search(profile, wanted)).value

    async def by_words(i: int) -> None:
        await search(query=f"turn{i % 997} refund policy")

    await meter.row("11d+", f"turns by words @{seeded:,} and more", 200, by_words)

    async def by_vector(i: int) -> None:
        await search(vector=matrix[(7 * i) % seeded])

    await meter.row("11e+", f"turns by vector @{seeded:,} ({DIMENSIONS}-dim)", 200, by_vector)
    return f"11 was seeded with {seeded:,} turns in batches of 1,000 in {duration(seed_s)}."


async def _ships(node: Node, meter: Meter) -> None:
    profile = await node.profile(_DATABASE)
    await node.branches.sync(_DATABASE, MAIN)

    async def write_and_ship(i: int) -> None:
        await _sql(profile, workload.INSERT, f"value-{i}")
        await node.branches.sync(_DATABASE, MAIN)

    await meter.row("5", "write + segment ship", 200, write_and_ship, published_s=61 * US, target_s=150 * US)


async def _forks(node: Node, meter: Meter) -> None:
    await node.branches.sync(_DATABASE, MAIN)

    async def fork(i: int) -> None:
        await node.branches.create(_DATABASE, f"b{i}")

    await meter.row("6", "branch create (copy on write)", 200, fork, published_s=47 * US, target_s=150 * US)
    database, standing = "agent-1", meter.count(_FORKS_STANDING)
    await kv.put(await node.profile(database), "ns", "k", b"v")
    await node.branches.sync(database, MAIN)
    for i in range(standing):
        await node.branches.create(database, f"b{i}")

    async def fork_more(i: int) -> None:
        await node.branches.create(database, f"more{i}")

    await meter.row(
        "6+", f"branch create with {standing:,} forks standing", 100, fork_more, target_s=150 * US
    )


async def _at_rest(profile: Branch) -> None:
    """Let compaction come to its end, as it does by itself some seconds after a burst."""
    owned = profile.owned
    while owned is not None and (job := owned.shipper.compactor.running) is not None:
        await asyncio.wait([job])
        await owned.shipper.ship()


async def _wakes(node: Node, meter: Meter) -> str:
    profile = await node.profile(_DATABASE)
    [counted] = await _sql(profile, workload.COUNT)

    async def wake(_i: int) -> None:
        [found] = await _sql(await node.profile(_DATABASE), workload.COUNT)
        assert found["rows"] == counted["rows"]

    async def drop_handle_and_folder(_i: int) -> None:
        assert await profile.close()
        shutil.rmtree(profile.files.folder)

    await _at_rest(profile)
    await drop_handle_and_folder(0)
    current = await profile.manifests.load()
    assert current is not None
    objects = len(current.snapshots) + len(current.segments)
    size_bytes = sum(ref.size_bytes for ref in (*current.snapshots, *current.segments))
    await wake(0)
    await meter.row(
        "7",
        "cold wake (restore + open + query)",
        100,
        wake,
        before=drop_handle_and_folder,
        published_s=0.7 * MS,
        target_s=0.6 * MS,
    )

    async def evict(
        _i: int,
    ) -> None:  # the first time as the owner, which leaves a snapshot if it is worth it
        assert await node.tiers.evict(profile)

    await kv.put(profile, "ns", "k0", b"v")
    await evict(0)
    await wake(0)
    await meter.row(
        "7+",
        "cold wake after the node's own eviction",
        100,
        wake,
        before=evict,
        published_s=0.7 * MS,
        target_s=0.6 * MS,
    )
    return (
        f"7 finds {objects} objects of {size_bytes:,} bytes in the manifest, as row 5 left them "
        f"({counted['rows'][0][0]} SQL rows, 100 keys, no documents). 7+ restores one snapshot: a branch that "
        "goes cold gets one when restoring it would take more than 4 objects."
    )


async def _memories(node: Node, meter: Meter, seeded: int, *, recalls: bool = True) -> str:
    await node.databases.ensure_profile(names.profile_database("bench", "memories"))
    profile = await node.profile("bench--memories")
    batches = workload.event_batches(seeded, DIMENSIONS)
    start_s = time.perf_counter()
    for body in batches:
        await memories.ingest(profile, memories.parse_items(body))
    seed_s = time.perf_counter() - start_s
    await node.branches.sync("bench--memories", MAIN)
    facts = workload.facts(meter.count(500), DIMENSIONS)

    async def ingest(i: int) -> None:
        await memories.ingest(profile, memories.parse_items(facts[i]))

    await meter.row(
        "8a",
        "memory ingest (fact, 256-dim)",
        500,
        ingest,
        published_s=3.9 * MS,
        target_s=0.5 * MS,
    )
    if recalls:
        await _recalls(profile, meter, seeded)
    return f"8 was seeded with {seeded:,} memories in {duration(seed_s)}, shipped before 8a."


async def _recalls(profile: Branch, meter: Meter, seeded: int) -> None:
    queries = workload.queries(meter.count(500), DIMENSIONS)

    async def ask(i: int) -> None:
        found = await recall.recall(profile, recall.parse_query(queries[i]))
        assert len(found.value["memories"]) == 8

    await meter.row(
        "8b",
        f"hybrid recall @{seeded:,} memories",
        500,
        ask,
        published_s=11.7 * MS,
        target_s=2.5 * MS,
    )


async def _density(node: Node, meter: Meter, dbs: int, *, hot: bool = True) -> None:
    start_s = time.perf_counter()
    for i in range(dbs):
        await node.databases.create(f"cold-{i}")
    elapsed_s = time.perf_counter() - start_s

    async def touch(i: int) -> None:
        profile = await node.profile(f"cold-{37 * i % min(9973, dbs)}")
        await kv.put(profile, "ns", "k", b"v")

    await meter.row("9a", "first touch of a cold database", 200, touch, target_s=100 * MS)
    if hot:
        meter.rows.append(
            Row.of(
                "9b",
                f"{dbs:,} databases provisioned (wall clock)",
                [elapsed_s],
                published_s=93 * MS * dbs / 10_000,
            )
        )


async def _all_rows(meter: Meter, dbs: int, seeded: int) -> list[str]:
    with temporary_folder() as folder:
        async with node_here(folder, sync="normal") as node:
            await _provisioning(node, meter)
            await _sql_and_kv_writes(node, meter)
            first = await _kv_reads(node, meter)
            await _ships(node, meter)
            await _forks(node, meter)
            wakes = await _wakes(node, meter)
            await _kv_batches(node, meter)  # behind the wakes, which find what the original's found
            await _documents(node, meter)
            seeding = await _memories(node, meter, seeded)
            searches = await _vectors(node, meter)
            transcripts = await _turns(node, meter)
            await _density(node, meter, dbs)
            again = await _kv_reads(node, meter, "3b'", "hot KV read, measured again at the end")
    apart = abs(again.p50_s - first.p50_s) / first.p50_s
    return [
        wakes,
        seeding,
        searches,
        transcripts,
        f"Noise floor: 3b and 3b' are the same operation; their p50 are {apart:.0%} apart.",
    ]


async def _rows_with_fsync(meter: Meter, dbs: int, seeded: int) -> None:
    with temporary_folder() as folder:
        async with node_here(folder, sync="full") as node:
            await node.databases.create(_DATABASE)
            await _sql_and_kv_writes(node, meter)
            await _ships(node, meter)
            await _memories(node, meter, seeded, recalls=False)
            await _density(node, meter, min(dbs, 1000), hot=False)


def measure(run: Callable[..., Any], *, dbs: int, seeded: int, quick: bool, profile: bool) -> list[Table]:
    """Return the tables of the in-process harness. `run` runs a coroutine on the event loop to use."""
    normal, full = Meter(quick, profile), Meter(quick, profile)
    with watched() as busy:
        notes = run(_all_rows(normal, dbs, seeded))
    settings = (
        "In-memory object store, uvloop, one operation at a time; MEMOTURN_SYNC=normal (WAL, no fsync per "
        "commit, as the original's figures), shipping in the background each 200 ms."
    )
    rules = "Rows with + or ' are not among the original's. Targets are the design's; 9a's is the original's."
    tables = [Table.of_rows("In process", normal.rows, [settings, rules, *notes, f"{busy}."])]
    with watched() as busy:
        run(_rows_with_fsync(full, dbs, seeded))
    rows = [Row(row.key, row.name, row.n, row.p50_s, row.p99_s, row.published_s, None) for row in full.rows]
    note = "The write rows again with an fsync per commit, which neither the targets nor the original's have."
    tables.append(Table.of_rows("In process, MEMOTURN_SYNC=full", rows, [note, f"{busy}."]))
    return tables


def run_on_uvloop(work: Any) -> Any:
    """Run a coroutine on uvloop, as the node does."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
