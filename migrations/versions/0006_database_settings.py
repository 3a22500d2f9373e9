"""What is set for a database: the levels of durability of its surfaces."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column."""
    op.add_column("databases", sa.Column("settings", sa.Text(), nullable=False, server_default=sa.text("''")))
