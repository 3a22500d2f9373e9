"""A profile whose writes wait for what is set for their surface, whatever less the request asks for."""

from typing import TypeVar

from memoturnd.core.database_settings import LevelRules
from memoturnd.core.durability import Durability, level_for
from memoturnd.http.ports import BranchProfile
from memoturnd.seams.profile import ReadOp, Seen, Work, WriteOp, Written

T = TypeVar("T")


class LeveledProfile:
    """A profile under the rules of its database. Implements memoturnd.http.ports.BranchProfile."""

    def __init__(self, profile: BranchProfile, surface: str) -> None:
        self._profile = profile
        self._surface = surface

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

    async def write(
        self, op: WriteOp[T], *, durability: Durability = Durability.LOCAL, work: Work = Work.POINT
    ) -> Written[T]:
        """Apply `op`, and wait for what is set where that is more than is asked for."""
        level = level_for(durability, self._surface, self.rules)
        return await self._profile.write(op, durability=level, work=work)
