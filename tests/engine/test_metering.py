"""Usage: counted in memory, bounded, flushed by adding, and what a crash, a stop and a deletion make of it."""

import pytest
from harness import HandClock, ShiftedClock, node_on

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.core.durability import Durability
from memoturnd.core.limits import Defaults, Owner, Quotas
from memoturnd.engine import metering
from memoturnd.engine.accounts import Accounts
from memoturnd.engine.metering import Meter
from memoturnd.errors import DatabaseNotFoundError, RetryableError
from memoturnd.metrics import Metrics
from memoturnd.seams.catalog import Database, Totals
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import memories

APP, TENANT = Owner("default", "app"), Owner("default")
UUID = "a" * 32
FIRST, LAST = "0001-01-01", "9999-12-31"


@pytest.fixture
async def catalog():
    catalog = SqliteCatalog(":memory:")
    await catalog.create_database(Database("app--a", UUID, "b" * 16, 1))
    yield catalog
    await catalog.close()


@pytest.fixture
def clock():
    return HandClock(1_800_000_000.0)


@pytest.fixture
def meter(catalog, clock):
    async def nobody(name):
        raise DatabaseNotFoundError(name)

    return Meter(catalog, clock, Metrics(), flush_s=5.0, retention_days=30, main_of=nobody)


def served(meter, owner=APP, database="app--a", count=1, **what):
    for _ in range(count):
        meter.served(owner, database, **{"wrote": False, "recalled": False, **what})


async def days(catalog, uuid=UUID):
    return await catalog.usage_of_database(uuid, FIRST, LAST, limit=1000)


async def test_counters_are_flushed_when_their_time_has_come_and_not_before(meter, catalog, clock):
    served(meter, count=3, recalled=True)
    served(meter, wrote=True)

    clock.at_s += 4.9
    await meter.tick()
    assert await days(catalog) == []
    clock.at_s += 0.2
    await meter.tick()
    [day] = await days(catalog)
    assert (day.requests, day.reads, day.writes, day.recalls) == (4, 3, 1, 3)
    await meter.flush()
    assert await days(catalog) == [day]
    assert meter._counters == {}


async def test_much_that_waits_is_flushed_at_once(meter, catalog, monkeypatch):
    monkeypatch.setattr(metering, "COUNTERS_KEPT", 10)
    for number in range(4):
        served(meter, database=f"app--{number}")
    await meter.tick()
    assert len(meter._counters) == 4

    served(meter)
    await meter.tick()

    assert meter._counters == {}
    assert (await catalog.usage_of(APP, FIRST, LAST, limit=9))[0].requests == 5


async def test_what_is_counted_while_a_flush_is_under_way_is_not_lost(meter, catalog, monkeypatch):
    served(meter)
    real = catalog.add_usage

    async def slow(rows):
        served(meter, count=2)
        meter.put(f"v1/{UUID}/x", 5, True)
        await real(rows)

    monkeypatch.setattr(catalog, "add_usage", slow)
    await meter.flush()
    monkeypatch.undo()
    await meter.flush()

    assert (await days(catalog))[0].requests == 3
    assert (await days(catalog))[0].bytes_stored == 5


async def test_days_are_those_of_utc_when_the_request_was_served(meter, catalog, clock):
    clock.at_s = 1_800_000_000.0 // 86400 * 86400 - 1
    served(meter)
    clock.at_s += 2
    served(meter, count=2)

    await meter.flush()

    assert [(day.day, day.requests) for day in await days(catalog)] == [("2027-01-14", 1), ("2027-01-15", 2)]


async def test_while_the_catalog_is_down_counters_wait_within_their_bound_and_none_is_lost(
    meter, catalog, clock, monkeypatch
):
    monkeypatch.setattr(metering, "COUNTERS_KEPT", 10)

    async def down(_rows):
        raise RetryableError("down")

    with monkeypatch.context() as broken:
        broken.setattr(catalog, "add_usage", down)
        for number in range(200):
            served(meter, Owner("default", f"n{number % 4}"), f"n{number % 4}--{number}")
            clock.at_s += 1
            await meter.tick()
        assert len(meter._counters) <= 30

    await meter.flush()

    seen = [(await catalog.usage_of(Owner("default", f"n{n}"), FIRST, LAST, limit=9))[0] for n in range(4)]
    assert [day.requests for day in seen] == [50] * 4


async def test_namespaces_beyond_the_bound_are_counted_for_their_tenant_and_then_told(meter, monkeypatch):
    monkeypatch.setattr(metering, "COUNTERS_KEPT", 10)
    for number in range(100):
        served(meter, Owner("default", f"n{number}"), f"n{number}--a")

    assert len(meter._counters) == 21
    assert meter._counters[metering.Counted(TENANT, "", meter.today)].requests == 80
    for number in range(30):
        served(meter, Owner(f"t{number}", "n"), "n--a")
    assert len(meter._counters) == 30
    assert meter._metrics.usage_uncounted._value.get() == 21


