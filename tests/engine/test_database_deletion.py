"""Deleted databases that come back: whole, against the collector, other nodes and those who take the name."""

import contextlib

import pytest
from family import Watched
from harness import ShiftedClock, node_on
from profiles import BY_HAND, everything, keys, killed, put

from memoturnd.core import layout, manifest
from memoturnd.core import register as registers
from memoturnd.core.durability import Durability
from memoturnd.engine.database_deletion import DatabaseDeletion
from memoturnd.engine.registers import Registers
from memoturnd.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    ConflictError,
    DatabaseNotFoundError,
    MemoturnError,
    StoreUnavailableError,
)
from memoturnd.seams.catalog import Chore
from memoturnd.stores.memory import MemoryStore

DAY_S = 86_400.0
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
        yield await filled(node)


async def filled(node, name="a"):
    """Make a database with a fork, and what was committed and not shipped on both."""
    await node.databases.create(name)
    await (await node.profile(name)).write(put("main", "1"))
    await node.branches.create(name, "f")
    await (await node.profile(name, "f")).write(put("fork", "only local"))
    return node


async def contents(node, db="a", branch="main"):
    return (await (await node.profile(db, branch)).read(everything)).value


async def assert_whole(node, db="a"):
    assert await contents(node, db) == {"main": "1"}
    assert [row.name for row in await node.branches.list(db)] == ["f"]
    assert await contents(node, db, "f") == {"main": "1", "fork": "only local"}
    for branch in ("main", "f"):
        await (await node.profile(db, branch)).write(put("again", "1"), durability=Durability.DURABLE)
        await (await node.profile(db, branch)).write(
            lambda c, _: (c.execute("DELETE FROM __memoturn_kv WHERE k = 'again'"), True)
        )


def elsewhere(node):
    """Let the collector be another node's: it shares no lock with the operations of this one."""
    node.collector._register_file = node._services.register_file
    return node.collector


async def register_of(store, uuid):
    return registers.decode((await store.get(layout.register_key(uuid))).data)


async def deleted(node):
    return [row.uuid for row in await node.databases.list_deleted(tenant="default")]


async def pass_time(node, clock, seconds, step_s=600):
    node.maintenance._is_busy = lambda: False
    end_s = clock.ahead_s + seconds
    while clock.ahead_s < end_s:
        clock.ahead_s = min(end_s, clock.ahead_s + step_s)
        await node.maintenance.run_due()


# ---- coming back


async def test_undeleted_database_has_its_branches_and_all_that_was_committed(node, store):
    before = await node.databases.get("a")
    await node.databases.delete("a")
    with pytest.raises(DatabaseNotFoundError):
        await node.profile("a")
    assert await deleted(node) == [before.uuid]

    back = await node.databases.undelete("a")

    assert (back.uuid, back.name, back.deleted_at) == (before.uuid, "a", None)
    await assert_whole(node)
    assert await deleted(node) == []


async def test_branch_that_was_deleted_before_its_database_stays_deleted_and_can_come_back(node):
    await node.branches.delete("a", "f")
    await node.databases.delete("a")
    await node.databases.undelete("a")
    with pytest.raises(BranchNotFoundError):
        await node.profile("a", "f")
    await node.branches.undelete("a", "f")
    await assert_whole(node)


async def test_database_can_come_back_until_its_grace_has_passed_and_then_is_gone(node, store, clock):
    uuid = (await node.databases.get("a")).uuid
    await node.databases.delete("a")
    await pass_time(node, clock, DAY_S - 60)
    await node.databases.undelete("a")
    await assert_whole(node)

    await node.databases.delete("a")
    await pass_time(node, clock, DAY_S + 60)

    assert await deleted(node) == []
    assert await keys(store, uuid) == []
    for wanted in (None, uuid):
        with pytest.raises(DatabaseNotFoundError):
            await node.databases.undelete("a", wanted)


