"""Routes of tenants, for the platform key: made, listed, shown, and deleted when nothing is left in them."""

from memoturnd.core import cursors, names
from memoturnd.engine.journal import Entry, Facts
from memoturnd.errors import AlreadyExistsError, NotFoundError
from memoturnd.http.bodies import NameBody, decoder
from memoturnd.http.call import MAX_INTEGER, Call
from memoturnd.http.describe import NOTHING, ONCE, PAGE, described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.journal import taking_effect_once
from memoturnd.http.paging import page
from memoturnd.http.shapes import operators as shapes
from memoturnd.seams.catalog import Tenant

_decode_name = decoder(NameBody)


@described(takes=NameBody, gives={201: shapes.Tenant}, values=(ONCE,))
async def create(call: Call) -> Answer:
    """Register a tenant. Raises InvalidRequestError, AlreadyExistsError."""
    name, tenants = names.tenant(call.decoded(_decode_name).name), call.node.tenants
    call.tell(resource=f"tenants/{name}")

    async def run(entry: Entry | None) -> Answer:
        try:
            made = await tenants.create(name)
        except AlreadyExistsError:
            made = await tenants.get(name)
            if entry is None or not entry.resumed or made.created_at < entry.facts["at_ms"]:
                raise  # it was there before
        return reply(_shown(made), status=201)

    return await taking_effect_once(call, _nothing_to_know, run)


@described(gives={200: shapes.TenantPage}, values=PAGE)
async def list_all(call: Call) -> Answer:
    """List tenants by name, a page at a time."""
    asked = page(call, cursors.Name)
    rows = await call.node.tenants.list(asked.after or "", asked.rows)
    return reply(asked.listed("tenants", [_shown(row) for row in rows], rows, lambda row: row.name))


@described(gives={200: shapes.Tenant})
async def get(call: Call) -> Answer:
    """Show a tenant. Raises NotFoundError."""
    return reply(_shown(await call.node.tenants.get(names.tenant(call.params["tenant"]))))


@described(gives={204: NOTHING}, values=(ONCE,))
async def delete(call: Call) -> Answer:
    """Delete a tenant that has no database, live or deleted. Raises NotFoundError, ConflictError."""
    name, tenants = names.tenant(call.params["tenant"]), call.node.tenants

    async def run(entry: Entry | None) -> Answer:
        try:
            if (await tenants.get(name)).created_at <= (
                entry.facts["at_ms"] if entry is not None else MAX_INTEGER
            ):
                await tenants.delete(name)
        except NotFoundError:
            if entry is None or not entry.resumed:
                raise
        return Answer(204)

    return await taking_effect_once(call, _nothing_to_know, run)


async def _nothing_to_know() -> Facts:
    return {}


def _shown(tenant: Tenant) -> dict[str, object]:
    return {"name": tenant.name, "created_at": tenant.created_at}
