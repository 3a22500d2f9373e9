"""What of a branch's history is kept, and in what grain. Pure.

    younger than the fine window     every commit round
    younger than the coarse window   about one round per grain, and every round that a checkpoint or fork needs
    older                            only rounds that a checkpoint or fork needs

Rounds that are not kept are joined into the next kept one, so that its state stays the same: the segment is
thinned. What only old states need is dropped once a snapshot stands behind them. Nothing younger than the
newest base is touched, and nothing that a fork has of its parent is thinned: it may only be dropped.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from memoturnd.core import manifest
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.manifest import Manifest, ObjectRef, PageRef

GRAIN_S = 3600
"""Span of wall time of which one commit is kept between the two windows."""
RUN_MAX_BYTES = 16 * 1024 * 1024
"""Stored bytes of the segments that are thinned together at most."""
RUNS_PER_PASS = 16
JOINED_PAGE_ENTRIES = 384
"""Entries of the history page that neighbouring pages become once retention has left little in them."""
_SMALL_BYTES = 1024 * 1024
_SPLIT_PARTS = 4
"""A segment that reaches into the fine window is split once a quarter of the window of it is older."""


class Windows(NamedTuple):
    """How long history is kept at every commit, and then at one commit per grain, in ms."""

    fine_ms: int
    coarse_ms: int
    grain_ms: int


@dataclass(frozen=True, slots=True)
class Entries:
    """The entries of one history page, or of the manifest itself (`page` is None)."""

    page: PageRef | None
    snapshots: tuple[ObjectRef, ...]
    segments: tuple[ObjectRef, ...]


@dataclass(frozen=True, slots=True)
class Thin:
    """Adjacent segments of whose old rounds only some are kept: those in `keep`, and the last of each grain.

    Rounds are old up to the wall time `cut_ms` and the txid `cut_txid`; the others stay, as a segment of their
    own. `grain_ms` 0 keeps none for its time.
    """

    inputs: tuple[ObjectRef, ...]
    keep: frozenset[int]
    grain_ms: int
    cut_ms: int
    cut_txid: int = INTEGER_MAX


@dataclass(frozen=True, slots=True)
class Edit:
    """What becomes of one page's or the manifest's entries."""

    entries: Entries
    thins: tuple[Thin, ...]
    dropped: frozenset[ObjectRef]

    @property
    def is_empty(self) -> bool:
        """Return whether everything stays."""
        return not self.thins and not self.dropped


class Floor(NamedTuple):
    """The snapshot from which on history is kept in the coarse grain, and the base of what is kept below it.

    Both are txids; they are the same where nothing below is kept.
    """

    base: int
    low: int


class Plan(NamedTuple):
    """An edit for each page and the manifest, and what they rely on."""

    edits: list[Edit]
    floor: Floor
    is_whole: bool
    """Whether all that is due is in it."""


def plan(
    parts: Sequence[Entries], kept: Collection[int], now_ms: int, windows: Windows, *, branch_id: str
) -> Plan:
    """Return what to do with each of `parts`, oldest first, the manifest's own entries last."""
    snapshots = [ref for part in parts for ref in part.snapshots]
    newest_base = max((ref.end for ref in snapshots), default=0)
    floor = _floor(parts, snapshots, kept, now_ms - windows.coarse_ms)
    fine_cut_ms = now_ms - windows.fine_ms
    span_ms = max(windows.fine_ms, windows.grain_ms)  # less would leave more than one round to a grain
    needed = sorted(set(kept))
    edits, room = [], RUNS_PER_PASS
    for part in parts:
        dropped = frozenset(ref for ref in (*part.snapshots, *part.segments) if _is_dropped(ref, floor))
        segments = [
            ref for ref in part.segments if ref not in dropped and ref.branch == branch_id and not ref.upto
        ]
        below = [ref for ref in segments if ref.min <= floor.base and _has_excess(ref, needed, floor.base)]
        above = [
            ref
            for ref in segments
            if floor.base < ref.min and ref.end <= newest_base and _is_old(ref, fine_cut_ms, windows.fine_ms)
        ]
        thins = [Thin(run, _within(needed, run), 0, now_ms, floor.base) for run in _runs(below, span_ms)]
        thins += [
            Thin(run, _within(needed, run), windows.grain_ms, fine_cut_ms)
            for run in _runs(above, span_ms)
            if any(not r.rounds for r in run)
        ]
        edits.append(Edit(part, tuple(thins[: max(0, room)]), dropped))
        room -= len(thins)
    return Plan(edits, floor, room >= 0)


def _floor(
    parts: Sequence[Entries], snapshots: Sequence[ObjectRef], kept: Collection[int], coarse_cut_ms: int
) -> Floor:
    base = max((ref.end for ref in snapshots if ref.last_at <= coarse_cut_ms), default=0)
    oldest_kept = min((txid for txid in kept if txid < base), default=base)
    first = next((ref for part in parts for ref in part.segments), None)
    bases = [ref.end for ref in snapshots if ref.end <= oldest_kept]
    if not bases and first is not None and first.is_base and first.min <= oldest_kept:
        return Floor(base, 0)
    return Floor(base, max(bases, default=base))


def _is_dropped(ref: ObjectRef, floor: Floor) -> bool:
    """Return whether only states that are not kept need `ref`."""
    if ref.kind == "snapshot":
        return ref.end < floor.base and ref.end != floor.low
    return ref.end <= floor.low


