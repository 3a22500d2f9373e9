import hashlib
import struct
import tracemalloc

import pytest
import xxhash
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core import segment
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.pages import PageHashes, page_hash
from memoturnd.core.segment import Kind, Round, RoundEntry
from memoturnd.errors import CorruptionError, InvariantError

QUICK = settings(max_examples=40, deadline=None, derandomize=True)
HEADER = segment._HEADER_SIZE_BYTES


def make_rounds(plan, *, first_txid=11, page_size=512):
    """Return rounds from [(pages written as {number: fill byte}, file size), ...] and the checksum before."""
    hashes = PageHashes()
    before = hashes.apply({1: 77, 2: 99}, 2)
    rounds = []
    for step, (writes, size) in enumerate(plan):
        images = {n: bytes([fill]) * page_size for n, fill in writes.items()}
        sums = {n: page_hash(n, image) for n, image in images.items()}
        rounds.append(Round(first_txid + step, 1000 + step, hashes.apply(sums, size), size, images, sums))
    return rounds, before


def encode(rounds, before, *, kind=Kind.SEGMENT, page_size=512, prev_txid=9, epoch=3):
    return segment.encode(
        kind, rounds, page_size=page_size, prev_txid=prev_txid, epoch=epoch, checksum_before=before
    )


@pytest.fixture
def small():
    rounds, before = make_rounds([({1: 1, 2: 2}, 3), ({3: 0, 1: 5}, 3), ({2: 7}, 2)])
    return encode(rounds, before)[0]


def resealed(data):
    """Return the bytes with the file's own checksum made right, as a faulty writer would."""
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def reheaded(data, **fields):
    """Return the object with fields of its header replaced and every checksum over it made right."""
    names = [
        "magic",
        "version",
        "kind",
        "compression",
        "cipher",
        "key_version",
        "flags",
        "page_size",
        "rounds",
        "pages",
        "blocks",
        "per_block",
        "pad",
        "prev_txid",
        "min_txid",
        "max_txid",
        "epoch",
        "before",
        "after",
        "reserved",
    ]
    values = dict(zip(names, segment._HEADER.unpack_from(data), strict=True)) | fields
    header = segment._HEADER.pack(*values.values())
    return resealed(header + segment._sum(header) + data[HEADER:])


def read_all(data, name_hash=None):
    part = segment.decode(data, name_hash=name_hash)
    return part, [image for _, image in part.images(range(len(part.pages)))]


WRITES = st.dictionaries(st.integers(1, 40), st.integers(0, 255), min_size=1, max_size=40)


@QUICK
@given(
    plan=st.lists(st.tuples(WRITES, st.integers(1, 40)), min_size=1, max_size=6),
    page_size=st.sampled_from([512, 1024, 4096]),
    kind=st.sampled_from(list(Kind)),
    epoch=st.integers(0, INTEGER_MAX),
)
def test_what_was_encoded_is_decoded(plan, page_size, kind, epoch):
    plan = plan[:1] if kind is Kind.SNAPSHOT else plan
    rounds, before = make_rounds(plan, page_size=page_size)

    data, name_hash = encode(rounds, before, kind=kind, page_size=page_size, epoch=epoch)
    part, images = read_all(data, name_hash)

    assert (part.kind, part.page_size, part.prev_txid, part.epoch) == (kind, page_size, 9, epoch)
    assert (part.checksum_before, part.checksum_after) == (before, rounds[-1].checksum)
    assert part.rounds == tuple(
        RoundEntry(r.txid, r.at_ms, r.checksum, r.db_size_pages, len(r.images)) for r in rounds
    )
    assert list(part.pages) == [(n, r.hashes[n]) for r in rounds for n in r.images]
    assert images == [image for r in rounds for image in r.images.values()]


def test_same_rounds_make_the_same_bytes_and_name():
    rounds, before = make_rounds([({1: 1}, 2)])

    assert encode(rounds, before) == encode(rounds, before)


def test_single_pages_are_read_without_the_others():
    rounds, before = make_rounds([({n: n for n in range(1, 41)}, 40)])
    part = segment.decode(encode(rounds, before)[0])

    assert list(part.images([0, 15, 16, 39])) == [(i, bytes([i + 1]) * 512) for i in (0, 15, 16, 39)]


def test_object_under_the_name_of_another_is_corrupt(small):
    with pytest.raises(CorruptionError, match="checksum"):
        segment.decode(small, name_hash="0" * 32)


