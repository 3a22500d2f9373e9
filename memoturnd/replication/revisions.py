"""Which txid a revision names, looked up in what object storage has of a branch."""

from memoturnd.core import revisions
from memoturnd.core.manifest import Manifest, restore_plan, round_ref
from memoturnd.core.revisions import AtCheckpoint, AtTime, AtTxid, BeforeHead, Revision, rfc3339
from memoturnd.errors import BranchNotFoundError, ConflictError
from memoturnd.replication.archive import CHECKPOINTS, Archive
from memoturnd.replication.points import Window, counted_back, points


async def resolve(archive: Archive, current: Manifest, revision: str | Revision) -> int:
    """Return the txid that a revision names among the commits that object storage has.

    A branch that was never written stands at txid 0, at any time. Raises InvalidRequestError for bad grammar,
    BranchNotFoundError for an unknown checkpoint, ConflictError for a state that cannot be restored, naming
    those nearest to it that can, CorruptionError, StoreUnavailableError.
    """
    asked = revisions.parse(revision) if isinstance(revision, str) else revision
    match asked:
        case AtTxid(txid):
            return await _checked(archive, current, txid, f"txid {txid}")
        case AtCheckpoint(name):
            checkpoint = await archive.find(CHECKPOINTS, current, name)
            if checkpoint is None:
                raise BranchNotFoundError(
                    f"branch {current.branch} has no checkpoint {name!r}; list them with GET .../checkpoints"
                )
            return await _checked(
                archive, current, checkpoint.txid, f"checkpoint {name!r}, txid {checkpoint.txid},"
            )
        case BeforeHead(rounds):
            return await _before_head(archive, current, rounds)
        case AtTime(at_ms):
            return await _at_time(archive, current, at_ms)


async def _checked(archive: Archive, current: Manifest, txid: int, what: str) -> int:
    """Return `txid` if its state can be restored."""
    if not await _is_restorable(archive, current, txid):
        raise ConflictError(
            f"{what} of branch {current.branch} cannot be restored: it was never committed, was lost with its "
            f"node, or is past retention; {await _nearest(archive, current, txid)}"
        )
    return txid


async def _is_restorable(archive: Archive, current: Manifest, txid: int) -> bool:
    if txid == 0 or txid > current.head_txid:
        return txid == current.head_txid
    reaching = await archive.reaching(current, txid)
    try:
        restore_plan(reaching, txid)
    except ConflictError:
        return False
    ref = round_ref(reaching, txid)
    if ref.end == txid or not ref.is_thinned:
        return True
    return any(entry.txid == txid for entry in await archive.rounds(current.db, ref))


async def _nearest(archive: Archive, current: Manifest, txid: int) -> str:
    """Say which restorable states stand next to one that is not."""
    below = await points(archive, current, Window(below=txid), 1)
    above = await points(archive, current, Window(above=txid), 1, newest_first=False)
    near = [f"txid {p.txid} below it" for p in below] + [f"txid {p.txid} above it" for p in above]
    return f"the nearest that can be: {', '.join(near)}" if near else "nothing was committed to it yet"


async def _before_head(archive: Archive, current: Manifest, rounds: int) -> int:
    if rounds == 0:
        return current.head_txid
    txid = await counted_back(archive, current, rounds)
    if txid is None:
        raise ConflictError(
            f"branch {current.branch} has no {rounds} commits before its head that can be restored; "
            f"{await _oldest(archive, current)}"
        )
    return txid


async def _at_time(archive: Archive, current: Manifest, at_ms: int) -> int:
    if at_ms >= current.head_at or current.head_txid == 0:
        return current.head_txid
    found = await points(archive, current, Window(until_ms=at_ms), 1)
    if not found:
        raise ConflictError(
            f"branch {current.branch} has no commit at or before {rfc3339(at_ms)} that can be restored; "
            f"{await _oldest(archive, current)}"
        )
    return found[0].txid


async def _oldest(archive: Archive, current: Manifest) -> str:
    found = await points(archive, current, Window(), 1, newest_first=False)
    if not found:
        return "nothing was committed to it yet"
    return f"the oldest is txid {found[0].txid} of {rfc3339(found[0].at_ms)}"
