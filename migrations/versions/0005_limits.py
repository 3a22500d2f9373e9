"""Quotas, usage by day, and what databases store."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
WHOLE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ZERO = sa.text("0")
COUNTS = ("requests", "reads", "writes", "recalls", "bytes_shipped", "bytes_stored", "memories")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "quotas",
        _key("tenant"),
        _key("namespace"),
        sa.Column("change", WHOLE, nullable=False),
        sa.Column("requests_per_s", sa.Double()),
        sa.Column("writes_per_s", sa.Double()),
        sa.Column("bytes", WHOLE),
        sa.Column("databases", WHOLE),
        sa.Column("memories", WHOLE),
        sqlite_with_rowid=False,
    )
    op.create_index("quotas_change", "quotas", ["change"], unique=True)
    op.execute("INSERT INTO counters(name, value) VALUES ('quotas', 0)")
    op.create_table(
        "sizes",
        _key("db_uuid"),
        sa.Column("bytes_stored", WHOLE, nullable=False),
        sa.Column("memories", WHOLE, nullable=False),
        _of_database("sizes"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage", _key("db_uuid"), _key("day"), *_counts(), _of_database("usage"), sqlite_with_rowid=False
    )
    op.create_index("usage_day", "usage", ["day"])
    op.create_table(
        "namespace_usage",
        _key("tenant"),
        _key("namespace"),
        _key("day"),
        *_counts(),
        sqlite_with_rowid=False,
    )
    op.create_index("namespace_usage_day", "namespace_usage", ["day"])


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, NAME, primary_key=True, nullable=False)


def _counts() -> list[sa.Column[int]]:
    return [sa.Column(name, WHOLE, nullable=False, server_default=ZERO) for name in COUNTS]


def _of_database(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["db_uuid"], ["databases.uuid"], name=f"{table}_db_uuid_fkey", ondelete="CASCADE"
    )
