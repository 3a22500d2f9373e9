"""Chores: every database that was written is looked at once."""

from alembic import op

revision = "0002"
down_revision = "0001"

_TABLES = (
    """
CREATE TABLE chores(
  kind TEXT NOT NULL,
  db_uuid TEXT NOT NULL,
  branch_id TEXT NOT NULL,
  due_at INTEGER NOT NULL,
  claimed INTEGER NOT NULL DEFAULT 0,
  again_at INTEGER,
  attempts INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(kind, db_uuid, branch_id)
) WITHOUT ROWID""",
    "CREATE INDEX chores_due ON chores(due_at)",
    """
INSERT INTO chores(kind, db_uuid, branch_id, due_at)
  SELECT 'collect', uuid, '', 0 FROM databases WHERE written
  UNION ALL SELECT 'retention', uuid, main_branch_id, 0 FROM databases WHERE written
  UNION ALL SELECT 'retention', db_uuid, branch_id, 0 FROM branches""",
)


def upgrade() -> None:
    """Make the table and its first rows."""
    if op.get_context().dialect.name == "sqlite":
        for statement in _TABLES:
            op.execute(statement)
