"""A profile whose writes wait for what is set for their surface, whatever less the request asks for."""

from typing import TypeVar

from memoturnd.core.durability import Durability, level_for
from memoturnd.http.ports import BranchProfile
from memoturnd.http.wrapped import WrappedProfile
from memoturnd.seams.profile import Work, WriteOp, Written

T = TypeVar("T")


class LeveledProfile(WrappedProfile):
    """A profile under the rules of its database. Implements memoturnd.http.ports.BranchProfile."""

    def __init__(self, profile: BranchProfile, surface: str) -> None:
        super().__init__(profile)
        self._surface = surface

    async def write(
        self, op: WriteOp[T], *, durability: Durability = Durability.LOCAL, work: Work = Work.POINT
    ) -> Written[T]:
        """Apply `op`, and wait for what is set where that is more than is asked for."""
        level = level_for(durability, self._surface, self.rules)
        return await self._profile.write(op, durability=level, work=work)
