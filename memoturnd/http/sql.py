"""The route of user SQL: an atomic batch of statements."""

from memoturnd.core.canonical import decode_json
from memoturnd.http.addresses import open_database
from memoturnd.http.call import Call
from memoturnd.http.describe import described
from memoturnd.http.envelope import Answer, read_reply, write_reply
from memoturnd.http.shapes import sql as shapes
from memoturnd.seams.profile import Written
from memoturnd.surfaces import sql


@described(takes=shapes.Batch, gives={200: shapes.Results})
async def run(call: Call) -> Answer:
    """Run a batch of statements as one transaction; a batch that only reads is answered as a read."""
    batch = await call.decoded_large(_batch)
    durability, min_txid = call.durability, call.min_txid
    profile = await open_database(call)
    result = await sql.run(
        profile, batch, durability=durability, min_txid=min_txid, may_write=call.principal.may("write")
    )
    body = {"results": result.value, "txid": result.txid}
    return write_reply(body, result) if isinstance(result, Written) else read_reply(body, result)


def _batch(body: bytes) -> list[sql.Statement]:
    return sql.parse_batch(decode_json(body))
