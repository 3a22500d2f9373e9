"""Restore points: the commits of a branch that can be restored, found in what its manifest names.

The manifest and its history pages say which object holds which txids and wall times. Only where an object
holds several rounds is its table read, so a question about one point reads one history page and one table
at most. Wall times never decrease along a branch, and several commits may share one.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from memoturnd.core.manifest import HistoryPage, Manifest, ObjectRef, PageRef
from memoturnd.replication.archive import Archive

_min = attrgetter("min")


class Point(NamedTuple):
    """One commit that can be restored: `at_ms` is its wall time in unix ms."""

    txid: int
    at_ms: int
    is_snapshot: bool
    """Whether a snapshot holds just this state."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which points are asked for: txids above one and below another, wall times in unix ms within two."""

    above: int = -1
    below: int = 1 << 62
    since_ms: int = -(1 << 62)
    until_ms: int = 1 << 62

    def meets(self, part: PageRef | ObjectRef) -> bool:
        """Return whether the part may hold points of the window."""
        return (
            part.min < self.below
            and _last(part) > self.above
            and part.first_at <= self.until_ms
            and part.last_at >= self.since_ms
        )

    def holds(self, point: Point) -> bool:
        """Return whether the point is in the window."""
        return self.above < point.txid < self.below and self.since_ms <= point.at_ms <= self.until_ms


async def points(
    archive: Archive, current: Manifest, window: Window, limit: int, *, newest_first: bool = True
) -> list[Point]:
    """Return up to `limit` points of the window, by txid. Raises CorruptionError, StoreUnavailableError."""
    found: list[Point] = []
    step = -1 if newest_first else 1
    for number in range(len(current.pages) + 1)[::step]:
        if number < len(current.pages) and not window.meets(current.pages[number]):
            continue
        part = await _part(archive, current, number)
        for ref in part.refs[::step]:
            if window.meets(ref):
                rows = [p for p in await _points_of(archive, current, part, ref) if window.holds(p)]
                found += rows[::step]
            if len(found) >= limit:
                return found[:limit]
    return found


async def counted_back(archive: Archive, current: Manifest, rounds: int) -> int | None:
    """Return the txid of the commit so many rounds before the newest one; None where so many are not kept.

    Raises CorruptionError, StoreUnavailableError.
    """
    left = rounds
    for number in reversed(range(len(current.pages) + 1)):
        part = await _part(archive, current, number)
        for ref in reversed(part.refs):
            count = _count(part, ref) if ref.min >= part.floor else None
            if count is None:
                rows = await _points_of(archive, current, part, ref)
                if left < len(rows):
                    return rows[-1 - left].txid
                count = len(rows)
            elif left < count and _is_dense(ref):
                return ref.end - left
            elif left < count:
                return (await _points_of(archive, current, part, ref))[-1 - left].txid
            left -= count
    return None


class _Part(NamedTuple):
    """A history page, or what the manifest has itself: objects with points of their own, ascending by txid.

    Commits below `floor` have no base any more that a restore could start from.
    """

    refs: Sequence[ObjectRef]
    floor: int
    snapshots: Mapping[int, ObjectRef]
    """Of each snapshot one object (large ones have several), by its txid."""
    whole: AbstractSet[int]
    """The txids of its commits that a snapshot holds, here or behind the part."""

    def snapshots_inside(self, ref: ObjectRef) -> list[ObjectRef]:
        """Return the snapshots of states within an object that was thinned, which may have lost their rounds."""
        if not ref.is_thinned:
            return []
        last = ref.max - 1 if not ref.upto else ref.upto  # the last round of the whole object is always there
        return [snapshot for end, snapshot in self.snapshots.items() if ref.min <= end <= last]


async def _part(archive: Archive, current: Manifest, number: int) -> _Part:
    """Return the page of that number; the one behind the last stands for the manifest's own entries."""
    pages = current.pages
    whole: Manifest | HistoryPage = current
    if number < len(pages):
        whole = await archive.page(current.db, pages[number])
    above = pages[number - 1].max if number else -1
    snapshots = {ref.end: ref for ref in whole.snapshots}
    alone = [
        ref for ref in snapshots.values() if ref.end > above and not _in_segments(whole.segments, ref.end)
    ]
    refs = sorted((*whole.segments, *alone), key=_last)
    # A snapshot of the last state of a page may have come too late for it, and stands behind it.
    late = {part.min for part in pages[number + 1 : number + 2]} | {ref.end for ref in current.snapshots}
    ends = snapshots.keys() | (late & {ref.end for ref in refs})
    is_base = number or (whole.segments and whole.segments[0].is_base)
    return _Part(refs, 0 if is_base else min(ends, default=1 << 62), snapshots, ends)


def _in_segments(segments: Sequence[ObjectRef], txid: int) -> bool:
    at = bisect_right(segments, txid, key=_min) - 1
    return at >= 0 and txid <= segments[at].end


async def _points_of(archive: Archive, current: Manifest, part: _Part, ref: ObjectRef) -> list[Point]:
    if ref.end < part.floor:
        return []
    if ref.kind == "snapshot" or ref.min == ref.max:
        rows = {ref.end: ref.last_at}
    else:
        rows = {r.txid: r.at_ms for r in await archive.rounds(current.db, ref) if r.txid <= ref.end}
        rows |= {snapshot.end: snapshot.last_at for snapshot in part.snapshots_inside(ref)}
    return [Point(txid, rows[txid], txid in part.whole) for txid in sorted(rows) if txid >= part.floor]


def _count(part: _Part, ref: ObjectRef) -> int | None:
    """Return how many points the object has, None where only its table can tell."""
    if ref.kind == "snapshot":
        return 1
    if part.snapshots_inside(ref):
        return None
    if ref.upto:
        return None if ref.is_thinned else ref.upto - ref.min + 1
    return ref.rounds or ref.max - ref.min + 1


def _is_dense(ref: ObjectRef) -> bool:
    return ref.kind == "snapshot" or not ref.is_thinned


def _last(part: PageRef | ObjectRef) -> int:
    return part.end if isinstance(part, ObjectRef) else part.max
