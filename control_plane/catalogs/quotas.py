"""What tenants and namespaces may use."""

from dataclasses import asdict
from typing import Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from control_plane.catalogs import exports
from control_plane.catalogs.backend import Part, Row
from control_plane.schema import NAME, WHOLE, counters, quotas
from memoturnd.core.limits import NO_QUOTAS, Owner, Quotas
from memoturnd.seams.catalog import QuotaChange

KIND: Final = "quotas"
"""The kind of the export's entries, and the counter that numbers changes."""
_limit = sa.bindparam("limit", type_=WHOLE)
_tenant = sa.bindparam("tenant", type_=NAME)
_namespace = sa.bindparam("namespace", type_=NAME)
_values = (
    quotas.c.requests_per_s,
    quotas.c.writes_per_s,
    quotas.c.bytes,
    quotas.c.databases,
    quotas.c.memories,
)
_ROW = sa.select(quotas.c.tenant, quotas.c.namespace, *_values)
_GET = _ROW.where(quotas.c.tenant == _tenant, quotas.c.namespace == _namespace)
_LIST = (
    _ROW.where(
        sa.or_(
            quotas.c.tenant > _tenant, sa.and_(quotas.c.tenant == _tenant, quotas.c.namespace > _namespace)
        )
    )
    .order_by(quotas.c.tenant, quotas.c.namespace)
    .limit(_limit)
)
_CHANGED = (
    _ROW.add_columns(quotas.c.change)
    .where(quotas.c.change > sa.bindparam("since", type_=WHOLE))
    .order_by(quotas.c.change)
    .limit(_limit)
)
NUMBER = (
    sa.update(counters)
    .where(counters.c.name == sa.literal(KIND, NAME))
    .values(value=counters.c.value + 1)
    .returning(counters.c.value)
)
_insert = postgresql.insert(quotas).values({c.name: sa.bindparam(c.name, type_=c.type) for c in quotas.c})
_PUT = _insert.on_conflict_do_update(
    index_elements=["tenant", "namespace"],
    set_={c.name: _insert.excluded[c.name] for c in quotas.c if not c.primary_key},
)


class QuotaBook(Part):
    """The quotas of those that have some of their own."""

    async def quotas_of(self, owner: Owner) -> Quotas:
        """Return the quotas that an owner has of its own."""
        for row in await self._backend.rows(_GET, tenant=owner.tenant, namespace=owner.namespace):
            return _quotas(row)[1]
        return NO_QUOTAS

    async def put_quotas(self, owner: Owner, own: Quotas) -> None:
        """Give a tenant or namespace quotas, in place of what it had."""
        values = asdict(own)
        async with self._backend.transaction() as session:
            [(change,)] = await session.rows(NUMBER)
            await session.run(_PUT, tenant=owner.tenant, namespace=owner.namespace, change=change, **values)
            body = None if own == NO_QUOTAS else msgspec.json.encode(values)
            await exports.note(session, KIND, f"{owner.tenant}/{owner.namespace}", body)

    async def list_quotas(
        self, *, after: Owner | None = None, limit: int = 1000
    ) -> list[tuple[Owner, Quotas]]:
        """Return who has quotas of their own, ordered by tenant and namespace."""
        tenant, namespace = after or ("", "")
        rows = await self._backend.rows(_LIST, tenant=tenant, namespace=namespace, limit=max(0, limit))
        return [_quotas(row) for row in rows]

    async def quotas_changed(self, since: int, *, limit: int = 1000) -> list[QuotaChange]:
        """Return the quotas that changed after change `since`, each as it is now, in order."""
        rows = await self._backend.rows(_CHANGED, since=since, limit=limit)
        return [QuotaChange(row[-1], *_quotas(row)) for row in rows]


def _quotas(row: Row) -> tuple[Owner, Quotas]:
    tenant, namespace, requests_per_s, writes_per_s, size_bytes, databases, memories, *_ = row
    return Owner(tenant, namespace), Quotas(requests_per_s, writes_per_s, size_bytes, databases, memories)
