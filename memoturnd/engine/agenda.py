"""What maintenance is told of changes: noted at once and in memory, put into the catalog a moment later.

A branch that is written notes itself before each upload, and counts once in half an interval. So a pass
comes at least half an interval after each upload began, and sees what an upload that was cut off left behind.
"""

from memoturnd.seams.catalog import COLLECT, Catalog, Chore
from memoturnd.seams.clock import Clock


class Agenda:
    """The notes of one node: `collect` of the database, and the chores in `of_branches` of the branch itself."""

    def __init__(self, clock: Clock, *, interval_s: float, of_branches: tuple[str, ...] = ()) -> None:
        self._of_branches = of_branches
        self.interval_ms = round(1000 * interval_s)
        self._clock = clock
        self._noted: dict[str, int] = {}
        self._waiting: dict[Chore, int] = {}

    def changed(self, uuid: str, branch_id: str) -> None:
        """Note that a branch is about to change; cheap, and may be called from any coroutine."""
        now_ms = self._clock.now_ms()
        noted_ms = self._noted.get(branch_id)
        if noted_ms is not None and 0 <= now_ms - noted_ms < self.interval_ms // 2:
            return
        self._noted.pop(branch_id, None)  # so that it stands last: the oldest are first
        self._noted[branch_id] = now_ms
        due_ms = now_ms + self.interval_ms
        for chore in (*(Chore(kind, uuid, branch_id) for kind in self._of_branches), Chore(COLLECT, uuid)):
            self._waiting.setdefault(chore, due_ms)

    def let_go(self, uuid: str) -> None:
        """Note that something of the database is not named any more."""
        self._waiting.setdefault(Chore(COLLECT, uuid), self._clock.now_ms() + self.interval_ms)

    async def flush(self, catalog: Catalog) -> None:
        """Schedule what was noted. Raises RetryableError; the notes then stay."""
        while self._waiting:
            chore, due_ms = next(iter(self._waiting.items()))
            await catalog.schedule(chore, due_ms)
            # Another flush may have been here meanwhile, and a newer note have come since.
            if self._waiting.get(chore) == due_ms:
                del self._waiting[chore]
        oldest_ms = self._clock.now_ms() - self.interval_ms // 2
        while self._noted:  # in the order of their times
            branch_id, noted_ms = next(iter(self._noted.items()))
            if oldest_ms < noted_ms:
                break
            del self._noted[branch_id]
