"""Routes of what is set for one database: the durability that writes to its surfaces wait for."""

from memoturnd.core import database_settings, names
from memoturnd.core.canonical import decode_json
from memoturnd.errors import InvalidRequestError
from memoturnd.http.addresses import database_of
from memoturnd.http.call import Call
from memoturnd.http.describe import described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.shapes import operators as shapes
from memoturnd.seams.catalog import Database


@described(gives={200: shapes.DatabaseSettings})
async def get(call: Call) -> Answer:
    """Show what is set for a database. Raises DatabaseNotFoundError."""
    return _shown(await call.node.databases.get(_database(call)))


@described(takes=shapes.DatabaseSettings, gives={200: shapes.DatabaseSettings})
async def put(call: Call) -> Answer:
    """Set the settings of a database in place of those before, for every node at once. Raises InvalidRequestError, DatabaseNotFoundError."""
    name = _database(call)
    levels = database_settings.parse(call.decoded(decode_json))
    call.tell(db=names.split_qualified(name)[1])
    return _shown(await call.node.databases.set_durability(name, levels))


def _database(call: Call) -> str:
    name, branch = database_of(call)
    if branch != names.MAIN_BRANCH:
        raise InvalidRequestError(
            "settings are of a database, and not of a branch: leave @ and the branch out"
        )
    return name


def _shown(database: Database) -> Answer:
    return reply({"durability": database_settings.decode(database.settings)})
