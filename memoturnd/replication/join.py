"""Segments read and written again as fewer: every round kept, or only those that retention keeps."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from memoturnd.core import segment
from memoturnd.core.manifest import ObjectRef
from memoturnd.core.segment import Kind, Round, RoundEntry, Segment


@dataclass(frozen=True, slots=True)
class Joined:
    """A new segment: its bytes, and its entry for the manifest."""

    data: bytes
    ref: ObjectRef


def join(parts: Sequence[Segment], refs: Sequence[ObjectRef], *, epoch: int, branch_id: str) -> Joined:
    """Return one segment with every round of `parts`, whose entries are `refs`. Runs in the pool.

    Raises CorruptionError where a part is damaged.
    """
    rounds = [_round(part, first, entry) for part in parts for first, entry in _entries(part)]
    return _encoded(rounds, parts[0], refs, epoch=epoch, branch_id=branch_id, thinned=False)


def thin(
    parts: Sequence[Segment],
    refs: Sequence[ObjectRef],
    keep: Collection[int],
    *,
    epoch: int,
    branch_id: str,
) -> Joined:
    """Return one segment with the rounds of `parts` whose txids are in `keep`, and the last one. Runs in the pool.

    Each holds the newest image of every page that it or a dropped round before it wrote, so that the state
    after it is the same. Raises CorruptionError.
    """
    rounds: list[Round] = []
    where: dict[int, tuple[Segment, int]] = {}
    entries = [(part, first, entry) for part in parts for first, entry in _entries(part)]
    for number, (part, first, entry) in enumerate(entries, 1):
        for index in range(first, first + entry.pages):
            where[part.pages[index][0]] = part, index
        if entry.txid in keep or number == len(entries):
            rounds.append(_gathered(entry, where))
            where = {}
    return _encoded(rounds, parts[0], refs, epoch=epoch, branch_id=branch_id, thinned=True)


def _entries(part: Segment) -> Iterator[tuple[int, RoundEntry]]:
    """Yield (index of the first image, entry) of every round."""
    first = 0
    for entry in part.rounds:
        yield first, entry
        first += entry.pages


def _round(part: Segment, first: int, entry: RoundEntry) -> Round:
    indexes = range(first, first + entry.pages)
    images = {part.pages[index][0]: image for index, image in part.images(indexes)}
    return Round(
        entry.txid,
        entry.at_ms,
        entry.checksum,
        entry.db_size_pages,
        images,
        dict(part.pages[first : indexes.stop]),
    )


def _gathered(entry: RoundEntry, where: dict[int, tuple[Segment, int]]) -> Round:
    images: dict[int, bytes] = {}
    hashes: dict[int, int] = {}
    by_part: dict[int, tuple[Segment, list[int]]] = {}
    for pgno, (part, index) in where.items():
        if pgno <= entry.db_size_pages:
            by_part.setdefault(id(part), (part, []))[1].append(index)
    for part, indexes in by_part.values():
        for index, image in part.images(sorted(indexes)):
            pgno, hashes[part.pages[index][0]] = part.pages[index]
            images[pgno] = image
    return Round(entry.txid, entry.at_ms, entry.checksum, entry.db_size_pages, images, hashes)


def _encoded(
    rounds: Sequence[Round],
    first: Segment,
    refs: Sequence[ObjectRef],
    *,
    epoch: int,
    branch_id: str,
    thinned: bool,
) -> Joined:
    data, name_hash = segment.encode(
        Kind.SEGMENT,
        rounds,
        page_size=first.page_size,
        prev_txid=refs[0].prev,
        epoch=epoch,
        checksum_before=first.checksum_before,
    )
    ref = ObjectRef(
        kind="segment",
        branch=branch_id,
        prev=refs[0].prev,
        min=refs[0].min,
        max=refs[-1].max,
        epoch=epoch,
        hash=name_hash,
        size_bytes=len(data),
        first_at=refs[0].first_at,
        last_at=refs[-1].last_at,
        after=refs[-1].after,
        rounds=len(rounds) if thinned else 0,
    )
    return Joined(data, ref)
