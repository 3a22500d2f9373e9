"""A lost catalog made anew from the object store, in every catalog: what comes back, row by row, and what is told."""

import msgspec
import pytest
import sqlalchemy as sa
from harness import node_on
from profiles import put
from test_catalog_contract import catalog as catalog  # noqa: PLC0414 - the fixture of every catalog

from control_plane import schema
from control_plane.rebuild import told
from memoturnd.core import database_settings, layout
from memoturnd.core import register as registers
from memoturnd.core.durability import Durability
from memoturnd.core.limits import Owner, Quotas
from memoturnd.engine.rebuild import Rebuild
from memoturnd.replication.archive import Archive
from memoturnd.replication.export_log import ExportLog
from memoturnd.seams.catalog import ERASE, Chore
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.credentials import Revocation, TokenRow
from memoturnd.stores.memory import MemoryStore

FAR = 10**13
TABLES = {
    schema.tenants: {"created_at"},
    schema.databases: {"queued"},
    schema.branches: set(),
    schema.tokens: set(),
    schema.revocations: {"change"},
    schema.quotas: {"change"},
}
"""What is compared, but for these columns. A tenant that is only known by its databases is as old as the first of them."""


async def rows_of(catalog):
    found = {}
    for table, left_out in TABLES.items():
        # A row is marked as deleted a moment after its register.
        columns = [c.isnot(None) if c.name == "deleted_at" else c for c in table.c if c.name not in left_out]
        rows = await catalog.backend.rows(sa.select(*columns))
        found[table.name] = sorted(tuple(int(v) if isinstance(v, bool) else v for v in row) for row in rows)
    return found


def rebuild_of(store, catalog, *, is_dry=False):
    clock, randomness = SystemClock(), SystemRandomness()
    return Rebuild(
        store,
        Archive(store, clock=clock, randomness=randomness),
        catalog,
        clock=clock,
        randomness=randomness,
        due_in_ms=1000,
        is_dry=is_dry,
    )


@pytest.fixture
async def lost(tmp_path):
    """A store, and the rows of the catalog that was lost with its node."""
    store = MemoryStore()
    async with node_on(tmp_path / "node", store) as node:
        catalog = node._services.catalog
        await node.tenants.create("acme")
        await node.tenants.create("empty")
        for name in ("a", "acme/a", "acme/b--c", "gone"):
            await node.databases.ensure_profile(name)
            await (await node.profile(name)).write(put("k", name), durability=Durability.DURABLE)
        await node.branches.create("a", "f")
        await node.branches.create("a", "burner", ttl_s=10_000)
        await node.branches.create("a", "dropped")
        await node.branches.delete("a", "dropped")
        await node.branches.create("gone", "with-it")
        await node.databases.delete("gone")
        for name in ("new", "acme/new", "over"):
            await node.databases.create(name)
        await node.databases.delete("over")
        await catalog.put_token(TokenRow("tok_1", "acme", "b--c", "", 5, FAR, b'{"scope":"read"}'))
        await catalog.put_token(TokenRow("tok_2", "default", "", "app", 6, FAR, b'{"scope":"admin"}'))
        await catalog.revoke(Revocation("token", "acme", "tok_1", 7, FAR))
        await catalog.revoke(Revocation("namespace", "default", "app", 8, FAR))
        await catalog.put_quotas(Owner("acme", ""), Quotas(requests_per_s=5.5, databases=9))
        await catalog.put_quotas(Owner("acme", "b"), Quotas(memories=7))
        await catalog.put_quotas(Owner("acme", "b"), Quotas())
        await node.catalog_export.now()
        rows = await rows_of(catalog)
    rows["quotas"] = [row for row in rows["quotas"] if row[1] != "b"]  # none of its own
    return store, rows


async def test_lost_catalog_comes_back_row_by_row_and_once(lost, catalog):
    store, rows = lost

    report = await rebuild_of(store, catalog).run()

    assert await rows_of(catalog) == rows
    assert report.problems == 0
    assert dict(report.came_back) == {
        "tenants": 2,
        "databases": 3,
        "deleted databases": 2,
        "branches": 2,
        "never-written databases": 2,
        "tokens": 2,
        "revocations": 4,
        "quotas": 1,
    }
    again = await rebuild_of(store, catalog).run()
    assert (again.problems, dict(again.came_back)) == (0, {})
    assert await rows_of(catalog) == rows
    revoked = await catalog.revocations_since(0)
    assert [r.change for r in revoked] == sorted({r.change for r in revoked})


async def test_dry_run_tells_the_same_and_changes_nothing(lost, catalog):
    store, _ = lost
    before = await rows_of(catalog)
    dry = await rebuild_of(store, catalog, is_dry=True).run()
    assert await rows_of(catalog) == before
    assert await catalog.claim_due(FAR, until_ms=FAR) == []
    assert dry.came_back == (await rebuild_of(store, catalog).run()).came_back


