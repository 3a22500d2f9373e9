import re

from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core import ulids

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
times = st.integers(0, 2**48 - 1)
randoms = st.integers(0, 2**80 - 1)


def decoded(text):
    """The number in a ULID, digit by digit as its specification says."""
    number = 0
    for character in text:
        number = number * 32 + ALPHABET.index(character)
    return number


def test_a_ulid_is_what_its_specification_shows():
    assert ulids.text(0) == "0" * 26
    assert ulids.text(2**128 - 1) == "7" + "Z" * 25
    assert ulids.text(ulids.first(1_469_918_176_385, 0))[:10] == "01ARYZ6S41"


@given(times, randoms)
def test_its_first_ten_characters_are_the_time_and_the_rest_is_random(at_ms, random):
    text = ulids.text(ulids.first(at_ms, random))

    assert re.fullmatch(f"[0-7][{ALPHABET}]{{25}}", text)
    assert decoded(text[:10]) == at_ms
    assert decoded(text[10:]) == random % 2**79


@given(times, times, randoms, randoms)
def test_ulids_sort_by_their_time(one_ms, other_ms, one, other):
    first, second = (ulids.text(ulids.first(*made)) for made in ((one_ms, one), (other_ms, other)))

    assert one_ms == other_ms or (first < second) == (one_ms < other_ms)


@given(times, randoms, st.integers(1, 2**79))
def test_those_that_follow_in_one_millisecond_sort_behind_it_and_keep_its_time(at_ms, random, more):
    first = ulids.first(at_ms, random)

    assert ulids.text(first) < ulids.text(first + more)
    assert ulids.text(first + more)[:10] == ulids.text(first)[:10]
