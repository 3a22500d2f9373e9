"""Routes of the directory: databases, and the profiles of a namespace."""

from memoturnd.core import cursors, names
from memoturnd.engine.journal import Entry, Facts
from memoturnd.errors import AlreadyExistsError, DatabaseNotFoundError
from memoturnd.http.addresses import named_database, namespace
from memoturnd.http.bodies import NameBody, decoder
from memoturnd.http.call import Call
from memoturnd.http.describe import NOTHING, ONCE, PAGE, Value, described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.journal import taking_effect_once
from memoturnd.http.paging import page
from memoturnd.http.shapes import operators as shapes
from memoturnd.seams.catalog import Database

_decode_name = decoder(NameBody)


@described(takes=NameBody, gives={201: shapes.Database}, values=(ONCE,))
async def create(call: Call) -> Answer:
    """Register a database; no file is made. Raises InvalidRequestError, AlreadyExistsError."""
    own_name = names.new_database(call.decoded(_decode_name).name)
    name, databases = call.qualified(own_name), call.node.databases
    call.tell(db=own_name)

    async def run(entry: Entry | None) -> Answer:
        uuid = None if entry is None else entry.facts["uuid"]
        try:
            database = await databases.create(name, uuid=uuid)
        except AlreadyExistsError:
            if entry is None or not entry.resumed or (database := await databases.get(name)).uuid != uuid:
                raise
        return reply(_shown(database), status=201)

    async def facts() -> Facts:
        return {"uuid": call.node.journal.new_id(16)}

    return await taking_effect_once(call, facts, run)


@described(gives={200: shapes.DatabasePage}, values=(Value("prefix", str, "How names begin."), *PAGE))
async def list_all(call: Call) -> Answer:
    """List databases by name, a page at a time."""
    prefix = call.text("prefix") or ""
    asked = page(call, cursors.Name, prefix)
    rows = await call.node.databases.list(prefix, asked.after or "", asked.rows, tenant=call.principal.tenant)
    return reply(
        {"databases": [_shown(row) for row in rows], "next_cursor": asked.cursor(rows, lambda row: row.name)}
    )


@described(gives={204: NOTHING}, values=(ONCE,))
async def delete(call: Call) -> Answer:
    """Delete a database with all of its branches; the name is free at once. Raises DatabaseNotFoundError."""
    name, databases = named_database(call), call.node.databases

    async def facts() -> Facts:
        return {"uuid": (await databases.get(name)).uuid}

    async def run(entry: Entry | None) -> Answer:
        try:
            if entry is None or not entry.resumed or (await databases.get(name)).uuid == entry.facts["uuid"]:
                await databases.delete(name)
        except DatabaseNotFoundError:
            if entry is None or not entry.resumed:
                raise
        return Answer(204)

    return await taking_effect_once(call, facts, run)


@described(gives={200: shapes.ProfilePage}, values=PAGE)
async def list_profiles(call: Call) -> Answer:
    """List the profiles of a namespace by name, a page at a time; a namespace without any is empty."""
    name = namespace(call)
    prefix = f"{name}--"
    asked = page(call, cursors.Name)
    rows = await call.node.databases.list(prefix, asked.after or "", asked.rows, tenant=call.principal.tenant)
    profiles = [{"profile": row.name.removeprefix(prefix), "created_at": row.created_at} for row in rows]
    cursor = asked.cursor(rows, lambda row: row.name)
    return reply({"namespace": name, "profiles": profiles, "next_cursor": cursor})


def _shown(database: Database) -> dict[str, object]:
    return {"name": database.name, "uuid": database.uuid, "created_at": database.created_at}
