"""Routes of typed memory, per profile. Reads of a profile that nobody has written yet see an empty one."""

from typing import Any, Final

from memoturnd.core.canonical import decode_json
from memoturnd.errors import DatabaseNotFoundError, NotFoundError
from memoturnd.http.addresses import open_or_create_profile, open_profile
from memoturnd.http.call import Call
from memoturnd.http.envelope import Answer, at, read_reply, reply, write_reply, written_nothing_to_say
from memoturnd.http.ports import BranchProfile
from memoturnd.surfaces import memories
from memoturnd.surfaces import recall as recalls

_DEFAULT_SESSIONS: Final = 100


async def ingest(call: Call) -> Answer:
    """Store up to 1000 memories as one commit, creating the profile where absent."""
    items = memories.parse_items(call.decoded(decode_json))
    profile = await open_or_create_profile(call)
    written = await memories.ingest(profile, items, durable=call.durable)
    return write_reply({"results": written.value, "txid": written.txid}, written, status=201)
