"""Quotas and usage in every catalog."""

import asyncio

import pytest
from test_catalog_contract import catalog as catalog  # noqa: PLC0414 - the fixture of every catalog
from test_catalog_contract import database

from memoturnd.core.limits import NO_QUOTAS, Owner, Quotas
from memoturnd.errors import AlreadyExistsError, OverloadedError
from memoturnd.seams.catalog import Cap, Size, Totals, UsageDay, Use

APP, TENANT, ACME = Owner("default", "app"), Owner("default"), Owner("acme", "app")
DAY, NEXT = "2026-11-27", "2026-11-28"


def use(name, day=DAY, requests=1, reads=0, writes=0, recalls=0, owner=APP):
    return Use(owner, name, day, requests, reads, writes, recalls)


def size(db, shipped=0, stored=0, *, day=DAY, is_whole=False, memories=None):
    return Size(db.uuid, day, shipped, stored, is_whole, memories)


async def made(catalog, *names, **values):
    rows = [database(name, **values) for name in names]
    for row in rows:
        await catalog.create_database(row)
    return rows


async def test_quotas_are_kept_whole_and_replaced_whole(catalog):
    assert await catalog.quotas_of(APP) == NO_QUOTAS
    one = Quotas(requests_per_s=0.5, writes_per_s=0.0, bytes=2**53 - 1, databases=0, memories=7)

    await catalog.put_quotas(APP, one)
    await catalog.put_quotas(TENANT, Quotas(bytes=1))

    assert await catalog.quotas_of(APP) == one
    assert await catalog.quotas_of(TENANT) == Quotas(bytes=1)
    assert await catalog.quotas_of(ACME) == NO_QUOTAS
    await catalog.put_quotas(APP, Quotas(databases=1))
    assert await catalog.quotas_of(APP) == Quotas(databases=1)


async def test_quotas_are_listed_in_pages_by_tenant_and_namespace(catalog):
    for owner in (APP, ACME, TENANT, Owner("acme", "zoo")):
        await catalog.put_quotas(owner, Quotas(bytes=1))

    first = await catalog.list_quotas(limit=2)
    rest = await catalog.list_quotas(after=first[-1][0], limit=9)

    assert [owner for owner, _ in first + rest] == [ACME, Owner("acme", "zoo"), TENANT, APP]


async def test_a_change_of_quotas_is_told_once_to_whoever_asks_for_what_came_since(catalog):
    await catalog.put_quotas(APP, Quotas(bytes=1))
    await catalog.put_quotas(ACME, Quotas(bytes=2))
    seen = await catalog.quotas_changed(0)

    await catalog.put_quotas(APP, Quotas(bytes=3))
    since = await catalog.quotas_changed(seen[-1].change)

    assert [(change.owner, change.quotas.bytes) for change in seen] == [(APP, 1), (ACME, 2)]
    assert [(change.owner, change.quotas.bytes) for change in since] == [(APP, 3)]
    assert [change.owner for change in await catalog.quotas_changed(0, limit=1)] == [ACME]
    assert await catalog.quotas_changed(since[-1].change) == []


async def test_a_cap_counts_what_is_live_in_its_namespace_or_tenant(catalog):
    await made(catalog, "app--a", "app--b", "notes", "apple--a", "app2--a")
    caps = (Cap(APP, 3), Cap(TENANT, 99))

    await catalog.create_database(database("app--c"), caps)
    with pytest.raises(OverloadedError, match="namespace app may have 3 databases") as caught:
        await catalog.create_database(database("app--d"), caps)
    assert caught.value.limit == "databases"
    with pytest.raises(OverloadedError, match="tenant default may have 6"):
        await catalog.create_database(database("more"), (Cap(TENANT, 6),))
    await catalog.delete_database(database("app--a").uuid, at_ms=1)
    await catalog.create_database(database("app--d"), caps)


async def test_a_taken_name_is_taken_whatever_the_cap(catalog):
    await made(catalog, "app--a")

    with pytest.raises(AlreadyExistsError):
        await catalog.create_database(database("app--a", 5), (Cap(APP, 1),))


async def test_of_many_that_are_created_at_once_no_more_are_than_the_cap_allows(catalog):
    async def create(number):
        await catalog.create_database(database(f"app--p{number}", number + 1), (Cap(APP, 5), Cap(TENANT, 50)))

    outcomes = await asyncio.gather(*map(create, range(30)), return_exceptions=True)

    assert sum(outcome is None for outcome in outcomes) == 5
    assert {type(outcome) for outcome in outcomes} == {type(None), OverloadedError}
    assert (await catalog.totals_of(APP)).databases == 5


