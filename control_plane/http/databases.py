"""Routes of the directory: databases, and the profiles of a namespace."""

from memoturnd.core import cursors, database_settings, names
from memoturnd.engine.journal import Entry, Facts
from memoturnd.errors import AlreadyExistsError, DatabaseNotFoundError
from memoturnd.http.addresses import named_database, namespace
from memoturnd.http.bodies import NameBody, UndeleteBody, decoder
from memoturnd.http.call import Call
from memoturnd.http.describe import NOTHING, ONCE, PAGE, Value, described
from memoturnd.http.envelope import Answer, reply
from memoturnd.http.journal import taking_effect_once
from memoturnd.http.paging import page
from memoturnd.http.shapes import operators as shapes
from memoturnd.seams.catalog import Database

_decode_name = decoder(NameBody)
_decode_undelete = decoder(UndeleteBody)


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


@described(
    gives={200: shapes.DatabasePage},
    values=(
        Value("prefix", str, "How names begin."),
        Value("deleted", bool, "Those that are deleted, in place of those that are not."),
        *PAGE,
    ),
)
async def list_all(call: Call) -> Answer:
    """List databases by name, a page at a time; with `deleted` those that can still be undeleted."""
    if call.flag("deleted"):
        return await _list_deleted(call)
    prefix = call.text("prefix") or ""
    asked = page(call, cursors.Name, prefix)
    rows = await call.node.databases.list(prefix, asked.after or "", asked.rows, tenant=call.principal.tenant)
    return reply(
        {"databases": [_shown(row) for row in rows], "next_cursor": asked.cursor(rows, lambda row: row.name)}
    )


async def _list_deleted(call: Call) -> Answer:
    prefix = call.text("prefix") or ""
    asked = page(call, tuple[cursors.Name, cursors.Name], prefix, "deleted")
    rows = await call.node.databases.list_deleted(
        prefix, asked.after or ("", ""), asked.rows, tenant=call.principal.tenant
    )
    shown = [_shown_deleted(call, row) for row in rows]
    return reply(asked.listed("databases", shown, rows, lambda row: [row.name, row.uuid]))


@described(takes=UndeleteBody, gives={200: shapes.Database}, values=(ONCE,), optional_body=True)
async def undelete(call: Call) -> Answer:
    """Bring back a deleted database with the branches it had. Raises DatabaseNotFoundError, AlreadyExistsError, ConflictError."""
    name, databases = named_database(call), call.node.databases
    uuid = _decode_undelete(call.body).uuid if call.body else None

    async def facts() -> Facts:
        return {"uuid": uuid or await databases.last_deleted(name)}

    async def run(entry: Entry | None) -> Answer:
        wanted = uuid if entry is None else entry.facts["uuid"]
        return reply(_shown(await databases.undelete(name, wanted)))

    return await taking_effect_once(call, facts, run)


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


@described(gives={200: shapes.NamespacePage}, values=PAGE)
async def list_namespaces(call: Call) -> Answer:
    """List the namespaces of the tenant that have profiles, by name, a page at a time."""
    asked = page(call, cursors.Name)
    found = await call.node.databases.list_namespaces(
        asked.after or "", asked.rows, tenant=call.principal.tenant
    )
    shown = [{"namespace": name} for name in found]
    return reply(asked.listed("namespaces", shown, found, lambda name: name))


def _shown(database: Database) -> dict[str, object]:
    shown: dict[str, object] = {
        "name": database.name,
        "uuid": database.uuid,
        "created_at": database.created_at,
        "tenant": database.tenant,
    }
    if database.settings:
        shown["durability"] = database_settings.decode(database.settings)
    return shown


def _shown_deleted(call: Call, database: Database) -> dict[str, object]:
    deleted_at = database.deleted_at or 0
    until = deleted_at + call.node.databases.grace_ms
    return {**_shown(database), "deleted_at": deleted_at, "undelete_until": until}
