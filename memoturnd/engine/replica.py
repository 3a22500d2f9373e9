"""One replica: the file of a branch that another node owns, brought up to date by what that node has shipped.

Every step is proven: rounds apply only where txid and checksum before them are those of the file, and come to the
checksums that they say (memoturnd.replication.apply). What does not apply is fetched from object storage: the missing
segments where they lead on from here, else the head as a whole.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from memoturnd.core import layout, manifest, segment
from memoturnd.core.manifest import Manifest
from memoturnd.core.segment import Segment
from memoturnd.engine.replaying import replay
from memoturnd.errors import CorruptionError
from memoturnd.replication.apply import GapError, follow, rounds_behind
from memoturnd.replication.capture import Cursor
from memoturnd.replication.ranged import fetch

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch

FETCHED_BYTES: Final = 32 * 1024 * 1024
"""Stored bytes of missing segments up to which they are fetched and held in memory; beyond it the head is restored."""


async def apply(branch: "Branch", segments: Sequence[Segment]) -> bool:
    """Bring the branch's open file up to date; False where it is owned or not open, so that there is nothing to do.

    Called inside the transition lock. Raises GapError where they do not follow on it: then it stays as it is. Raises
    CorruptionError, DiskFullError, RetryableError: then the file is gone, and the next read restores it.
    """
    if branch.known is None:
        return False
    cursor, hashes = branch.known
    proven = follow(cursor.txid, hashes, segments)
    async with branch.reopening() as is_open:
        if not is_open:
            return False
        branch.files.unmark()
        size_bytes = sum(one.page_count * one.page_size for one in segments)
        await replay(
            branch, lambda: rounds_behind(cursor.txid, segments), txid=proven.at.txid, size_bytes=size_bytes
        )
        branch.known = Cursor(proven.at.txid, None), proven.hashes
        branch.is_durable_at(proven.at.txid)
    return True


async def catch_up(branch: "Branch", current: Manifest) -> bool:
    """Bring the branch's open file to the head of `current` by the segments that it lacks; False where that is not possible.

    Called inside the transition lock. Raises StoreUnavailableError.
    """
    if branch.known is None or not branch.hot or branch.owned is not None:
        return False
    cursor, _ = branch.known
    plan = manifest.plan_from(current, cursor.txid, current.head_txid)
    if not plan or sum(ref.size_bytes for ref in plan) > FETCHED_BYTES:
        return False
    try:
        blobs = await fetch(branch.services.store, [layout.object_key(current.db, ref) for ref in plan])
        parts = [segment.decode(blob, name_hash=ref.hash) for ref, blob in zip(plan, blobs, strict=True)]
        if any(ref.end != part.rounds[-1].txid for ref, part in zip(plan, parts, strict=True)):
            return False  # a fork's last segment of its parent: only a restore cuts it off
        if not await apply(branch, parts):
            return False
    except (GapError, CorruptionError):
        return False  # another history, or a damaged object: a restore tells which
    branch.services.metrics.replica_steps["fetched"].inc()
    return branch.txid == current.head_txid
