"""Which images make up a state, and which bytes of which objects are read for them."""

from array import array
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core import assembly, segment
from memoturnd.core.assembly import Part, assemble, ranges
from memoturnd.core.pages import PageHashes, page_hash
from memoturnd.core.segment import Kind, Round
from memoturnd.errors import CorruptionError

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
PAGE = 512
WRITES = st.dictionaries(st.integers(1, 60), st.integers(0, 255), max_size=60)
PLAN = st.lists(st.tuples(WRITES, st.integers(1, 60)), min_size=1, max_size=8)


def rounds_of(plan):
    """Return rounds from [({page: fill byte}, file size)], and the file after each."""
    hashes, made, files, file = PageHashes(), [], [], b""
    for txid, (writes, size) in enumerate(plan, 1):
        images = {n: bytes([fill]) * PAGE for n, fill in writes.items() if n <= size}
        sums = {n: page_hash(n, image) for n, image in images.items()}
        made.append(Round(txid, txid, hashes.apply(sums, size), size, images, sums))
        pages = bytearray(file[: size * PAGE].ljust(size * PAGE, b"\0"))
        for n, image in images.items():
            pages[(n - 1) * PAGE : n * PAGE] = image
        file = bytes(pages)
        files.append(file)
    return made, files


def part_of(rounds, prev, *, end=None, kind=Kind.SEGMENT):
    data, name = segment.encode(kind, rounds, page_size=PAGE, prev_txid=prev, epoch=1, checksum_before=0)
    return Part(name, segment.decode(data), rounds[-1].txid if end is None else end)


def snapshot_of(round_, file, part_pages):
    """Return the parts of a snapshot of the file after `round_`."""
    parts = []
    for first in range(1, round_.db_size_pages + 1, part_pages):
        last = min(first + part_pages - 1, round_.db_size_pages)
        images = {n: file[(n - 1) * PAGE : n * PAGE] for n in range(first, last + 1)}
        sums = {n: page_hash(n, image) for n, image in images.items()}
        whole = Round(round_.txid, round_.at_ms, round_.checksum, round_.db_size_pages, images, sums)
        parts.append(part_of([whole], 0, kind=Kind.SNAPSHOT))
    return parts


def file_of(made, parts, start=b""):
    """Return the file that an assembly stands for, applied to `start`."""
    size = made.at.db_size_pages * PAGE
    file = bytearray(start[: made.shortest_pages * PAGE].ljust(size, b"\0")[:size])
    few = made.wanted_of_few()
    for number, (part, indexes) in enumerate(zip(parts, made.wanted(len(parts)), strict=True)):
        assert few.get(number, []) == indexes.tolist()
        for pgno, image in part.tables.numbered_images(indexes.tolist()):
            at = (pgno - 1) * PAGE
            file[at : at + PAGE] = image
    return bytes(file)


@QUICK
@given(
    plan=PLAN,
    cuts=st.sets(st.integers(1, 8)),
    based=st.integers(0, 8),
    part_pages=st.integers(3, 70),
    wanted=st.integers(1, 8),
    array_pages=st.sampled_from([0, 48, 1000]),
)
def test_any_state_is_assembled_from_segments_and_parts_of_a_snapshot(
    plan, cuts, based, part_pages, wanted, array_pages
):
    rounds, files = rounds_of(plan)
    wanted, based = min(wanted, len(rounds)), min(based, len(rounds))
    bounds = sorted({0, *(c for c in cuts if c < len(rounds)), len(rounds)})
    parts = snapshot_of(rounds[based - 1], files[based - 1], part_pages) if based else []
    wanted = max(wanted, based)
    for first, last in pairwise(bounds):
        if last > based:
            parts.append(part_of(rounds[first:last], first))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assembly, "ARRAY_PAGES", array_pages)
        made = assemble(parts, wanted)

    assert made.at.txid == wanted
    assert made.hashes.checksum == rounds[wanted - 1].checksum
    assert file_of(made, parts) == files[wanted - 1]


@QUICK
@given(plan=PLAN, start=st.integers(1, 8), wanted=st.integers(1, 8))
def test_any_state_is_assembled_on_an_earlier_one(plan, start, wanted):
    rounds, files = rounds_of(plan)
    start, wanted = sorted((min(start, len(rounds)), min(wanted, len(rounds))))
    hashes = PageHashes()
    for round_ in rounds[:start]:
        hashes.apply(round_.hashes, round_.db_size_pages)
    before = hashes.to_bytes()
    parts = [part_of(rounds, 0)]

    made = assemble(parts, wanted, (start, hashes))

    assert hashes.to_bytes() == before
    if wanted == start:
        assert made.at is None
        assert not made.wanted(1)[0].size
    else:
        assert made.hashes.checksum == rounds[wanted - 1].checksum
        assert file_of(made, parts, files[start - 1]) == files[wanted - 1]


def test_part_of_a_snapshot_that_is_missing_breaks_the_chain():
    rounds, files = rounds_of([({n: n for n in range(1, 41)}, 40)])
    parts = snapshot_of(rounds[0], files[0], 16)
    assert assemble(parts, 1).hashes.checksum == rounds[0].checksum

    for missing in range(3):
        with pytest.raises(CorruptionError, match="chain breaks at txid 1"):
            assemble(parts[:missing] + parts[missing + 1 :], 1)


@pytest.mark.parametrize("array_pages", [0, 1000])
def test_images_behind_the_end_of_the_file_are_not_part_of_it(monkeypatch, array_pages):
    monkeypatch.setattr(assembly, "ARRAY_PAGES", array_pages)
    images = {n: bytes([n]) * PAGE for n in (1, 2, 9)}
    sums = {n: page_hash(n, image) for n, image in images.items()}
    round_ = Round(1, 1, (sums[1] + sums[2]) % 2**64, 2, images, sums)

    made = assemble([part_of([round_], 0)], 1)

    assert made.where == array("Q", [1 << 32, 1 << 32 | 1])


# ---- ranges


@QUICK
@given(
    pages=st.integers(1, 400),
    wanted=st.sets(st.integers(0, 399), max_size=60),
    most=st.sampled_from([1, 9000, 40_000, 10**9]),
    gap=st.sampled_from([0, 8000, 20_000, 10**9]),
)
def test_ranges_hold_all_that_is_wanted_and_not_much_else(pages, wanted, most, gap):
    images = {n: n.to_bytes(4, "big") * (PAGE // 4) for n in range(1, pages + 1)}
    part = part_of([Round(1, 1, 0, pages, images, dict.fromkeys(images, 1))], 0).tables
    indexes = np.array(sorted(n for n in wanted if n < pages), dtype=np.uint64)
    blocks = {int(i) // 16 for i in indexes}

    found = list(ranges(part, indexes, most_bytes=most, gap_bytes=gap))

    assert [i for piece in found for i in piece.indexes] == indexes.tolist()
    for piece in found:
        first, last = piece.indexes[0] // 16, piece.indexes[-1] // 16
        assert part.span(first, last) == (piece.start, piece.length)
        assert piece.length <= most or first == last
        inside = sorted({i // 16 for i in piece.indexes})
        for a, b in pairwise(inside):
            assert b == a + 1 or part.span(a + 1, b - 1)[1] <= gap
    if most == 10**9 and gap == 0:
        assert len(found) == len({b for b in blocks if b - 1 not in blocks})
    if most == gap == 10**9:
        assert len(found) == bool(blocks)
