"""What a verification decides: which txids a damaged object takes along, and whether entries tell the truth. Pure.

An object is held against the entry that names it, entries against each other, and a damaged object is
answered with what cannot be restored because of it. How the pages of the objects follow from each other is
memoturnd.core.chain_walk's part; memoturnd.replication.verify reads the objects.
"""

import random
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Literal

import msgspec

from memoturnd.core.manifest import HistoryPage, Manifest, ObjectRef, PageRef
from memoturnd.core.segment import Kind, Segment

TxidRange = tuple[int, int]
"""First and last txid."""
FindingKind = Literal["missing", "damaged", "contradiction", "unrestorable"]
RESTORE_A_COPY = "put a copy of this very object back from a backup, then verify again"
FORK_AROUND = (
    "read, fork or rewind to a txid outside the range; what needs the object answers 500 until a copy is back"
)
REPORT_IT = "the objects are whole but do not fit together: keep them, and report it with this line"


class Finding(msgspec.Struct, frozen=True, tag="finding", tag_field="event"):
    """One thing that is not right: the object's key, the branch it was found in, and what that costs.

    `lost` are the ranges of the branch's txids that cannot be restored because of it. `branch` is empty where
    it concerns the whole database.
    """

    kind: FindingKind
    branch: str
    key: str
    what: str
    lost: tuple[TxidRange, ...]
    todo: str


class Progress(msgspec.Struct, frozen=True, tag="progress", tag_field="event"):
    """How far a verification is: objects and states `checked` of those known so far, and bytes read."""

    checked: int
    of: int
    bytes: int


class Summary(msgspec.Struct, frozen=True, tag="summary", tag_field="event"):
    """The end of a verification. `seed` chooses the same sample again; sizes are in bytes.

    `unfinished` says what could not be looked at. Unreachable objects are no damage: uploads that nothing
    names. They are None where that was not found out, as of one branch alone or where a document is damaged.
    """

    outcome: Literal["clean", "damaged", "unfinished"]
    deep: bool
    seed: str
    branches: int
    objects: int
    bytes: int
    states: int
    findings: int
    damaged_objects: int
    unreachable_objects: int | None
    unreachable_bytes: int | None
    unreachable_keys: tuple[str, ...]
    unfinished: tuple[str, ...]


Event = Finding | Progress | Summary


# ---- what damage costs


def lost_by(chain: Manifest, ref: ObjectRef) -> tuple[TxidRange, ...]:
    """Return the txids that cannot be restored without `ref`, given all of the branch's entries.

    A state is made of the newest base at or below it and the segments after that, so the next snapshot ends
    what a damaged object takes along.
    """
    states = _states(chain)
    if ref.kind == "snapshot":
        after = bisect_right(states, ref.end)
        return ((ref.end, states[after] - 1 if after < len(states) else chain.head_txid),)
    return _lost_rounds(states, ref.min, ref.end, chain.head_txid)


def lost_by_page(chain: Manifest, page: PageRef) -> tuple[TxidRange, ...]:
    """Return the txids that cannot be restored without a history page, given the entries that are left."""
    return _lost_rounds(_states(chain), page.min, page.max, chain.head_txid)


def _lost_rounds(states: Sequence[int], first: int, last: int, head_txid: int) -> tuple[TxidRange, ...]:
    """Return what cannot be restored without the rounds `first` to `last`; snapshots in between need none of them."""
    after = bisect_left(states, last)
    last = states[after] - 1 if after < len(states) else head_txid
    return _without(first, last, states[bisect_left(states, first) : bisect_right(states, last)])


def is_lost(txid: int, lost: Iterable[TxidRange]) -> bool:
    """Return whether a txid is in one of the ranges."""
    return any(first <= txid <= last for first, last in lost)


def _states(chain: Manifest) -> list[int]:
    return sorted({ref.end for ref in chain.snapshots})


def _without(first: int, last: int, kept: Sequence[int]) -> tuple[TxidRange, ...]:
    bounds = [first - 1, *kept, last + 1]
    return tuple((a + 1, b - 1) for a, b in pairwise(bounds) if a + 1 <= b - 1)


# ---- entries


