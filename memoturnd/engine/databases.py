"""Databases: created as a catalog row, registered in object storage with their first write, deleted whole.

A deletion frees the name at once. What was written stays for a while, and goes with the collector.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

from memoturnd.core import database_settings, names
from memoturnd.core.limits import owner_of
from memoturnd.core.register import with_levels
from memoturnd.engine.database_deletion import DatabaseDeletion
from memoturnd.engine.registers import Registers
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import AlreadyExistsError, DatabaseNotFoundError
from memoturnd.seams.catalog import Database


class Databases:
    """Create, look up, list and delete databases, by their qualified names (memoturnd.core.names)."""

    def __init__(self, services: Services, tiers: Tiers, registers: Registers) -> None:
        self._services = services
        self._registers = registers
        self._deletion = DatabaseDeletion(services, tiers, registers)
        self._delete: Callable[[Database], Awaitable[None]] = self._deletion.delete

    def delete_by(self, elsewhere: Callable[[Database], Awaitable[None]]) -> None:
        """Let `elsewhere` delete databases: a control plane has none of their files."""
        self._delete = elsewhere

    async def create(self, name: str, *, uuid: str | None = None) -> Database:
        """Create a database: one catalog row, no file; `uuid` (32 hex digits) is random unless given.

        Raises AlreadyExistsError, InvalidRequestError, OverloadedError where its owner may have no more.
        """
        tenant, plain = names.split_qualified(name)
        return await self._insert(names.tenant(tenant), names.new_database(plain), uuid)

    async def get(self, name: str) -> Database:
        """Return the database. Raises DatabaseNotFoundError."""
        return await self._services.catalog.get_database(name)

    async def set_durability(self, name: str, levels: dict[str, str]) -> Database:
        """Set the levels that writes to a database's surfaces wait for, in place of those before.

        Raises DatabaseNotFoundError, StoreUnavailableError: what was set is then not known, and may be set again.
        """
        services, database = self._services, await self.get(name)
        file = await self._registers.ensure(database)
        await file.update(lambda register: with_levels(register, levels))
        settings = database_settings.encode(levels)
        await services.catalog.set_settings(database.uuid, settings)
        return replace(database, settings=settings)

    async def last_deleted(self, name: str) -> str | None:
        """Return the uuid of the database that was deleted last under a name, None where none waits."""
        try:
            return (await self._services.catalog.find_deleted(name)).uuid
        except DatabaseNotFoundError:
            return None

    @property
    def grace_ms(self) -> int:
        """Return how long a deleted database can be undeleted."""
        return self._services.graces.of_database

    async def list_namespaces(self, after: str = "", limit: int = 1000, *, tenant: str) -> list[str]:
        """Return up to `limit` of a tenant's namespaces that have profiles, by name, above `after`."""
        return await self._services.catalog.list_namespaces(tenant=tenant, after=after, limit=limit)

    async def list_deleted(
        self, prefix: str = "", after: tuple[str, str] = ("", ""), limit: int = 1000, *, tenant: str
    ) -> list[Database]:
        """Return up to `limit` of a tenant's deleted databases by (name, uuid), with names starting `prefix` and above `after`."""
        return await self._services.catalog.list_deleted(
            tenant=tenant, prefix=prefix, after=after, limit=limit
        )

    async def list(
        self, prefix: str = "", after: str = "", limit: int = 1000, *, tenant: str = names.DEFAULT_TENANT
    ) -> list[Database]:
        """Return up to `limit` of a tenant's databases ordered by name, with names starting `prefix` and above `after`."""
        return await self._services.catalog.list_databases(
            tenant=tenant, prefix=prefix, after=after, limit=limit
        )

    async def ensure_profile(self, name: str) -> Database:
        """Return the database of a profile, creating it where absent. Raises InvalidRequestError, OverloadedError."""
        tenant, plain = names.split_qualified(name)
        try:
            return await self.get(name)
        except DatabaseNotFoundError:
            pass
        try:
            return await self._insert(tenant, plain)
        except AlreadyExistsError:  # somebody else was faster
            return await self.get(name)

    async def _insert(self, tenant: str, name: str, uuid: str | None = None) -> Database:
        randomness = self._services.randomness
        database = Database(
            name,
            uuid or randomness.hex(16),
            randomness.hex(8),
            self._services.clock.now_ms(),
            tenant=tenant,
        )
        caps = await self._services.accounts.caps(owner_of(database.qualified_name))
        await self._services.catalog.create_database(database, caps)
        return database

    async def delete(self, name: str) -> None:
        """Delete a database with all its branches; see DatabaseDeletion. Raises DatabaseNotFoundError, StoreUnavailableError."""
        await self._delete(await self.get(name))

    async def undelete(self, name: str, uuid: str | None = None) -> Database:
        """Bring back the database that was deleted last under a name, or the one with `uuid`; see DatabaseDeletion.

        Raises DatabaseNotFoundError where none waits, AlreadyExistsError where the name is taken by now.
        """
        try:
            standing = await self.get(name)
        except DatabaseNotFoundError:
            standing = None
        if standing is not None and uuid in (None, standing.uuid):
            if await self._deletion.is_half_back(standing):
                return await self._deletion.undelete(standing)
            if uuid is not None:
                return standing
            raise AlreadyExistsError(
                f"database {name} exists: delete or keep it, one deleted before can wait"
            )
        deleted = await self._services.catalog.find_deleted(name, uuid)
        caps = await self._services.accounts.caps(owner_of(name))
        return await self._deletion.undelete(deleted, caps)
