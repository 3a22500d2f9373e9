"""Reads: what they see, where they run, and what they never do."""

import asyncio
from functools import partial
from shutil import copytree

import pytest
from harness import node_on

from memoturnd.core.durability import Durability
from memoturnd.engine import schema
from memoturnd.errors import NotDurableError, PreconditionFailedError, RequestTimeoutError
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.profile import Work
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import kv

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"


def put(conn, _now_ms):
    conn.execute("INSERT OR REPLACE INTO __memoturn_kv (ns, k, v) VALUES ('n', 'k', 'v')")
    return None, True


def put_bytes(conn, _now_ms):
    conn.execute("INSERT INTO __memoturn_kv (ns, k, v) VALUES ('n', 'k', x'76')")
    return None, True


def get(conn, _now_ms):
    return conn.execute("SELECT v FROM __memoturn_kv WHERE k = 'k'").get


def endless(conn, _now_ms):
    return conn.execute(ENDLESS).get


async def test_endless_user_read_of_a_profile_never_written_is_stopped(tmp_path):
    async with node_on(tmp_path, MemoryStore(), REQUEST_TIMEOUT="1") as node:
        await node.databases.create("a")
        profile = await node.profile("a")

        with pytest.raises(RequestTimeoutError):
            await profile.read(endless, work=Work.USER)

        assert (await profile.read(get)).txid == 0


async def test_endless_user_read_stops_at_its_deadline_while_others_go_on(tmp_path):
    async with node_on(tmp_path, MemoryStore(), REQUEST_TIMEOUT="1") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put)

        slow = asyncio.create_task(profile.read(endless, work=Work.USER))
        await asyncio.sleep(0.1)
        assert (await profile.read(get)).value == "v"
        assert (await profile.write(put)).txid == 3
        with pytest.raises(RequestTimeoutError):
            await slow


async def test_read_whose_caller_left_keeps_its_connection_to_itself(tmp_path):
    async with node_on(tmp_path, MemoryStore(), REQUEST_TIMEOUT="1") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put)

        slow = asyncio.create_task(profile.read(endless, work=Work.USER))
        await asyncio.sleep(0.1)
        slow.cancel()
        seen = await profile.read(get, work=Work.HEAVY)

        assert seen.value == "v"
        with pytest.raises(asyncio.CancelledError):
            await slow


async def test_read_below_its_floor_waits_for_the_commit(tmp_path):
    async with node_on(tmp_path, MemoryStore()) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put)

        waiting = asyncio.create_task(profile.read(get, min_txid=3))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await profile.write(put)

        assert (await waiting).txid == 3


async def test_read_that_never_reaches_its_floor_fails_and_drops_nothing(tmp_path):
    async with node_on(tmp_path, MemoryStore(), SHIP_INTERVAL_MS="60000") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        written = await profile.write(put)
        assert not written.durable

        with pytest.raises(PreconditionFailedError):
            await profile.read(get, min_txid=99)

        assert (await profile.read(get)).value == "v"
        assert (await profile.read(get)).txid == written.txid


async def test_rewind_that_is_not_durable_yet_can_be_undone_once_it_is(tmp_path):
    store = FaultyStore(MemoryStore(), SystemClock())
    async with node_on(tmp_path, store, SHIP_INTERVAL_MS="60000") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        first = await profile.write(put, durability=Durability.DURABLE)
        await profile.write(
            lambda conn, _: (conn.execute("DELETE FROM __memoturn_kv"), True), durability=Durability.DURABLE
        )
        store.faults.append(Fault(FaultKind.STATUS_503, {"put"}, times=None))

        with pytest.raises(NotDurableError):
            await node.branches.rewind("a", "main", str(first.txid))
        assert (await profile.read(get)).value == "v"

        store.faults.clear()
        await node.branches.sync("a", "main")
        undone = await node.branches.undo_rewind("a", "main")
        assert undone.rewound_to == first.txid + 1
        assert (await profile.read(get)).value is None


async def test_sync_waits_for_a_txid_that_is_about_to_be_committed(tmp_path):
    async with node_on(tmp_path, MemoryStore(), SHIP_INTERVAL_MS="60000") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put)

        waiting = asyncio.create_task(node.branches.sync("a", "main", 3))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await profile.write(put)

        assert await waiting == 3
        with pytest.raises(PreconditionFailedError):
            await node.branches.sync("a", "main", 99)


async def test_a_profile_of_an_older_release_is_read_after_its_migration(tmp_path, monkeypatch):
    store = MemoryStore()
    with monkeypatch.context() as older:
        older.setattr(schema, "SCHEMA_VERSION", 1)
        older.setattr(schema, "EMPTY", schema.Meta(1, 0, 0, 0))
        older.setattr(schema, "create_anywhere", partial(schema.create_anywhere, version=1))
        older.setattr(schema, "_TEMPLATES", [])
        async with node_on(tmp_path / "older", store) as node:
            await node.databases.create("a")
            profile = await node.profile("a")
            txid = (await profile.write(put_bytes)).txid
            await node.branches.sync("a", "main")
        copytree(tmp_path / "older", tmp_path / "kept")

    for folder in ("kept", "lost"):
        async with node_on(tmp_path / folder, store) as node:
            seen = await kv.page(await node.profile("a"), "n", with_values=True)

            assert seen.value["entries"][0]["value"] == "v"
            assert seen.txid > txid
