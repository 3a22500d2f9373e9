"""What the export under `v1/_catalog/` has not heard of yet: an outbox, filled by the transactions that change things.

A provision has to stay one small insert: a new database is only marked as not queued, and comes into the outbox
when somebody asks what there is to export.
"""

from typing import Final

import msgspec
import sqlalchemy as sa

from control_plane.catalogs.backend import Part, Session
from control_plane.schema import BYTES, NAME, WHOLE, databases, exports
from memoturnd.seams.catalog import EXPORTED_AT_ONCE, Database, Export

DATABASE: Final = "database"
"""The kind of databases that were never written: those that were are described by their `database.json`."""

TENANT: Final = "tenant"

_limit = sa.bindparam("limit", type_=WHOLE)
_uuid = sa.bindparam("uuid", type_=NAME)
_INSERT = sa.insert(exports).values(
    kind=sa.bindparam("kind"), id=sa.bindparam("id"), body=sa.bindparam("body", type_=BYTES)
)
_NEW = (
    sa.select(
        databases.c.uuid,
        databases.c.tenant,
        databases.c.name,
        databases.c.main_branch_id,
        databases.c.created_at,
    )
    .where(~databases.c.queued, ~databases.c.written)
    .order_by(databases.c.uuid)
    .limit(_limit)
    .with_for_update(skip_locked=True)
)
_MARK_QUEUED = sa.update(databases).where(databases.c.uuid == _uuid).values(queued=sa.true())
_PENDING = (
    sa.select(exports.c.change, exports.c.kind, exports.c.id, exports.c.body)
    .order_by(exports.c.change)
    .limit(_limit)
)
_DONE = sa.delete(exports).where(exports.c.change == sa.bindparam("change", type_=WHOLE))


class Exports(Part):
    """What is to be exported."""

    async def pending_exports(self, limit: int = 1000) -> list[Export]:
        """Return up to `limit` changes that were not exported, oldest first.

        Each stands there until `exported` names it: whoever exports it twice does no harm.
        """
        async with self._backend.transaction() as session:
            new = [
                Database(name, uuid, main_branch_id, created_at, tenant=tenant)
                for uuid, tenant, name, main_branch_id, created_at in await session.rows(
                    _NEW, limit=min(limit, EXPORTED_AT_ONCE)
                )
            ]
            if new:
                await session.run_each(_MARK_QUEUED, [{"uuid": one.uuid} for one in new])
                await session.run_each(
                    _INSERT, [{"kind": DATABASE, "id": one.uuid, "body": database_body(one)} for one in new]
                )
            return [Export(*row) for row in await session.rows(_PENDING, limit=max(0, limit))]

    async def exported(self, changes: list[int]) -> None:
        """Forget exactly these changes: the export has them."""
        async with self._backend.transaction() as session:
            await session.run_each(_DONE, [{"change": change} for change in changes])


async def note(session: Session, kind: str, identity: str, body: bytes | None) -> None:
    """Let the export hear of a change, in its own transaction; None says that the thing is gone."""
    await session.run(_INSERT, kind=kind, id=identity, body=body)


def database_body(database: Database) -> bytes:
    """Return a never-written database as the export holds it."""
    return msgspec.json.encode(
        {
            "tenant": database.tenant,
            "name": database.name,
            "main_branch_id": database.main_branch_id,
            "created_at": database.created_at,
        }
    )


def tenant_body(created_at: int) -> bytes:
    """Return a tenant as the export holds it, by its name."""
    return msgspec.json.encode({"created_at": created_at})
