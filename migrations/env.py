"""How Alembic reaches the catalog: over the connection that `control_plane.migrating` hands it."""

from alembic import context

from control_plane.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, compare_type=True
)
with context.begin_transaction():
    context.run_migrations()