async def test_usage_is_added_by_day_to_the_database_and_its_namespace(catalog):
    [a, b] = await made(catalog, "app--a", "app--b")

    await catalog.add_usage(
        [use("app--a", requests=3, reads=2, writes=1, recalls=1), use("app--b", requests=5)]
    )
    await catalog.add_usage(
        [use("app--a", requests=1), use("app--a", day=NEXT, requests=7), use("", requests=2)]
    )

    days = await catalog.usage_of_database(a.uuid, DAY, NEXT, limit=9)
    assert days == [UsageDay(DAY, 4, 2, 1, 1, 0, 0, 0), UsageDay(NEXT, 7, 0, 0, 0, 0, 0, 0)]
    assert [day.requests for day in await catalog.usage_of_database(b.uuid, DAY, NEXT, limit=9)] == [5]
    assert [day.requests for day in await catalog.usage_of(APP, DAY, NEXT, limit=9)] == [11, 7]
    assert [day.day for day in await catalog.usage_of(APP, NEXT, NEXT, limit=9)] == [NEXT]
    assert [day.day for day in await catalog.usage_of(APP, DAY, NEXT, limit=1)] == [DAY]
    assert await catalog.usage_of(ACME, DAY, NEXT, limit=9) == []


async def test_usage_of_a_database_that_is_gone_counts_for_its_namespace_alone(catalog):
    [a] = await made(catalog, "app--a")
    await catalog.add_usage([use("app--a")])
    await catalog.delete_database(a.uuid, at_ms=1)

    await catalog.add_usage([use("app--a"), use("app--never")])
    await catalog.add_sizes([size(a, 10, 10)])

    assert [day.requests for day in await catalog.usage_of_database(a.uuid, DAY, DAY, limit=9)] == [1]
    assert [day.requests for day in await catalog.usage_of(APP, DAY, DAY, limit=9)] == [3]
    assert await catalog.totals_of(APP) == Totals(0, 0, 0)
    await catalog.forget_database(a.uuid)
    assert await catalog.usage_of_database(a.uuid, DAY, DAY, limit=9) == []


async def test_sizes_grow_or_are_set_and_stand_in_the_days(catalog):
    [a, b] = await made(catalog, "app--a", "app--b")
    await made(catalog, "apple--a", "notes")

    await catalog.add_sizes([size(a, 100, 90, memories=4), size(b, 10, 10)])
    await catalog.add_sizes([size(a, 5, 5, day=NEXT)])
    assert await catalog.totals_of(APP) == Totals(2, 105, 4)
    assert await catalog.totals_of(TENANT) == Totals(4, 105, 4)

    await catalog.add_sizes([size(a, 1, 40, day=NEXT, is_whole=True, memories=3)])

    days = await catalog.usage_of_database(a.uuid, DAY, NEXT, limit=9)
    assert [(day.bytes_shipped, day.bytes_stored, day.memories) for day in days] == [(100, 90, 4), (6, 40, 3)]
    assert await catalog.totals_of(APP) == Totals(2, 50, 3)
    assert [day.bytes_shipped for day in await catalog.usage_of(APP, DAY, NEXT, limit=9)] == [110, 6]
    await catalog.add_usage([use("app--a", day="2026-11-29")])
    [last] = await catalog.usage_of_database(a.uuid, "2026-11-29", "2026-11-29", limit=9)
    assert (last.bytes_stored, last.memories) == (40, 3)


async def test_what_a_namespace_stores_is_carried_over_to_its_next_day(catalog):
    await catalog.add_usage([use("")])
    await catalog.put_totals(APP, DAY, Totals(1, 77, 8))
    await catalog.put_totals(APP, NEXT, Totals(1, 99, 9))

    await catalog.add_usage([use("", day=NEXT)])

    days = await catalog.usage_of(APP, DAY, NEXT, limit=9)
    assert [(day.bytes_stored, day.memories) for day in days] == [(77, 8), (77, 8)]


async def test_old_days_are_pruned_bit_by_bit(catalog):
    [a] = await made(catalog, "app--a")
    await catalog.add_usage([use("app--a", day=f"2026-01-{day:02}") for day in range(1, 11)])

    pruned = [await catalog.prune_usage("2026-01-08", limit=3) for _ in range(4)]

    assert pruned == [6, 6, 2, 0]
    assert len(await catalog.usage_of_database(a.uuid, "2026-01-01", DAY, limit=99)) == 3
    assert len(await catalog.usage_of(APP, "2026-01-01", DAY, limit=99)) == 3


async def test_the_export_hears_of_quotas(catalog):
    await catalog.put_quotas(APP, Quotas(bytes=5))
    await catalog.put_quotas(APP, NO_QUOTAS)

    first, second = [export for export in await catalog.pending_exports() if export.kind == "quotas"]

    assert (first.id, second.id, second.body) == ("default/app", "default/app", None)
    assert b'"bytes":5' in first.body