async def test_sizes_grow_with_what_is_put_and_are_set_by_a_listing(meter, catalog):
    meter.put(f"v1/{UUID}/branches/x/segments/1", 100, True)
    meter.put(f"v1/{UUID}/branches/x/manifest.json", 30, False)
    meter.put("v1/_catalog/changes/1", 1000, True)
    await meter.flush()
    assert await catalog.totals_of(APP) == Totals(1, 100, 0)

    meter.put(f"v1/{UUID}/branches/x/segments/2", 7, True)
    meter.listing(UUID)
    meter.put(f"v1/{UUID}/branches/x/segments/3", 50, True)
    await meter.flush()
    assert await catalog.totals_of(APP) == Totals(1, 157, 0)
    meter.put(f"v1/{UUID}/branches/x/segments/4", 5, True)
    meter.listed(UUID, 80)
    await meter.flush()
    assert await catalog.totals_of(APP) == Totals(1, 135, 0)
    meter.listing(UUID)
    meter.listed(UUID, None)
    await meter.flush()

    assert await catalog.totals_of(APP) == Totals(1, 135, 0)
    assert meter._growth == {}
    [day] = await days(catalog)
    assert (day.bytes_shipped, day.bytes_stored) == (192, 135)


async def test_old_days_are_pruned(meter, catalog, clock):
    served(meter)
    await meter.flush()
    clock.at_s += 29 * 86400
    served(meter)
    await meter.tick()
    assert len(await days(catalog)) == 2

    clock.at_s += 2 * 86400
    await meter.tick()

    assert len(await days(catalog)) == 1


# ---- a whole node


async def test_a_node_counts_memories_bytes_and_forgets_none_at_its_stop(tmp_path):
    store = MemoryStore()
    async with node_on(tmp_path, store, USAGE_FLUSH_S="3600") as node:
        await node.databases.ensure_profile("app--a")
        profile = await node.profile("app--a")
        facts = [{"type": "fact", "topic_key": f"t{n}", "summary": "s", "content": n} for n in range(5)]
        await memories.ingest(
            profile, memories.parse_items({"memories": facts}), durability=Durability.DURABLE
        )
        node.meter.changed("app--a")
        node.meter.served(APP, "app--a", wrote=True, recalled=False)
        await node.meter._count_memories()
        uuid = (await node.databases.get("app--a")).uuid
    catalog = SqliteCatalog(tmp_path / "registry.db")

    [day] = await days(catalog, uuid)
    assert (day.writes, day.memories) == (1, 5)
    stored = sum([info.size_bytes async for info in store.list(f"v1/{uuid}/")])
    assert day.bytes_stored == pytest.approx(stored, abs=2000)
    assert day.bytes_shipped >= day.bytes_stored > 0
    await catalog.close()


async def test_what_the_collector_lists_corrects_what_is_stored(tmp_path):
    store, clock = MemoryStore(), ShiftedClock()
    async with node_on(tmp_path, store, clock=clock, USAGE_FLUSH_S="3600") as node:
        database = await node.databases.ensure_profile("app--a")
        profile = await node.profile("app--a")
        await profile.write(
            lambda conn, now_ms: (conn.execute("SELECT 1").fetchall(), True), durability=Durability.DURABLE
        )
        await store.put(f"v1/{database.uuid}/branches/{database.main_branch_id}/segments/garbage", b"x" * 500)
        await node.collector.collect(database.uuid)
        await node.meter.flush()
        catalog = node.accounts._catalog
        stored = sum([info.size_bytes async for info in store.list(f"v1/{database.uuid}/")])

        assert (await catalog.totals_of(APP)).bytes_stored == pytest.approx(stored, abs=500)


async def test_quotas_that_one_node_sets_hold_at_another_within_seconds(tmp_path):
    catalogs = [SqliteCatalog(tmp_path / "shared.db") for _ in range(2)]
    here, there = (Accounts(catalog, ShiftedClock(), Metrics(), Defaults()) for catalog in catalogs)
    assert (await there.get(APP)).quotas == Quotas()

    await here.set(APP, Quotas(writes_per_s=1.0, bytes=5))
    await there.refresh()

    account = there.known(APP)
    assert account.quotas == Quotas(writes_per_s=1.0, bytes=5)
    assert await there.caps(APP) == ()
    await here.set(APP, Quotas())
    await there.refresh()
    assert account.quotas == Quotas()
    for catalog in catalogs:
        await catalog.close()


async def test_usage_of_many_databases_goes_in_transactions_that_are_short(meter, catalog, monkeypatch):
    sent, plain = [], catalog.add_usage

    async def add_usage(uses):
        sent.append(len(uses))
        await plain(uses)

    monkeypatch.setattr(catalog, "add_usage", add_usage)
    for number in range(120):
        served(meter, database=f"app--{number}")
    await meter.flush()
    assert sent == [50, 50, 20]
    assert meter._counters == {}
