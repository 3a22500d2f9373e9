"""Maintenance: what is due is done, in a node and by itself; what fails comes again and holds nobody up."""

import asyncio
from types import SimpleNamespace

import pytest
from family import MovedClock
from harness import ShiftedClock, node_on
from profiles import BY_HAND, keys, put

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.core.durability import Durability
from memoturnd.engine.agenda import Agenda
from memoturnd.engine.maintenance import AT_ONCE, CLAIM_S, Maintenance
from memoturnd.errors import CorruptionError, RetryableError
from memoturnd.metrics import Metrics
from memoturnd.seams.catalog import COLLECT, RETENTION, Chore
from memoturnd.stores.memory import MemoryStore

INTERVAL_S = 600.0


class Desk:
    """Maintenance without a node: chores by hand, on a clock that only the test moves."""

    def __init__(self, work):
        self.clock = MovedClock()
        self.catalog = SqliteCatalog(":memory:")
        self.metrics = Metrics()
        self.agenda = Agenda(self.clock, interval_s=INTERVAL_S, of_branches=(RETENTION,))
        self.done = []
        self.busy = False
        self.work = work
        self.maintenance = Maintenance(
            self.catalog,
            self.agenda,
            {COLLECT: self.do},
            clock=self.clock,
            metrics=self.metrics,
            is_busy=lambda: self.busy,
        )

    async def do(self, chore):
        self.done.append((chore.db_uuid, self.clock.at_s))
        return await self.work(chore)

    async def want(self, *uuids):
        for uuid in uuids:
            await self.catalog.schedule(Chore(COLLECT, uuid), self.clock.now_ms())

    async def waiting(self):
        rows = self.catalog.backend.connection.execute(
            "SELECT db_uuid, due_at FROM chores ORDER BY 1"
        ).fetchall()
        return {uuid: due_ms / 1000 - self.clock.at_s for uuid, due_ms in rows}

    def passes(self, outcome):
        return self.metrics.maintenance_passes[outcome]._value.get()


async def nothing(_chore):
    return None


async def test_chore_is_done_when_due_and_again_when_it_says_so():
    async def once_more(_chore):
        return desk.clock.now_ms() + 60_000 if len(desk.done) == 1 else None

    desk = Desk(once_more)
    await desk.want("a")

    assert await desk.maintenance.run_due() == 1
    assert await desk.waiting() == {"a": 60.0}
    desk.clock.at_s += 59
    assert await desk.maintenance.run_due() == 0
    desk.clock.at_s += 1
    assert await desk.maintenance.run_due() == 1
    assert await desk.waiting() == {}
    assert desk.passes("done") == 2
    assert desk.metrics.maintenance_last_success._value.get() == desk.clock.at_s


async def test_failures_come_again_later_each_time_and_hold_up_nobody():
    errors = {"a": CorruptionError("a is damaged"), "b": RetryableError("store"), "c": ValueError("a bug")}

    async def fail(chore):
        if chore.db_uuid in errors:
            raise errors[chore.db_uuid]

    desk = Desk(fail)
    await desk.want("a", "b", "c", "d", "e")

    assert await desk.maintenance.run_due() == 5
    assert await desk.waiting() == {"a": 60.0, "b": 60.0, "c": 60.0}
    assert (desk.passes("stopped"), desk.passes("failed"), desk.passes("done")) == (1, 2, 2)
    assert desk.metrics.maintenance_stopped._value.get() == 1
    del errors["c"]
    pauses = []
    for _ in range(14):
        desk.clock.at_s += (await desk.waiting())["a"]
        await desk.maintenance.run_due()
        pauses.append((await desk.waiting())["a"])
    assert pauses[:3] == [120.0, 240.0, 480.0]
    assert pauses[-1] == 86_400.0

    errors.clear()
    desk.clock.at_s += 86_400
    await desk.maintenance.run_due()
    assert await desk.waiting() == {}
    assert desk.metrics.maintenance_stopped._value.get() == 0


async def test_chores_run_a_few_at_a_time():
    running, most = 0, 0

    async def slowly(_chore):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    desk = Desk(slowly)
    await desk.want(*(f"{n:02d}" for n in range(10)))

    assert await desk.maintenance.run_due() == 10
    assert most == AT_ONCE


