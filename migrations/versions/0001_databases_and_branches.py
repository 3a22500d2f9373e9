"""Databases and branches. Only embedded files have ever had this schema: Postgres begins with 0004."""

from alembic import op

revision = "0001"
down_revision = None

_TABLES = (
    """
CREATE TABLE databases(
  change INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL UNIQUE,
  uuid TEXT NOT NULL UNIQUE,
  main_branch_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  written INTEGER NOT NULL DEFAULT 0
)""",
    "CREATE INDEX databases_unwritten ON databases(change) WHERE written = 0",
    """
CREATE TABLE deletions(
  change INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  uuid TEXT NOT NULL,
  main_branch_id TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  written INTEGER NOT NULL
)""",
    "CREATE TABLE handed_out(change INTEGER NOT NULL)",
    "INSERT INTO handed_out VALUES (0)",
    """
CREATE TABLE branches(
  db_uuid TEXT NOT NULL REFERENCES databases(uuid) ON DELETE CASCADE,
  name TEXT NOT NULL,
  branch_id TEXT NOT NULL,
  parent TEXT NOT NULL,
  fork_txid INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  expires_at INTEGER,
  PRIMARY KEY(db_uuid, name)
) WITHOUT ROWID""",
    "CREATE INDEX branches_due ON branches(expires_at) WHERE expires_at IS NOT NULL",
)


def upgrade() -> None:
    """Make the tables."""
    if op.get_context().dialect.name == "sqlite":
        for statement in _TABLES:
            op.execute(statement)
