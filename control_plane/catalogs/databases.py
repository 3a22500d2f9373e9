"""Tenants, and the databases under their names."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from control_plane.catalogs import exports
from control_plane.catalogs.backend import DanglingError, Part, Row, Session, TakenError
from control_plane.catalogs.owners import ABOVE_ALL_TEXT, check_caps, lock_tenant
from control_plane.catalogs.tokens import bury, bury_tenant
from control_plane.schema import NAME, WHOLE, branches, databases, tenants
from memoturnd.core import names
from memoturnd.errors import AlreadyExistsError, ConflictError, DatabaseNotFoundError, NotFoundError
from memoturnd.seams.catalog import Cap, Database, Tenant

_uuid = sa.bindparam("uuid", type_=NAME)
_tenant = sa.bindparam("tenant", type_=NAME)
_name = sa.bindparam("name", type_=NAME)
_limit = sa.bindparam("limit", type_=WHOLE)
_at = sa.bindparam("at", type_=WHOLE)
_live = databases.c.deleted_at.is_(None)
_deleted = databases.c.deleted_at.isnot(None)

_COLUMNS = (
    databases.c.name,
    databases.c.uuid,
    databases.c.main_branch_id,
    databases.c.created_at,
    databases.c.written,
    databases.c.tenant,
    databases.c.deleted_at,
    databases.c.settings,
)
_ROW = sa.select(*_COLUMNS)
_INSERT = sa.insert(databases).values(
    uuid=_uuid,
    tenant=_tenant,
    name=_name,
    main_branch_id=sa.bindparam("main_branch_id"),
    created_at=sa.bindparam("created_at"),
    written=sa.bindparam("written"),
)
_GET = _ROW.where(databases.c.tenant == _tenant, databases.c.name == _name, _live)
_GET_BY_UUID = _ROW.where(databases.c.uuid == _uuid)
_LOCK = _GET_BY_UUID.add_columns(databases.c.queued).with_for_update()
_LIST = (
    _ROW.where(
        databases.c.tenant == _tenant,
        databases.c.name >= sa.bindparam("first", type_=NAME),
        databases.c.name > sa.bindparam("after", type_=NAME),
        databases.c.name < sa.bindparam("end", type_=NAME),
        _live,
    )
    .order_by(databases.c.name)
    .limit(_limit)
)
_ANY = sa.select(databases.c.uuid).limit(sa.literal_column("1"))
_NEXT_WRITTEN = (
    _ROW.where(databases.c.uuid > _uuid, databases.c.written, _live)
    .order_by(databases.c.uuid)
    .limit(sa.literal_column("1"))
)
_MARK_WRITTEN = (
    sa.update(databases)
    .where(databases.c.uuid == _uuid, ~databases.c.written)
    .values(written=sa.true())
    .returning(databases.c.queued)
)
_SET_SETTINGS = (
    sa.update(databases).where(databases.c.uuid == _uuid).values(settings=sa.bindparam("settings"))
)
_SOFT_DELETE = (
    sa.update(databases).where(databases.c.uuid == _uuid, _live).values(deleted_at=_at, queued=sa.true())
)
_UNDELETE = (
    sa.update(databases)
    .where(databases.c.uuid == _uuid, _deleted)
    .values(deleted_at=sa.null(), queued=sa.true())
)
_FORGET = sa.delete(databases).where(databases.c.uuid == _uuid)
_FORGET_BRANCHES = sa.delete(branches).where(branches.c.db_uuid == _uuid)
_LIST_DELETED = (
    _ROW.where(
        databases.c.tenant == _tenant,
        databases.c.name >= sa.bindparam("first", type_=NAME),
        databases.c.name < sa.bindparam("end", type_=NAME),
        _deleted,
        sa.or_(
            databases.c.name > sa.bindparam("after", type_=NAME),
            sa.and_(databases.c.name == sa.bindparam("after", type_=NAME), databases.c.uuid > _uuid),
        ),
    )
    .order_by(databases.c.name, databases.c.uuid)
    .limit(_limit)
)
_LAST_DELETED = (
    _ROW.where(databases.c.tenant == _tenant, databases.c.name == _name, _deleted)
    .order_by(databases.c.deleted_at.desc(), databases.c.uuid)
    .limit(sa.literal_column("1"))
)
_NEXT_PROFILE = (
    sa.select(databases.c.name)
    .where(
        databases.c.tenant == _tenant,
        databases.c.name > sa.bindparam("after", type_=NAME),
        databases.c.name.contains(names.PROFILE_SEPARATOR, autoescape=True),
        _live,
    )
    .order_by(databases.c.name)
    .limit(sa.literal_column("1"))
)

_INSERT_TENANT = sa.insert(tenants).values(name=_name, created_at=_at)
_GET_TENANT = sa.select(tenants.c.name, tenants.c.created_at).where(tenants.c.name == _name)
_LIST_TENANTS = (
    sa.select(tenants.c.name, tenants.c.created_at)
    .where(tenants.c.name > sa.bindparam("after", type_=NAME))
    .order_by(tenants.c.name)
    .limit(_limit)
)
_DELETE_TENANT = sa.delete(tenants).where(tenants.c.name == _name)


class Directory(Part):
    """Which tenants and databases exist."""

    async def create_database(self, database: Database, caps: Sequence[Cap] = ()) -> None:
        """Insert one database. Raises AlreadyExistsError (name or uuid), NotFoundError for a missing tenant.

        Raises OverloadedError where there would be more than one of the caps says.
        """
        values = {
            "uuid": database.uuid,
            "tenant": database.tenant,
            "name": database.name,
            "main_branch_id": database.main_branch_id,
            "created_at": database.created_at,
            "written": database.written,
        }
        try:
            if not caps:
                await self._backend.run(_INSERT, **values)
                return
            async with self._backend.transaction() as session:
                await lock_tenant(session, database.tenant)
                await session.run(_INSERT, **values)
                await check_caps(session, caps)
        except TakenError as error:
            raise AlreadyExistsError(
                f"database {database.qualified_name} already exists: use another name"
            ) from error
        except DanglingError as error:
            raise NotFoundError(f"no tenant {database.tenant}: create it first") from error

    async def get_database(self, name: str) -> Database:
        """Return the database. Raises DatabaseNotFoundError."""
        tenant, plain = names.split_qualified(name)
        for row in await self._backend.rows(_GET, tenant=tenant, name=plain):
            return database_of(row)
        raise DatabaseNotFoundError(f"no database {name}: create it first")

    async def get_database_by_uuid(self, uuid: str) -> Database:
        """Return the database, deleted or not. Raises DatabaseNotFoundError."""
        for row in await self._backend.rows(_GET_BY_UUID, uuid=uuid):
            return database_of(row)
        raise DatabaseNotFoundError(f"no database has the id {uuid}")

    async def list_databases(
        self, *, tenant: str = names.DEFAULT_TENANT, prefix: str = "", after: str = "", limit: int = 1000
    ) -> list[Database]:
        """Return up to `limit` of a tenant's databases ordered by name, with names starting `prefix` and above `after`."""
        rows = await self._backend.rows(
            _LIST, tenant=tenant, first=prefix, after=after, end=prefix + ABOVE_ALL_TEXT, limit=max(0, limit)
        )
        return [database_of(row) for row in rows]

    async def is_empty(self) -> bool:
        """Return whether no tenant has a database."""
        return not await self._backend.rows(_ANY)

    async def written_after(self, uuid: str) -> Database | None:
        """Return the written database with the next higher uuid, after the highest the lowest; None without one."""
        for lowest in (uuid, ""):
            for row in await self._backend.rows(_NEXT_WRITTEN, uuid=lowest):
                return database_of(row)
        return None

    async def mark_written(self, uuid: str) -> None:
        """Record that the database has its `database.json`: the export need not hold it any more."""
        async with self._backend.transaction() as session:
            for (queued,) in await session.rows(_MARK_WRITTEN, uuid=uuid):
                if queued:
                    await exports.note(session, exports.DATABASE, uuid, None)

    async def set_settings(self, uuid: str, settings: str) -> None:
        """Keep what is set for a database, as its register has it; no error when it is gone."""
        await self._backend.run(_SET_SETTINGS, uuid=uuid, settings=settings)

    async def delete_database(self, uuid: str, *, at_ms: int) -> None:
        """Mark the database as deleted: its name is free, its branch rows are gone. No error when it is already gone."""
        async with self._backend.transaction() as session:
            locked = await _locked(session, uuid)
            if locked is None or locked[0].deleted_at is not None:
                return
            database, queued = locked
            await session.run(_SOFT_DELETE, uuid=uuid, at=at_ms)
            await session.run(_FORGET_BRANCHES, uuid=uuid)
            await bury(session, database.tenant, database.name, at_ms)
            if queued and not database.written:
                await exports.note(session, exports.DATABASE, uuid, None)

    async def undelete_database(self, uuid: str, caps: Sequence[Cap] = ()) -> Database:
        """Give a deleted database its name back; one that is live is returned.

        Raises DatabaseNotFoundError, AlreadyExistsError when the name was taken meanwhile, OverloadedError where there would
        be more than one of the caps says.
        """
        try:
            async with self._backend.transaction() as session:
                locked = await _locked(session, uuid)
                if locked is None:
                    raise DatabaseNotFoundError(f"no database has the id {uuid}: it is gone for good")
                if caps:
                    await lock_tenant(session, locked[0].tenant)
                if await session.run(_UNDELETE, uuid=uuid):
                    await check_caps(session, caps)
                    if not locked[0].written:
                        await exports.note(session, exports.DATABASE, uuid, exports.database_body(locked[0]))
        except TakenError as error:
            raise AlreadyExistsError(
                "another database has the name meanwhile: delete that one, or read this one's objects"
            ) from error
        return await self.get_database_by_uuid(uuid)

    async def forget_database(self, uuid: str) -> None:
        """Remove the database and its branch rows, deleted or not; no error when it is already gone."""
        async with self._backend.transaction() as session:
            locked = await _locked(session, uuid)
            if locked is None:
                return
            database, queued = locked
            await session.run(_FORGET, uuid=uuid)
            if queued and not database.written and database.deleted_at is None:
                await exports.note(session, exports.DATABASE, uuid, None)

    async def list_deleted(
        self, *, tenant: str, prefix: str = "", after: tuple[str, str] = ("", ""), limit: int = 1000
    ) -> list[Database]:
        """Return up to `limit` of a tenant's deleted databases by (name, uuid), above `after`."""
        rows = await self._backend.rows(
            _LIST_DELETED,
            tenant=tenant,
            first=max(prefix, after[0]),
            end=prefix + ABOVE_ALL_TEXT,
            after=after[0],
            uuid=after[1],
            limit=max(0, limit),
        )
        return [database_of(row) for row in rows]

    async def find_deleted(self, name: str, uuid: str | None = None) -> Database:
        """Return the deleted database of a name, of several the one deleted last, or the one with `uuid`.

        Raises DatabaseNotFoundError.
        """
        tenant, plain = names.split_qualified(name)
        if uuid is None:
            rows = await self._backend.rows(_LAST_DELETED, tenant=tenant, name=plain)
        else:
            rows = await self._backend.rows(_GET_BY_UUID, uuid=uuid)
        for row in rows:
            database = database_of(row)
            if database.deleted_at is not None and (database.tenant, database.name) == (tenant, plain):
                return database
        raise DatabaseNotFoundError(f"no deleted database {name}: list the deleted ones to see what is left")

    async def list_namespaces(self, *, tenant: str, after: str = "", limit: int = 1000) -> list[str]:
        """Return up to `limit` of a tenant's namespaces that have a profile, by name, above `after`.

        One look into the index per namespace, however many profiles it has.
        """
        found: list[str] = []
        above = _end_of(after) if after else ""
        while len(found) < limit:
            rows = await self._backend.rows(_NEXT_PROFILE, tenant=tenant, after=above)
            if not rows:
                break
            found.append(rows[0][0].partition(names.PROFILE_SEPARATOR)[0])
            above = _end_of(found[-1])
        return found

    async def create_tenant(self, name: str, at_ms: int) -> Tenant:
        """Insert a tenant. Raises AlreadyExistsError."""
        try:
            async with self._backend.transaction() as session:
                await session.run(_INSERT_TENANT, name=name, at=at_ms)
                await exports.note(session, exports.TENANT, name, exports.tenant_body(at_ms))
        except TakenError as error:
            raise AlreadyExistsError(f"tenant {name} already exists: use another name") from error
        return Tenant(name, at_ms)

    async def get_tenant(self, name: str) -> Tenant:
        """Return the tenant. Raises NotFoundError."""
        for row in await self._backend.rows(_GET_TENANT, name=name):
            return Tenant(*row)
        raise NotFoundError(f"no tenant {name}: create it first")

    async def list_tenants(self, *, after: str = "", limit: int = 1000) -> list[Tenant]:
        """Return up to `limit` tenants by name, above `after`."""
        rows = await self._backend.rows(_LIST_TENANTS, after=after, limit=max(0, limit))
        return [Tenant(*row) for row in rows]

    async def delete_tenant(self, name: str, *, at_ms: int) -> None:
        """Remove a tenant and revoke its tokens; no error when it is already gone. Raises ConflictError while it has a database."""
        if name == names.DEFAULT_TENANT:
            raise ConflictError(f"the tenant {name} always exists")
        try:
            async with self._backend.transaction() as session:
                if await session.run(_DELETE_TENANT, name=name):
                    await bury_tenant(session, name, at_ms)
                    await exports.note(session, exports.TENANT, name, None)
        except DanglingError as error:
            raise ConflictError(
                f"tenant {name} has databases, live or deleted: delete them, and wait until they are gone for good"
            ) from error


def database_of(row: Row) -> Database:
    """Return the database of a row of `_COLUMNS`."""
    name, uuid, main_branch_id, created_at, written, tenant, deleted_at, settings, *_ = row
    return Database(name, uuid, main_branch_id, created_at, bool(written), tenant, deleted_at, settings)


async def _locked(session: Session, uuid: str) -> tuple[Database, bool] | None:
    """Return the database, which nobody else changes until the transaction ends, and whether the export knows it."""
    for row in await session.rows(_LOCK, uuid=uuid):
        queued: Any = row[-1]
        return database_of(row), bool(queued)
    return None


def _end_of(namespace: str) -> str:
    """Return what is above all profiles of the namespace and below those of the next."""
    return namespace + names.PROFILE_SEPARATOR + ABOVE_ALL_TEXT
