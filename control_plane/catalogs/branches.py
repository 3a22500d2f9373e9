"""The branches of databases, other than main."""

import sqlalchemy as sa

from control_plane.catalogs.backend import DanglingError, Part, TakenError
from control_plane.schema import NAME, WHOLE, branches
from memoturnd.errors import AlreadyExistsError, BranchNotFoundError, DatabaseNotFoundError
from memoturnd.seams.catalog import MAIN, BranchRow

_COLUMNS = (
    branches.c.db_uuid,
    branches.c.branch_id,
    branches.c.name,
    branches.c.parent,
    branches.c.fork_txid,
    branches.c.created_at,
    branches.c.expires_at,
)
_of = branches.c.db_uuid == sa.bindparam("uuid", type_=NAME)
_named = branches.c.name == sa.bindparam("branch", type_=NAME)
_INSERT = sa.insert(branches).values({c.name: sa.bindparam(c.name, type_=c.type) for c in _COLUMNS})
_GET = sa.select(*_COLUMNS).where(_of, _named)
_LIST = sa.select(*_COLUMNS).where(_of).order_by(branches.c.name)
_DELETE = sa.delete(branches).where(_of, _named)
_DELETE_ONE = _DELETE.where(branches.c.branch_id == sa.bindparam("id", type_=NAME))
_DUE = (
    sa.select(*_COLUMNS)
    .where(branches.c.expires_at <= sa.bindparam("now", type_=WHOLE))
    .order_by(branches.c.expires_at)
    .limit(sa.bindparam("limit", type_=WHOLE))
)


class Branches(Part):
    """Which branches exist, and which of them expire."""

    async def put_branch(self, row: BranchRow) -> None:
        """Insert a branch.

        Raises AlreadyExistsError when the database has a branch of that name (main always exists),
        DatabaseNotFoundError when there is no such database.
        """
        if row.name == MAIN:
            raise AlreadyExistsError(f"branch {MAIN} always exists: use another name")
        try:
            await self._backend.run(
                _INSERT,
                db_uuid=row.db_uuid,
                branch_id=row.branch_id,
                name=row.name,
                parent=row.parent,
                fork_txid=row.fork_txid,
                created_at=row.created_at,
                expires_at=row.expires_at,
            )
        except DanglingError as error:
            raise DatabaseNotFoundError(f"no database {row.db_uuid}: create it first") from error
        except TakenError as error:
            raise AlreadyExistsError(f"branch {row.name} already exists: use another name") from error

    async def get_branch(self, db_uuid: str, name: str) -> BranchRow:
        """Return the branch. Raises BranchNotFoundError."""
        for row in await self._backend.rows(_GET, uuid=db_uuid, branch=name):
            return BranchRow(*row)
        raise BranchNotFoundError(f"no branch {name}: list the branches to see what exists")

    async def list_branches(self, db_uuid: str) -> list[BranchRow]:
        """Return the branches of a database other than main, ordered by name."""
        return [BranchRow(*row) for row in await self._backend.rows(_LIST, uuid=db_uuid)]

    async def delete_branch(self, db_uuid: str, name: str, *, branch_id: str | None = None) -> None:
        """Remove a branch row, with `branch_id` only that branch's; no error when it is already gone."""
        if branch_id is None:
            await self._backend.run(_DELETE, uuid=db_uuid, branch=name)
        else:
            await self._backend.run(_DELETE_ONE, uuid=db_uuid, branch=name, id=branch_id)

    async def due_branches(self, now_ms: int, *, limit: int = 100) -> list[BranchRow]:
        """Return burners whose `expires_at` is at or before `now_ms`, oldest first, by index."""
        rows = await self._backend.rows(_DUE, now=now_ms, limit=max(0, limit))
        return [BranchRow(*row) for row in rows]
