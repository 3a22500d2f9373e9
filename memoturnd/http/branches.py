"""Routes of branches and history: sync, fork, checkpoint, rewind. What they change is durable when they answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from memoturnd.core import cursors, names
from memoturnd.core.durability import Durability, level_of
from memoturnd.engine.journal import Entry, Facts
from memoturnd.errors import AlreadyExistsError, InvalidRequestError
from memoturnd.http.addresses import branch_of, caught_up, database_of
from memoturnd.http.bodies import BranchBody, NameBody, RewindBody, SyncBody, decoder
from memoturnd.http.call import MAX_LIMIT, Call
from memoturnd.http.describe import NOTHING, PAGE, Value, described
from memoturnd.http.envelope import Answer, at, reached, reply
from memoturnd.http.journal import taking_effect_once
from memoturnd.http.paging import Page, page_if_asked
from memoturnd.http.ports import BranchCreated, Checkpoint, Rewound
from memoturnd.http.shapes import operators as shapes
from memoturnd.seams.catalog import BranchRow

_decode_branch = decoder(BranchBody)
_decode_name = decoder(NameBody)
_decode_rewind = decoder(RewindBody)
_decode_sync = decoder(SyncBody)


@described(takes=SyncBody, gives={200: shapes.Synced}, optional_body=True)
async def sync(call: Call) -> Answer:
    """Ship now, and answer once the asked txid, the head without one, is in object storage."""
    name, branch = database_of(call)
    asked = _decode_sync(call.body).txid if call.body else None
    durable_txid = await call.node.branches.sync(name, branch, asked)
    profile = await call.node.profile(name, branch)
    answer = reply({"txid": durable_txid, "durable_txid": durable_txid})
    return reached(at(answer, max(profile.txid, durable_txid), durable_txid), Durability.DURABLE)


@described(takes=BranchBody, gives={201: shapes.Fork})
async def create(call: Call) -> Answer:
    """Fork a branch from its head or a revision. Raises BranchNotFoundError, AlreadyExistsError."""
    name, addressed = database_of(call)
    body = call.decoded(_decode_branch)
    if body.at is not None and body.checkpoint is not None:
        raise InvalidRequestError("give `at` or `checkpoint`, not both")
    branches, journal = call.node.branches, call.node.journal

    async def facts() -> Facts:
        return {"branch_id": journal.new_id(8)}

    async def run(entry: Entry | None) -> Answer:
        branch_id = None if entry is None else entry.facts["branch_id"]
        try:
            made = await branches.create(
                name,
                body.name,
                from_branch=addressed if body.from_branch is None else body.from_branch,
                at=body.at if body.checkpoint is None else names.checkpoint(body.checkpoint),
                ttl_s=body.ttl,
                branch_id=branch_id,
            )
            answer, fork_txid = reply(_shown(name, made), status=201), made.fork_txid
        except AlreadyExistsError:
            row = await _row(call, name, body.name) if entry is not None and entry.resumed else None
            if row is None or row.branch_id != branch_id:
                raise
            answer, fork_txid = reply(_shown_row(name, row), status=201), row.fork_txid
        return reached(at(answer, fork_txid, fork_txid), Durability.DURABLE)

    return await _once(call, name, facts, run)


@described(
    gives={200: shapes.BranchPage},
    values=(Value("deleted", bool, "Those that can be undeleted, in place of those that are there."), *PAGE),
)
async def list_all(call: Call) -> Answer:
    """List the branches other than main, by name: all of them, or a page where `limit` or `cursor` is given.

    With `deleted` those that can still be undeleted. The txids are those of the addressed branch.
    """
    name, addressed = database_of(call)
    if call.flag("deleted"):
        return await _list_deleted(call, name, addressed)
    asked = page_if_asked(call, cursors.Name)
    profile = await caught_up(call.node, name, addressed, call.min_txid)
    rows = await call.node.branches.list(name, after=asked.after or "", limit=asked.limit)
    shown = [
        {
            "db_name": _plain(name),
            "branch": row.name,
            "ttl_at": row.expires_at,
            "created_at": row.created_at,
            "parent": row.parent,
            "fork_txid": row.fork_txid,
        }
        for row in rows
    ]
    answer = reply(asked.listed("branches", shown, rows, lambda row: row.name))
    return at(answer, profile.txid, profile.durable_txid)


async def _list_deleted(call: Call, name: str, addressed: str) -> Answer:
    asked = page_if_asked(call, tuple[cursors.Name, cursors.Name], "deleted")
    profile = await caught_up(call.node, name, addressed, call.min_txid)
    rows = await call.node.branches.list_deleted(name, after=asked.after or ("", ""), limit=asked.limit)
    shown = [
        {
            "db_name": _plain(name),
            "branch": row.name,
            "ttl_at": row.expires_at,
            "created_at": row.created_at,
            "parent": row.parent,
            "fork_txid": row.fork_txid,
            "deleted_at": row.deleted_at,
            "undelete_until": row.until,
        }
        for row in rows
    ]
    answer = reply(asked.listed("branches", shown, rows, lambda row: [row.name, row.branch_id]))
    return at(answer, profile.txid, profile.durable_txid)


@described(gives={204: NOTHING})
async def delete(call: Call) -> Answer:
    """Delete a branch; 204 also when there is none of that name. Raises InvalidRequestError for main."""
    name, addressed = database_of(call)
    branch = branch_of(call)

    async def facts() -> Facts:
        row = await _row(call, name, branch)
        return {"branch_id": None if row is None else row.branch_id}

    async def run(entry: Entry | None) -> Answer:
        if entry is None or not entry.resumed or (await facts())["branch_id"] == entry.facts["branch_id"]:
            await call.node.branches.delete(name, branch)
        if branch == addressed:
            return reached(Answer(204), Durability.DURABLE)
        profile = await call.node.profile(name, addressed)
        return reached(at(Answer(204), profile.txid, profile.durable_txid), Durability.DURABLE)

    return await _once(call, name, facts, run)


@described(gives={200: shapes.Fork})
async def undelete(call: Call) -> Answer:
    """Bring a deleted branch back. Raises BranchNotFoundError, AlreadyExistsError, ConflictError."""
    name, _ = database_of(call)
    branch = branch_of(call)

    async def run(entry: Entry | None) -> Answer:
        try:
            shown = _shown(name, await call.node.branches.undelete(name, branch))
        except AlreadyExistsError:
            row = await _row(call, name, branch) if entry is not None and entry.resumed else None
            if row is None or entry is None or row.created_at > entry.facts["at_ms"]:
                raise  # one that was made since then
            shown = _shown_row(name, row)
        return reached(reply(shown), Durability.DURABLE)

    return await _once(call, name, _nothing_to_know, run)


@described(takes=NameBody, gives={200: shapes.Checkpoint})
async def checkpoint(call: Call) -> Answer:
    """Name the branch's head; a name that is in use moves."""
    name, _ = database_of(call)
    branch, wanted, branches = branch_of(call), call.decoded(_decode_name).name, call.node.branches

    async def run(entry: Entry | None) -> Answer:
        made = None
        if entry is not None and entry.resumed:
            known = await branches.find_checkpoint(name, branch, wanted)
            made = known if known is not None and known.created_at >= entry.facts["at_ms"] else None
        if made is None:
            made = await branches.checkpoint(name, branch, wanted)
        answer = reply({"checkpoint": made.name, "txid": made.txid, "created_at": made.created_at})
        return reached(
            at(answer, made.txid, made.durable_txid), level_of(made.txid, durable_txid=made.durable_txid)
        )

    return await _once(call, name, _nothing_to_know, run)


