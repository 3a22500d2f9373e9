"""The tables of the catalog, for both databases that it can live in: an embedded SQLite file, and Postgres.

To add a table or a column:

1. Describe it here. Names that are sorted or compared are `NAME`, times (unix ms) and counts are `WHOLE`, flags `FLAG`.
2. Add a revision to `migrations/versions` that makes the same change with `op.create_table` or `op.add_column`,
   raise REVISION to its number, and run `pytest tests/catalog`: a test compares what the revisions make with what
   stands here, on both databases, from empty and from every earlier revision.
3. Write the statements that use it as constants in a module of `control_plane/catalogs`, with one class of
   methods over them that derives from `Part`, and add that class to the bases of `SqlCatalog`. How statements are
   run is in `control_plane.catalogs.backend`.
4. Add the methods to the protocol (memoturnd.seams.catalog) if the engine needs them, and tests to the contract suite.
"""

from typing import Final

import sqlalchemy as sa

REVISION: Final = 6
"""The revision that this release works with; as `user_version` in an embedded file, as 0006 in `alembic_version`."""

NAME: Final = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
"""Text in the order of its code points, in Postgres too, whatever that database sorts by."""
WHOLE: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FLAG: Final = sa.Boolean().with_variant(sa.Integer(), "sqlite")
BYTES: Final = sa.LargeBinary()
NO: Final = sa.text("false")
ZERO: Final = sa.text("0")
DEFAULT_TENANT: Final = "default"

metadata = sa.MetaData(
    naming_convention={"fk": "%(table_name)s_%(column_0_name)s_fkey", "pk": "%(table_name)s_pkey"}
)


def _table(name: str, *parts: sa.schema.SchemaItem) -> sa.Table:
    """Return a table whose rows lie in the order of its key in SQLite: one tree less to write."""
    return sa.Table(name, metadata, *parts, sqlite_with_rowid=False)


tenants: Final = _table(
    "tenants",
    sa.Column("name", NAME, primary_key=True),
    sa.Column("created_at", WHOLE, nullable=False),
)

