"""The change feed of a profile: what each commit round changed, after a txid, in order."""

from collections.abc import Collection
from typing import Any, NamedTuple

from memoturnd.core import changes as told
from memoturnd.core.changes import Change
from memoturnd.engine import changes
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import ChangesGoneError, PreconditionFailedError
from memoturnd.seams.profile import Profile, Seen

LIMIT_DEFAULT = 100


class Wanted(NamedTuple):
    """What of the changes is asked for: of `surfaces` alone unless that is None, only what is `durable`, so many rounds."""

    surfaces: frozenset[str] | None
    durable: bool
    limit: int


class Page(NamedTuple):
    """Some rounds, `next_since` up to which there are no others, and whether more follow already."""

    rounds: list[dict[str, Any]]
    next_since: int
    more: bool


async def read(profile: Profile, since: int | None, wanted: Wanted) -> Seen[Page]:
    """Return the rounds after `since`; None stands for the newest state, after which there are none yet.

    Raises ChangesGoneError where they are not kept, or where `since` is of commits that the branch does not have.
    """
    if since is None:
        seen: Seen[Collection[Change]] = await profile.read(lambda _conn, _now_ms: ())
        return Seen(Page([], _reached(seen, wanted), more=False), seen.txid, seen.durable_txid)

    def op(conn: ProfileConnection, _now_ms: int) -> Collection[Change]:
        return changes.read_after(conn, since, wanted.limit)

    try:
        seen = await profile.read(op, min_txid=since)
    except PreconditionFailedError as error:
        raise ChangesGoneError(
            f"since={since} is of commits that the branch does not have; they were lost with their node, or are of another "
            "branch: read again what you keep a copy of, and go on from the txid of that answer"
        ) from error
    reached = _reached(seen, wanted)
    found = [change for change in seen.value if change.txid <= reached]
    more = len(found) == wanted.limit
    rounds = [shown for change in found if (shown := told.shown(change, wanted.surfaces)) is not None]
    next_since = found[-1].txid if more else max(since, reached)
    return Seen(Page(rounds, next_since, more), seen.txid, seen.durable_txid)


def _reached(seen: Seen[Any], wanted: Wanted) -> int:
    return min(seen.txid, seen.durable_txid) if wanted.durable else seen.txid
