"""What the load has been promised, per branch, and what must therefore be there after a crash. Pure.

Every write that was answered has a txid. A branch whose head is txid `h` shows a write of txid `x` exactly
when `x` is at or below `h` and no rewind took it away: with the last rewind (commit `n`, to `t`) at or
below `h`, what lies above `n` is there, and what lies below is there as far as it was at `t`.
"""

from dataclasses import dataclass, field

MAYBE = None
"""Nobody knows whether it was applied: no answer came."""

Part = tuple[str, str]


@dataclass(slots=True, eq=False)
class Item:
    """One write. `parts` are the (kind, key) that it made, all or none of which must be found."""

    parts: tuple[Part, ...]
    life: int
    txid: int | None = MAYBE
    refused: bool = False
    lost: bool = False
    """It was acknowledged at level local only, and its disk was lost."""
    memory_ids: tuple[str, ...] = ()


@dataclass(slots=True)
class Overwrite:
    """One write to a key that is written again and again; `number` grows with every write."""

    number: int
    txid: int | None = MAYBE
    refused: bool = False
    lost: bool = False


@dataclass(slots=True, eq=False)
class BranchModel:
    """A branch and everything that was sent to it. `spec` is `database` or `database@branch`."""

    spec: str
    parent: "BranchModel | None" = None
    fork_txid: int = 0
    items: list[Item] = field(default_factory=list)
    overwrites: dict[str, list[Overwrite]] = field(default_factory=dict)
    rewinds: list[tuple[float, int]] = field(default_factory=list)
    """(txid of the rewind's commit, txid whose state it brought back), ascending."""
    undo_txid: int | None = None
    """Where undoing the last rewind goes, as far as an answer has said."""
    rewind_sent: int | None = None
    """Where a rewind goes that is not answered yet."""
    seen_txid: int = 0
    """Largest txid that answers have named, of those that were not lost with a disk."""
    durable_txid: int = 0
    """Largest txid that any answer has called durable."""
    floor_txid: int = 0
    """Largest txid ever named before this life of the node began, lost or not: none up to it is used again."""

    def answered(self, txid: int, durable_txid: int) -> None:
        """Note what the headers of an answer to a write say."""
        assert txid > self.floor_txid, f"{self.spec}: txid {txid} was used before (up to {self.floor_txid})"
        self.noted(txid, durable_txid)

    def noted(self, txid: int, durable_txid: int) -> None:
        """Note what the headers of an answer to a read say."""
        self.seen_txid = max(self.seen_txid, txid)
        self.durable_txid = max(self.durable_txid, durable_txid)

    @property
    def acknowledged(self) -> bool:
        """Whether anything was ever acknowledged, so that the branch must exist."""
        return self.seen_txid > 0 or self.parent is not None

    def settle(self, head_txid: int, *, disk_lost: bool) -> None:
        """Take the state that a restarted node shows: everything owed must be at or below `head_txid`."""
        owed = self.durable_txid if disk_lost else self.seen_txid
        assert head_txid >= owed, f"{self.spec} is at {head_txid} after the crash, but owes {owed}"
        for write in (*self.items, *(o for written in self.overwrites.values() for o in written)):
            if write.txid is not None and write.txid > head_txid:
                write.lost = True
        assert all(txid <= head_txid for txid, _ in self.rewinds), "a rewind is durable when it is answered"
        self.floor_txid = max(self.floor_txid, self.seen_txid, head_txid)
        self.seen_txid = head_txid

    def shows(self, txid: int, head_txid: int | None = None) -> bool:
        """Return whether the state at `head_txid`, the newest when None, holds the write `txid` of this branch."""
        if head_txid is not None and txid > head_txid:
            return False
        for commit, target in reversed(self.rewinds):
            if head_txid is None or commit <= head_txid:
                return txid > commit or self.shows(txid, target)
        return True

    def expected(self, at: int | None = None) -> list[tuple[Item, bool | None]]:
        """Return every write that concerns the branch, and whether the state at `at` (None: the head) must
        show it; None where either is right.
        """
        rows = [(item, self._expects(item, at)) for item in self.items]
        return rows if self.parent is None else rows + self.parent.expected(self.fork_txid)

    def _expects(self, item: Item, at: int | None) -> bool | None:
        if item.refused or item.lost:
            return False
        return None if item.txid is None else self.shows(item.txid, at)

    def resolve_rewind(self, found: "set[Part]") -> bool:
        """Learn from what shows whether the rewind without an answer happened; return whether it did."""
        target, self.rewind_sent, self.undo_txid = self.rewind_sent, None, None
        assert target is not None
        missing = [i.txid for i, must in self.expected() if must and not found.issuperset(i.parts)]
        if not missing:
            return False
        # Any number between the newest write that it took and the oldest that it left says the same.
        newest = max(txid for txid in (*missing, *(c for c, _ in self.rewinds[-1:])) if txid is not None)
        self.rewinds.append((newest + 0.5, target))
        return True

    def allowed_numbers(self, key: str) -> set[int]:
        """Return the numbers of which one must be the value of an overwritten key; 0 stands for no value."""
        allowed = {0}
        for write in self.overwrites.get(key, []):
            if write.refused or write.lost:
                continue
            if write.txid is None:
                allowed.add(write.number)
            else:
                allowed = {write.number}
        return allowed