databases: Final = _table(
    "databases",
    sa.Column("uuid", NAME, primary_key=True),
    sa.Column("tenant", NAME, sa.ForeignKey("tenants.name"), nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("main_branch_id", NAME, nullable=False),
    sa.Column("created_at", WHOLE, nullable=False),
    # Whether `database.json` is in the object store.
    sa.Column("written", FLAG, nullable=False, server_default=NO),
    # Whether the export (`exports`) has heard of it.
    sa.Column("queued", FLAG, nullable=False, server_default=NO),
    sa.Column("deleted_at", WHOLE),
    # What is set for it (memoturnd.core.database_settings), as its register has it.
    sa.Column("settings", sa.Text(), nullable=False, server_default=sa.text("''")),
)
sa.Index(
    "databases_live",
    databases.c.tenant,
    databases.c.name,
    unique=True,
    sqlite_where=databases.c.deleted_at.is_(None),
    postgresql_where=databases.c.deleted_at.is_(None),
)
sa.Index(
    "databases_deleted",
    databases.c.tenant,
    databases.c.name,
    sqlite_where=databases.c.deleted_at.isnot(None),
    postgresql_where=databases.c.deleted_at.isnot(None),
)
sa.Index(
    "databases_unqueued",
    databases.c.uuid,
    sqlite_where=sa.text("queued = 0 AND written = 0"),
    postgresql_where=sa.text("NOT queued AND NOT written"),
)

branches: Final = _table(
    "branches",
    sa.Column("db_uuid", NAME, sa.ForeignKey("databases.uuid", ondelete="CASCADE"), primary_key=True),
    sa.Column("name", NAME, primary_key=True),
    sa.Column("branch_id", NAME, nullable=False),
    sa.Column("parent", NAME, nullable=False),
    sa.Column("fork_txid", WHOLE, nullable=False),
    sa.Column("created_at", WHOLE, nullable=False),
    sa.Column("expires_at", WHOLE),
)
sa.Index(
    "branches_due",
    branches.c.expires_at,
    sqlite_where=branches.c.expires_at.isnot(None),
    postgresql_where=branches.c.expires_at.isnot(None),
)

# `db_uuid` is not a foreign key: chores outlive databases, and namespaces have some, too.
chores: Final = _table(
    "chores",
    sa.Column("kind", NAME, primary_key=True),
    sa.Column("db_uuid", NAME, primary_key=True),
    sa.Column("branch_id", NAME, primary_key=True),
    # When it is due; while it is claimed, when the claim ends.
    sa.Column("due_at", WHOLE, nullable=False),
    sa.Column("claimed", FLAG, nullable=False, server_default=NO),
    # What a claimed chore was scheduled for meanwhile.
    sa.Column("again_at", WHOLE),
    sa.Column("attempts", WHOLE, nullable=False, server_default=ZERO),
)
sa.Index("chores_due", chores.c.due_at)

requests: Final = sa.Table(
    "requests",
    metadata,
    sa.Column("seq", WHOLE, primary_key=True, autoincrement=True),
    sa.Column("scope", NAME, nullable=False),
    sa.Column("route", NAME, nullable=False),
    sa.Column("principal", NAME, nullable=False),
    sa.Column("key", NAME, nullable=False),
    sa.Column("digest", BYTES, nullable=False),
    sa.Column("at", WHOLE, nullable=False),
    sa.Column("facts", BYTES, nullable=False),
    sa.Column("answer", BYTES),
    sa.UniqueConstraint("scope", "route", "principal", "key", name="requests_key"),
    sqlite_autoincrement=True,
)

# What the export under `v1/_catalog/` has not heard of. Rows come in the transaction that changes what they tell of,
# and after that row was locked, so that the changes of one id are numbered in the order in which they took effect.
exports: Final = sa.Table(
    "exports",
    metadata,
    sa.Column("change", WHOLE, primary_key=True, autoincrement=True),
    sa.Column("kind", NAME, nullable=False),
    sa.Column("id", NAME, nullable=False),
    # JSON; NULL says that it is gone.
    sa.Column("body", BYTES),
    sqlite_autoincrement=True,
)

# Numbers that come into sight in their order, which those of a sequence do not: who raises one holds its row until
# the end of the transaction.
counters: Final = _table(
    "counters",
    sa.Column("name", NAME, primary_key=True),
    sa.Column("value", WHOLE, nullable=False),
)

tokens: Final = _table(
    "tokens",
    sa.Column("id", NAME, primary_key=True),
    sa.Column("tenant", NAME, nullable=False),
    # Empty for a token of a namespace.
    sa.Column("db", NAME, nullable=False),
    # Empty for a token of a database.
    sa.Column("ns", NAME, nullable=False),
    sa.Column("issued_at", WHOLE, nullable=False),
    sa.Column("expires_at", WHOLE, nullable=False),
    sa.Column("grant", BYTES, nullable=False),
)
sa.Index("tokens_of", tokens.c.tenant, tokens.c.db, tokens.c.ns, tokens.c.id)
sa.Index("tokens_expired", tokens.c.expires_at)

revocations: Final = _table(
    "revocations",
    sa.Column("kind", NAME, primary_key=True),
    sa.Column("tenant", NAME, primary_key=True),
    sa.Column("subject", NAME, primary_key=True),
    sa.Column("change", WHOLE, nullable=False),
    sa.Column("at", WHOLE, nullable=False),
    sa.Column("expires_at", WHOLE, nullable=False),
)
sa.Index("revocations_change", revocations.c.change, unique=True)
sa.Index("revocations_expired", revocations.c.expires_at)

nodes: Final = _table(
    "nodes",
    sa.Column("id", NAME, primary_key=True),
    sa.Column("address", NAME, nullable=False),
    sa.Column("version", NAME, nullable=False),
    sa.Column("started_at", WHOLE, nullable=False),
    sa.Column("seen_at", WHOLE, nullable=False),
)
sa.Index("nodes_seen", nodes.c.seen_at)

# An empty namespace stands for the tenant as a whole; NULL for the default of the settings.
quotas: Final = _table(
    "quotas",
    sa.Column("tenant", NAME, primary_key=True),
    sa.Column("namespace", NAME, primary_key=True),
    sa.Column("change", WHOLE, nullable=False),
    sa.Column("requests_per_s", sa.Double()),
    sa.Column("writes_per_s", sa.Double()),
    sa.Column("bytes", WHOLE),
    sa.Column("databases", WHOLE),
    sa.Column("memories", WHOLE),
)
sa.Index("quotas_change", quotas.c.change, unique=True)

# What databases store now, as far as nodes have said so.
sizes: Final = _table(
    "sizes",
    sa.Column("db_uuid", NAME, sa.ForeignKey("databases.uuid", ondelete="CASCADE"), primary_key=True),
    sa.Column("bytes_stored", WHOLE, nullable=False),
    sa.Column("memories", WHOLE, nullable=False),
)


def _counts() -> list[sa.Column[int]]:
    """Return the columns of a day's usage: what was counted on it, and how much was stored when it was looked at last."""
    names = ("requests", "reads", "writes", "recalls", "bytes_shipped", "bytes_stored", "memories")
    return [sa.Column(name, WHOLE, nullable=False, server_default=ZERO) for name in names]


# `day` is a day of UTC as 2026-11-27.
usage: Final = _table(
    "usage",
    sa.Column("db_uuid", NAME, sa.ForeignKey("databases.uuid", ondelete="CASCADE"), primary_key=True),
    sa.Column("day", NAME, primary_key=True),
    *_counts(),
)
sa.Index("usage_day", usage.c.day)

# Kept when databases go. An empty namespace has what belongs to none.
namespace_usage: Final = _table(
    "namespace_usage",
    sa.Column("tenant", NAME, primary_key=True),
    sa.Column("namespace", NAME, primary_key=True),
    sa.Column("day", NAME, primary_key=True),
    *_counts(),
)
sa.Index("namespace_usage_day", namespace_usage.c.day)

FIRST_ROWS: Final[tuple[sa.Insert, ...]] = (
    sa.insert(tenants).values(name=DEFAULT_TENANT, created_at=0),
    sa.insert(counters).values(name="revocations", value=0),
    sa.insert(counters).values(name="quotas", value=0),
)
"""What a new catalog holds."""