async def test_maintenance_waits_for_foreground_work_but_not_for_ever():
    desk = Desk(nothing)
    desk.busy = True
    await desk.want("a")
    before_s = desk.clock.at_s

    await desk.maintenance.run_due()

    assert 30 <= desk.done[0][1] - before_s < 31


async def test_chore_that_a_stop_interrupts_is_due_at_once():
    desk = Desk(lambda _chore: asyncio.sleep(1000))
    await desk.want("a")
    task = asyncio.create_task(desk.maintenance.run_due())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await desk.waiting() == {"a": 0.0}


async def test_chore_of_a_node_that_died_passes_to_the_next_after_its_claim():
    desk = Desk(nothing)
    await desk.want("a")
    await desk.catalog.claim_due(desk.clock.now_ms(), until_ms=desk.clock.now_ms() + round(1000 * CLAIM_S))

    assert await desk.maintenance.run_due() == 0
    desk.clock.at_s += CLAIM_S
    assert await desk.maintenance.run_due() == 1


async def test_chore_that_a_node_was_at_when_it_was_killed_is_due_at_its_next_start(tmp_path):
    catalog = SqliteCatalog(tmp_path / "registry.db")
    await catalog.schedule(Chore(COLLECT, "a" * 32), 0)
    await catalog.claim_due(1, until_ms=2**52)
    await catalog.close()

    async with node_on(tmp_path, MemoryStore(), **BY_HAND) as node:
        assert (await chores(node))[(COLLECT, "a" * 32)] <= 0


async def test_chore_of_an_unknown_kind_is_left_to_nodes_that_know_it():
    desk = Desk(nothing)
    await desk.catalog.schedule(Chore("polish", "a"), 0)

    await desk.maintenance.run_due()

    assert await desk.waiting() == {"a": 86_400.0}
    assert desk.done == []


async def test_branch_that_changes_all_the_time_is_noted_once_in_half_an_interval():
    desk = Desk(nothing)
    for _ in range(1000):
        desk.agenda.changed("a", "b1")
        desk.agenda.changed("a", "b2")
    await desk.agenda.flush(desk.catalog)

    rows = desk.catalog.backend.connection.execute(
        "SELECT kind, branch_id, due_at FROM chores ORDER BY 1, 2"
    ).fetchall()
    due_ms = desk.clock.now_ms() + 600_000
    assert rows == [(COLLECT, "", due_ms), (RETENTION, "b1", due_ms), (RETENTION, "b2", due_ms)]
    assert len(desk.agenda._noted) == 2
    desk.clock.at_s += INTERVAL_S
    await desk.agenda.flush(desk.catalog)
    assert desk.agenda._noted == {}


async def test_notes_may_be_flushed_by_two_at_once():
    desk = Desk(nothing)
    schedule = desk.catalog.schedule

    async def slowly(chore, due_ms):
        await asyncio.sleep(0)
        await schedule(chore, due_ms)

    desk.catalog.schedule = slowly
    desk.agenda.changed("a", "b1")

    await asyncio.gather(*(desk.agenda.flush(desk.catalog) for _ in range(3)))

    assert await desk.waiting() == {"a": INTERVAL_S}


async def test_changes_after_a_pass_are_noted_again():
    desk = Desk(nothing)
    for _ in range(3):
        desk.agenda.changed("a", "b1")
        desk.clock.at_s += INTERVAL_S
        await desk.maintenance.run_due()
        desk.clock.at_s += INTERVAL_S - 1  # noted again within the interval, it would be lost
        await desk.maintenance.run_due()

    assert len(desk.done) == 3


# ---- in a node


async def chores(node):
    rows = node._services.catalog.backend.connection.execute(
        "SELECT kind, db_uuid, due_at FROM chores"
    ).fetchall()
    now_ms = node._services.clock.now_ms()
    return {(kind, uuid): (due_ms - now_ms) / 1000 for kind, uuid, due_ms in rows}


