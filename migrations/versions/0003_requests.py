"""Requests with an Idempotency-Key."""

from alembic import op

revision = "0003"
down_revision = "0002"

_TABLE = """
CREATE TABLE requests(
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  scope TEXT NOT NULL,
  route TEXT NOT NULL,
  principal TEXT NOT NULL,
  key TEXT NOT NULL,
  digest BLOB NOT NULL,
  at INTEGER NOT NULL,
  facts BLOB NOT NULL,
  answer BLOB,
  UNIQUE(scope, route, principal, key)
)"""


def upgrade() -> None:
    """Make the table."""
    if op.get_context().dialect.name == "sqlite":
        op.execute(_TABLE)
