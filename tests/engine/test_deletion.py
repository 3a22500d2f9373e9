"""Soft deletion in a running node, and forks that are cut off, late, or meet the collector."""

import pytest
from harness import ShiftedClock, node_on
from profiles import BY_HAND, everything, keys, manifest_of, put

from memoturnd.core import layout, manifest
from memoturnd.core import register as registers
from memoturnd.core.durability import Durability
from memoturnd.engine.branching import FORK_DEADLINE_S
from memoturnd.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    ConflictError,
    DatabaseNotFoundError,
    InvalidRequestError,
    MemoturnError,
    RetryableError,
    StoreUnavailableError,
)
from memoturnd.stores.memory import MemoryStore

GRACE_S, DAY_S = 600.0, 86_400.0
LONG_OPEN = {"WARM_AFTER_S": "2000000", "COLD_AFTER_S": "2000000"}


@pytest.fixture
def clock():
    return ShiftedClock()


@pytest.fixture
def store(clock):
    return MemoryStore(clock)


@pytest.fixture
async def node(tmp_path, store, clock):
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(put("main", "1"))
        yield node


async def pass_time(node, clock, seconds):
    """Let time pass in steps of ten minutes, and do what is due at each."""
    node.maintenance._is_busy = lambda: False  # the ships, whose time never comes here, are no reason to wait
    end_s = clock.ahead_s + seconds
    while clock.ahead_s < end_s:
        clock.ahead_s = min(end_s, clock.ahead_s + 600)
        await node.maintenance.run_due()


async def contents(node, branch="main", db="a"):
    return (await (await node.profile(db, branch)).read(everything)).value


async def forked(node, name="f", **values):
    await node.branches.create("a", name)
    for key, value in values.items():
        await (await node.profile("a", name)).write(put(key, value))


# ---- branches


async def test_undeleted_branch_has_all_that_was_committed_even_what_was_not_shipped(node):
    await forked(node, x="only local")
    await node.branches.delete("a", "f")
    with pytest.raises(BranchNotFoundError):
        await node.profile("a", "f")
    assert await node.branches.list("a") == []

    back = await node.branches.undelete("a", "f")

    assert (back.branch, back.parent) == ("f", "main")
    assert await contents(node, "f") == {"main": "1", "x": "only local"}
    await (await node.profile("a", "f")).write(put("y", "more"), durability=Durability.DURABLE)
    assert [row.name for row in await node.branches.list("a")] == ["f"]


async def test_deleted_branch_can_come_back_until_its_grace_has_passed_and_then_is_gone(node, store, clock):
    await forked(node, x="1")
    branch_id = (await node.profile("a", "f")).ref.branch_id
    await node.branches.delete("a", "f")

    await pass_time(node, clock, DAY_S - 60)
    await node.branches.undelete("a", "f")
    assert await contents(node, "f") == {"main": "1", "x": "1"}
    await node.branches.delete("a", "f")
    await pass_time(node, clock, DAY_S + 600)

    with pytest.raises(BranchNotFoundError):
        await node.branches.undelete("a", "f")
    await pass_time(node, clock, 3 * GRACE_S)
    assert await keys(store, branch_id) == []
    assert (await manifest_of(store, await node.profile("a"))).pins == {}
    assert await contents(node) == {"main": "1"}


async def test_name_of_a_deleted_branch_is_free_at_once_and_the_last_one_deleted_comes_back(node):
    await forked(node, x="first")
    await node.branches.delete("a", "f")
    await forked(node, x="second")

    with pytest.raises(AlreadyExistsError):
        await node.branches.undelete("a", "f")
    await node.branches.delete("a", "f")
    await node.branches.undelete("a", "f")

    assert (await contents(node, "f"))["x"] == "second"
    await node.branches.delete("a", "f")
    with pytest.raises(BranchNotFoundError):
        await node.branches.undelete("a", "g")
    with pytest.raises(InvalidRequestError):
        await node.branches.undelete("a", "main")