async def test_grace_of_a_database_that_is_deleted_again_begins_anew(node, store, clock):
    uuid = (await node.databases.get("a")).uuid
    await node.databases.delete("a")
    await pass_time(node, clock, DAY_S - 600)
    await node.databases.undelete("a")
    await node.databases.delete("a")
    await pass_time(node, clock, DAY_S - 600)
    assert (await register_of(store, uuid)).state == "deleted"
    await node.databases.undelete("a")
    await assert_whole(node)


async def test_name_that_was_taken_keeps_the_deleted_one_waiting_and_ids_tell_them_apart(node):
    first = (await node.databases.get("a")).uuid
    await node.databases.delete("a")
    second = (await node.databases.create("a")).uuid
    for wanted in (None, first):
        with pytest.raises(AlreadyExistsError):
            await node.databases.undelete("a", wanted)
    assert (await node.databases.undelete("a", second)).uuid == second  # it is there
    await node.databases.delete("a")

    assert sorted(await deleted(node)) == sorted([first, second])
    assert (await node.databases.undelete("a", first)).uuid == first
    await assert_whole(node)
    await node.databases.delete("a")
    assert (await node.databases.undelete("a")).uuid == first, "the one that was deleted last"
    with pytest.raises(DatabaseNotFoundError):
        await node.databases.undelete("b", first)


async def test_never_written_database_comes_back_and_is_written_then(tmp_path, store, clock):
    async with node_on(tmp_path, store, clock=clock) as node:
        uuid = (await node.databases.create("a")).uuid
        await node.databases.delete("a")
        assert (await node.databases.undelete("a")).uuid == uuid
        assert await contents(node) == {}
        await (await node.profile("a")).write(put("k", "1"), durability=Durability.DURABLE)
        await node.databases.delete("a")
        await node.databases.undelete("a")
        assert await contents(node) == {"k": "1"}


async def test_never_written_database_that_is_deleted_is_forgotten_after_its_grace(node, store, clock):
    uuid = (await node.databases.create("b")).uuid
    await node.databases.delete("b")
    await pass_time(node, clock, DAY_S + 60)
    assert await deleted(node) == []
    assert await keys(store, uuid) == []


async def test_first_write_that_races_a_deletion_cannot_make_the_database_live(node, store):
    late = await node.profile("b") if await node.databases.create("b") else None
    await node.databases.delete("b")
    late._gone = False  # as the branch of another node, which does not know
    with pytest.raises(DatabaseNotFoundError):
        await late.write(put("k", "late"))
    assert (await register_of(store, late.ref.database.uuid)).state == "deleted"


async def test_fork_whose_entry_is_not_settled_comes_back_too(node, store, clock):
    uuid = (await node.databases.get("a")).uuid
    assert (await register_of(store, uuid)).branches["f"].is_new
    await node.databases.delete("a")
    await node.collector.collect(uuid)
    await node.databases.undelete("a")
    await pass_time(node, clock, 7200)
    await assert_whole(node)


async def test_fork_that_comes_back_cut_off_is_brought_back_by_the_collector(node, store, clock):
    uuid = (await node.databases.get("a")).uuid
    await node.databases.delete("a")
    await node.collector.collect(uuid)
    await node._services.catalog.undelete_database(uuid)
    await node._services.register_file(uuid).update(registers.undelete)  # and here it was cut off
    node._registers.forget(uuid)
    with pytest.raises(BranchNotFoundError):
        await contents(node)
    for _ in range(2):
        await node.collector.collect(uuid)
    assert await contents(node) == {"main": "1"}
    entry = (await register_of(store, uuid)).branches["f"]
    standing = manifest.decode((await store.get(layout.manifest_key(uuid, entry.id))).data)
    assert standing.deleted_at is None
    await node.databases.undelete("a", uuid)


async def test_unshipped_commits_of_an_owner_elsewhere_come_back_with_it(tmp_path, store, clock):
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("k", "shipped"), durability=Durability.DURABLE)
        await profile.write(put("k", "not shipped"))
        uuid, catalog = profile.ref.database.uuid, node._services.catalog
        await node._services.register_file(uuid).update(
            lambda r: registers.mark_deleted(r, at_ms=clock.now_ms())
        )
        await catalog.delete_database(uuid, at_ms=clock.now_ms())  # as another node does
        node._registers.forget(uuid)
        await node.collector.collect(uuid)
        with pytest.raises(ConflictError):
            await profile.write(put("k", "late"), durability=Durability.DURABLE)

        await node.databases.undelete("a")

        assert await contents(node) == {"k": "late"}
        await profile.write(put("x", "more"), durability=Durability.DURABLE)


