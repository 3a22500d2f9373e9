"""What the request under way asks of its reads, where nodes share branches, and how old the state was that it got.

The pipeline says so once, and the branches that the request reads look here: what lies between them need not know of it.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from memoturnd.core.consistency import Consistency

Policy = Callable[[str], Awaitable[Consistency]]
"""Returns what the policies of a database, told by its qualified name, say of its reads."""


@dataclass(slots=True)
class Reading:
    """What a request asks: by itself, or (None) as the policies say. `age_ms` is the oldest age of a state that was shown from a copy."""

    asked: Consistency | None
    policy: Policy | None = None
    age_ms: int | None = None

    async def of(self, database: str) -> Consistency:
        """Return what holds for a read of a database, told by its qualified name. Raises PolicyUnreadableError."""
        if self.asked is not None:
            return self.asked
        return Consistency.PRIMARY if self.policy is None else await self.policy(database)

    def shown(self, age_s: float) -> None:
        """Note that a copy was shown which was the newest state so long ago."""
        self.age_ms = max(self.age_ms or 0, round(1000 * age_s))


_PRIMARY = Reading(Consistency.PRIMARY)
_current: ContextVar[Reading] = ContextVar("reading", default=_PRIMARY)


def reading() -> Reading:
    """Return what the request under way asks; the node's own work reads what is newest."""
    return _current.get()


@contextmanager
def reading_as(wanted: Reading) -> Iterator[Reading]:
    """Let the reads inside the block be so."""
    token = _current.set(wanted)
    try:
        yield wanted
    finally:
        _current.reset(token)
