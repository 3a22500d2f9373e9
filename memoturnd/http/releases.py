"""Internal routes of branches: what one node asks of another that owns what it needs."""

from memoturnd.core.release_wire import Asked, Done, Durable
from memoturnd.http.bodies import decoder
from memoturnd.http.call import Call
from memoturnd.http.describe import described
from memoturnd.http.envelope import Answer, reply
from memoturnd.seams.catalog import Chore

_ASKED = decoder(Asked)


@described(gives={200: Durable})
async def release(call: Call) -> Answer:
    """Ship a branch and give it back, for a node that needs it. Raises NotOwnerError, RetryableError."""
    txid = await call.node.releases.release(call.params["uuid"], call.params["branch_id"])
    return reply(Durable(txid))


@described(gives={200: Durable})
async def ship(call: Call) -> Answer:
    """Ship what is committed of a branch, for a node that reads it in object storage. Raises NotOwnerError, RetryableError."""
    txid = await call.node.releases.ship(call.params["uuid"], call.params["branch_id"])
    return reply(Durable(txid))


@described(takes=Asked, gives={200: Done})
async def chore(call: Call) -> Answer:
    """Do a chore of a branch that this node owns, for the node that has claimed it. Raises NotOwnerError, OverloadedError."""
    asked = call.decoded(_ASKED)
    due = Chore(asked.kind, call.params["uuid"], call.params["branch_id"])
    return reply(Done(await call.node.maintenance.do_for_another(due)))