@described(
    gives={200: shapes.CheckpointPage},
    values=(*PAGE,),
)
async def list_checkpoints(call: Call) -> Answer:
    """List the branch's checkpoints, oldest txid first: all of them, or a page where `limit` or `cursor` is given."""
    name, _ = database_of(call)
    branch = branch_of(call)
    asked = page_if_asked(call, tuple[cursors.Integer, cursors.Name])
    profile = await caught_up(call.node, name, branch, call.min_txid)
    rows = await call.node.branches.checkpoints(name, branch, after=asked.after or (0, ""), limit=asked.limit)
    if len(rows) <= MAX_LIMIT:
        answer = _listed(rows, asked)
    else:
        answer = await asyncio.to_thread(_listed, rows, asked)  # others would wait for it
    return at(answer, profile.txid, profile.durable_txid)


def _listed(rows: Sequence[Checkpoint], asked: Page[tuple[int, str]]) -> Answer:
    shown = [{"checkpoint": row.name, "txid": row.txid, "created_at": row.created_at} for row in rows]
    return reply(asked.listed("checkpoints", shown, rows, lambda row: [row.txid, row.name]))


@described(gives={204: NOTHING})
async def delete_checkpoint(call: Call) -> Answer:
    """Drop a checkpoint. Raises BranchNotFoundError when there is none of that name."""
    name, _ = database_of(call)
    branch, wanted, branches = branch_of(call), call.params["name"], call.node.branches

    async def facts() -> Facts:
        known = await branches.find_checkpoint(name, branch, wanted)
        return {"made": None if known is None else [known.txid, known.created_at]}

    async def run(entry: Entry | None) -> Answer:
        if entry is None or not entry.resumed or (await facts())["made"] == entry.facts["made"]:
            await branches.delete_checkpoint(name, branch, wanted)
        profile = await call.node.profile(name, branch)
        return reached(at(Answer(204), profile.txid, profile.durable_txid), Durability.DURABLE)

    return await _once(call, name, facts, run)