def entry_problem(ref: ObjectRef, tables: Segment, page_size: int) -> str | None:
    """Return what an entry says of its object that is not so, None where all of it is."""
    first, last = tables.rounds[0], tables.rounds[-1]
    said: dict[str, tuple[object, object]] = {
        "kind": (ref.kind, "snapshot" if tables.kind is Kind.SNAPSHOT else "segment"),
        "page size": (page_size, tables.page_size),
        "prev": (ref.prev, tables.prev_txid),
        "max": (ref.max, last.txid),
        "epoch": (ref.epoch, tables.epoch),
        "after": (ref.after, f"{tables.checksum_after:016x}"),
        "last_at": (ref.last_at, last.at_ms),
        "rounds": (ref.rounds or ref.max - ref.min + 1, len(tables.rounds)),
    }
    if ref.is_thinned:
        if ref.min > first.txid or ref.first_at > first.at_ms:
            return f"its first round, txid {first.txid}, lies before what the entry says"
    else:
        said["min"] = ref.min, first.txid
        said["first_at"] = ref.first_at, first.at_ms
        if ref.upto and all(entry.txid != ref.upto for entry in tables.rounds):
            return f"it has no round {ref.upto}, up to which it belongs to the branch"
    wrong = [f"{name} is {found}, not {entry}" for name, (entry, found) in said.items() if entry != found]
    return f"it is not what its entry says: {', '.join(wrong)}" if wrong else None


def page_problem(ref: PageRef, page: HistoryPage) -> str | None:
    """Return what is wrong with a history page, or with what its entry says of it."""
    refs = (*page.snapshots, *page.segments)
    if not refs:
        return "it holds no entries"
    found = (
        min(r.min for r in refs),
        max(r.end for r in refs),
        len(refs),
        min(r.first_at for r in refs),
        max(r.last_at for r in refs),
    )
    said = (ref.min, ref.max, ref.entries, ref.first_at, ref.last_at)
    if found != said:
        return f"its entries have (min, max, count, first and last time) {found}, the manifest says {said}"
    return None


def order_problems(chain: Manifest) -> Iterator[tuple[ObjectRef, str]]:
    """Yield (entry, what is wrong) where a branch's entries, those of its pages included, do not follow each other."""
    known = {ref.max for ref in chain.snapshots}
    for ref in chain.objects:
        if not ref.prev < ref.min <= ref.end <= ref.max:
            yield ref, "the txids of its entry are out of order"
        elif ref.end > chain.head_txid or chain.head_txid > chain.txid_ceiling:
            yield ref, f"it ends above the head, txid {chain.head_txid}, or that above its ceiling"
    for a, b in pairwise(chain.segments):
        if a.end != b.prev and b.prev not in known:
            yield b, f"it follows txid {b.prev}, but the entry before it ends at {a.end}"
    for a, b in pairwise(chain.snapshots):
        if a.end > b.end:
            yield b, "its snapshot stands behind a later one"
    yield from _broken_parts(chain.snapshots)


def _broken_parts(snapshots: Sequence[ObjectRef]) -> Iterator[tuple[ObjectRef, str]]:
    for _, group in groupby(snapshots, key=lambda ref: ref.end):
        parts = list(group)
        if len(parts) == 1 and parts[0].first_page <= 1:
            continue
        if parts[0].first_page != 1:
            yield parts[0], f"the part before it is missing: it begins at page {parts[0].first_page}"
        for a, b in pairwise(parts):
            if b.first_page != a.last_page + 1:
                yield b, f"it begins at page {b.first_page}, the part before it ends at page {a.last_page}"


# ---- samples


def choose_sample(
    points: Sequence[int], named: Collection[int], *, seed: str, named_limit: int, random_limit: int
) -> list[int]:
    """Return the txids of `points` (ascending) to restore: newest, oldest, some of `named`, and some at random."""
    if not points:
        return []
    dice = random.Random(seed)  # noqa: S311 - a sample that can be drawn again, nothing secret # nosec B311
    there = sorted(txid for txid in set(named) if holds(points, txid))
    chosen = {points[0], points[-1]}
    chosen.update(dice.sample(there, min(named_limit, len(there))))
    chosen.update(points[at] for at in dice.sample(range(len(points)), min(random_limit, len(points))))
    return sorted(chosen)


def holds(points: Sequence[int], txid: int) -> bool:
    """Return whether `txid` is one of `points`, which ascend."""
    at = bisect_left(points, txid)
    return at < len(points) and points[at] == txid