async def test_deleted_branch_takes_no_commit_of_an_owner_elsewhere(node, store):
    await forked(node, x="1")
    profile = await node.profile("a", "f")
    await profile.write(put("x", "2"), durability=Durability.DURABLE)
    file = node._services.manifest_file(profile.ref.database.uuid, profile.ref.branch_id)
    await file.update(lambda m: manifest.delete(m, at_ms=5))  # as another node does
    before = await manifest_of(store, profile)

    with pytest.raises(ConflictError, match="deleted"):
        await profile.write(put("x", "late"), durability=Durability.DURABLE)
    with pytest.raises(BranchNotFoundError, match="deleted"):
        await profile.write(put("x", "later"))

    assert await manifest_of(store, profile) == before


async def test_burner_that_expired_cannot_be_undeleted(node, clock):
    await node.branches.create("a", "f", ttl_s=10)
    clock.ahead_s += 11
    await node.housekeeping.delete_burners()

    with pytest.raises(ConflictError, match="burner"):
        await node.branches.undelete("a", "f")

    await pass_time(node, clock, 3 * GRACE_S)
    with pytest.raises(BranchNotFoundError):
        await node.branches.undelete("a", "f")


class Failing:
    """A store that fails a test's choice of requests."""

    def __init__(self, inner):
        self.inner = inner
        self.fails = lambda operation, key: False

    def __getattr__(self, operation):
        call = getattr(self.inner, operation)
        if operation == "list":
            return call

        async def request(key, *args):
            if self.fails(operation, key):
                raise StoreUnavailableError(f"{operation} of {key} fails")
            return await call(key, *args)

        return request


@pytest.mark.parametrize("operation", ["put", "put_if_match", "get"])
@pytest.mark.parametrize("part", ["database.json", "manifest.json", "/segments/"])
async def test_deletion_and_its_undoing_may_fail_anywhere_and_be_repeated(tmp_path, operation, part):
    store = Failing(MemoryStore())
    async with node_on(tmp_path, store, **BY_HAND) as node:
        await node.databases.create("a")
        await forked(node, x="1")
        for act, there in ((node.branches.delete, False), (node.branches.undelete, True)):
            store.fails = lambda o, key: o == operation and part in key
            try:
                await act("a", "f")
            except MemoturnError:
                store.fails = lambda _operation, _key: False
                await act("a", "f")
            store.fails = lambda _operation, _key: False
            assert [row.name for row in await node.branches.list("a")] == (["f"] if there else [])
        assert (await contents(node, "f"))["x"] == "1"


# ---- databases


async def test_deleted_database_frees_its_name_at_once_and_goes_after_its_grace(node, store, clock):
    await forked(node, x="1")
    old = (await node.databases.get("a")).uuid
    before = set(await keys(store, old))
    await node.databases.delete("a")
    with pytest.raises(DatabaseNotFoundError):
        await node.databases.get("a")
    new = await node.databases.create("a")

    assert new.uuid != old
    assert await contents(node) == {}
    await (await node.profile("a")).write(put("main", "new"), durability=Durability.DURABLE)
    await pass_time(node, clock, DAY_S - 600)
    assert set(await keys(store, old)) >= before
    await pass_time(node, clock, 1800)

    assert await keys(store, old) == []
    assert await contents(node) == {"main": "new"}
    assert node.metrics.databases_purged._value.get() == 1


async def test_lost_catalog_brings_no_deleted_database_or_branch_back_and_purges_them_still(
    tmp_path, store, clock
):
    async with node_on(tmp_path / "1", store, clock=clock) as node:
        for name in ("a", "b"):
            await node.databases.create(name)
            await (await node.profile(name)).write(put("main", name), durability=Durability.DURABLE)
        await forked(node, x="1")
        old = (await node.databases.get("b")).uuid
        await node.catalog_export.export()
        await node.databases.delete("b")
        await node.branches.delete("a", "f")

    async with node_on(tmp_path / "2", store, clock=clock, **LONG_OPEN) as node:
        assert [database.name for database in await node.databases.list()] == ["a"]
        assert await node.branches.list("a") == []
        await node.branches.undelete("a", "f")
        assert (await contents(node, "f"))["x"] == "1"
        await node.branches.delete("a", "f")
        await pass_time(node, clock, DAY_S + 3 * GRACE_S)
        assert await keys(store, old) == []
        assert len(await keys(store, "manifest.json")) == 1


