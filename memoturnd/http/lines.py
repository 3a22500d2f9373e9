"""Routes of a profile's memory as lines of JSON: out, and in again."""

import asyncio

from memoturnd.core import names
from memoturnd.http.addresses import open_or_create_profile, open_profile, profile_of
from memoturnd.http.call import Call
from memoturnd.http.describe import LINES as LINES_BODY
from memoturnd.http.describe import Value, described
from memoturnd.http.envelope import LINES, Answer, at, write_reply
from memoturnd.http.shapes import memory_upkeep as shapes
from memoturnd.surfaces import lines, lines_in


@described(gives={200: LINES_BODY})
async def export(call: Call) -> Answer:
    """Answer with the memory of a branch, all of it of one state. Raises OverloadedError, RequestTimeoutError."""
    min_txid = call.min_txid
    profile = await open_profile(call)
    spool = call.node.transfers.spool()
    try:
        seen = await lines.export(profile, spool.file, min_txid=min_txid)
    except BaseException:
        spool.close()
        raise
    return at(Answer(200, headers=[LINES], stream=spool), seen.txid, seen.durable_txid)


@described(
    gives={201: shapes.Imported},
    values=(Value("replace", bool, "Remove the memory that is there first; false unless given."),),
)
async def take(call: Call) -> Answer:
    """Store the memory that the body holds as one commit, creating the profile where absent.

    Raises InvalidRequestError, ConflictError for a profile that has memory already and is not to `replace` it,
    PayloadTooLargeError, OverloadedError.
    """
    replace, durability = call.flag("replace"), call.durability
    names.profile_database(call.params["ns"], call.params["profile"])
    spool = call.node.transfers.spool()
    try:
        call.stand_in(await spool.receive(call.file))
        await asyncio.to_thread(lines_in.check, spool.file)
        ttl_max_s = await call.node.policies.task_ttl_max_s(profile_of(call)[0])
        profile = await open_or_create_profile(call)
        written = await lines_in.take(
            profile,
            profile.branch_id,
            spool.file,
            replace=replace,
            task_ttl_max_s=ttl_max_s,
            durability=durability,
        )
    finally:
        spool.close()
    return write_reply({"imported": written.value, "txid": written.txid}, written, status=201)
