"""Replicas on another node: they follow their owner, say how old they are, and heal whatever is lost on the way."""

import asyncio
import shutil
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from erased import files_with
from harness import node_on
from profiles import BY_HAND, everything, get, put
from structlog.testing import capture_logs

from memoturnd.core import replica_wire as wire
from memoturnd.core.consistency import Consistency
from memoturnd.core.durability import Durability
from memoturnd.engine import replaying
from memoturnd.engine import replicas as following
from memoturnd.engine import subscribers as pushing
from memoturnd.engine.consistency import Reading, reading_as
from memoturnd.engine.files import BranchFiles
from memoturnd.errors import ConflictError, InvalidRequestError, NotFoundError, RetryableError
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.seams.clock import SystemClock
from memoturnd.stores.faulty import FaultyStore
from memoturnd.stores.memory import MemoryStore

DURABLE = Durability.DURABLE
MARK = b"4711-is-the-secret"


async def until(true):
    """Wait until `true()` holds."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110 - what is waited for is the product's, which tells nobody
            await asyncio.sleep(0.005)


class Wires:
    """Nodes that ask one another without HTTP. `cut` holds what does not get through, `sent` what did."""

    def __init__(self):
        self.nodes = {}
        self.cut = set()
        self.sent = []

    async def ask(self, address, path, *, body=b"", headers=None, timeout_s, method="POST"):
        """Hand a request to the other node's side of it."""
        await asyncio.sleep(0)
        if path in self.cut or address in self.cut or address not in self.nodes:
            raise RetryableError(f"{address} does not answer")
        self.sent.append((address, path))
        streams = self.nodes[address].streams
        match path:
            case wire.SUBSCRIBE:
                return streams.subscribe(wire.msgspec.json.decode(body, type=wire.Subscribe))
            case wire.CONFIRM:
                asked = wire.msgspec.json.decode(body, type=wire.Confirm)
                return wire.encode(streams.confirm(asked))
            case wire.CHANGED:
                told = wire.msgspec.json.decode(body, type=wire.Changed)
                return await streams.changed(told.branches, gone=told.gone)
            case wire.INGEST:
                names = (wire.UUID_HEADER, wire.BRANCH_HEADER, wire.BRANCH_ID_HEADER, wire.KIND_HEADER)
                return await streams.ingest(*(headers[name] for name in names), body)

    def count(self, path):
        return sum(one == path for _, one in self.sent)


async def cached(branch, op, **options):
    """Read what is here of a branch."""
    with reading_as(Reading(Consistency.CACHED)):
        return await branch.read(op, **options)


class Cluster:
    """Two nodes and a bucket: `a` owns database x, `b` reads it."""

    def __init__(self, a, b, store, wires):
        self.a, self.b, self.store, self.wires = a, b, store, wires

    async def cached(self, op=everything):
        return await cached(await self.b.profile("x"), op)

    @property
    def known(self):
        return self.b._services.replicas

    async def reaches(self, txid):
        """Wait until the replica is there, without reading it: that would compare it with the manifest."""
        branch = await self.b.profile("x")
        await until(lambda: branch.txid >= txid)
        return branch


@pytest.fixture
async def cluster(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "CONFIRM_S", 0.02)
    monkeypatch.setattr("memoturnd.node.CONFIRM_S", 0.02)
    async with cluster_on(tmp_path) as made:
        yield made


@pytest.fixture
async def told(tmp_path, monkeypatch):
    """A cluster whose nodes do not ask again by themselves: what a replica learns, it was told."""
    monkeypatch.setattr("memoturnd.node.CONFIRM_S", 3600.0)
    async with cluster_on(tmp_path) as made:
        yield made


@asynccontextmanager
async def cluster_on(tmp_path, **env):
    table, store, wires = LeaseTable(), FaultyStore(MemoryStore(), SystemClock()), Wires()
    names = {"a": "http://a", "b": "http://b"}
    async with (
        node_on(
            tmp_path / "a",
            store,
            leases=LocalLeases("a", names["a"], table),
            peers=wires,
            NODE_ID="a",
            ADVERTISE=names["a"],
            **BY_HAND,
            **env,
        ) as a,
        node_on(
            tmp_path / "b",
            store,
            leases=LocalLeases("b", names["b"], table),
            peers=wires,
            NODE_ID="b",
            ADVERTISE=names["b"],
            **BY_HAND,
            **env,
        ) as b,
    ):
        wires.nodes = {names["a"]: a, names["b"]: b}
        database = await a.databases.create("x")
        await b._services.catalog.create_database(database)
        owner = await a.profile("x")
        await owner.write(put("k", "0"), durability=DURABLE)
        made = Cluster(a, b, store, wires)
        await made.cached()
        await until(lambda: len(a._services.subscribers))
        yield made


