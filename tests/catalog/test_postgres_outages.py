"""Postgres killed, restarted, slow, silent or full: what stops, what goes on, and for how long anybody waits."""

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import service_postgres
from harness import node_on
from postgres_server import emptied, on_server, own_postgres
from proxy import FaultProxy, Mode

from control_plane.catalogs.breaker import PAUSE_S
from control_plane.catalogs.postgres import open_postgres
from control_plane.migrating import migrate_postgres
from memoturnd.errors import DatabaseNotFoundError, DiskFullError, RetryableError
from memoturnd.seams.catalog import BranchRow, Database
from memoturnd.stores.memory import MemoryStore
from memoturnd.surfaces import kv

ONE = Database("a", "1" * 32, "1" * 16, 1, written=True)
TWO = Database("b", "2" * 32, "2" * 16, 2)
FORK = BranchRow(ONE.uuid, "4" * 16, "x", "main", 1, 2, None)


@pytest.fixture
async def proxied(postgres_url):
    """A catalog whose connections all go through a proxy."""
    host = postgres_url.rpartition("@")[2].partition("/")[0]
    address, _, port = host.partition(":")
    calls = []
    catalog = await emptied(postgres_url)
    await catalog.create_database(ONE)
    await catalog.put_branch(FORK)
    await catalog.close()
    async with FaultProxy(address, int(port)) as proxy:
        url = postgres_url.replace(f"@{host}/", f"@127.0.0.1:{proxy.port}/")
        catalog = await open_postgres(url, call_s=0.5, remembered=lambda: calls.append(1))
        yield catalog, proxy, calls
        proxy.mode = Mode.PASS
        await catalog.close()


async def until_it_answers(catalog, within_s=10.0):
    deadline_s = time.monotonic() + within_s
    while True:
        try:
            return await catalog.ping()
        except RetryableError:
            assert time.monotonic() < deadline_s, "the catalog did not come back"
            await asyncio.sleep(0.1)


async def test_silent_server_costs_one_timeout_and_then_nothing(proxied):
    catalog, proxy, _ = proxied
    proxy.mode = Mode.BLACKHOLE

    started_s = time.monotonic()
    with pytest.raises(RetryableError):
        await catalog.list_databases()
    first_s = time.monotonic() - started_s
    started_s = time.monotonic()
    for _ in range(20):
        with pytest.raises(RetryableError, match="a moment ago"):
            await catalog.list_databases()
    rest_s = time.monotonic() - started_s

    assert first_s < 2
    assert rest_s < 0.2
    proxy.mode = Mode.PASS
    await asyncio.sleep(PAUSE_S)
    await until_it_answers(catalog)
    assert [row.name for row in await catalog.list_databases()] == ["a"]


async def test_of_those_who_come_after_the_pause_one_finds_out(proxied):
    catalog, proxy, _ = proxied
    proxy.mode = Mode.BLACKHOLE
    with pytest.raises(RetryableError):
        await catalog.list_databases()
    await asyncio.sleep(PAUSE_S + 0.05)

    outcomes = await asyncio.gather(*(catalog.list_databases() for _ in range(10)), return_exceptions=True)

    assert sum("a moment ago" in str(outcome) for outcome in outcomes) == 9


async def test_slow_server_is_waited_for_within_the_time_of_a_call(proxied):
    catalog, proxy, _ = proxied
    proxy.latency_s = 0.05

    assert (await catalog.get_database("a")).uuid == ONE.uuid

    proxy.latency_s = 5
    started_s = time.monotonic()
    with pytest.raises(RetryableError):
        await catalog.list_databases()
    assert time.monotonic() - started_s < 2


async def test_known_databases_and_branches_are_served_while_the_server_is_silent(proxied):
    catalog, proxy, calls = proxied
    found = await catalog.get_database("a")
    await catalog.get_branch(ONE.uuid, "x")
    proxy.mode = Mode.BLACKHOLE

    assert await catalog.get_database("a") == found
    assert await catalog.get_database_by_uuid(ONE.uuid) == found
    assert await catalog.get_branch(ONE.uuid, "x") == FORK
    assert len(calls) == 3
    for unknown in (catalog.get_database("b"), catalog.get_branch(ONE.uuid, "y"), catalog.list_databases()):
        with pytest.raises(RetryableError):
            await unknown
    with pytest.raises(RetryableError):
        await catalog.create_database(TWO)


async def test_what_this_node_deleted_is_not_served_from_memory(proxied):
    catalog, proxy, _ = proxied
    await catalog.get_database("a")
    await catalog.get_branch(ONE.uuid, "x")
    await catalog.delete_branch(ONE.uuid, "x")
    proxy.mode = Mode.BLACKHOLE
    with pytest.raises(RetryableError):
        await catalog.get_branch(ONE.uuid, "x")
    assert await catalog.get_database("a")

    with pytest.raises(RetryableError):  # whether it took effect is not known
        await catalog.delete_database(ONE.uuid, at_ms=5)

    for lookup in (catalog.get_database("a"), catalog.get_database_by_uuid(ONE.uuid)):
        with pytest.raises(RetryableError):
            await lookup


async def test_lookup_that_began_before_a_deletion_does_not_bring_it_back(proxied):
    catalog, proxy, _ = proxied
    proxy.latency_s = 0.1
    late = asyncio.create_task(catalog.get_database("a"))
    await asyncio.sleep(0.05)
    deletion = asyncio.create_task(catalog.forget_database(ONE.uuid))
    await asyncio.gather(late, deletion, return_exceptions=True)
    proxy.latency_s = 0
    proxy.mode = Mode.BLACKHOLE

    with pytest.raises(RetryableError):
        await catalog.get_database("a")


