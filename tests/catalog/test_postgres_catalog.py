"""What holds of the catalog in Postgres alone: several who use it at once, its schema, and who may open it."""

import asyncio
import secrets
from contextlib import asynccontextmanager

import asyncpg
import pytest
import sqlalchemy as sa
from alembic import command
from postgres_server import emptied, on_server
from sqlalchemy.ext.asyncio import create_async_engine

from control_plane.catalogs import exports
from control_plane.catalogs.postgres import open_postgres
from control_plane.migrating import HEAD, config, migrate_postgres
from control_plane.schema import REVISION, counters, metadata
from memoturnd.errors import AlreadyExistsError, ConfigurationError, RetryableError
from memoturnd.seams.catalog import Chore, Database

ONE = Database("a", "1" * 32, "1" * 16, 1)
RAISE = (
    sa.update(counters)
    .where(counters.c.name == "revocations")
    .values(value=counters.c.value + 1)
    .returning(counters.c.value)
)


@pytest.fixture
async def two(postgres_url):
    """Two nodes on one catalog."""
    first = await emptied(postgres_url)
    second = await open_postgres(postgres_url)
    yield first, second
    await first.close()
    await second.close()


@asynccontextmanager
async def new_database(server):
    name = f"memoturn_test_{secrets.token_hex(6)}"
    await on_server(server, f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        await on_server(server, f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_call_costs_its_own_statement_and_nothing_behind_it(two, monkeypatch):
    """asyncpg resets a connection that is given back, unless it is told otherwise: each call would be two."""
    first, second = two
    await first.create_database(ONE)
    sent, execute = [], asyncpg.Connection.execute

    def noted(self, *args, **more):
        sent.append(args)
        return execute(self, *args, **more)

    monkeypatch.setattr(asyncpg.Connection, "execute", noted)
    assert await second.get_database_by_uuid(ONE.uuid) == ONE
    assert sent == []


# ---- the schema


async def asked(url, statement):
    connection = await asyncpg.connect(url)
    try:
        return sorted(map(tuple, await connection.fetch(statement)), key=str)
    finally:
        await connection.close()


async def shape(url):
    """Return all that matters of a schema: columns, indexes and constraints."""
    return {
        "columns": await asked(
            url,
            "SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name, is_identity "
            "FROM information_schema.columns WHERE table_schema = 'public' AND table_name <> 'alembic_version'",
        ),
        "indexes": await asked(
            url,
            "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version'",
        ),
        "constraints": await asked(
            url,
            "SELECT conname, conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint "
            "WHERE connamespace = 'public'::regnamespace AND conrelid <> 'alembic_version'::regclass",
        ),
    }


async def on_engine(url, work):
    engine = create_async_engine("postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(url))
    async with engine.begin() as connection:
        await connection.run_sync(work)
    await engine.dispose()


def upgrade_to(revision):
    def work(connection):
        settings = config()
        settings.attributes["connection"] = connection
        command.upgrade(settings, revision)

    return work


@pytest.mark.parametrize("revision", [None, *(f"{number:04d}" for number in range(1, REVISION + 1))])
async def test_migrated_database_is_what_the_tables_describe(postgres_server, revision):
    async with new_database(postgres_server) as migrated, new_database(postgres_server) as described:
        if revision is not None:
            await on_engine(migrated, upgrade_to(revision))

        assert await migrate_postgres(migrated) == (revision, HEAD)
        assert await migrate_postgres(migrated) == (HEAD, HEAD)

        await on_engine(described, metadata.create_all)
        await on_server(described, "CREATE TABLE alembic_version(version_num text)")
        assert await shape(migrated) == await shape(described)
        catalog = await open_postgres(migrated)
        await catalog.create_database(ONE)
        await catalog.close()


async def test_two_who_migrate_at_once_do_it_once(postgres_server):
    async with new_database(postgres_server) as url:
        outcomes = await asyncio.gather(*(migrate_postgres(url) for _ in range(3)))

    assert sorted(outcomes, key=str) == sorted([(None, HEAD), (HEAD, HEAD), (HEAD, HEAD)], key=str)


async def test_migration_that_fails_changes_nothing(postgres_server):
    async with new_database(postgres_server) as url:
        await on_server(url, "CREATE TABLE nodes(precious int)")

        with pytest.raises(RetryableError, match="nothing was changed"):
            await migrate_postgres(url)

        assert await asked(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'") == [("nodes",)]


async def test_database_without_our_schema_is_refused_with_the_command_to_run(postgres_server):
    async with new_database(postgres_server) as url:
        with pytest.raises(ConfigurationError, match=r"no schema yet.*`memoturn-control migrate`"):
            await open_postgres(url)

        await on_engine(url, upgrade_to("0003"))
        with pytest.raises(ConfigurationError, match=r"older schema 0003.*`memoturn-control migrate`"):
            await open_postgres(url)

        await migrate_postgres(url)
        await on_server(url, "UPDATE alembic_version SET version_num = '9000'")
        with pytest.raises(ConfigurationError, match=r"newer schema 9000.*start the release"):
            await open_postgres(url)
        with pytest.raises(ConfigurationError, match="newer schema 9000"):
            await migrate_postgres(url)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda url: url.replace("memoturn:", "nobody:"), "refuses us.*user, password"),
        (lambda url: url + "_not_there", "refuses us.*database"),
        (lambda _: "postgresql://127.0.0.1:99999/x", "no usable URL"),
    ],
)
async def test_server_that_turns_us_away_is_a_wrong_setting(postgres_url, change, told):
    with pytest.raises(ConfigurationError, match=told):
        await open_postgres(change(postgres_url))


async def test_database_in_another_encoding_is_refused(postgres_server):
    name = f"memoturn_test_{secrets.token_hex(6)}"
    await on_server(
        postgres_server, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
    )
    try:
        with pytest.raises(ConfigurationError, match="UTF8"):
            await open_postgres(f"{postgres_server.rpartition('/')[0]}/{name}")
    finally:
        await on_server(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


# ---- several at once


async def test_change_that_commits_late_is_exported_all_the_same(two):
    first, second = two
    async with first.backend.transaction() as late:
        await exports.note(late, "token", "late", b"{}")
        async with second.backend.transaction() as early:
            await exports.note(early, "token", "early", b"{}")
        [seen] = await second.pending_exports()
        await second.exported([seen.change])

    [rest] = await second.pending_exports()
    assert (seen.id, rest.id) == ("early", "late")
    assert rest.change < seen.change  # a reader that had kept the highest number would have missed it


async def test_deletion_waits_for_the_export_that_takes_the_database_up(two):
    first, second = two
    await first.create_database(ONE)
    async with first.backend.transaction() as taking:
        [_] = await taking.rows(exports._NEW, limit=10)
        deletion = asyncio.create_task(second.delete_database(ONE.uuid, at_ms=5))
        await asyncio.sleep(0.2)
        assert not deletion.done()
        await taking.run_each(exports._MARK_QUEUED, [{"uuid": ONE.uuid}])
        await exports.note(taking, exports.DATABASE, ONE.uuid, exports.database_body(ONE))
    await deletion

    created, gone = [row for row in await first.pending_exports() if row.kind == exports.DATABASE]
    assert (created.body is None, gone.body) == (False, None)
    assert created.change < gone.change


async def test_counter_lets_nobody_overtake(two):
    first, second = two
    async with first.backend.transaction() as slow:
        ((one,),) = await slow.rows(RAISE)
        overtaking = asyncio.create_task(second.backend.rows(RAISE))
        await asyncio.sleep(0.2)
        assert not overtaking.done()

    assert await overtaking == [(one + 1,)]


async def test_chores_are_claimed_by_one_node_each(two):
    for number in range(40):
        await two[0].schedule(Chore("collect", f"{number:032x}"), number)

    claims = await asyncio.gather(
        *(node.claim_due(100, until_ms=200, limit=10) for node in two for _ in range(4))
    )

    claimed = [one.chore for some in claims for one in some]
    assert len(claimed) == len(set(claimed))
    rest = await two[0].claim_due(100, until_ms=200, limit=100)
    assert len({*claimed, *(one.chore for one in rest)}) == 40


async def test_chore_that_another_node_is_just_claiming_is_passed_over(two):
    from control_plane.catalogs import chores

    first, second = two
    await first.schedule(Chore("collect", "a"), 1)
    await first.schedule(Chore("collect", "b"), 2)
    async with first.backend.transaction() as claiming:
        [_] = await claiming.rows(chores._LOCK_DUE, now=100, limit=1)
        async with asyncio.timeout(1):
            [other] = await second.claim_due(100, until_ms=200)

    assert other.chore == Chore("collect", "b")


async def test_name_that_two_nodes_want_is_given_to_one(two):
    rows = [Database("a", f"{number:032x}", "1" * 16, number) for number in range(6)]

    outcomes = await asyncio.gather(
        *(two[row.created_at % 2].create_database(row) for row in rows), return_exceptions=True
    )

    assert [outcome for outcome in outcomes if outcome is None] == [None]
    assert {type(outcome) for outcome in outcomes if outcome is not None} == {AlreadyExistsError}


async def test_tenant_is_not_deleted_under_a_database_that_is_just_created(two):
    first, second = two
    await first.create_tenant("acme", 1)

    outcomes = await asyncio.gather(
        first.create_database(Database("a", "1" * 32, "1" * 16, 1, tenant="acme")),
        second.delete_tenant("acme", at_ms=1),
        return_exceptions=True,
    )

    left = [tenant.name for tenant in await first.list_tenants()]
    assert ("acme" in left) == (len(await first.list_databases(tenant="acme")) == 1)
    assert sum(outcome is None for outcome in outcomes) == 1


async def test_no_more_connections_are_open_than_the_pool_has(two, postgres_url):
    pool = await open_postgres(postgres_url, connections=2)
    before = len(
        await asked(postgres_url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'memoturn'")
    )

    await asyncio.gather(*(pool.list_databases() for _ in range(50)))

    after = len(
        await asked(postgres_url, "SELECT pid FROM pg_stat_activity WHERE application_name = 'memoturn'")
    )
    assert after <= before + 2
    await pool.close()


async def test_call_that_finds_no_free_connection_in_time_is_retryable(postgres_url):
    catalog = await open_postgres(postgres_url, connections=1, call_s=0.3)
    async with catalog.backend._pool.acquire():
        with pytest.raises(RetryableError):
            await catalog.list_databases()
    await catalog.close()
