"""Routes between nodes about replicas, which take the cluster key and nothing else."""

from typing import Final

from memoturnd.core import replica_wire as wire
from memoturnd.errors import InvalidRequestError
from memoturnd.http.bodies import decoder
from memoturnd.http.call import Call
from memoturnd.http.describe import NOTHING, Value, described
from memoturnd.http.envelope import Answer, reply

_SUBSCRIBE = decoder(wire.Subscribe)
_CONFIRM = decoder(wire.Confirm)
_CHANGED = decoder(wire.Changed)
_PUSH: Final = (
    Value(wire.UUID_HEADER, str, "The database's uuid.", is_header=True),
    Value(wire.BRANCH_HEADER, str, "The branch's name.", is_header=True),
    Value(wire.BRANCH_ID_HEADER, str, "The branch's id, which decides where it is given.", is_header=True),
    Value(wire.KIND_HEADER, wire.Kind, "What the body is.", is_header=True),
)


@described(takes=wire.Subscribe, gives={204: NOTHING})
async def subscribe(call: Call) -> Answer:
    """Send what is shipped of a branch to a node from now on. Raises NotOwnerError, OverloadedError."""
    call.node.streams.subscribe(call.decoded(_SUBSCRIBE))
    return Answer(204)


@described(takes=wire.Confirm, gives={200: wire.Confirmed})
async def confirm(call: Call) -> Answer:
    """Say where the branches stand that this node owns, of those that another node follows."""
    return reply(call.node.streams.confirm(call.decoded(_CONFIRM)))


@described(takes=wire.Changed, gives={204: NOTHING})
async def changed(call: Call) -> Answer:
    """Look at once what became of branches that this node follows, or let them go."""
    told = call.decoded(_CHANGED)
    await call.node.streams.changed(told.branches, gone=told.gone)
    return Answer(204)


@described(gives={200: wire.Ingested}, values=_PUSH)
async def ingest(call: Call) -> Answer:
    """Bring a replica up to date by what its owner has shipped.

    Raises InvalidRequestError, NotFoundError where this node does not follow the branch, ConflictError where it owns it.
    """
    uuid, branch = _required(call, wire.UUID_HEADER), _required(call, wire.BRANCH_HEADER)
    kind = _required(call, wire.KIND_HEADER)
    if kind not in wire.KINDS:
        raise InvalidRequestError(f"{wire.KIND_HEADER} takes `segment` or `snapshot`")
    if not call.body:
        raise InvalidRequestError("the body is empty; this route takes a segment or a snapshot")
    branch_id = call.header(wire.BRANCH_ID_HEADER)
    return reply(wire.Ingested(await call.node.streams.ingest(uuid, branch, branch_id, kind, call.body)))


def _required(call: Call, name: str) -> str:
    value = call.header(name)
    if not value:
        raise InvalidRequestError(f"the header {name} is missing")
    return value
