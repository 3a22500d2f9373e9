"""The route of user SQL: an atomic batch of statements."""

from memoturnd.core.canonical import decode_json
from memoturnd.http.addresses import open_database
from memoturnd.http.call import Call
from memoturnd.http.envelope import Answer, write_reply
from memoturnd.surfaces import sql


async def run(call: Call) -> Answer:
    """Run a batch of statements as one transaction."""
    batch = call.decoded(decode_json)
    profile = await open_database(call)
    written = await sql.run(profile, batch, durable=call.durable, min_txid=call.min_txid)
    return write_reply({"results": written.value, "txid": written.txid}, written)