def _within(needed: Sequence[int], run: Sequence[ObjectRef]) -> frozenset[int]:
    """Return those of the ascending txids that lie in the run."""
    return frozenset(needed[bisect_left(needed, run[0].min) : bisect_right(needed, run[-1].max)])


def _has_excess(ref: ObjectRef, needed: Sequence[int], base: int) -> bool:
    """Return whether a segment has rounds up to `base` that nobody needs, but for its last; one across it is split."""
    if ref.end > base:
        return True
    rounds = ref.rounds or ref.max - ref.min + 1
    return rounds > 1 + bisect_left(needed, ref.max) - bisect_left(needed, ref.min)


def _is_old(ref: ObjectRef, cut_ms: int, fine_ms: int) -> bool:
    """Return whether a segment is older than `cut_ms`, or so much of it that it is worth to be split there."""
    return ref.last_at <= cut_ms or (not ref.rounds and ref.first_at <= cut_ms - fine_ms // _SPLIT_PARTS)


def _runs(segments: Sequence[ObjectRef], span_ms: int) -> list[tuple[ObjectRef, ...]]:
    """Return adjacent segments in runs of RUN_MAX_BYTES and `span_ms`; small thinned ones join what follows."""
    runs: list[list[ObjectRef]] = []
    size_bytes = 0
    for ref in segments:
        last = runs[-1][-1] if runs else None
        adjacent = last is not None and last.max == ref.prev and last.max + 1 == ref.min
        open_ended = last is not None and (not last.rounds or last.size_bytes <= _SMALL_BYTES)
        short = bool(runs) and ref.last_at - runs[-1][0].first_at <= span_ms
        if adjacent and open_ended and short and size_bytes + ref.size_bytes <= RUN_MAX_BYTES:
            runs[-1].append(ref)
            size_bytes += ref.size_bytes
        else:
            runs.append([ref])
            size_bytes = ref.size_bytes
    return [tuple(run) for run in runs]


def joinable_pages(counts: Sequence[int]) -> list[range]:
    """Return which neighbours among pages of so many entries each become one page: as many as it has room for."""
    groups: list[range] = []
    first, total = 0, 0
    for number, count in enumerate(counts):
        if total and total + count > JOINED_PAGE_ENTRIES:
            groups.append(range(first, number))
            first, total = number, 0
        total += count
    if counts:
        groups.append(range(first, len(counts)))
    return groups


def next_due_ms(parts: Sequence[Entries], now_ms: int, windows: Windows, *, branch_id: str) -> int | None:
    """Return when retention has something to do next, in unix ms; None while nothing is committed any more."""
    snapshots = [ref for part in parts for ref in part.snapshots]
    segments = [ref for part in parts for ref in part.segments]
    newest_base = max((ref.end for ref in snapshots), default=0)
    oldest = min((ref.end for ref in (*snapshots, *segments)), default=0)
    split_ms = windows.fine_ms // _SPLIT_PARTS
    due = [
        min(ref.last_at + windows.grain_ms, ref.first_at + split_ms) + windows.fine_ms
        for ref in segments
        if not ref.rounds and not ref.upto and ref.branch == branch_id and ref.end <= newest_base
    ]
    due += [ref.last_at + windows.coarse_ms + 1 for ref in snapshots if ref.end > oldest]
    return min((at_ms for at_ms in due if at_ms > now_ms), default=None)


def unbased_since_ms(parts: Sequence[Entries]) -> int | None:
    """Return the wall time of the oldest commit that only a snapshot of the head would let go, None without one."""
    snapshots = [ref for part in parts for ref in part.snapshots]
    newest_base = max((ref.end for ref in snapshots), default=0)
    above = [ref for part in parts for ref in part.segments if ref.end > newest_base]
    if not newest_base and len(above) == 1 and above[0].end == above[0].min:
        return None  # all that there is is one commit
    return min((ref.first_at for ref in above), default=None)


def edited(
    current: Manifest,
    seen: Manifest,
    heads: Edit,
    outputs: Sequence[Sequence[ObjectRef]],
    pages: Sequence[PageRef],
    floor: Floor,
) -> Manifest:
    """Return the manifest with the edit of its own entries; unchanged where anything that it relies on moved.

    It was planned on `seen`. `outputs` are what became of `heads.thins`, `pages` what became of all pages.
    Raises FencedError.
    """
    manifest.check_owner(current, seen.epoch)
    bases = {ref for ref in seen.snapshots if ref.end in floor}
    if current.pages != seen.pages or not bases <= set(current.snapshots):
        return current
    segments = list(current.segments)
    for thin, made in zip(heads.thins, outputs, strict=True):
        at = next((n for n, ref in enumerate(segments) if ref == thin.inputs[0]), None)
        if at is None or tuple(segments[at : at + len(thin.inputs)]) != thin.inputs:
            return current
        segments[at : at + len(thin.inputs)] = made
    if not heads.dropped <= {*segments, *current.snapshots}:
        return current
    return manifest.replace(
        current,
        pages=tuple(pages),
        snapshots=tuple(ref for ref in current.snapshots if ref not in heads.dropped),
        segments=tuple(ref for ref in segments if ref not in heads.dropped),
    )
