"""What to compact: which segments become one, when a snapshot is due, what moves to a history page. Pure.

Small segments are joined by size, so that a branch of n bytes of history has about log(n) segments behind its
newest base, and each byte is written again about log(n) times. Joining keeps every round. A snapshot is due
where what a restore reads behind the base has come to cost more than the base; the one before it goes when
the segments between its own predecessor and the new one are small, so that snapshots together stay below
what the segments take. Only a branch's own segments are joined: a fork copies nothing of its parent.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from memoturnd.core import manifest
from memoturnd.core.manifest import Manifest, ObjectRef

JOIN_SEGMENTS = 6
"""Segments from which a run of them is joined."""
REQUEST_COST_BYTES = 16 * 1024
"""What one more object costs a restore, as bytes."""
JOIN_FLOOR_BYTES = 4 * 1024
"""Smaller segments count as this large when it is decided which are joined: so few are written again often."""
JOINED_MAX_BYTES = 4 * 1024 * 1024
"""Stored bytes of a joined segment at most."""
RESTORE_SEGMENTS = 10
"""Segments behind the base from which runs of unequal segments are joined too."""
_UNEQUAL = 4
ROUND_COST_BYTES = 1024
"""What one more round costs a restore, as bytes: its pages are looked up and its checksum proven."""
SNAPSHOT_MARGIN_BYTES = 512 * 1024
"""How much more than its base what is behind it may cost a restore: snapshots of small files are not taken all the time."""
SNAPSHOT_SPACING_BYTES = 1024 * 1024
"""Segment bytes between snapshots that are kept, at least."""
SNAPSHOT_SPACING_S = 86400
"""Time between snapshots that are kept, at most, where there are any."""
PAGE_ENTRIES = 96
"""Entries of a history page."""
HEAD_ENTRIES = 160
"""Entries of a manifest, all parts of a snapshot as one, from which ships wait for the compaction that is at work."""


def is_behind(current: Manifest) -> bool:
    """Return whether compaction has fallen so far behind that ships should wait for it."""
    return len(current.segments) + len({ref.end for ref in current.snapshots}) >= HEAD_ENTRIES


class Join(NamedTuple):
    """Adjacent segments that become one."""

    inputs: tuple[ObjectRef, ...]


def choose_join(current: Manifest, *, above: int = 0) -> Join | None:
    """Return the newest segments to be joined, those with txids above `above`, None where there is nothing to gain yet.

    Nothing is joined across the newest snapshot: a restore of the head would read what lies before it too.
    """
    behind = len(manifest.restore_plan(current, current.head_txid)) if current.head_txid else 0
    ratio = _UNEQUAL if behind >= RESTORE_SEGMENTS else 1
    base = current.snapshots[-1].end if current.snapshots else 0
    first = bisect_right(current.segments, base, key=lambda ref: ref.end)
    floor = bisect_left(current.segments, above, key=lambda ref: ref.prev)
    newest, older = current.segments[max(first, floor) :], current.segments[floor : max(first, floor)]
    return _joined_run(current, newest, ratio) or _joined_run(current, older, _UNEQUAL)


def _joined_run(current: Manifest, segments: Sequence[ObjectRef], ratio: int) -> Join | None:
    """Return the last of these segments that are to be joined: each at most `ratio` times all newer ones together."""
    run: list[ObjectRef] = []
    cost_bytes = size_bytes = 0
    for ref in reversed(segments):
        if not _joinable(current, ref, run):
            break
        if run and _cost(ref) > ratio * cost_bytes:
            break
        if size_bytes + ref.size_bytes > JOINED_MAX_BYTES:
            break
        run.append(ref)
        cost_bytes += _cost(ref)
        size_bytes += ref.size_bytes
    return Join(tuple(reversed(run))) if len(run) >= JOIN_SEGMENTS else None


def _joinable(current: Manifest, ref: ObjectRef, run: list[ObjectRef]) -> bool:
    """Return whether `ref` is this branch's own and whole, and `run` goes on right behind it, without a gap of txids."""
    own = ref.branch == current.branch_id and not ref.upto and not ref.is_thinned
    return own and (not run or (run[-1].prev == ref.max and run[-1].min == ref.max + 1))


def _cost(ref: ObjectRef) -> int:
    return max(ref.size_bytes, JOIN_FLOOR_BYTES)


