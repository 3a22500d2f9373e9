"""Imports of new databases that are cut off: they go after their grace, or are finished, and never half of each."""

import sqlite3
from contextlib import closing

import pytest
from harness import ShiftedClock, node_on
from profiles import BY_HAND, keys

from memoturnd.core.durability import Durability
from memoturnd.errors import AlreadyExistsError, DatabaseNotFoundError, RetryableError, StoreUnavailableError
from memoturnd.stores.memory import MemoryStore

GRACE_S = 86_400.0
SETTINGS = {**BY_HAND, "WARM_AFTER_S": "2000000", "COLD_AFTER_S": "2000000"}


class Cut:
    """A store that lets a test act before the n-th request that changes something, or fails from there on."""

    def __init__(self, inner):
        self.inner = inner
        self.changes = 0
        self.at = 0
        self.act = None

    def begin(self, at, act=None):
        self.changes, self.at, self.act = 0, at, act

    def __getattr__(self, name):
        call = getattr(self.inner, name)
        if not name.startswith(("put", "delete")):
            return call

        async def request(*args):
            self.changes += 1
            if self.act is not None and self.changes == self.at:
                await self.act()
            elif self.act is None and self.at and self.changes >= self.at:
                raise StoreUnavailableError("cut off")
            return await call(*args)

        return request


@pytest.fixture
def clock():
    return ShiftedClock()


@pytest.fixture
def store(clock):
    return Cut(MemoryStore(clock))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "outside.db"
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE t(a)")
        conn.execute("INSERT INTO t VALUES (7)")
        conn.commit()
    return path.read_bytes()


async def take(node, data):
    async def chunks():
        yield data

    return await node.transfers.take("copy", chunks())


async def rows(node):
    branch = await node.profile("copy")
    return (await branch.read(lambda conn, _now_ms: conn.execute("SELECT a FROM t").fetchall())).value


async def write(node):
    def op(conn, _now_ms):
        conn.execute("INSERT INTO t VALUES (8)")
        return None, True

    await (await node.profile("copy")).write(op, durability=Durability.DURABLE)


async def run_due_at(node, clock, ahead_s):
    clock.ahead_s = ahead_s
    node.maintenance._is_busy = lambda: False
    await node.maintenance.run_due()


def databases(store):
    return {key.split("/")[1] for key in store if not key.startswith("v1/_catalog")}


async def test_import_that_was_cut_off_anywhere_goes_after_the_grace_or_is_there_whole(
    tmp_path, store, clock, data
):
    """The node is killed: nothing cleans up after the request, and nobody but the chore knows of it."""
    outcomes = []
    for at in range(1, 20):
        folder = tmp_path / str(at)
        async with node_on(folder, store, clock=clock, **SETTINGS) as node:
            start_s = clock.ahead_s
            store.begin(at)
            try:
                await take(node, data)
            except StoreUnavailableError:
                outcomes.append("cut")
            else:
                break
            finally:
                store.begin(0)
            left = databases(await keys(store))
            await run_due_at(node, clock, start_s + GRACE_S - 60)
            assert databases(await keys(store)) == left, f"at change {at}, before the grace has passed"
            await run_due_at(node, clock, start_s + GRACE_S + 60)
            try:
                database = await node.databases.get("copy")
            except DatabaseNotFoundError:
                assert databases(await keys(store)) == set(), f"at change {at}"
            else:
                outcomes[-1] = "whole"
                assert await rows(node) == [(7,)]
                assert databases(await keys(store)) == {database.uuid}
                await node.databases.delete("copy")
                await run_due_at(node, clock, start_s + 3 * GRACE_S)
    assert outcomes == ["cut", "cut", "cut", "whole"], (
        "register, snapshot, manifest; then the row; then the swap"
    )


async def test_import_that_was_cut_off_behind_its_row_is_finished_by_the_first_write(
    tmp_path, store, clock, data
):
    async with node_on(tmp_path / "a", store, clock=clock, **SETTINGS) as node:
        store.begin(4)
        with pytest.raises(StoreUnavailableError):
            await take(node, data)
        store.begin(0)
        with pytest.raises(AlreadyExistsError):
            await take(node, data)
        await write(node)

    async with node_on(
        tmp_path / "b", store, clock=clock, **SETTINGS
    ) as node:  # the catalog is lost with the disk
        assert await rows(node) == [(7,), (8,)]


async def test_half_import_is_not_brought_to_life_by_a_lost_catalog_and_its_name_is_free(
    tmp_path, store, clock, data
):
    async with node_on(tmp_path / "a", store, clock=clock, **SETTINGS) as node:
        store.begin(4)
        with pytest.raises(StoreUnavailableError):
            await take(node, data)
        store.begin(0)
    (half,) = databases(await keys(store))

    async with node_on(tmp_path / "b", store, clock=clock, **SETTINGS) as node:
        again = (await take(node, data)).database
        await run_due_at(node, clock, GRACE_S + 60)
        assert databases(await keys(store)) == {again.uuid}
        assert again.uuid != half
        assert await rows(node) == [(7,)]


async def test_import_that_takes_longer_than_the_grace_is_given_up_or_done_but_never_both(
    tmp_path, store, clock, data
):
    for at in range(2, 5):
        async with node_on(tmp_path / str(at), store, clock=clock, **SETTINGS) as node:
            start_s, before = clock.ahead_s, databases(await keys(store))

            async def be_late(node=node, start_s=start_s):
                store.begin(0)
                await run_due_at(node, clock, start_s + GRACE_S + 60)

            store.begin(at, be_late)
            if at == 4:  # its row is there: the pass has finished it
                await take(node, data)
                assert await rows(node) == [(7,)]
                await node.databases.delete("copy")
                continue
            with pytest.raises(RetryableError, match="given up"):
                await take(node, data)
            with pytest.raises(DatabaseNotFoundError):
                await node.databases.get("copy")
            assert databases(await keys(store)) <= before, f"at change {at}"
            await take(node, data)
            assert await rows(node) == [(7,)]
            await node.databases.delete("copy")