async def test_only_what_was_written_is_ever_looked_at(tmp_path):
    clock = ShiftedClock()
    async with node_on(tmp_path, MemoryStore(clock), clock=clock, **BY_HAND) as node:
        for name in ("idle", "read", "a"):
            await node.databases.create(name)
        node.maintenance._is_busy = lambda: False  # nor are ships that are put off here
        await (await node.profile("read")).read(lambda conn, _: conn.execute("SELECT 1").get)
        await node.maintenance.run_due()
        assert await chores(node) == {}

        await (await node.profile("a")).write(put("k", "1"), durability=Durability.DURABLE)
        await node.maintenance.run_due()

        uuid = (await node.databases.get("a")).uuid
        assert list(await chores(node)) == [(COLLECT, uuid), (RETENTION, uuid)]
        assert all(590 < due_s <= 600 for due_s in (await chores(node)).values())
        clock.ahead_s += 601
        await node.maintenance.run_due()
        assert (COLLECT, uuid) not in await chores(node), "nothing was left behind"
        for _ in range(40):
            clock.ahead_s += 86_400
            await node.maintenance.run_due()
        assert await chores(node) == {}, "and with nothing left to do it is not scheduled any more"
        assert node.metrics.maintenance_passes["done"]._value.get() < 10


async def test_running_node_collects_by_itself(tmp_path):
    clock = ShiftedClock()
    store = MemoryStore(clock)
    async with node_on(tmp_path, store, clock=clock, WARM_AFTER_S="9999", COLD_AFTER_S="9999") as node:
        await node.databases.create("a")
        profile = await node.profile("a")
        await profile.write(put("k", "1"), durability=Durability.DURABLE)
        orphan = f"v1/{profile.ref.database.uuid}/branches/{profile.ref.branch_id}/segments/orphan"
        await store.put(orphan, b"left behind")
        async with asyncio.timeout(20):
            while orphan in await keys(store):
                await asyncio.sleep(0.2)
                clock.ahead_s += 100


async def test_rebuilt_catalog_looks_at_every_database_once(tmp_path):
    clock = ShiftedClock()
    store = MemoryStore(clock)
    async with node_on(tmp_path / "1", store, clock=clock) as node:
        for name in ("a", "b"):
            await node.databases.create(name)
            await (await node.profile(name)).write(put("k", "1"), durability=Durability.DURABLE)
    async with node_on(tmp_path / "2", store, clock=clock) as node:
        assert sorted(kind for kind, _ in await chores(node)) == [COLLECT, COLLECT, RETENTION, RETENTION]
        clock.ahead_s += 601
        await node.maintenance.run_due()

        assert [kind for kind, _ in await chores(node) if kind == COLLECT] == []
        assert node.metrics.maintenance_passes["done"]._value.get() == 4


class Counting:
    """A store that counts listings."""

    def __init__(self, inner):
        self.inner = inner
        self.listings = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def list(self, prefix):
        self.listings += 1
        return self.inner.list(prefix)


async def test_nothing_is_listed_on_the_way_of_a_request(tmp_path):
    store = Counting(MemoryStore())
    async with node_on(tmp_path, store) as node:
        before = store.listings  # a start looks for databases that its catalog does not know
        await node.databases.create("a")
        profile = await node.profile("a")
        for number in range(3):
            await profile.write(put("k", str(number)), durability=Durability.DURABLE)
        await node.branches.create("a", "f")
        await node.branches.checkpoint("a", "main", "c")
        await node.branches.rewind("a", "main", "c")
        assert await node.tiers.evict(profile)
        await (await node.profile("a")).read(lambda conn, _: conn.execute("SELECT 1").get)
        await node.branches.delete("a", "f")
        await node.branches.undelete("a", "f")
        await node.databases.delete("a")

        assert store.listings == before


async def test_two_flushes_at_once_schedule_what_was_noted_and_keep_what_comes_meanwhile():
    """Guard: memoturnd.engine.agenda.Agenda.flush lets go of exactly the note that it scheduled."""
    clock = SimpleNamespace(now_ms=lambda: 1000)
    agenda = Agenda(clock, interval_s=1)
    scheduled, gate = [], asyncio.Event()

    async def schedule(chore, due_ms):
        await gate.wait()
        scheduled.append((chore, due_ms))

    agenda.let_go("d")
    flushes = [asyncio.create_task(agenda.flush(SimpleNamespace(schedule=schedule))) for _ in range(2)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*flushes)

    assert set(scheduled) == {(Chore(COLLECT, "d"), 2000)}
    await agenda.flush(SimpleNamespace(schedule=schedule))
    assert len(scheduled) == 2
