import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memoturnd.errors import InvalidRequestError
from memoturnd.surfaces import embeddings

SINGLES = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(st.lists(SINGLES, min_size=1, max_size=8))
def test_what_comes_out_means_the_32_bit_floats_that_went_in(numbers):
    stored = embeddings.parse(numbers, "e")

    assert stored.dimensions == len(numbers)
    sizes = [abs(n) for n in numbers if n]
    lossless = not stored.exponent or min(sizes) / max(sizes) > 1e-37
    found = np.array(embeddings.numbers(*stored), dtype=np.float32)
    if lossless:
        assert found.tolist() == np.array(numbers, dtype=np.float32).tolist()


@given(st.lists(st.integers(-(10**7) + 1, 10**7 - 1), min_size=1, max_size=8), st.integers(0, 7))
@example([803476], 5)  # which is lost when it is rounded from nine digits to eight, and then to seven
def test_short_decimals_come_back_as_they_are_written(integers, places):
    numbers = [float(f"{n}e-{places}") for n in integers]

    assert embeddings.numbers(*embeddings.parse(numbers, "e")) == numbers


@given(st.lists(SINGLES, min_size=1, max_size=8))
def test_lengths_stay_within_32_bit_floats(numbers):
    stored = np.frombuffer(embeddings.parse(numbers, "e").e, "<f4")

    length = float(np.sqrt(np.float32(stored @ stored)))
    assert math.isfinite(length)
    assert (length > 0) is any(numbers)


@pytest.mark.parametrize(
    "bad", [None, [], "x", [None], [True], ["1"], [1e39], [math.nan], [10**400], [1] * 8193]
)
def test_what_is_no_embedding_is_refused(bad):
    with pytest.raises(InvalidRequestError, match=r"^v\.e"):
        embeddings.parse(bad, "v.e")
