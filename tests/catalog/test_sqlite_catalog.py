import os
import time
from dataclasses import replace

import apsw
import pytest

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.errors import ConfigurationError, CorruptionError, DiskFullError, RetryableError
from memoturnd.seams.catalog import BranchRow, Database

ONE = Database("a", "1" * 32, "1" * 16, 1)


async def test_catalog_keeps_its_rows_between_openings(tmp_path):
    catalog = SqliteCatalog(tmp_path / "catalog.db")
    row = BranchRow(ONE.uuid, "2" * 16, "x", "main", 1, 2, 3)
    await catalog.create_database(ONE)
    await catalog.put_branch(row)
    await catalog.close()

    catalog = SqliteCatalog(tmp_path / "catalog.db")

    assert await catalog.get_database("a") == ONE
    assert await catalog.list_branches(ONE.uuid) == [row]
    await catalog.close()


async def test_change_numbers_are_not_used_again_after_reopening(tmp_path):
    catalog = SqliteCatalog(tmp_path / "catalog.db")
    await catalog.create_database(ONE)
    [created] = await catalog.pending_exports()
    await catalog.exported([created.change])
    await catalog.close()

    catalog = SqliteCatalog(tmp_path / "catalog.db")
    await catalog.forget_database(ONE.uuid)

    [gone] = await catalog.pending_exports()
    assert gone.change > created.change
    await catalog.close()


async def test_newer_schema_is_refused(tmp_path):
    path = tmp_path / "catalog.db"
    catalog = SqliteCatalog(path)
    catalog.backend.connection.execute("PRAGMA user_version = 99")
    await catalog.close()

    with pytest.raises(ConfigurationError, match=r"version 99.*newer release"):
        SqliteCatalog(path)


async def test_foreign_sqlite_file_is_refused_untouched(tmp_path):
    path = tmp_path / "other.db"
    other = apsw.Connection(str(path))
    other.execute("CREATE TABLE precious(x)")
    other.close()

    with pytest.raises(ConfigurationError, match="something else"):
        SqliteCatalog(path)

    other = apsw.Connection(str(path))
    assert [row[0] for row in other.execute("SELECT name FROM sqlite_schema")] == ["precious"]
    other.close()


async def test_file_that_is_no_database_is_reported(tmp_path):
    path = tmp_path / "catalog.db"
    path.write_bytes(b"this is not a SQLite file at all" * 100)

    with pytest.raises(CorruptionError, match=r"catalog\.db"):
        SqliteCatalog(path)


async def test_missing_folder_is_reported(tmp_path):
    with pytest.raises(ConfigurationError, match="folder exists"):
        SqliteCatalog(tmp_path / "nowhere" / "catalog.db")


async def test_file_locked_by_somebody_else_is_retryable(tmp_path):
    catalog = SqliteCatalog(tmp_path / "catalog.db")
    catalog.backend.connection.set_busy_timeout(1)
    other = apsw.Connection(str(tmp_path / "catalog.db"))
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(RetryableError, match="locked"):
        await catalog.create_database(ONE)
    other.execute("ROLLBACK")
    other.close()
    await catalog.create_database(ONE)

    assert await catalog.get_database("a") == ONE
    await catalog.close()


async def test_full_disk_is_reported_and_changes_nothing(tmp_path):
    catalog = SqliteCatalog(":memory:")
    pages = catalog.backend.connection.execute("PRAGMA page_count").get
    catalog.backend.connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(DiskFullError, match="free space"):
        await catalog.create_database(replace(ONE, name="a" * 8000))

    assert await catalog.list_databases() == []
    await catalog.close()


async def test_catalog_never_fsyncs_for_a_provision(tmp_path):
    catalog = SqliteCatalog(tmp_path / "catalog.db")

    assert catalog.backend.connection.execute("PRAGMA journal_mode").get == "wal"
    assert catalog.backend.connection.execute("PRAGMA synchronous").get == 1
    await catalog.close()


async def test_provision_is_one_cheap_insert(tmp_path):
    catalog = SqliteCatalog(tmp_path / "catalog.db")
    rows = [Database(f"agent-{n}", os.urandom(16).hex(), os.urandom(8).hex(), n) for n in range(500)]
    times_s = []
    for row in rows:
        started_s = time.perf_counter()
        await catalog.create_database(row)
        times_s.append(time.perf_counter() - started_s)

    # Ten times what it takes on a quiet machine: fails when an fsync or a second transaction creeps in.
    assert sorted(times_s)[250] < 150e-6
    await catalog.close()


async def test_due_branches_are_found_by_index():
    catalog = SqliteCatalog(":memory:")
    plan = catalog.backend.connection.execute(
        "EXPLAIN QUERY PLAN SELECT * FROM branches WHERE expires_at <= 5 ORDER BY expires_at LIMIT 5"
    )

    assert "USING INDEX branches_due" in " ".join(str(row[3]) for row in plan)
    await catalog.close()


async def test_due_chores_come_from_an_index():
    catalog = SqliteCatalog(":memory:")
    plan = catalog.backend.connection.execute(
        "EXPLAIN QUERY PLAN SELECT kind FROM chores WHERE due_at <= 5 ORDER BY due_at LIMIT 10"
    ).fetchall()

    assert len(plan) == 1
    assert "INDEX chores_due (due_at<?)" in plan[0][3]
    await catalog.close()
