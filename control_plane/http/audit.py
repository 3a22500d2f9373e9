"""Routes of the audit stream of a namespace, or of `_platform`."""

from typing import Final

from memoturnd.audit.reader import DAY_MS, Query
from memoturnd.core import audit, names
from memoturnd.errors import InvalidRequestError
from memoturnd.http.call import MAX_LIMIT, Call
from memoturnd.http.describe import LINES as EVENT_LINES
from memoturnd.http.describe import PAGE, Value, described
from memoturnd.http.envelope import LINES, Answer, reply
from memoturnd.http.shapes import Time
from memoturnd.http.shapes import audit as shapes

DEFAULT_LIMIT: Final = 100
_ACTION_CHARACTERS: Final = 64
_OUTCOMES: Final = frozenset({"ok", "denied", "error"})


@described(
    gives={200: shapes.EventPage},
    values=(
        Value("from", Time, "Time of the first event, a day before `to` unless given."),
        Value("to", Time, "Time before which events are shown, now unless given."),
        Value("action", str, "The action, or how it begins where this ends in a dot."),
        Value("profile", str, "Only of this profile."),
        Value("outcome", str, "`ok`, `denied` or `error`."),
        *PAGE,
    ),
)
async def read(call: Call) -> Answer:
    """Show audit events of a namespace, oldest first. Raises InvalidRequestError."""
    reader = call.node.audit_reader
    page, complete = await reader.page(_stream(call), _query(call, reader.now_ms))
    return reply({"events": page.events, "next_cursor": page.next_cursor, "complete": complete})


@described(gives={200: EVENT_LINES})
async def export(call: Call) -> Answer:
    """Send all that there is of a namespace's audit stream, for verification: objects as they are, heads, public keys."""
    stream = await call.node.audit_reader.export(_stream(call))
    return Answer(200, headers=[LINES], stream=stream)


def _stream(call: Call) -> str:
    name = call.params["ns"]
    if name != audit.PLATFORM:
        names.namespace(name)
    return audit.stream_of(call.principal.tenant, name)


def _query(call: Call, now_ms: int) -> Query:
    to_ms = call.integer("to")
    to_ms = now_ms + 1 if to_ms is None else to_ms
    from_ms = call.integer("from")
    action, outcome, profile = call.text("action"), call.text("outcome"), call.text("profile")
    if action is not None and not (0 < len(action) <= _ACTION_CHARACTERS and action.isascii()):
        raise InvalidRequestError(
            "`action` takes an action such as memory.ingest, or a beginning such as memory."
        )
    if outcome is not None and outcome not in _OUTCOMES:
        raise InvalidRequestError("`outcome` takes `ok`, `denied` or `error`")
    return Query(
        from_ms=max(0, to_ms - DAY_MS) if from_ms is None else from_ms,
        to_ms=to_ms,
        limit=max(1, min(MAX_LIMIT, call.limit("limit", DEFAULT_LIMIT))),
        action=action,
        profile=None if profile is None else names.profile(profile),
        outcome=outcome,
        cursor=call.text("cursor"),
    )
