"""Routes of files: a state as a plain SQLite file, and a SQLite file as a new database."""

from memoturnd.core import names
from memoturnd.core.durability import Durability
from memoturnd.errors import InvalidRequestError
from memoturnd.http.addresses import caught_up, database_of, named_database
from memoturnd.http.call import Call
from memoturnd.http.describe import SQLITE as SQLITE_FILE
from memoturnd.http.describe import Value, described
from memoturnd.http.envelope import SQLITE, Answer, at, reached, reply
from memoturnd.http.shapes import Count
from memoturnd.http.shapes import operators as shapes
from memoturnd.surfaces.fields import SECONDS_LIMIT


@described(gives={200: SQLITE_FILE})
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


@described(
    gives={201: shapes.ImportedFile},
    values=(
        Value("branch", str, "New branch of a database that is there; main makes a new database."),
        Value("ttl", Count, "Seconds after which the branch goes."),
    ),
)
async def take(call: Call) -> Answer:
    """Make a new database of the SQLite file in the body, or a new branch of one that is there.

    Raises AlreadyExistsError, DatabaseNotFoundError, InvalidRequestError for a file that is not one, PayloadTooLargeError,
    OverloadedError.
    """
    name = named_database(call)
    branch = names.branch(call.text("branch") or names.MAIN_BRANCH)
    ttl_s = call.integer("ttl")
    if ttl_s is not None and (branch == names.MAIN_BRANCH or ttl_s > SECONDS_LIMIT):
        raise InvalidRequestError(
            f"`ttl` is for branches other than main, and at most {SECONDS_LIMIT} seconds"
        )
    made = await call.node.transfers.take(name, call.file, branch=branch, ttl_s=ttl_s)
    database = made.database
    shown = {
        "name": database.name,
        "branch": branch,
        "uuid": database.uuid,
        "created_at": database.created_at,
        "txid": made.txid,
    }
    return reached(at(reply(shown, status=201), made.txid, made.txid), Durability.DURABLE)
