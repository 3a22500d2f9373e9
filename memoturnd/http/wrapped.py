"""A profile in front of another one, which shows what that one shows."""

from typing import TypeVar

from memoturnd.core.database_settings import LevelRules
from memoturnd.http.ports import BranchProfile
from memoturnd.seams.profile import ReadOp, Seen, Work

T = TypeVar("T")


class WrappedProfile:
    """Passes on all but writes, which are what a class of this kind is for."""

    def __init__(self, profile: BranchProfile) -> None:
        self._profile = profile

    @property
    def branch_id(self) -> str:
        """Id of the branch."""
        return self._profile.branch_id

    @property
    def txid(self) -> int:
        """Newest committed txid."""
        return self._profile.txid

    @property
    def durable_txid(self) -> int:
        """Newest txid that object storage has."""
        return self._profile.durable_txid

    @property
    def rules(self) -> LevelRules:
        """What is set for the database."""
        return self._profile.rules

    async def read(self, op: ReadOp[T], *, min_txid: int = 0, work: Work = Work.POINT) -> Seen[T]:
        """Run `op` on one state; see memoturnd.seams.profile.Profile.read."""
        return await self._profile.read(op, min_txid=min_txid, work=work)