async def test_what_another_node_deleted_is_forgotten_as_soon_as_the_catalog_says_so(proxied, postgres_url):
    catalog, proxy, _ = proxied
    await catalog.get_database("a")
    other = await open_postgres(postgres_url)
    await other.forget_database(ONE.uuid)
    await other.close()
    with pytest.raises(DatabaseNotFoundError):
        await catalog.get_database("a")
    proxy.mode = Mode.BLACKHOLE

    with pytest.raises(RetryableError):
        await catalog.get_database("a")


async def test_undeleted_database_is_remembered_again(proxied):
    catalog, proxy, _ = proxied
    await catalog.delete_database(ONE.uuid, at_ms=5)
    await catalog.undelete_database(ONE.uuid)
    await catalog.get_database("a")
    proxy.mode = Mode.BLACKHOLE

    assert (await catalog.get_database("a")).uuid == ONE.uuid


async def test_memory_is_bounded(postgres_url):
    from control_plane.catalogs.remembering import RememberingCatalog

    opened = await emptied(postgres_url)
    catalog = RememberingCatalog(opened.backend, most=3)
    for number in range(6):
        await catalog.create_database(replace(TWO, name=f"d{number}", uuid=f"{number:032x}"))
        await catalog.get_database(f"d{number}")
        await catalog.put_branch(replace(FORK, db_uuid=f"{number:032x}", branch_id=f"{number:016x}"))
        await catalog.get_branch(f"{number:032x}", "x")

    assert catalog.known_rows == 6
    await catalog.close()


async def test_killed_and_restarted_server_is_used_again_without_a_restart_of_the_node():
    with own_postgres() as server:
        await migrate_postgres(server.url)
        catalog = await open_postgres(server.url, call_s=1)
        await catalog.create_database(ONE)
        await catalog.get_database("a")

        server.kill()
        started_s = time.monotonic()
        assert (await catalog.get_database("a")).uuid == ONE.uuid
        with pytest.raises(RetryableError):
            await catalog.create_database(TWO)
        assert time.monotonic() - started_s < 3
        server.start()

        await until_it_answers(catalog)
        await catalog.create_database(TWO)
        assert [row.name for row in await catalog.list_databases()] == ["a", "b"]
        await catalog.close()


async def test_server_that_shuts_down_in_order_is_used_again():
    with own_postgres() as server:
        await migrate_postgres(server.url)
        catalog = await open_postgres(server.url, call_s=1)
        await catalog.create_database(ONE)

        server.stop()
        with pytest.raises(RetryableError):
            await catalog.list_databases()
        server.start()

        await until_it_answers(catalog)
        assert (await catalog.get_database("a")).uuid == ONE.uuid
        await catalog.close()


@pytest.fixture
def small_disk():
    """A file system of 20 MB, where we may make one, in a place that every user reaches."""
    folder = Path(tempfile.mkdtemp(prefix="memoturn-small-"))
    command = ["mount", "-t", "tmpfs", "-o", "size=20m,mode=0755", "tmpfs", str(folder)]
    if os.getuid() != 0 or shutil.which("mount") is None or subprocess.run(command, check=False).returncode:
        folder.rmdir()
        pytest.skip("a small file system takes root and mount")
    folder.chmod(0o755)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()


async def test_full_disk_stops_writes_and_nothing_else(small_disk):
    with own_postgres() as server:
        place = small_disk / "tables"
        place.mkdir()
        owner = service_postgres._owner()
        os.chown(place, owner.pw_uid, owner.pw_gid)
        await on_server(server.url, f"CREATE TABLESPACE small LOCATION '{place}'")
        await on_server(server.url, "CREATE DATABASE crowded TABLESPACE small TEMPLATE template0")
        url = server.url.rpartition("/")[0] + "/crowded"
        await migrate_postgres(url)
        catalog = await open_postgres(url)
        await catalog.create_database(ONE)
        await on_server(url, "CREATE TABLE filler(x text)")
        with pytest.raises(asyncpg.DiskFullError):
            await on_server(
                url,
                "INSERT INTO filler SELECT string_agg(md5(n::text || m::text), '') FROM generate_series(1, 4000) n, "
                "generate_series(1, 200) m GROUP BY n",
            )
        (place / "rest").write_bytes(b"x" * max(0, shutil.disk_usage(place).free))

        async def fill():
            for number in range(5000):
                await catalog.create_database(replace(TWO, name=f"d{number}", uuid=f"{number:032x}"))

        with pytest.raises(DiskFullError, match="free space"):
            await fill()

        assert await catalog.get_database("a") == ONE
        await on_server(url, "DROP TABLE filler")
        (place / "rest").unlink()
        await catalog.create_database(replace(TWO, uuid="f" * 32))
        await catalog.close()


async def test_node_serves_what_it_knows_without_its_catalog_and_says_what_is_down(tmp_path):
    with own_postgres() as server:
        await migrate_postgres(server.url)
        catalog = await open_postgres(server.url, call_s=1)
        async with node_on(tmp_path / "data", MemoryStore(), catalog=catalog) as node:
            await node.databases.create("notes")
            profile = await node.profile("notes")
            await kv.put(profile, "n", "k", b"before")
            server.kill()

            profile = await node.profile("notes")
            await kv.put(profile, "n", "k", b"without")
            assert (await kv.get(profile, "n", "k")).value.value == b"without"
            with pytest.raises(RetryableError):
                await node.databases.create("more")
            with pytest.raises(RetryableError, match="not ready: catalog"):
                await node.ready()

            server.start()
            await until_it_answers(catalog)
            await node.ready()
            await node.databases.create("more")
        await catalog.close()