def joined(current: Manifest, inputs: tuple[ObjectRef, ...], output: ObjectRef, *, epoch: int) -> Manifest:
    """Return the manifest with `output` in place of `inputs`; unchanged where they no longer stand exactly so.

    Raises FencedError.
    """
    manifest.check_owner(current, epoch)
    segments = current.segments
    for at in range(len(segments) - len(inputs), -1, -1):
        if segments[at] == inputs[0]:
            if segments[at : at + len(inputs)] != inputs:
                return current
            return manifest.replace(current, segments=(*segments[:at], output, *segments[at + len(inputs) :]))
    return current


def snapshot_due(current: Manifest) -> bool:
    """Return whether what a restore of the head reads behind its base costs more than the base."""
    segments, after_bytes, base_bytes = manifest.bytes_since_base(current)
    rounds_bytes = manifest.rounds_since_base(current) * ROUND_COST_BYTES
    room_bytes = base_bytes + SNAPSHOT_MARGIN_BYTES
    if rounds_bytes > room_bytes:
        return True
    return (
        segments >= JOIN_SEGMENTS and after_bytes + segments * REQUEST_COST_BYTES + rounds_bytes > room_bytes
    )


def without_idle_snapshots(current: Manifest) -> Manifest:
    """Return the manifest without its last snapshot but one, where the segments around that one are small."""
    states = sorted({ref.end for ref in current.snapshots})
    if len(states) < 2 or states[-1] != manifest.base_txid(current):  # noqa: PLR2004 - two are needed to drop one
        return current
    *older, dropped, newest = states
    since = older[-1] if older else 0
    at_ms = {ref.end: ref.last_at for ref in current.snapshots}
    first_at = at_ms[since] if since else min((r.first_at for r in current.segments), default=0)
    if at_ms[newest] - first_at >= 1000 * SNAPSHOT_SPACING_S:
        return current  # retention drops what is older than a snapshot: there has to be one now and then
    between = sum(r.size_bytes for r in current.segments if r.min > since and r.end <= newest)
    newest_bytes = sum(r.size_bytes for r in current.snapshots if r.end == newest)
    if between >= max(newest_bytes, SNAPSHOT_SPACING_BYTES) or not _reachable_without(
        current, dropped, since
    ):
        return current
    return manifest.replace(current, snapshots=tuple(ref for ref in current.snapshots if ref.end != dropped))


def _reachable_without(current: Manifest, dropped: int, since: int) -> bool:
    """Return whether the states from `dropped` on are still reached from the base before it, by segments alone."""
    after = [ref for ref in current.segments if ref.end > since]
    if not after or (since == 0 and not after[0].is_base) or (since and after[0].prev > since):
        return False
    return all(a.end == b.prev for a, b in pairwise(after)) and after[-1].end >= dropped


class Roll(NamedTuple):
    """The oldest entries of a manifest, which become a history page."""

    snapshots: tuple[ObjectRef, ...]
    segments: tuple[ObjectRef, ...]


def choose_roll(current: Manifest) -> Roll | None:
    """Return the entries for the next history page: a whole page's worth of those older than the newest base."""
    base = manifest.base_txid(current)
    segments = [ref for ref in current.segments if ref.end <= base]
    snapshots = [ref for ref in current.snapshots if ref.end < base]
    if not segments or len(segments) + len(snapshots) < PAGE_ENTRIES:
        return None
    count, cut = 0, segments[0].end
    for number, ref in enumerate(segments, 1):
        with_it = number + sum(s.end <= ref.end for s in snapshots)
        if with_it > PAGE_ENTRIES and count:
            break
        count, cut = number, ref.end
    return Roll(tuple(s for s in current.snapshots if s.end <= cut and s.end < base), tuple(segments[:count]))


def rolled(current: Manifest, roll: Roll, page: manifest.PageRef, *, epoch: int) -> Manifest:
    """Return the manifest with `page` in place of `roll`; unchanged where its first entries are no longer those.

    Raises FencedError.
    """
    manifest.check_owner(current, epoch)
    snapshots, segments = len(roll.snapshots), len(roll.segments)
    if current.snapshots[:snapshots] != roll.snapshots or current.segments[:segments] != roll.segments:
        return current
    return manifest.replace(
        current,
        pages=(*current.pages, page),
        snapshots=current.snapshots[snapshots:],
        segments=current.segments[segments:],
    )