async def test_files_that_a_killed_node_left_are_found_by_id_whatever_the_name_is_now(tmp_path, store, clock):
    async with killed(tmp_path / "1", store, tmp_path / "2", clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await node.databases.create("a")
        await (await node.profile("a")).write(put("k", "not shipped"))
        uuid = (await node.databases.get("a")).uuid
        catalog = node._services.catalog
        await catalog.delete_database(uuid, at_ms=clock.now_ms())
        await node._services.register_file(uuid).update(
            lambda r: registers.mark_deleted(r, at_ms=clock.now_ms())
        )
        await node.databases.create("a")
    async with node_on(tmp_path / "2", store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        assert await contents(node) == {}
        await node.databases.delete("a")
        await node.databases.undelete("a", uuid)
        assert await contents(node) == {"k": "not shipped"}


# ---- cut off, and raced


class Cut:
    """Lets every request from the n-th on fail."""

    def __init__(self, inner):
        self.inner, self.left = inner, 10**9

    def _step(self):
        self.left -= 1
        if self.left < 0:
            raise StoreUnavailableError("cut off")

    def __getattr__(self, name):
        async def request(*args):
            self._step()
            return await getattr(self.inner, name)(*args)

        return request

    async def list(self, prefix):
        self._step()
        async for info in self.inner.list(prefix):
            yield info


@pytest.mark.parametrize("at", range(24))
async def test_deletion_and_its_undoing_may_be_cut_off_anywhere_and_are_repeated(tmp_path, clock, at):
    store = Cut(MemoryStore(clock))
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await filled(node)
        uuid = (await node.databases.get("a")).uuid
        for act, is_there in ((node.databases.delete, False), (node.databases.undelete, True)):
            store.left = at
            try:
                await act("a")
            except MemoturnError:
                store.left = 10**9
                with contextlib.suppress(DatabaseNotFoundError, AlreadyExistsError):
                    await act("a")  # unless only what comes behind the answer was cut off
            store.left = 10**9
            state = (await register_of(store, uuid)).state
            assert state == ("live" if is_there else "deleted")
            assert await deleted(node) == ([] if is_there else [uuid])
            await node.collector.collect(uuid)
        await assert_whole(node)


@pytest.mark.parametrize("is_over", [False, True], ids=["within its grace", "at its end"])
@pytest.mark.parametrize("at", range(1, 16))
async def test_a_pass_of_the_collector_between_any_two_steps_of_an_undeletion(tmp_path, clock, at, is_over):
    inner = MemoryStore(clock)
    store = Watched(inner)
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await filled(node)
        uuid = (await node.databases.get("a")).uuid
        await node.databases.delete("a")
        await node.collector.collect(uuid)
        clock.ahead_s += DAY_S + 1 if is_over else 60

        collector = elsewhere(node)

        async def collect():
            await collector.collect(uuid)

        store.before = {store.requests + at: collect}
        try:
            await node.databases.undelete("a")
        except DatabaseNotFoundError:
            assert is_over
            await node.collector.collect(uuid)
            assert await keys(inner, uuid) == []
            assert await deleted(node) == await node.databases.list() == []
        else:
            store.before = {}
            await pass_time(node, clock, 2 * DAY_S, step_s=7200)
            await assert_whole(node)


@pytest.mark.parametrize("is_over", [False, True], ids=["within its grace", "at its end"])
@pytest.mark.parametrize("at", range(1, 16))
async def test_an_undeletion_between_any_two_steps_of_the_collector(tmp_path, clock, at, is_over):
    inner = MemoryStore(clock)
    store = Watched(inner)
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await filled(node)
        uuid = (await node.databases.get("a")).uuid
        await node.databases.delete("a")
        clock.ahead_s += DAY_S + 1 if is_over else 60
        outcomes = []

        async def undelete():
            try:
                await node.databases.undelete("a")
                outcomes.append("back")
            except DatabaseNotFoundError:
                outcomes.append("gone")

        collector = elsewhere(node)
        store.before = {store.requests + at: undelete}
        await collector.collect(uuid)
        store.before = {}
        for _ in range(2):
            await node.collector.collect(uuid)
        if outcomes == ["back"]:
            await pass_time(node, clock, 2 * DAY_S, step_s=7200)
            await assert_whole(node)
        elif is_over:
            assert await keys(inner, uuid) == []
            assert await deleted(node) == await node.databases.list() == []


@pytest.mark.parametrize("at", range(1, 16))
async def test_somebody_takes_the_name_or_deletes_it_between_any_two_steps_of_an_undeletion(
    tmp_path, clock, at
):
    for act in ("create", "delete"):
        store = Watched(MemoryStore(clock))
        async with node_on(tmp_path / act, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
            await filled(node)
            uuid = (await node.databases.get("a")).uuid
            await node.databases.delete("a")

            async def other(node=node, act=act, uuid=uuid):
                try:
                    if act == "create":
                        await node.databases.create("a")
                    else:  # as another node does: its locks are its own
                        services = node._services
                        there = DatabaseDeletion(services, node.tiers, Registers(services))
                        await there.delete(await node.databases.get("a"))
                except (AlreadyExistsError, DatabaseNotFoundError):
                    pass

            store.before = {store.requests + at: other}
            with contextlib.suppress(AlreadyExistsError, ConflictError):
                await node.databases.undelete("a")
            store.before = {}
            live = [row.uuid for row in await node.databases.list()]
            state = (await register_of(store, uuid)).state
            assert len(live) <= 1
            assert (uuid in live) is (state == "live"), (act, live, state)
            assert await deleted(node) == ([] if uuid in live else [uuid])
            if uuid not in live:
                for row in await node.databases.list():
                    await node.databases.delete(row.name)
                await node.databases.undelete("a", uuid)
            await assert_whole(node)


@pytest.mark.parametrize("at", range(1, 12))
async def test_an_undeletion_elsewhere_between_any_two_steps_of_a_deletion(tmp_path, clock, at):
    store = Watched(MemoryStore(clock))
    async with node_on(tmp_path, store, clock=clock, **BY_HAND, **LONG_OPEN) as node:
        await filled(node)
        database, services = await node.databases.get("a"), node._services
        there = DatabaseDeletion(services, node.tiers, Registers(services))

        async def undelete():
            if await there.is_half_back(database):
                await there.undelete(database)

        store.before = {store.requests + at: undelete}
        await node.databases.delete("a")
        store.before = {}
        assert (await register_of(store, database.uuid)).state == "deleted"
        assert await deleted(node) == [database.uuid]
        await node.databases.undelete("a")
        await assert_whole(node)


async def test_an_undeletion_elsewhere_before_the_catalog_has_heard_of_the_deletion(node, store):
    database, services = await node.databases.get("a"), node._services
    there = DatabaseDeletion(services, node.tiers, Registers(services))
    plain = services.catalog.delete_database

    async def delete_database(uuid, *, at_ms):
        services.catalog.delete_database = plain
        await there.undelete(database)
        await plain(uuid, at_ms=at_ms)

    services.catalog.delete_database = delete_database
    await node.databases.delete("a")
    assert (await register_of(store, database.uuid)).state == "deleted"
    assert await deleted(node) == [database.uuid]
    await node.databases.undelete("a")
    await assert_whole(node)


async def test_collecting_is_scheduled_until_a_deleted_database_is_final(node, clock):
    uuid = (await node.databases.get("a")).uuid
    await node.databases.delete("a")
    claimed = await node._services.catalog.claim_due(clock.now_ms() + 1, until_ms=clock.now_ms() + 10_000)
    assert Chore("collect", uuid) in [c.chore for c in claimed]
