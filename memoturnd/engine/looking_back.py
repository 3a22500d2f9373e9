"""A branch as it was: which manifest a revision is looked up in, reads of the state that it names, and the list of those."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Never, TypeVar

from memoturnd.core.consistency import Consistency
from memoturnd.core.database_settings import LevelRules
from memoturnd.core.durability import Durability
from memoturnd.core.manifest import Manifest, Rewind
from memoturnd.core.revisions import AtCheckpoint, AtTime, AtTxid, BeforeHead, Revision
from memoturnd.engine.branch import Branch
from memoturnd.engine.consistency import reading
from memoturnd.engine.owner_of import refuse_elsewhere
from memoturnd.engine.past import PastStates
from memoturnd.engine.takeover import refuse_a_lost_manifest
from memoturnd.errors import (
    BranchNotFoundError,
    InvalidRequestError,
    PreconditionFailedError,
)
from memoturnd.replication.points import Point, Window, points
from memoturnd.replication.revisions import resolve
from memoturnd.seams.profile import ReadOp, Seen, Work, WriteOp

T = TypeVar("T")


class PastProfile:
    """A branch as it was at a revision. Implements memoturnd.seams.profile.Profile; it can only be read."""

    def __init__(self, branch: Branch, past: PastStates, at: Revision, asker: str = "") -> None:
        self._branch = branch
        self._asker = asker
        self._past = past
        self._at = at
        self._txid = 0
        self._durable_txid = 0

    @property
    def branch_id(self) -> str:
        """Return the branch's id."""
        return self._branch.branch_id

    @property
    def txid(self) -> int:
        """Return the txid of the state, once it was read."""
        return self._txid

    @property
    def durable_txid(self) -> int:
        """Return the newest txid of the branch that is known to be in object storage."""
        return max(self._durable_txid, self._branch.durable_txid, self._txid)

    @property
    def rules(self) -> LevelRules:
        """Return what is set for the database, for writes, which there are none of."""
        return self._branch.rules

    async def read(self, op: ReadOp[T], *, min_txid: int = 0, work: Work = Work.POINT) -> Seen[T]:
        """Run `op` on the past state, at that state's wall time.

        Raises what memoturnd.replication.revisions.resolve and PastStates.hold raise, and
        PreconditionFailedError where the state lies below `min_txid`.
        """
        branch, past = self._branch, self._past
        current = None
        if isinstance(self._at, AtTxid) and past.has(branch, self._at.txid):
            self._txid = self._at.txid  # a txid stands for one state for ever
        else:
            current, self._txid = await self._found()
            self._durable_txid = current.head_txid
        if self._txid < min_txid:
            raise PreconditionFailedError(
                f"the revision names txid {self._txid} of {branch.ref}, and the read asked for {min_txid} or above; "
                "send Memoturn-Min-Txid only with reads of the newest state"
            )
        if self._txid == 0:
            return await branch.read_empty(op, work)
        async with past.hold(branch, self._txid, current, asker=self._asker) as state:
            value = await past.read(state, op, work)
        return Seen(value, self._txid, self.durable_txid)

    async def _found(self) -> tuple[Manifest, int]:
        """Return the manifest that the revision was looked up in, and the txid that it names."""
        branch, archive = self._branch, self._branch.services.archive

        async def found(current: Manifest) -> tuple[Manifest, int]:
            return current, await resolve(archive, current, self._at)

        return await branch.manifests.with_newest(await standing(branch, self._at), found)

    async def write(
        self, op: WriteOp[T], *, durability: Durability = Durability.LOCAL, work: Work = Work.POINT
    ) -> Never:
        """Refuse: raises InvalidRequestError."""
        del op, durability, work
        raise InvalidRequestError(
            "a past state can only be read: leave Memoturn-At and `at` out, or fork the branch there and write to the fork"
        )


@dataclass(frozen=True, slots=True)
class RestorePoint:
    """A commit that can be restored: `at` is its wall time in unix ms, `checkpoints` the names that it has."""

    txid: int
    at: int
    kind: Literal["commit", "snapshot", "checkpoint"]
    checkpoints: Sequence[str]


@dataclass(frozen=True, slots=True)
class RestorePoints:
    """Some of a branch's restore points, the txid of its newest one, and its newest rewinds, in their order."""

    head_txid: int
    rows: Sequence[RestorePoint]
    rewinds: Sequence[Rewind]


async def restore_points(branch: Branch, window: Window, limit: int, *, newest_first: bool) -> RestorePoints:
    """Return up to `limit` restore points of the window, by txid, with all in it that this node has committed.

    Reads the history pages and round tables that hold them, and the runs of checkpoints. Raises what
    `standing` raises.
    """
    archive = branch.services.archive
    current = await standing(branch, BeforeHead(0))
    found = await points(archive, current, window, limit, newest_first=newest_first)
    names = await archive.checkpoints_at(current, {point.txid for point in found})
    rows = [_restore_point(point, names.get(point.txid, [])) for point in found]
    return RestorePoints(current.head_txid, rows, current.rewinds)


def _restore_point(point: Point, names: list[str]) -> RestorePoint:
    kind: Literal["commit", "snapshot", "checkpoint"] = "snapshot" if point.is_snapshot else "commit"
    return RestorePoint(point.txid, point.at_ms, "checkpoint" if names else kind, sorted(names))


async def standing(branch: Branch, revision: Revision) -> Manifest:
    """Return the manifest to look `revision` up in, with all in it that this node has committed, where that matters.

    Takes no lease, unless an earlier process left commits here that have to be shipped. A main branch that was
    never written has one that names nothing. Raises BranchNotFoundError, CorruptionError for a manifest that
    was lost, and what shipping raises.
    """
    known = branch.manifests.cached
    # What was committed before the head stays as it is, so an older manifest tells it as well as the newest.
    settled = known is not None and _lies_below(known, revision)
    current = await branch.manifests.load(fresh=branch.owned is None and not settled)
    if current is None or _may_lie_above(current, revision):
        branch.users += 1
        try:
            current = await _shipped(branch)
        finally:
            branch.leave()
    if current is not None and current.deleted_at is not None:
        raise BranchNotFoundError(f"{branch.ref} was deleted")
    if current is not None:
        return current
    if not branch.is_main:
        raise BranchNotFoundError(f"{branch.ref} has no manifest in object storage: create the branch again")
    await refuse_a_lost_manifest(branch)
    ref = branch.ref
    return Manifest(
        db=ref.database.uuid, branch_id=ref.branch_id, branch=ref.name, created_at=ref.database.created_at
    )


def _may_lie_above(current: Manifest, revision: Revision) -> bool:
    """Return whether commits that are not in the manifest could be what the revision names."""
    match revision:
        case AtTxid(txid):
            return txid > current.head_txid
        case AtTime(at_ms):
            return at_ms >= current.head_at
        case BeforeHead():
            return True
        case AtCheckpoint():
            return False


def _lies_below(known: Manifest, revision: Revision) -> bool:
    """Return whether the revision names a commit that the manifest tells of, whatever came after it."""
    return isinstance(revision, AtTxid | AtTime) and not _may_lie_above(known, revision)


async def _shipped(branch: Branch) -> Manifest | None:
    if await reading().of(branch.ref.database.qualified_name) is Consistency.PRIMARY:
        await refuse_elsewhere(branch.services, branch)
    await branch.take_up()
    owned = branch.owned
    if owned is not None and owned.shipper.dirty_since_s is not None:
        await owned.shipper.ship()
    return await branch.manifests.load(fresh=not branch.is_ours)
