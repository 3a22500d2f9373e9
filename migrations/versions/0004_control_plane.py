"""Tenants, deleted databases, the outbox of the export, tokens, revocations and nodes; the first one in Postgres.

An embedded file keeps its databases, which were known by qualified names, its branches and its chores. Databases that
were never written are exported anew.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG = sa.Boolean().with_variant(sa.Integer(), "sqlite")
BYTES = sa.LargeBinary()
NO = sa.text("false")


def upgrade() -> None:
    """Make the tables, and fill them from those of an embedded file."""
    embedded = op.get_context().dialect.name == "sqlite"
    if embedded:
        _set_old_tables_aside()
    _directory()
    _chores()
    _requests()
    _exports()
    _tokens()
    _table(
        "nodes",
        _text("id", key=True),
        _text("address"),
        _text("version"),
        _whole("started_at"),
        _whole("seen_at"),
    )
    op.create_index("nodes_seen", "nodes", ["seen_at"])
    op.execute("INSERT INTO tenants(name, created_at) VALUES ('default', 0)")
    op.execute("INSERT INTO counters(name, value) VALUES ('revocations', 0)")
    if embedded:
        _fill_from_old_tables()


def _set_old_tables_aside() -> None:
    for index in ("databases_unwritten", "branches_due", "chores_due"):
        op.execute(f"DROP INDEX {index}")
    for table in ("databases", "branches", "chores", "requests"):
        op.execute(f"ALTER TABLE {table} RENAME TO old_{table}")


def _fill_from_old_tables() -> None:
    tenant = "CASE WHEN instr(name, '/') THEN substr(name, 1, instr(name, '/') - 1) ELSE 'default' END"
    op.execute(
        f"INSERT OR IGNORE INTO tenants(name, created_at) SELECT {tenant}, min(created_at) FROM old_databases GROUP BY 1"
    )
    op.execute(
        "INSERT INTO databases(uuid, tenant, name, main_branch_id, created_at, written)"
        f" SELECT uuid, {tenant}, substr(name, instr(name, '/') + 1), main_branch_id, created_at, written"
        " FROM old_databases"
    )
    op.execute(
        "INSERT INTO exports(kind, id) SELECT 'database', uuid FROM deletions WHERE NOT written ORDER BY change"
    )
    for table, columns in (
        ("branches", "db_uuid, name, branch_id, parent, fork_txid, created_at, expires_at"),
        ("chores", "kind, db_uuid, branch_id, due_at, claimed, again_at, attempts"),
        ("requests", "seq, scope, route, principal, key, digest, at, facts, answer"),
    ):
        op.execute(f"INSERT INTO {table}({columns}) SELECT {columns} FROM old_{table}")
    for table in ("old_branches", "old_databases", "old_chores", "old_requests", "deletions", "handed_out"):
        op.execute(f"DROP TABLE {table}")


def _directory() -> None:
    _table("tenants", _text("name", key=True), _whole("created_at"))
    _table(
        "databases",
        _text("uuid", key=True),
        _text("tenant"),
        _text("name"),
        _text("main_branch_id"),
        _whole("created_at"),
        _flag("written"),
        _flag("queued"),
        _whole("deleted_at", nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"], name="databases_tenant_fkey"),
    )
    _partial("databases_live", "databases", ["tenant", "name"], "deleted_at IS NULL", unique=True)
    _partial("databases_deleted", "databases", ["tenant", "name"], "deleted_at IS NOT NULL")
    op.create_index(
        "databases_unqueued",
        "databases",
        ["uuid"],
        sqlite_where=sa.text("queued = 0 AND written = 0"),
        postgresql_where=sa.text("NOT queued AND NOT written"),
    )
    _table(
        "branches",
        _text("db_uuid", key=True),
        _text("name", key=True),
        _text("branch_id"),
        _text("parent"),
        _whole("fork_txid"),
        _whole("created_at"),
        _whole("expires_at", nullable=True),
        sa.ForeignKeyConstraint(
            ["db_uuid"], ["databases.uuid"], name="branches_db_uuid_fkey", ondelete="CASCADE"
        ),
    )
    _partial("branches_due", "branches", ["expires_at"], "expires_at IS NOT NULL")


def _chores() -> None:
    _table(
        "chores",
        _text("kind", key=True),
        _text("db_uuid", key=True),
        _text("branch_id", key=True),
        _whole("due_at"),
        _flag("claimed"),
        _whole("again_at", nullable=True),
        sa.Column("attempts", WHOLE, nullable=False, server_default=sa.text("0")),
    )
    op.create_index("chores_due", "chores", ["due_at"])


def _requests() -> None:
    _numbered(
        "requests",
        "seq",
        _text("scope"),
        _text("route"),
        _text("principal"),
        _text("key"),
        sa.Column("digest", BYTES, nullable=False),
        _whole("at"),
        sa.Column("facts", BYTES, nullable=False),
        sa.Column("answer", BYTES),
        sa.UniqueConstraint("scope", "route", "principal", "key", name="requests_key"),
    )


def _exports() -> None:
    _numbered("exports", "change", _text("kind"), _text("id"), sa.Column("body", BYTES))
    _table("counters", _text("name", key=True), _whole("value"))


def _tokens() -> None:
    _table(
        "tokens",
        _text("id", key=True),
        _text("tenant"),
        _text("db"),
        _text("ns"),
        _whole("issued_at"),
        _whole("expires_at"),
        sa.Column("grant", BYTES, nullable=False),
    )
    op.create_index("tokens_of", "tokens", ["tenant", "db", "ns", "id"])
    op.create_index("tokens_expired", "tokens", ["expires_at"])
    _table(
        "revocations",
        _text("kind", key=True),
        _text("tenant", key=True),
        _text("subject", key=True),
        _whole("change"),
        _whole("at"),
        _whole("expires_at"),
    )
    op.create_index("revocations_change", "revocations", ["change"], unique=True)
    op.create_index("revocations_expired", "revocations", ["expires_at"])


def _table(name: str, *parts: Any) -> None:
    op.create_table(name, *parts, sqlite_with_rowid=False)


def _numbered(name: str, number: str, *parts: Any) -> None:
    column = sa.Column(number, WHOLE, primary_key=True, autoincrement=True)
    op.create_table(name, column, *parts, sqlite_autoincrement=True)


def _partial(name: str, table: str, columns: Sequence[str], where: str, *, unique: bool = False) -> None:
    op.create_index(
        name, table, [*columns], unique=unique, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
    )


def _text(name: str, *, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, NAME, primary_key=key, nullable=False)


def _whole(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, WHOLE, nullable=nullable)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, FLAG, nullable=False, server_default=NO)