async def test_erasures_that_wait_go_on_behind_a_rebuild(lost, catalog):
    store, _ = lost
    await store.put(layout.waiting_erasure_key("a" * 32, "ers_0123456789abcdef"), b"{}")

    await rebuild_of(store, catalog).run()

    due = [one.chore for one in await catalog.claim_due(SystemClock().now_ms(), until_ms=FAR)]
    assert due == [Chore(ERASE, "a" * 32)]


async def test_what_changes_behind_a_rebuild_is_newer_than_all_that_was_exported(lost, catalog):
    store, _ = lost
    await rebuild_of(store, catalog).run()
    await catalog.revoke(Revocation("token", "acme", "tok_1", 99, FAR))
    (change,) = [row for row in await catalog.pending_exports() if row.kind == "revocation"]
    log = ExportLog(store, "revocation", clock=SystemClock(), randomness=SystemRandomness())
    assert change.change > max(entry.change for entry in (await log.state()).values())


async def test_rows_follow_their_registers_where_an_old_backup_was_restored(lost, catalog):
    store, rows = lost
    await rebuild_of(store, catalog).run()
    by_name = {row.qualified_name: row for row in await catalog.list_databases(tenant="acme")}
    (gone,) = [row for row in await catalog.list_deleted(tenant="default") if row.name == "gone"]
    await catalog.undelete_database(gone.uuid)  # as if the backup were from before the deletion
    await catalog.delete_database(by_name["acme/a"].uuid, at_ms=5)  # and from before it was undeleted
    a = (await catalog.get_database("a")).uuid
    await catalog.delete_branch(a, "f")

    report = await rebuild_of(store, catalog).run()

    after = await rows_of(catalog)
    assert {table: after[table] for table in ("databases", "branches")} == {
        table: rows[table] for table in ("databases", "branches")
    }
    assert report.came_back["databases"] == report.came_back["deleted databases"] == 1


async def test_settings_survive_the_loss_of_the_catalog(tmp_path, catalog):
    store, levels = MemoryStore(), {"default": "local", "docs/orders": "durable"}
    async with node_on(tmp_path / "node", store) as node:
        await node.databases.create("a")
        uuid = (await node.databases.set_durability("a", levels)).uuid  # which makes its register

    await rebuild_of(store, catalog).run()
    assert database_settings.decode((await catalog.get_database("a")).settings) == levels

    await catalog.set_settings(uuid, "")  # as a backup from before has it
    await rebuild_of(store, catalog, is_dry=True).run()
    assert (await catalog.get_database("a")).settings == ""
    await rebuild_of(store, catalog).run()
    assert database_settings.decode((await catalog.get_database_by_uuid(uuid)).settings) == levels


async def test_damage_and_conflicts_are_told_and_hold_up_nothing_else(lost, catalog):
    store, rows = lost
    (a,) = [row for row in rows["databases"] if (row[1], row[2]) == ("default", "a")]
    twin = "f" * 32
    found = registers.decode((await store.get(layout.register_key(a[0]))).data)
    await store.put(
        layout.register_key(twin), registers.encode(registers.replace(found, uuid=twin, created_at=9))
    )
    await store.put(layout.register_key("e" * 32), b"{")
    await store.put(f"{layout.catalog_export_prefix('token')}0.json", b"{")
    await store.put("v1/_policy/database.json", b"{}")  # the policy of a namespace of that name

    report = await rebuild_of(store, catalog).run()

    assert await rows_of(catalog) == rows
    assert [key for key, _ in report.damaged] == [
        f"{layout.catalog_export_prefix('token')}0.json",
        layout.register_key("e" * 32),
    ]
    (said,) = report.conflicts
    assert twin in said
    assert a[0] in said
    assert report.problems == 3
    lines = list(told(report, is_dry=False))
    assert sum(line.startswith("DAMAGED") for line in lines) == 2
    assert any("usage" in line for line in lines)


async def test_database_whose_objects_are_gone_is_told(lost, catalog):
    store, _ = lost
    await rebuild_of(store, catalog).run()
    uuid = (await catalog.get_database("a")).uuid
    await store.delete(layout.register_key(uuid))
    report = await rebuild_of(store, catalog).run()
    (said,) = report.conflicts
    assert uuid in said


async def test_what_an_earlier_release_exported_comes_back(catalog):
    store = MemoryStore()
    changes = [
        {"op": "created", "name": n, "uuid": f"{i:032x}", "main_branch_id": f"{i:016x}", "created_at": i}
        for i, n in enumerate(("one", "two"), 1)
    ]
    await store.put(f"{layout.catalog_changes_prefix()}1.json", msgspec.json.encode(changes))
    await store.put(
        f"{layout.catalog_changes_prefix()}2.json", msgspec.json.encode([{**changes[0], "op": "deleted"}])
    )
    report = await rebuild_of(store, catalog).run()
    assert [row.name for row in await catalog.list_databases()] == ["two"]
    assert report.problems == 0
