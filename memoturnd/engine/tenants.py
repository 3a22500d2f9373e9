"""Tenants: who has names of their own. The tenant `default` always exists."""

from memoturnd.engine.services import Services
from memoturnd.seams.catalog import Tenant


class Tenants:
    """Create, look up, list and delete tenants."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def create(self, name: str) -> Tenant:
        """Create a tenant by a checked name. Raises AlreadyExistsError."""
        return await self._services.catalog.create_tenant(name, self._services.clock.now_ms())

    async def get(self, name: str) -> Tenant:
        """Return the tenant. Raises NotFoundError."""
        return await self._services.catalog.get_tenant(name)

    async def list(self, after: str = "", limit: int = 1000) -> list[Tenant]:
        """Return up to `limit` tenants by name, above `after`."""
        return await self._services.catalog.list_tenants(after=after, limit=limit)

    async def delete(self, name: str) -> None:
        """Delete a tenant. Raises ConflictError while it has a database, also a deleted one that can still come back."""
        await self._services.catalog.delete_tenant(name, at_ms=self._services.clock.now_ms())