async def test_deletion_that_could_not_be_noted_leaves_the_database_whole(tmp_path):
    store = Failing(MemoryStore())
    async with node_on(tmp_path, store, **BY_HAND) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(put("main", "1"))
        store.fails = lambda operation, key: operation == "put_if_match" and key.endswith("database.json")

        with pytest.raises(RetryableError):
            await node.databases.delete("a")
        assert await contents(node) == {"main": "1"}
        store.fails = lambda _operation, _key: False
        await node.databases.delete("a")

        assert await node.databases.list() == []


# ---- forks that are late, or cut off


class Acting:
    """A store that lets a test act before the first request that it waits for."""

    def __init__(self, inner):
        self.inner = inner
        self.waits_for = lambda operation, key: False
        self.act = None

    def __getattr__(self, operation):
        call = getattr(self.inner, operation)
        if operation == "list":
            return call

        async def request(key, *args):
            if self.act is not None and self.waits_for(operation, key):
                act, self.act = self.act, None
                await act()
            return await call(key, *args)

        return request


LATE = {
    "its entry": lambda operation, key: operation == "put_if_match" and key.endswith("database.json"),
    "its pin": lambda operation, key: operation == "put_if_match" and key.endswith("manifest.json"),
    "its manifest": lambda operation, key: operation == "put_if_absent" and key.endswith("manifest.json"),
}


@pytest.mark.parametrize("late", LATE)
async def test_fork_that_takes_too_long_is_not_promised_and_can_be_made_again(tmp_path, clock, late):
    store = Acting(MemoryStore(clock))
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(put("main", "1"), durability=Durability.DURABLE)

        async def be_late():
            clock.ahead_s += FORK_DEADLINE_S + 1

        store.waits_for, store.act = LATE[late], be_late
        with pytest.raises(RetryableError, match="took over 60 s"):
            await node.branches.create("a", "f")
        assert store.act is None

        if late != "its manifest":
            await node.branches.create("a", "f")
        assert await contents(node, "f") == {"main": "1"}


async def test_fork_that_maintenance_gave_up_meanwhile_says_so_and_is_made_anew(tmp_path, clock):
    store = Acting(MemoryStore(clock))
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(put("main", "1"), durability=Durability.DURABLE)
        uuid = (await node.databases.get("a")).uuid

        async def give_up():
            clock.ahead_s += GRACE_S + 1
            await node.collector.collect(uuid)
            clock.ahead_s -= GRACE_S + 1  # as seen by a node whose clock stood still

        store.waits_for, store.act = LATE["its manifest"], give_up
        with pytest.raises(RetryableError, match="given up"):
            await node.branches.create("a", "f")
        assert await node.branches.list("a") == []

        await node.branches.create("a", "f")
        assert await contents(node, "f") == {"main": "1"}
        register = registers.decode((await store.get(layout.register_key(uuid))).data)
        assert sum(registers.is_deleted_name(name) for name in register.branches) == 1


async def test_half_made_fork_goes_when_its_time_is_up_although_the_node_was_killed(tmp_path, clock):
    store = Failing(MemoryStore(clock))
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(put("main", "1"), durability=Durability.DURABLE)
        store.fails = LATE["its manifest"]
        with pytest.raises(StoreUnavailableError):
            await node.branches.create("a", "f")

    store.fails = lambda _operation, _key: False
    async with node_on(tmp_path, store, clock=clock, **LONG_OPEN) as node:
        assert [row.name for row in await node.branches.list("a")] == ["f"]
        await pass_time(node, clock, 3 * GRACE_S)
        assert await node.branches.list("a") == []
        await pass_time(node, clock, 3 * GRACE_S)
        assert (await manifest_of(store, await node.profile("a"))).pins == {}
        assert len(await keys(store, "manifest.json")) == 1