@described(takes=RewindBody, gives={200: shapes.Rewound})
async def rewind(call: Call) -> Answer:
    """Bring back the state of a revision, as a new commit. Raises BranchNotFoundError, ConflictError."""
    name, _ = database_of(call)
    to, once = call.decoded(_decode_rewind).to, call.asks_once()
    return _rewound(await call.node.branches.rewind(name, branch_of(call), to, once=once))


@described(gives={200: shapes.Rewound})
async def undo_rewind(call: Call) -> Answer:
    """Bring back the state from before the last rewind, as a new commit. Raises ConflictError."""
    name, _ = database_of(call)
    return _rewound(await call.node.branches.undo_rewind(name, branch_of(call), once=call.asks_once()))


async def _once(
    call: Call,
    name: str,
    facts: Callable[[], Awaitable[Facts]],
    run: Callable[[Entry | None], Awaitable[Answer]],
) -> Answer:
    database = await call.node.databases.get(name)
    return await taking_effect_once(call, facts, run, scope=database.uuid)


async def _nothing_to_know() -> Facts:
    return {}


async def _row(call: Call, name: str, branch: str) -> BranchRow | None:
    """Return a branch other than main as the catalog has it, None without one."""
    return next((row for row in await call.node.branches.list(name) if row.name == branch), None)


def _plain(name: str) -> str:
    return names.split_qualified(name)[1]


def _shown_row(name: str, row: BranchRow) -> dict[str, object]:
    return {
        "branch": row.name,
        "parent": row.parent,
        "fork_txid": row.fork_txid,
        "ttl_at": row.expires_at,
        "spec": f"{_plain(name)}@{row.name}",
    }


def _shown(name: str, made: BranchCreated) -> dict[str, object]:
    return {
        "branch": made.branch,
        "parent": made.parent,
        "fork_txid": made.fork_txid,
        "ttl_at": made.expires_at,
        "spec": f"{_plain(name)}@{made.branch}",
    }


def _rewound(result: Rewound) -> Answer:
    shown = {
        "rewound_to": result.rewound_to,
        "epoch": result.epoch,
        "txid": result.txid,
        "undo_txid": result.undo_txid,
    }
    return reached(
        at(reply(shown), result.txid, result.durable_txid),
        level_of(result.txid, durable_txid=result.durable_txid),
    )
