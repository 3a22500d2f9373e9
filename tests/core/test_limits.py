"""Quotas, what they are called, and the bucket that keeps a rate."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core.limits import (
    BURST_S,
    NO_QUOTAS,
    Bucket,
    Defaults,
    Owner,
    Quotas,
    may_take,
    owner_of,
    parse_quotas,
)

rates = st.floats(min_value=0.001, max_value=1e6)
pauses = st.lists(st.floats(min_value=0, max_value=1000), min_size=1, max_size=200)


@given(rates, pauses)
def test_no_window_lets_more_through_than_the_burst_and_its_rate(rate, pauses):
    now_s, bucket, taken = 100.0, Bucket(100.0), []
    for pause_s in pauses:
        now_s += pause_s / rate
        if bucket.wait_s(rate, now_s) == 0:
            bucket.take()
            taken.append(now_s)

    burst = max(1.0, BURST_S * rate)
    for first, at_s in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - at_s) + 0.001


@given(rates, st.integers(min_value=0, max_value=50))
def test_whoever_waits_as_long_as_the_bucket_says_gets_a_token(rate, more):
    now_s, bucket = 100.0, Bucket(100.0)
    for _ in range(int(max(1.0, BURST_S * rate)) if rate < 100 else 0):
        bucket.take() if bucket.wait_s(rate, now_s) == 0 else None
    for _ in range(more):
        wait_s = bucket.wait_s(rate, now_s)
        now_s += wait_s * (1 + 1e-9) + 1e-9
        assert bucket.wait_s(rate, now_s) == 0
        bucket.take()


@given(rates)
def test_a_full_bucket_holds_its_burst_and_no_more_however_long_nobody_came(rate):
    bucket = Bucket(0.0)
    burst = int(max(1.0, BURST_S * min(rate, 100)))
    for _ in range(burst):
        assert bucket.wait_s(min(rate, 100), 1e6) == 0
        bucket.take()

    assert bucket.wait_s(min(rate, 100), 1e6) > 0


def test_a_rate_of_nothing_lets_nothing_through():
    assert Bucket(0.0).wait_s(0.0, 10.0) == math.inf


def test_a_new_rate_holds_at_once():
    bucket = Bucket(0.0)
    assert bucket.wait_s(1000.0, 0.0) == 0

    taken = 0
    while bucket.wait_s(1.0, 0.0) == 0:
        bucket.take()
        taken += 1

    assert taken == 2


def test_a_clock_that_stands_still_or_goes_back_gives_nothing():
    bucket = Bucket(100.0)
    for _ in range(2):
        assert bucket.wait_s(1.0, 100.0) == 0
        bucket.take()

    assert bucket.wait_s(1.0, 50.0) == 1.0


@given(st.integers(min_value=1, max_value=2000), st.integers(min_value=1, max_value=8))
def test_one_who_is_alone_leaves_a_part_of_the_places(limit, share):
    held = 0
    while may_take(held, limit - held, share):
        held += 1

    assert held >= 1
    assert held <= limit * share / (share + 1) + 1
    assert limit == 1 or held < limit or limit <= share


@given(st.integers(min_value=2, max_value=200), st.lists(st.integers(min_value=0, max_value=9), max_size=400))
def test_whoever_holds_nothing_gets_a_place_while_one_is_free(limit, askers):
    held = dict.fromkeys(range(10), 0)
    for asker in askers:
        free = limit - sum(held.values())
        if may_take(held[asker], free, 4):
            held[asker] += 1
        else:
            assert free == 0 or held[asker] > 0


def test_own_quotas_come_before_the_defaults():
    own = Quotas(requests_per_s=5.0, databases=0)
    defaults = Quotas(requests_per_s=1.0, writes_per_s=2.0, databases=10)

    assert own.over(defaults) == Quotas(requests_per_s=5.0, writes_per_s=2.0, databases=0)
    assert Defaults(tenant=own, namespace=defaults).of(Owner("t", "n")) == defaults
    assert Defaults(tenant=own, namespace=defaults).of(Owner("t")) == own


@pytest.mark.parametrize(
    ("name", "owner", "shown"),
    [
        ("app--ann", Owner("default", "app"), "namespace app"),
        ("acme/app--ann", Owner("acme", "app"), "namespace acme/app"),
        ("notes", Owner("default", ""), "tenant default"),
        ("acme/notes", Owner("acme", ""), "tenant acme"),
        ("NO--ann", Owner("default", ""), "tenant default"),
        ("--ann", Owner("default", ""), "tenant default"),
    ],
)
def test_a_database_belongs_to_the_namespace_in_its_name(name, owner, shown):
    assert owner_of(name) == owner
    assert owner.shown == shown


def test_the_setting_names_quotas():
    assert parse_quotas("off") == NO_QUOTAS
    assert parse_quotas("requests_per_s=0.5, databases=10,bytes=0") == Quotas(
        requests_per_s=0.5, databases=10, bytes=0
    )


@pytest.mark.parametrize(
    "text",
    ["requests=5", "bytes", "bytes=", "bytes=-1", "bytes=1.5", "bytes=1,bytes=2", "bytes=9007199254740992",
     "requests_per_s=1000001", "requests_per_s=nan", "requests_per_s=1e3"],
)  # fmt: skip
def test_the_setting_refuses_what_is_no_quota(text):
    with pytest.raises(ValueError, match="must"):
        parse_quotas(text)
