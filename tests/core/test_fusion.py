import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core.fusion import WEIGHTS, Candidate, fuse


def candidate(rid, created_at=0, measure=None):
    return Candidate(rid, f"mem_{rid:03}", created_at, measure)


def test_reference_points_of_the_score():
    one = [candidate(1)]

    assert fuse({"topic": one}, limit=1)[0].score == pytest.approx(0.032787, abs=1e-6)
    assert fuse({"keyword": one}, limit=1)[0].score == pytest.approx(0.016393, abs=1e-6)
    assert fuse(dict.fromkeys(WEIGHTS, one), limit=1)[0].score == pytest.approx(0.065574, abs=1e-6)


def test_channels_come_in_channel_order_with_their_ranks_and_measures():
    channels = {"vector": [candidate(2), candidate(1, measure=0.5)], "topic": [candidate(1)]}

    first = fuse(channels, limit=8)[0]

    assert list(first.found.items()) == [("topic", (1, None)), ("vector", (2, 0.5))]


def test_ties_go_to_the_newest_then_to_the_smallest_id():
    channels = {"keyword": [candidate(1, created_at=5)], "vector": [candidate(2, created_at=9)]}
    assert [f.rid for f in fuse(channels, limit=8)] == [2, 1]

    channels = {"keyword": [candidate(7, created_at=5)], "vector": [candidate(2, created_at=5)]}
    assert [f.rid for f in fuse(channels, limit=8)] == [2, 7]


def test_nothing_found_is_nothing():
    assert fuse({}, limit=8) == []
    assert fuse({"topic": []}, limit=8) == []


ranked = st.lists(st.integers(0, 30), unique=True).map(lambda rids: [candidate(rid, rid % 3) for rid in rids])


@given(st.dictionaries(st.sampled_from(sorted(WEIGHTS)), ranked), st.integers(1, 40))
def test_the_order_is_by_score_and_complete(channels, limit):
    fused = fuse(channels, limit=limit)

    everything = {c.rid for found in channels.values() for c in found}
    assert len(fused) == min(limit, len(everything))
    assert [(-f.score, -f.created_at, f.id) for f in fused] == sorted(
        (-f.score, -f.created_at, f.id) for f in fused
    )
    for f in fused:
        assert f.score == pytest.approx(
            sum(WEIGHTS[name] / (60 + rank) for name, (rank, _) in f.found.items())
        )
