"""The route of restore points: which states of a branch can be had, a page at a time."""

from dataclasses import replace
from typing import Final

from memoturnd.core import cursors, revisions
from memoturnd.core.revisions import AtTime, AtTxid, rfc3339
from memoturnd.errors import InvalidRequestError
from memoturnd.http.addresses import caught_up, database_of
from memoturnd.http.call import Call
from memoturnd.http.describe import PAGE, Value, described
from memoturnd.http.envelope import Answer, at, reply
from memoturnd.http.paging import page
from memoturnd.http.ports import RestorePoint, Rewind
from memoturnd.http.shapes import operators as shapes
from memoturnd.replication.points import Window

_DEFAULT_POINTS: Final = 100
_ORDERS: Final = {None: True, "newest": True, "oldest": False}


@described(
    gives={200: shapes.RestorePointPage},
    values=(
        Value("order", str, "`newest` (first) or `oldest`."),
        Value("since", str, "From this time or txid on."),
        Value("until", str, "Up to this time or txid."),
        *PAGE,
    ),
)
async def restore_points(call: Call) -> Answer:
    """List the commits that can be restored, the newest first unless `order=oldest`, within `since` and `until`."""
    name, branch = database_of(call)
    order = call.text("order")
    if order not in _ORDERS:
        raise InvalidRequestError("`order` takes `newest` or `oldest`")
    newest_first = _ORDERS[order]
    filters = (order or "newest", call.text("since"), call.text("until"))
    asked = page(call, cursors.Integer, *filters, default=_DEFAULT_POINTS)
    window = _behind(_window(call), asked.after, newest_first=newest_first)
    await caught_up(call.node, name, branch, call.min_txid)
    found = await call.node.branches.restore_points(
        name, branch, window, asked.rows, newest_first=newest_first
    )
    shown = [_shown(row) for row in found.rows]
    listed = asked.listed("restore_points", shown, found.rows, lambda row: row.txid)
    answer = reply({**listed, "rewinds": [_rewind(row) for row in found.rewinds]})
    return at(answer, found.head_txid, found.head_txid)


def _shown(row: RestorePoint) -> dict[str, object]:
    return {
        "txid": row.txid,
        "created_at": row.at,
        "time": rfc3339(row.at),
        "kind": row.kind,
        "checkpoints": row.checkpoints,
    }


def _rewind(row: Rewind) -> dict[str, object]:
    return {"txid": row.txid, "rewound_to": row.to_txid, "undo_txid": row.from_txid, "created_at": row.at}


def _window(call: Call) -> Window:
    window = Window()
    match _bound(call, "since"):
        case AtTime(at_ms):
            window = replace(window, since_ms=at_ms)
        case AtTxid(txid):
            window = replace(window, above=txid - 1)
    match _bound(call, "until"):
        case AtTime(at_ms):
            window = replace(window, until_ms=at_ms)
        case AtTxid(txid):
            window = replace(window, below=txid + 1)
    return window


def _bound(call: Call, name: str) -> AtTime | AtTxid | None:
    value = call.text(name)
    bound = None if value is None else revisions.parse(value)
    if bound is None or isinstance(bound, AtTime | AtTxid):
        return bound
    raise InvalidRequestError(f"`{name}` takes a time (RFC 3339 or unix milliseconds) or a txid")


def _behind(window: Window, txid: int | None, *, newest_first: bool) -> Window:
    """Return the part of the window that lies behind the last txid of the page before."""
    if txid is None:
        return window
    if newest_first:
        return replace(window, below=min(window.below, txid))
    return replace(window, above=max(window.above, txid))