def test_any_damaged_byte_is_detected(small):
    for at in range(len(small)):
        damaged = bytearray(small)
        damaged[at] ^= 0x01
        with pytest.raises(CorruptionError):
            segment.decode(bytes(damaged))


def test_any_damaged_byte_is_detected_even_where_the_whole_file_sum_was_made_to_fit(small):
    """Each part has its own checksum: header, tables, stored blocks, page images."""
    for at in range(len(small) - 32):
        damaged = bytearray(small)
        damaged[at] ^= 0x01
        with pytest.raises(CorruptionError):
            read_all(resealed(bytes(damaged)))


def test_truncation_at_any_byte_is_detected(small):
    for size in range(len(small)):
        with pytest.raises(CorruptionError):
            segment.decode(small[:size])
    for size in range(len(small) - 32):
        with pytest.raises(CorruptionError):
            read_all(resealed(small[:size] + bytes(32)))


def test_bytes_behind_the_end_are_detected(small):
    with pytest.raises(CorruptionError):
        segment.decode(resealed(small[:-32] + b"x" + bytes(32)))


@pytest.mark.parametrize("field", ["rounds", "pages", "blocks", "page_size", "per_block"])
@pytest.mark.parametrize("value", [2**32 - 1, 2**31, 1_000_000])
def test_hostile_counts_are_refused_without_allocating(small, field, value):
    hostile = reheaded(small, **{field: value})
    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError):
            read_all(hostile)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize("value", [0, 2, 7])
@pytest.mark.parametrize("field", ["rounds", "pages", "blocks"])
def test_counts_that_are_not_the_tables_are_refused(small, field, value):
    with pytest.raises(CorruptionError):
        segment.decode(reheaded(small, **{field: value}))


@pytest.mark.parametrize("field", ["min_txid", "max_txid", "after"])
def test_header_that_contradicts_the_rounds_is_refused(small, field):
    with pytest.raises(CorruptionError, match="contradict"):
        segment.decode(reheaded(small, **{field: 12345}))


def test_block_that_claims_to_unpack_to_more_is_refused_without_allocating(small):
    """The decompressor would allocate the size that the block itself claims."""
    part = segment.decode(small)
    stored = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    at = HEADER + 3 * 40 + len(part.pages) * 12
    tables = small[HEADER:at] + struct.pack("<IQ", len(stored), xxhash.xxh3_64_intdigest(stored))
    hostile = resealed(small[:HEADER] + tables + segment._sum(tables) + stored + bytes(32))

    tracemalloc.start()
    try:
        with pytest.raises(CorruptionError, match="instead of"):
            read_all(hostile)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


@pytest.mark.parametrize(
    ("table", "says"),
    [("block", "block 0 does not match its checksum"), ("page", "page 1 does not match its hash")],
)
def test_block_and_page_are_each_held_against_their_own_table(small, table, says):
    pages = len(segment.decode(small).pages)
    tables_end = HEADER + 3 * 40 + pages * 12 + 12
    at = tables_end - 8 if table == "block" else HEADER + 3 * 40 + 4
    tables = bytearray(small[HEADER:tables_end])
    tables[at - HEADER] ^= 1
    wrong = resealed(small[:HEADER] + bytes(tables) + segment._sum(bytes(tables)) + small[tables_end + 8 :])

    with pytest.raises(CorruptionError, match=says):
        read_all(wrong)


@pytest.mark.parametrize(
    "fields", [{"version": 2}, {"version": 0}, {"compression": 2}, {"cipher": 1}, {"kind": 9}]
)
def test_object_of_another_format_names_what_it_is(small, fields):
    with pytest.raises(CorruptionError, match="use a newer one"):
        segment.decode(reheaded(small, **fields))


def test_other_file_is_no_segment(small):
    with pytest.raises(CorruptionError, match="no segment"):
        segment.decode(reheaded(small, magic=b"SQLite f"))


def test_reserved_fields_may_be_set_by_a_later_version(small):
    assert segment.decode(reheaded(small, key_version=1, flags=1, reserved=b"r" * 16))


def test_encoding_refuses_rounds_that_are_not_consecutive():
    rounds, before = make_rounds([({1: 1}, 2), ({1: 2}, 2)])

    for wrong in ([], [rounds[0], rounds[0]], rounds[::-1]):
        with pytest.raises(InvariantError):
            encode(wrong, before)
    with pytest.raises(InvariantError):
        encode(rounds, before, prev_txid=11)
