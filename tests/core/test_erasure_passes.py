"""How many erasures one pass over a history carries out."""

import pytest

from memoturnd.core.erasures import PASS_TARGETS, Coupon, Target, fitting
from memoturnd.core.manifest import ERASURES_KEPT


def coupon(targets):
    named = tuple(Target(memory_id=f"mem_{n}") for n in range(targets))
    return Coupon(
        id="ers_0123456789abcdef",
        db="a--b",
        uuid="a" * 32,
        branch="main",
        targets=named,
        requested_at=1,
        grace_until=2,
    )


@pytest.mark.parametrize(
    ("sizes", "count"),
    [([], 0), ([1], 1), ([1] * 100, 100), ([1] * 101, 100), ([40, 60, 1], 2), ([1000, 1], 1), ([1, 1000], 1)],
)
def test_a_pass_takes_out_a_hundred_things_or_one_erasure_that_names_more(sizes, count):
    assert PASS_TARGETS <= ERASURES_KEPT
    assert fitting([coupon(size) for size in sizes]) == count