async def write(cluster, key, value):
    return (await (await cluster.a.profile("x")).write(put(key, value), durability=DURABLE)).txid


async def test_replica_follows_every_ship_without_reading_the_bucket(cluster):
    replica = await cluster.b.profile("x")
    for n in range(5):
        txid = await write(cluster, "k", str(n))
        await cluster.reaches(txid)
        assert (await cached(replica, get("k"))).value == str(n)

    metrics = cluster.b.metrics.replica_steps
    assert metrics["pushed"]._value.get() == 5
    assert metrics["gap"]._value.get() == metrics["restored"]._value.get() == 0


async def test_age_is_the_time_since_the_owner_confirmed_all_of_it(cluster):
    owner, replica = await cluster.a.profile("x"), await cluster.b.profile("x")
    clock = SystemClock()
    await asyncio.sleep(0.2)
    assert clock.monotonic_s() - replica.seen_s < 0.15

    await owner.write(put("k", "1"))  # not shipped: the replica is as old as this
    written_s = clock.monotonic_s()
    await asyncio.sleep(0.2)
    assert replica.seen_s <= written_s

    await owner.owned.shipper.ship()
    await cluster.reaches(owner.txid)
    await asyncio.sleep(0.2)
    assert replica.seen_s > written_s

    cluster.wires.cut.add("http://a")
    await asyncio.sleep(0.2)
    assert clock.monotonic_s() - replica.seen_s > 0.15


async def test_lost_push_is_found_and_fetched(cluster, monkeypatch):
    monkeypatch.setattr(following, "LOST_S", 0.05)
    cluster.wires.cut.add("http://b")
    txid = await write(cluster, "k", "lost")
    cluster.wires.cut.clear()

    replica = await cluster.reaches(txid)

    assert (await cached(replica, get("k"))).value == "lost"


async def test_gap_is_closed_by_the_missing_segments_alone(cluster):
    cluster.wires.cut.add("http://b")
    for n in range(3):
        await write(cluster, f"missed{n}", "v" * 9000)
    cluster.wires.cut.clear()
    cluster.store.counts.clear()

    txid = await write(cluster, "k", "after")
    replica = await cluster.reaches(txid)

    assert len((await cached(replica, everything)).value) == 4
    assert cluster.b.metrics.replica_steps["fetched"]._value.get() >= 1
    assert cluster.b.metrics.replica_steps["restored"]._value.get() == 0


async def test_slow_replica_never_delays_a_ship_and_loses_what_waits(cluster, monkeypatch):
    release = asyncio.Event()
    through = cluster.wires.ask

    async def slow(address, path, **rest):
        if path == wire.INGEST:
            await release.wait()
        return await through(address, path, **rest)

    monkeypatch.setattr(cluster.wires, "ask", slow)
    for n in range(3 * pushing.WAITING_LIMIT):
        async with asyncio.timeout(1):
            txid = await write(cluster, "k", str(n))
    assert cluster.a.metrics.replica_pushes["skipped"]._value.get() >= 1

    release.set()
    replica = await cluster.reaches(txid)
    assert (await cached(replica, get("k"))).value == str(n)


async def test_push_to_the_owner_or_to_nobody_is_refused(cluster):
    owner = await cluster.a.profile("x")
    uuid = owner.ref.database.uuid
    with pytest.raises(ConflictError, match="owned by this node"):
        await cluster.a.streams.ingest(uuid, "main", None, "segment", b"x")
    with pytest.raises(NotFoundError, match="does not follow"):
        await cluster.b.streams.ingest("0" * 32, "main", None, "segment", b"x")
    with pytest.raises(InvalidRequestError, match="not readable"):
        await cluster.b.streams.ingest(uuid, "main", None, "segment", b"x")


async def test_deletion_reaches_a_replica_at_once(told):
    cluster = told
    replica = await cluster.b.profile("x")

    await cluster.a.databases.delete("x")

    await until(lambda: not replica.hot and not replica.files.exists())


async def test_replica_finds_the_next_owner(cluster, monkeypatch):
    monkeypatch.setattr(following, "OWNER_AGAIN_S", 0.05)
    owner, replica = await cluster.a.profile("x"), await cluster.b.profile("x")
    assert await owner.close()
    assert await owner.give_back()

    mine = await replica.write(put("k", "b's"), durability=DURABLE)

    assert mine.txid > owner.txid
    seen = await cached(owner, get("k"), min_txid=mine.txid)
    assert seen.value == "b's"
    later = (await replica.write(put("k", "again"), durability=DURABLE)).txid
    await until(lambda: owner.txid >= later)
    assert (await cached(owner, get("k"))).value == "again"


