"""Routes of timelines: append rows, query them, and see to what is kept."""

from typing import Final

from memoturnd.core import cursors
from memoturnd.http.addresses import open_database
from memoturnd.http.call import Call
from memoturnd.http.describe import CURSOR, NOTHING, Value, described
from memoturnd.http.envelope import Answer, read_reply, write_reply, written_nothing_to_say
from memoturnd.http.paging import page
from memoturnd.http.shapes import Count
from memoturnd.http.shapes import timelines as shapes
from memoturnd.surfaces import timeline_queries, timeline_terms, timelines

_DEFAULT_TIMELINES: Final = 100


@described(takes=shapes.Append, gives={201: shapes.Appended})
async def append(call: Call) -> Answer:
    """Append rows, making the timeline where absent."""
    rows = await call.parsed(timelines.parse_rows)
    profile = await open_database(call)
    written = await timelines.append(profile, call.params["timeline"], rows, durability=call.durability)
    call.tell(count=len(rows))
    return write_reply({**written.value, "txid": written.txid}, written, status=201)


@described(takes=shapes.Query, gives={200: (shapes.RowPage, shapes.WindowPage)})
async def query(call: Call) -> Answer:
    """List rows of a time window, or aggregate them."""
    asked = await call.parsed(timeline_terms.parse_query)
    profile = await open_database(call)
    seen = await timeline_queries.query(profile, call.params["timeline"], asked, min_txid=call.min_txid)
    return read_reply(seen.value, seen)


@described(
    gives={200: shapes.TimelinePage},
    values=(
        Value("limit", Count, "Most timelines of the page, up to 1000; 100 unless given."),
        CURSOR,
    ),
)
async def list_all(call: Call) -> Answer:
    """List timelines by name, a page at a time."""
    asked = page(call, cursors.Name, default=_DEFAULT_TIMELINES)
    profile = await open_database(call)
    seen = await timeline_queries.timelines(
        profile, limit=asked.rows, after=asked.after or "", min_txid=call.min_txid
    )
    return read_reply(asked.listed("timelines", seen.value, seen.value, lambda row: row["name"]), seen)


@described(gives={200: shapes.Timeline})
async def get(call: Call) -> Answer:
    """Show what a timeline holds and keeps. Raises NotFoundError."""
    profile = await open_database(call)
    seen = await timeline_queries.timeline(profile, call.params["timeline"], min_txid=call.min_txid)
    return read_reply(seen.value, seen)


@described(takes=shapes.Retention, gives={200: shapes.Retained})
async def put(call: Call) -> Answer:
    """Set a timeline's retention, making the timeline where absent."""
    retention = await call.parsed(timelines.parse_retention)
    profile = await open_database(call)
    written = await timelines.set_retention(
        profile, call.params["timeline"], retention, durability=call.durability
    )
    return write_reply({**written.value, "txid": written.txid}, written)


@described(gives={204: NOTHING})
async def delete(call: Call) -> Answer:
    """Delete a timeline; 204 also when there was none."""
    profile = await open_database(call)
    written = await timelines.delete(profile, call.params["timeline"], durability=call.durability)
    return written_nothing_to_say(written)
