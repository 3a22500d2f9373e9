"""Every schema that a catalog has ever had becomes the one of today, with what was in it."""

import apsw
import pytest
from alembic.script import ScriptDirectory

from control_plane.catalogs.sqlite import SqliteCatalog
from control_plane.migrating import HEAD, config, sqlite_script
from control_plane.schema import REVISION
from memoturnd.seams.catalog import COLLECT, RETENTION, BranchRow, Chore, Database

WRITTEN = Database("a", "1" * 32, "1" * 16, 1, written=True)
NEW = Database("b", "2" * 32, "2" * 16, 2)
THEIRS = Database("a", "3" * 32, "3" * 16, 3, tenant="acme")
FORK = BranchRow(WRITTEN.uuid, "4" * 16, "x", "main", 1, 2, None)
EMBEDDED = range(1, 4)
"""The versions whose files have `databases` with qualified names."""


def shape(connection):
    """Return all that can be asked of a file's schema."""
    tables = [
        row[0]
        for row in connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
        )
    ]
    found = {}
    for table in tables:
        indexes = {
            (row[2], row[3], row[4], tuple(connection.execute(f"PRAGMA index_xinfo({row[1]})")))
            for row in connection.execute(f"PRAGMA index_list({table})")
        }
        found[table] = (
            connection.execute(f"PRAGMA table_xinfo({table})").fetchall(),
            connection.execute(f"PRAGMA foreign_key_list({table})").fetchall(),
            connection.execute("SELECT ncol, wr, strict FROM pragma_table_list(?)", (table,)).fetchall(),
            indexes,
        )
    found["wheres"] = sorted(
        (name, sql.partition(" WHERE ")[2])
        for name, sql in connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"
        )
    )
    return found


def old_file(path, version):
    """Make a file as the release of that version made it, with a few rows."""
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute(sqlite_script(0, version))
    for row in (WRITTEN, NEW, THEIRS) if version in EMBEDDED else ():
        connection.execute(
            "INSERT INTO databases(name, uuid, main_branch_id, created_at, written) VALUES (?, ?, ?, ?, ?)",
            (row.qualified_name, row.uuid, row.main_branch_id, row.created_at, row.written),
        )
    if version in EMBEDDED:
        connection.execute(
            "INSERT INTO branches(db_uuid, name, branch_id, parent, fork_txid, created_at) VALUES (?, ?, ?, ?, ?, ?)",
            (FORK.db_uuid, FORK.name, FORK.branch_id, FORK.parent, FORK.fork_txid, FORK.created_at),
        )
        connection.execute("INSERT INTO deletions VALUES (9, 'gone', ?, 'm', 1, 0)", ("9" * 32,))
    if version in {2, 3}:
        connection.execute("INSERT INTO chores VALUES (?, ?, '', 70, 1, 50, 3)", ("collect", WRITTEN.uuid))
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


@pytest.mark.parametrize("version", range(1, REVISION + 1))
async def test_embedded_file_of_every_earlier_version_gets_the_schema_of_a_new_one(tmp_path, version):
    old_file(tmp_path / "old.db", version)

    old, new = SqliteCatalog(tmp_path / "old.db"), SqliteCatalog(tmp_path / "new.db")

    assert shape(old.backend.connection) == shape(new.backend.connection)
    assert old.backend.connection.execute("PRAGMA user_version").get == REVISION
    assert old.backend.connection.execute("PRAGMA integrity_check").get == "ok"
    assert not old.backend.connection.execute("PRAGMA foreign_key_check").fetchall()
    assert [tenant.name for tenant in await old.list_tenants()][-1] == "default"
    await old.close()
    await new.close()


@pytest.mark.parametrize("version", EMBEDDED)
async def test_embedded_file_of_every_earlier_version_keeps_what_it_knew(tmp_path, version):
    old_file(tmp_path / "old.db", version)

    catalog = SqliteCatalog(tmp_path / "old.db")

    assert await catalog.list_databases() == [WRITTEN, NEW]
    assert await catalog.list_databases(tenant="acme") == [THEIRS]
    assert await catalog.list_branches(WRITTEN.uuid) == [FORK]
    pending = {row.id: row.body is not None for row in await catalog.pending_exports()}
    assert pending == {"9" * 32: False, NEW.uuid: True, THEIRS.uuid: True}
    claimed = {one.chore: (one.due_at, one.attempts) for one in await catalog.claim_due(100, until_ms=200)}
    if version == 1:
        main = Chore(RETENTION, WRITTEN.uuid, WRITTEN.main_branch_id)
        fork = Chore(RETENTION, WRITTEN.uuid, FORK.branch_id)
        assert claimed == dict.fromkeys([Chore(COLLECT, WRITTEN.uuid), main, fork], (0, 1))
    else:
        assert claimed == {Chore(COLLECT, WRITTEN.uuid): (70, 4)}
    await catalog.close()


def test_revisions_are_one_line_that_ends_where_this_release_is():
    scripts = ScriptDirectory.from_config(config())

    assert scripts.get_heads() == [HEAD]
    line = [step.revision for step in scripts.iterate_revisions(HEAD, "base")]
    assert line == [f"{number:04d}" for number in range(REVISION, 0, -1)]
