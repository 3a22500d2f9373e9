"""What damage costs, and what is chosen to be restored."""

from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core.manifest import Manifest, ObjectRef, contains, restore_plan
from memoturnd.core.verification import choose_sample, is_lost, lost_by, order_problems

POINTS = list(range(10, 200, 3))


def ref(kind, prev, first, last):
    return ObjectRef(kind, "b1", prev, first, last, 1, "ab" * 16, 1, first, last, "0" * 16)


@st.composite
def chains(draw):
    """Segments of a few txids each, and snapshots of some of their states."""
    segments, head = [], 0
    for size in draw(st.lists(st.integers(1, 4), min_size=1, max_size=8)):
        segments.append(ref("segment", head, head + 1, head + size))
        head += size
    states = draw(st.sets(st.integers(1, head), max_size=4))
    snapshots = tuple(ref("snapshot", 0, txid, txid) for txid in sorted(states))
    return Manifest(
        db="d1",
        branch_id="b1",
        branch="main",
        created_at=1,
        head_txid=head,
        txid_ceiling=head,
        segments=tuple(segments),
        snapshots=snapshots,
    )


@given(chains())
def test_lost_is_every_txid_whose_restore_would_read_the_object_and_no_other(chain):
    for one in chain.objects:
        needing = {t for t in range(1, chain.head_txid + 1) if one in restore_plan(chain, t)}

        lost = lost_by(chain, one)

        assert {t for t in range(1, chain.head_txid + 1) if is_lost(t, lost)} == needing
        assert all(first <= last for first, last in lost)


@given(chains())
def test_entries_that_follow_each_other_have_no_problem_and_those_with_one_left_out_have(chain):
    assert list(order_problems(chain)) == []
    for number in range(1, len(chain.segments) - 1):
        kept = chain.segments[:number] + chain.segments[number + 1 :]
        left_out = Manifest(
            **{name: getattr(chain, name) for name in chain.__struct_fields__} | {"segments": kept}
        )
        follows_a_snapshot = any(s.max == chain.segments[number + 1].prev for s in chain.snapshots)
        assert bool(list(order_problems(left_out))) is not follows_a_snapshot
        assert contains(chain, chain.segments[number].min)


@given(st.text(max_size=5), st.sets(st.sampled_from([*POINTS, 11, 5000])))
def test_sample_has_both_ends_and_is_bounded_and_drawn_again_by_its_seed(seed, named):
    chosen = choose_sample(POINTS, named, seed=seed, named_limit=3, random_limit=2)

    assert {POINTS[0], POINTS[-1]} <= set(chosen) <= set(POINTS)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= 2 + 3 + 2
    assert chosen == choose_sample(POINTS, list(named), seed=seed, named_limit=3, random_limit=2)
    if len(named & set(POINTS)) <= 3:
        assert named & set(POINTS) <= set(chosen)


def test_sample_of_nothing_is_nothing():
    assert choose_sample([], {1}, seed="", named_limit=3, random_limit=2) == []
