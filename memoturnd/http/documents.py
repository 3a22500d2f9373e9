"""Routes of documents and their collections."""

from memoturnd.core import cursors
from memoturnd.http.addresses import open_database
from memoturnd.http.call import Call
from memoturnd.http.describe import NOTHING, PAGE, described
from memoturnd.http.envelope import Answer, read_reply, write_reply, written_nothing_to_say
from memoturnd.http.paging import page_if_asked
from memoturnd.http.shapes import documents as shapes
from memoturnd.surfaces import collections, document_queries, documents


@described(takes=shapes.Insert, gives={201: shapes.Inserted})
async def insert(call: Call) -> Answer:
    """Insert documents, all or none."""
    docs = await call.parsed(documents.parse_insert)
    profile = await open_database(call)
    written = await documents.insert(profile, call.params["coll"], docs, durability=call.durability)
    call.tell(count=len(written.value))
    return write_reply({"ids": written.value, "txid": written.txid}, written, status=201)


@described(takes=shapes.Find, gives={200: shapes.Found})
async def find(call: Call) -> Answer:
    """List the documents that match a filter, in the order of a sort."""
    wanted = await call.parsed(document_queries.parse_find)
    profile = await open_database(call)
    seen = await document_queries.find(profile, call.params["coll"], wanted, min_txid=call.min_txid)
    return read_reply({**seen.value, "txid": seen.txid}, seen)


@described(takes=shapes.Counting, gives={200: shapes.Counted})
async def count(call: Call) -> Answer:
    """Count the documents that match a filter."""
    wanted = await call.parsed(document_queries.parse_count)
    profile = await open_database(call)
    seen = await document_queries.count(profile, call.params["coll"], wanted, min_txid=call.min_txid)
    return read_reply({"count": seen.value, "txid": seen.txid}, seen)


@described(takes=shapes.Distinct, gives={200: shapes.Values})
async def distinct(call: Call) -> Answer:
    """List the different values of a field, ascending."""
    wanted = await call.parsed(document_queries.parse_distinct)
    profile = await open_database(call)
    seen = await document_queries.distinct(profile, call.params["coll"], wanted, min_txid=call.min_txid)
    values, has_more = seen.value
    return read_reply({"values": values, "more": has_more, "txid": seen.txid}, seen)


@described(takes=shapes.Update, gives={200: shapes.Updated})
async def update(call: Call) -> Answer:
    """Update the first document that matches a filter, or all; with `upsert` insert one where none does."""
    change = await call.parsed(documents.parse_update)
    profile = await open_database(call)
    written = await documents.update(profile, call.params["coll"], change, durability=call.durability)
    call.tell(count=written.value["modified"])
    answer = {"modified": written.value["modified"], "txid": written.txid}
    if change.upsert:
        answer["upserted_id"] = written.value["upserted_id"]
    return write_reply(answer, written)


@described(takes=shapes.Delete, gives={200: shapes.Deleted})
async def delete(call: Call) -> Answer:
    """Delete the first document that matches a filter, or all."""
    removal = await call.parsed(documents.parse_delete)
    profile = await open_database(call)
    written = await documents.delete(profile, call.params["coll"], removal, durability=call.durability)
    call.tell(count=written.value)
    return write_reply({"deleted": written.value, "txid": written.txid}, written)


@described(gives={200: shapes.Collections}, values=PAGE)
async def list_collections(call: Call) -> Answer:
    """List the collections by name: all of them, or a page where `limit` or `cursor` is given."""
    asked = page_if_asked(call, cursors.Name)
    profile = await open_database(call)
    seen = await collections.list_all(
        profile, after=asked.after or "", limit=asked.limit, min_txid=call.min_txid
    )
    listed = asked.listed("collections", seen.value, seen.value, lambda row: row["name"])
    return read_reply({**listed, "txid": seen.txid}, seen)


@described(gives={204: NOTHING})
async def drop(call: Call) -> Answer:
    """Remove a collection with everything in it."""
    profile = await open_database(call)
    return written_nothing_to_say(
        await collections.drop(profile, call.params["coll"], durability=call.durability)
    )


@described(takes=shapes.NewIndex, gives={201: shapes.Indexed})
async def create_index(call: Call) -> Answer:
    """Index a field of a collection."""
    index = await call.parsed(collections.parse_index)
    profile = await open_database(call)
    written = await collections.create_index(profile, call.params["coll"], index, durability=call.durability)
    answer = {"indexed": index.path, "unique": index.unique, "txid": written.txid}
    return write_reply(answer, written, status=201)


@described(gives={200: shapes.Indexes})
async def list_indexes(call: Call) -> Answer:
    """List the indexes of a collection by path."""
    profile = await open_database(call)
    seen = await collections.indexes(profile, call.params["coll"], min_txid=call.min_txid)
    return read_reply({"indexes": seen.value, "txid": seen.txid}, seen)


@described(gives={204: NOTHING})
async def drop_index(call: Call) -> Answer:
    """Remove the index of a field."""
    profile = await open_database(call)
    written = await collections.drop_index(
        profile, call.params["coll"], call.params["path"], durability=call.durability
    )
    return written_nothing_to_say(written)
