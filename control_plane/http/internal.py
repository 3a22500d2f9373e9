"""Routes between a control plane and data-plane nodes, which take the cluster key and nothing else."""

from memoturnd.errors import DatabaseNotFoundError
from memoturnd.http.addresses import named_database
from memoturnd.http.call import Call
from memoturnd.http.describe import NOTHING, described
from memoturnd.http.envelope import Answer


@described(gives={204: NOTHING})
async def delete_database(call: Call) -> Answer:
    """Delete a database for a control plane, which has asked who wants it. Raises DatabaseNotFoundError."""
    name = named_database(call)
    database = await call.node.databases.get(name)
    if database.uuid != call.params["uuid"]:
        raise DatabaseNotFoundError(f"no database {name} of that uuid: another has the name by now")
    await call.node.databases.delete(name)
    return Answer(204)
