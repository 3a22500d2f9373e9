"""Routes of vector collections."""

from typing import Any, Final

from memoturnd.core import cursors, names
from memoturnd.http.addresses import open_database
from memoturnd.http.call import Call
from memoturnd.http.describe import CURSOR, NOTHING, PAGE, Value, described
from memoturnd.http.envelope import Answer, read_reply, write_reply, written_nothing_to_say
from memoturnd.http.paging import page_if_asked
from memoturnd.http.shapes import Count
from memoturnd.http.shapes import vectors as shapes
from memoturnd.surfaces import vector_search, vectors

_DEFAULT_IDS: Final = 100


@described(gives={200: shapes.Collections}, values=PAGE)
async def collections(call: Call) -> Answer:
    """List the collections by name: all of them, or a page where `limit` or `cursor` is given."""
    asked = page_if_asked(call, cursors.Name)
    profile = await open_database(call)
    seen = await vectors.collections(
        profile, after=asked.after or "", limit=asked.limit, min_txid=call.min_txid
    )
    return read_reply(asked.listed("collections", seen.value, seen.value, lambda row: row["name"]), seen)


@described(takes=shapes.Upsert, gives={200: (shapes.StoredOne, shapes.StoredMany)})
async def upsert(call: Call) -> Answer:
    """Store one vector, or many as one commit; the first ones make the collection."""
    stored, single = await call.parsed(_upsert)
    profile = await open_database(call)
    written = await vectors.upsert(profile, call.params["coll"], stored, durability=call.durability)
    call.tell(count=len(written.value))
    results = {"status": written.value[0]["status"]} if single else {"results": written.value}
    return write_reply({**results, "txid": written.txid}, written)


def _upsert(payload: Any) -> tuple[list[vectors.Vector], bool]:
    return vectors.parse_upsert(payload), "vectors" not in payload


@described(
    gives={200: shapes.Ids},
    values=(
        Value("limit", Count, "Most ids of the page, up to 1000."),
        CURSOR,
        Value("metadata", bool, "Show metadata."),
    ),
)
async def list_ids(call: Call) -> Answer:
    """List the ids of a collection, ascending."""
    profile = await open_database(call)
    seen = await vectors.page(
        profile,
        call.params["coll"],
        after=call.text("cursor"),
        limit=call.limit("limit", _DEFAULT_IDS),
        with_metadata=call.flag("metadata"),
        min_txid=call.min_txid,
    )
    return read_reply(seen.value, seen)


@described(gives={204: NOTHING})
async def drop(call: Call) -> Answer:
    """Remove a collection; 204 also when there was none."""
    profile = await open_database(call)
    return written_nothing_to_say(
        await vectors.drop(profile, call.params["coll"], durability=call.durability)
    )


@described(takes=shapes.Search, gives={200: shapes.Hits})
async def search(call: Call) -> Answer:
    """List the vectors that are nearest to one. A collection that is not there has none."""
    query = await call.parsed(vector_search.parse_query)
    profile = await open_database(call)
    seen = await vector_search.search(profile, call.params["coll"], query, min_txid=call.min_txid)
    return read_reply({"hits": seen.value}, seen)


@described(takes=shapes.Deletion, gives={200: shapes.Deleted})
async def delete_many(call: Call) -> Answer:
    """Remove vectors by their ids, or by a filter of their metadata, as one commit."""
    wanted = await call.parsed(vectors.parse_delete)
    profile = await open_database(call)
    written = await vectors.delete(profile, call.params["coll"], wanted, durability=call.durability)
    call.tell(count=written.value["deleted"])
    return write_reply({**written.value, "txid": written.txid}, written)


@described(gives={200: shapes.OneVector})
async def get(call: Call) -> Answer:
    """Show one vector. Raises NotFoundError."""
    profile = await open_database(call)
    seen = await vectors.get(profile, call.params["coll"], call.params["id"], min_txid=call.min_txid)
    return read_reply(seen.value, seen)


@described(gives={204: NOTHING})
async def delete(call: Call) -> Answer:
    """Remove one vector; 204 also when it was not there."""
    profile = await open_database(call)
    wanted = (names.vector_id(call.params["id"]),)
    written = await vectors.delete(profile, call.params["coll"], wanted, durability=call.durability)
    return written_nothing_to_say(written)
