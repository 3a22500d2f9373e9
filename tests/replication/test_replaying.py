"""Rounds put into the open file of a branch that this node does not own, beside reads that are under way."""

import asyncio
import threading
from contextlib import asynccontextmanager

import pytest
from harness import node_on
from profiles import BY_HAND, everything, get, keys, manifest_of, put

from memoturnd.core import segment
from memoturnd.core.consistency import Consistency
from memoturnd.core.durability import Durability
from memoturnd.engine.consistency import Reading, reading_as
from memoturnd.engine.replaying import replay
from memoturnd.errors import RetryableError
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.replication.apply import follow, rounds_behind
from memoturnd.seams.profile import Work
from memoturnd.stores.memory import MemoryStore


@asynccontextmanager
async def two_nodes(tmp_path, store, **env):
    """Two nodes of one cluster in one process; each has a catalog of its own, with the same database in it."""
    table = LeaseTable()
    async with (
        node_on(tmp_path / "a", store, leases=LocalLeases("a", "http://a", table), **BY_HAND, **env) as one,
        node_on(tmp_path / "b", store, leases=LocalLeases("b", "http://b", table), **BY_HAND, **env) as two,
    ):
        database = await one.databases.create("x")
        await two._services.catalog.create_database(database)
        yield one, two


async def shipped(store, owner, seen):
    """Ship, and return the segments that this put into the store, without what compaction makes of them."""
    standing = owner.durable_txid
    await owner.owned.shipper.ship()
    new = sorted(set(await keys(store, "/segments/")) - seen)
    seen.update(new)
    found = [segment.decode((await store.get(key)).data) for key in new]
    return [one for one in found if one.prev_txid >= standing]


async def cached(branch, op, **options):
    """Read what is here of a branch."""
    with reading_as(Reading(Consistency.CACHED)):
        return await branch.read(op, **options)


async def apply(branch, segments):
    async with branch.changing(), branch.reopening() as is_open:
        assert is_open
        cursor, hashes = branch.known
        proven = follow(cursor.txid, hashes, segments)
        await replay(branch, lambda: rounds_behind(cursor.txid, segments), txid=proven.at.txid, size_bytes=1)
        branch.known = cursor._replace(txid=proven.at.txid, position=None), proven.hashes


@pytest.fixture
async def pair(tmp_path):
    store = MemoryStore()
    async with two_nodes(tmp_path, store) as (one, two):
        owner, copy = await one.profile("x"), await two.profile("x")
        await owner.write(put("k", "0"), durability=Durability.DURABLE)
        assert (await cached(copy, get("k"))).value == "0"
        yield store, owner, copy, set(await keys(store, "/segments/"))


async def test_copy_follows_its_owner_and_can_take_over_from_there(pair):
    store, owner, copy, seen = pair
    for n in range(1, 4):
        await owner.write(put("k", str(n)))
        await owner.write(put(f"large{n}", "v" * 30_000))
        await apply(copy, await shipped(store, owner, seen))
        read = await cached(copy, everything)
        assert (read.value["k"], read.txid) == (str(n), owner.txid)
    assert await owner.close()
    assert await owner.give_back()

    written = await copy.write(put("k", "mine"), durability=Durability.DURABLE)

    assert written.txid > owner.txid
    assert copy.owned.shipper.surprises == 0
    assert (await manifest_of(store, copy)).head_txid == written.txid


async def test_long_read_of_a_user_is_stopped_and_sees_one_state(pair):
    store, owner, copy, seen = pair
    begun, seen_values = threading.Event(), []

    def long_read(conn, _now_ms):
        seen_values.append(conn.execute("SELECT v FROM __memoturn_kv WHERE k = 'k'").get)
        begun.set()
        return conn.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) "
            "SELECT sum(i + length(v)) FROM n, __memoturn_kv"
        ).get

    reading = asyncio.ensure_future(copy._read_in_pool(long_read, copy.services.user_executor))
    await asyncio.to_thread(begun.wait, 5)
    await owner.write(put("k", "1"))

    await apply(copy, await shipped(store, owner, seen))

    with pytest.raises(RetryableError, match=r"newer state while the statement ran.*primary"):
        await reading
    assert seen_values == ["0"]
    assert (await cached(copy, get("k"))).value == "1"


async def test_short_reads_in_the_pool_go_on_while_rounds_come(pair):
    """None fails, and each sees one round as a whole: both of its keys, of a txid that never goes back."""
    store, owner, copy, seen = pair
    stop, txids, torn = asyncio.Event(), [], []

    def both(conn, _now_ms):
        return conn.execute("SELECT group_concat(v) FROM __memoturn_kv WHERE k IN ('p', 'q')").get

    def pair_of(n):
        def op(conn, now_ms):
            put("p", str(n))(conn, now_ms)
            return put("q", str(n))(conn, now_ms)

        return op

    async def read(work):
        last = 0
        while not stop.is_set():
            found = await cached(copy, both, work=work)
            if found.value is not None and len(set(found.value.split(","))) != 1:
                torn.append(found.value)
            assert found.txid >= last
            last = found.txid
            txids.append(found.txid)
            await asyncio.sleep(0)

    readers = [asyncio.ensure_future(read(work)) for work in (Work.HEAVY, Work.HEAVY, Work.USER, Work.POINT)]
    for n in range(40):
        await owner.write(pair_of(n))
        await apply(copy, await shipped(store, owner, seen))
    stop.set()
    await asyncio.gather(*readers)

    assert not torn
    assert len(set(txids)) > 20


async def test_rounds_that_cannot_be_applied_leave_no_file_that_is_served(pair):
    store, owner, copy, seen = pair
    await owner.write(put("k", "1"))
    segments = await shipped(store, owner, seen)

    def broken():
        yield from rounds_behind(1, segments)
        raise RetryableError("half way")

    with pytest.raises(RetryableError, match="half way"):
        async with copy.changing(), copy.reopening():
            await replay(copy, broken, txid=2, size_bytes=1)

    assert not copy.files.exists()
    assert (await cached(copy, get("k"))).value == "1"
