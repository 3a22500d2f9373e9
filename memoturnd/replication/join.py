"""Segments read and written again as fewer: every round kept, or only those that retention keeps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from memoturnd.core import segment
from memoturnd.core.manifest import ObjectRef
from memoturnd.core.retention import Thin
from memoturnd.core.segment import Kind, Round, RoundEntry, Segment
from memoturnd.seams.clock import Randomness


@dataclass(frozen=True, slots=True)
class Joined:
    """A new segment: its bytes, and its entry for the manifest."""

    data: bytes
    ref: ObjectRef


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes segments again: the branch and its epoch, and what makes names that were never used before.

    Without that, a second try would write what the collector may be deleting from the first.
    """

    branch_id: str
    epoch: int
    randomness: Randomness


def join(parts: Sequence[Segment], refs: Sequence[ObjectRef], writer: Writer) -> Joined:
    """Return one segment with every round of `parts`, whose entries are `refs`. Runs in the pool.

    Raises CorruptionError where a part is damaged.
    """
    rounds = [_round(part, first, entry) for part in parts for first, entry in _entries(part)]
    return _encoded(rounds, parts[0], _Span.of(refs), writer)


def thin(parts: Sequence[Segment], one: Thin, writer: Writer) -> list[Joined]:
    """Return what becomes of `parts`, the segments of `one`. Runs in the pool.

    That is a segment of the rounds that are kept of the old ones, and one of those behind its cuts, where
    there are any. A kept round holds the newest image of every page that it or a dropped round before it
    wrote, so that the state after it is the same; the last old round is always kept. Raises CorruptionError.
    """
    entries = [(part, first, entry) for part in parts for first, entry in _entries(part)]
    count = sum(entry.at_ms <= one.cut_ms and entry.txid <= one.cut_txid for _, _, entry in entries)
    old, young = entries[:count], entries[count:]
    whole, outputs = _Span.of(one.inputs), []
    if old:
        rounds = _thinned(old, one)
        span = whole.up_to(old[-1][2]) if young else whole
        made = _encoded(rounds, parts[0], span, writer, kept=len(rounds))
        outputs.append(made)
    if young:
        rounds = [_round(part, first, entry) for part, first, entry in young]
        span = whole.behind(old[-1][2], young[0][2]) if old else whole._replace(min=young[0][2].txid)
        before = old[-1][2].checksum if old else None
        kept = len(rounds) if any(ref.rounds for ref in one.inputs) else 0
        made = _encoded(rounds, parts[0], span, writer, kept=kept, checksum_before=before)
        outputs.append(made)
    return outputs


def _thinned(entries: Sequence[tuple[Segment, int, RoundEntry]], one: Thin) -> list[Round]:
    rounds: list[Round] = []
    where: dict[int, tuple[Segment, int]] = {}
    grain_ms = one.grain_ms
    for number, (part, first, entry) in enumerate(entries, 1):
        for index, (pgno, _) in enumerate(part.page_entries(first, entry.pages), first):
            where[pgno] = part, index
        where = {pgno: at for pgno, at in where.items() if pgno <= entry.db_size_pages}
        following = entries[number][2] if number < len(entries) else None
        ends_grain = grain_ms and following and following.at_ms // grain_ms != entry.at_ms // grain_ms
        if entry.txid in one.keep or following is None or ends_grain:
            rounds.append(_gathered(entry, where))
            where = {}
    return rounds


class _Span(NamedTuple):
    """The txids, wall times and last checksum that a new segment stands for."""

    prev: int
    min: int
    max: int
    first_at: int
    last_at: int
    after: str

    @classmethod
    def of(cls, refs: Sequence[ObjectRef]) -> Self:
        first, last = refs[0], refs[-1]
        return cls(first.prev, first.min, last.max, first.first_at, last.last_at, last.after)

    def up_to(self, last: RoundEntry) -> Self:
        return self._replace(max=last.txid, last_at=last.at_ms, after=f"{last.checksum:016x}")

    def behind(self, last: RoundEntry, following: RoundEntry) -> Self:
        return self._replace(prev=last.txid, min=following.txid, first_at=following.at_ms)


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
    span: _Span,
    writer: Writer,
    *,
    kept: int = 0,
    checksum_before: int | None = None,
) -> Joined:
    data, name_hash = segment.encode(
        Kind.SEGMENT,
        rounds,
        page_size=first.page_size,
        prev_txid=span.prev,
        epoch=writer.epoch,
        checksum_before=first.checksum_before if checksum_before is None else checksum_before,
        nonce=bytes.fromhex(writer.randomness.hex(16)),
    )
    ref = ObjectRef(
        kind="segment",
        branch=writer.branch_id,
        prev=span.prev,
        min=span.min,
        max=span.max,
        epoch=writer.epoch,
        hash=name_hash,
        size_bytes=len(data),
        first_at=span.first_at,
        last_at=span.last_at,
        after=span.after,
        rounds=kept,
    )
    return Joined(data, ref)
