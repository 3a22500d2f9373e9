import random

import apsw
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.pages import (
    PageHashes,
    RoundMeta,
    lock_page,
    page_hash,
    parse_meta_page,
)
from memoturnd.engine import schema
from memoturnd.errors import CorruptionError

QUICK = settings(max_examples=60, deadline=None, derandomize=True)
WORD = st.integers(0, 2**64 - 1)
ROUNDS = st.lists(
    st.tuples(st.dictionaries(st.integers(1, 12), WORD, max_size=6), st.integers(1, 12)), max_size=8
)
COUNT = st.integers(0, INTEGER_MAX)


class Model:
    """What the hashes must be: a dict of pages, cut to the file's size after each round."""

    def __init__(self):
        self.pages = {}
        self.size = 0

    def apply(self, changes, size):
        self.pages = {n: h for n, h in (self.pages | changes).items() if n <= size}
        self.size = size
        return sum(self.pages.values()) % 2**64


@QUICK
@given(rounds=ROUNDS)
def test_applied_rounds_give_the_sum_of_all_page_hashes(rounds):
    hashes, model = PageHashes(), Model()

    for changes, size in rounds:
        assert hashes.apply(changes, size) == model.apply(changes, size) == hashes.checksum
        assert len(hashes) == size
        assert hashes.to_bytes() == b"".join(
            model.pages.get(n + 1, 0).to_bytes(8, "little") for n in range(size)
        )


@QUICK
@given(before=ROUNDS, rounds=ROUNDS)
def test_preview_says_what_applying_will_give_and_changes_nothing(before, rounds):
    hashes = PageHashes()
    for changes, size in before:
        hashes.apply(changes, size)
    kept = hashes.to_bytes()

    previewed = hashes.preview(rounds)

    assert hashes.to_bytes() == kept
    assert previewed == [hashes.apply(changes, size) for changes, size in rounds]


@QUICK
@given(rounds=ROUNDS)
def test_hashes_read_back_from_their_bytes(rounds):
    hashes = PageHashes()
    for changes, size in rounds:
        hashes.apply(changes, size)

    again = PageHashes(hashes.to_bytes())

    assert (again.to_bytes(), again.checksum) == (hashes.to_bytes(), hashes.checksum)


def test_pages_that_grow_back_after_a_cut_count_as_zeros():
    hashes = PageHashes()
    hashes.apply({1: 5, 2: 7, 3: 11}, 3)

    assert hashes.apply({}, 1) == 5
    assert hashes.apply({}, 3) == 5


def test_hash_is_xxh3_seeded_by_the_page_number():
    image = bytes(range(256)) * 16

    assert page_hash(7, image) == xxhash.xxh3_64_intdigest(image, seed=7)
    assert page_hash(7, image) != page_hash(8, image)


@pytest.mark.parametrize("size", [512, 4096, 65536])
def test_page_of_zeros_hashes_to_zero_and_one_bit_makes_the_difference(size):
    assert page_hash(3, bytes(size)) == 0
    for at in (0, 63, 64, size - 1):
        image = bytearray(size)
        image[at] = 1
        assert page_hash(3, bytes(image)) != 0


def test_swapped_pages_change_the_checksum():
    one, two = b"1" * 4096, b"2" * 4096

    assert PageHashes().apply({1: page_hash(1, one), 2: page_hash(2, two)}, 2) != PageHashes().apply(
        {1: page_hash(1, two), 2: page_hash(2, one)}, 2
    )


@pytest.mark.parametrize(("page_size", "number"), [(4096, 262145), (65536, 16385), (512, 2097153)])
def test_lock_page_is_the_one_at_one_gibibyte(page_size, number):
    assert lock_page(page_size) == number


def meta_page(**values):
    conn = apsw.Connection(":memory:")
    try:
        conn.execute("BEGIN")
        conn.execute(schema._META)
        conn.execute("INSERT INTO __memoturn_meta VALUES (1, :schema_version, :txid, :at_ms, :epoch)", values)
        conn.execute("COMMIT")
        return conn.serialize("main")[4096:8192]
    finally:
        conn.close()


@QUICK
@given(schema_version=COUNT, txid=COUNT, at_ms=COUNT, epoch=COUNT)
def test_meta_page_is_read_as_sqlite_wrote_it(schema_version, txid, at_ms, epoch):
    page = meta_page(schema_version=schema_version, txid=txid, at_ms=at_ms, epoch=epoch)

    assert parse_meta_page(page) == RoundMeta(schema_version, txid, at_ms, epoch)


@pytest.mark.parametrize("exponent", range(53))
def test_meta_page_is_read_at_every_width_of_integer(exponent):
    for value in (2**exponent - 1, 2**exponent):
        page = meta_page(schema_version=1, txid=value, at_ms=INTEGER_MAX - value, epoch=0)
        assert parse_meta_page(page) == RoundMeta(1, value, INTEGER_MAX - value, 0)


@pytest.mark.parametrize("value", [-1, -(2**63), 2**53, 2**63 - 1])
def test_meta_page_with_a_number_that_no_node_writes_is_corrupt(value):
    for field in ("schema_version", "txid", "at_ms", "epoch"):
        row = {"schema_version": 1, "txid": 2, "at_ms": 3, "epoch": 4, field: value}
        with pytest.raises(CorruptionError, match="no node writes"):
            parse_meta_page(meta_page(**row))


def test_page_that_is_not_the_meta_row_is_corrupt():
    good = meta_page(schema_version=1, txid=2, at_ms=3, epoch=4)
    other = apsw.Connection(":memory:")
    other.execute("CREATE TABLE t(a, b, c, d, e)")
    other.execute("INSERT INTO t VALUES (1, 'text', 2, 3, 4)")
    text = other.serialize("main")[4096:8192]
    other.execute("INSERT INTO t VALUES (1, 2, 3, 4, 5)")
    two_rows = other.serialize("main")[4096:8192]
    other.close()

    for page in (b"", bytes(4096), b"\x05" + good[1:], text, two_rows, good[:9], good[:4090]):
        with pytest.raises(CorruptionError, match="__memoturn_meta"):
            parse_meta_page(page)


def test_damaged_meta_page_gives_a_value_or_corruption_and_nothing_else():
    good = meta_page(schema_version=1, txid=2**40, at_ms=2**41, epoch=7)
    draw = random.Random(1)

    for _ in range(3000):
        page = bytearray(good)
        for _ in range(draw.randint(1, 4)):
            page[draw.choice([*range(12), *range(4060, 4096)])] = draw.randrange(256)
        try:
            parse_meta_page(bytes(page))
        except CorruptionError:
            continue
