"""Routes of files: a state as a plain SQLite file, and a SQLite file as a new database."""

from memoturnd.core import names
from memoturnd.http.addresses import caught_up, database_of
from memoturnd.http.call import Call
from memoturnd.http.envelope import SQLITE, Answer, at, reached, reply


async def export(call: Call) -> Answer:
    """Answer with the state of a branch as a SQLite file.

    Raises BranchNotFoundError, ConflictError for a state that cannot be restored, OverloadedError.
    """
    name, branch = database_of(call)
    revision = call.at
    if revision is None:
        await caught_up(call.node, name, branch, call.min_txid)
    file = await call.node.transfers.export(name, branch, revision, min_txid=call.min_txid)
    return at(Answer(200, headers=[SQLITE], stream=file), file.txid, file.durable_txid)


async def take(call: Call) -> Answer:
    """Make a new database of the SQLite file in the body.

    Raises AlreadyExistsError, InvalidRequestError for a file that is not one, PayloadTooLargeError,
    OverloadedError.
    """
    name = names.database(call.params["db"])
    made = await call.node.transfers.take(name, call.file)
    database = made.database
    shown = {
        "name": database.name,
        "uuid": database.uuid,
        "created_at": database.created_at,
        "txid": made.txid,
    }
    return reached(at(reply(shown, status=201), made.txid, made.txid), durable=True)