async def test_silence_of_an_owner_is_said_once(cluster):
    await (await cluster.a.profile("x")).write(put("k", "1"), durability=DURABLE)
    await cluster.cached()
    branch = await cluster.b.profile("x")
    asked = cluster.wires.ask
    failed = 0

    async def ask(address, path, **options):
        nonlocal failed
        failed += address in cluster.wires.cut
        return await asked(address, path, **options)

    cluster.known._peers.ask = ask
    for _ in range(2):
        with capture_logs() as logs:
            cluster.wires.cut.add("http://a")
            enough = failed + 5
            await until(lambda enough=enough: failed >= enough)
        assert [line["event"] for line in logs].count("owner does not confirm") == 1
        cluster.wires.cut.clear()
        seen_s = branch.seen_s
        await until(lambda seen_s=seen_s: branch.seen_s > seen_s)


async def test_unused_replica_is_not_followed_any_more(cluster, monkeypatch):
    monkeypatch.setattr(following, "UNUSED_S", 0.05)
    monkeypatch.setattr(pushing, "SILENT_S", 0.05)

    await until(lambda: not len(cluster.known) and not len(cluster.a._services.subscribers))


async def test_subscribers_of_a_branch_and_of_a_node_are_bounded(cluster, monkeypatch):
    subscribers, ref = cluster.a._services.subscribers, (await cluster.a.profile("x")).ref
    for n in range(pushing.BRANCH_LIMIT - 1):
        subscribers.note(ref, f"http://{n}")
    with pytest.raises(RetryableError, match=r"8 replicas"):
        subscribers.note(ref, "http://more")
    subscribers.note(ref, "http://b")  # who is there stays


async def test_rewind_reaches_a_replica_like_any_commit(cluster):
    """The original's replicas kept a timeline that had been rewound away."""
    first = await write(cluster, "k", "kept")
    await write(cluster, "k", "undone")

    rewound = await cluster.a.branches.rewind("x", "main", str(first))
    replica = await cluster.reaches(rewound.txid)

    assert (await cached(replica, get("k"))).value == "kept"
    assert cluster.b.metrics.replica_steps["restored"]._value.get() == 0


async def test_rewritten_history_leaves_nothing_on_a_replica_at_once(told, tmp_path):
    cluster = told
    await write(cluster, "secret", MARK * 50)
    await cluster.reaches(await write(cluster, "k", "open"))
    owner, replica = await cluster.a.profile("x"), await cluster.b.profile("x")
    assert files_with(tmp_path / "b", MARK)

    await cluster.a.rewriter.rewrite(
        owner, lambda conn: conn.execute("DELETE FROM __memoturn_kv WHERE k = 'secret'") and 1, ["e1"]
    )

    await until(lambda: not files_with(tmp_path / "b", MARK))
    assert (await cached(replica, everything)).value == {"k": "open"}
    assert not files_with(tmp_path / "b", MARK)


# ---- a crash at any step of an apply


STEPS = ("unmarked", "closed", "log made", "log in place", "opened")


@pytest.mark.parametrize("step", STEPS)
async def test_crash_at_any_step_leaves_nothing_that_is_served_wrong(cluster, tmp_path, monkeypatch, step):
    """Guard: `unmark` before a replay; without it a file that was closed clean once is opened as if it still were."""
    replica = await cluster.b.profile("x")
    assert await replica.close()  # leaves a clean mark, which is of an older state soon
    await cluster.cached()
    await until(lambda: len(cluster.known))
    copied = tmp_path / "crashed"

    def crash():
        if not copied.exists():
            shutil.copytree(tmp_path / "b", copied)

    def around(where, name, before=None, after=None):
        original = getattr(where, name)

        def wrapped(*args, **kwargs):
            if step == before:
                crash()
            made = original(*args, **kwargs)
            if step == after:
                crash()
            return made

        monkeypatch.setattr(where, name, wrapped)

    around(BranchFiles, "unmark", after="unmarked")
    around(replaying, "write_log", before="closed", after="log in place")
    around(Path, "rename", before="log made")
    around(type(replica), "look_at_log", before="opened")
    txid = await write(cluster, "k", "new")
    await cluster.reaches(txid)
    monkeypatch.undo()
    assert copied.exists()

    async with node_on(copied, cluster.store, **BY_HAND) as again:
        seen = await cached(await again.profile("x"), everything)

    assert (seen.value, seen.txid) == ({"k": "new"}, txid)
