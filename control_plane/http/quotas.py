"""Routes of quotas: what tenants and namespaces may use."""

from dataclasses import asdict
from typing import Annotated, Any

from msgspec import Meta, Struct

from memoturnd.core import names
from memoturnd.core.limits import MOST_COUNT, MOST_RATE, Owner, Quotas
from memoturnd.http.addresses import namespace
from memoturnd.http.bodies import decoder
from memoturnd.http.call import Call
from memoturnd.http.describe import described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.shapes import limits as shapes

Rate = Annotated[float, Meta(ge=0, le=MOST_RATE)]
Count = Annotated[int, Meta(ge=0, le=MOST_COUNT)]


class QuotasBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Quotas of one's own; what is null or missing has the default of the node's settings, 0 is nothing at all."""

    requests_per_s: Rate | None = None
    writes_per_s: Rate | None = None
    bytes: Count | None = None
    databases: Count | None = None
    memories: Count | None = None


_decode = decoder(QuotasBody)


@described(gives={200: shapes.NamespaceQuotas})
async def of_namespace(call: Call) -> Answer:
    """Show the quotas of a namespace, its own and those that hold, and what it takes up."""
    owner = _namespace(call)
    return reply({"namespace": owner.namespace, **await _shown(call, owner)})


@described(takes=QuotasBody, gives={200: shapes.NamespaceQuotas})
async def set_of_namespace(call: Call) -> Answer:
    """Give a namespace quotas of its own, in place of those that it had. It need not exist yet."""
    owner = _namespace(call)
    await call.node.accounts.set(owner, _quotas(call))
    return reply({"namespace": owner.namespace, **await _shown(call, owner)})


@described(gives={200: shapes.TenantQuotas})
async def of_tenant(call: Call) -> Answer:
    """Show the quotas of a tenant as a whole, its own and those that hold, and what it takes up."""
    owner = _tenant(call)
    return reply({"tenant": owner.tenant, **await _shown(call, owner)})


@described(takes=QuotasBody, gives={200: shapes.TenantQuotas})
async def set_of_tenant(call: Call) -> Answer:
    """Give a tenant as a whole quotas of its own, in place of those that it had."""
    owner = _tenant(call)
    await call.node.accounts.set(owner, _quotas(call))
    return reply({"tenant": owner.tenant, **await _shown(call, owner)})


def _namespace(call: Call) -> Owner:
    return Owner(call.principal.tenant, namespace(call))


def _tenant(call: Call) -> Owner:
    return Owner(names.tenant(call.params["tenant"]))


def _quotas(call: Call) -> Quotas:
    body = call.decoded(_decode)
    return Quotas(body.requests_per_s, body.writes_per_s, body.bytes, body.databases, body.memories)


async def _shown(call: Call, owner: Owner) -> dict[str, Any]:
    stored = await call.node.accounts.stored(owner)
    return {
        "quotas": asdict(stored.own),
        "effective": asdict(stored.effective),
        "used": {
            "databases": stored.used.databases,
            "bytes": stored.used.bytes_stored,
            "memories": stored.used.memories,
        },
    }
