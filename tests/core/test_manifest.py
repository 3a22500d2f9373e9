import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoturnd.core import layout, manifest
from memoturnd.core.keyed import RunRef
from memoturnd.core.manifest import (
    CEILING_STEP,
    Checkpoint,
    Manifest,
    ObjectRef,
    Parent,
    Pin,
    Rewind,
    replace,
)
from memoturnd.core.sealed import sealed, unsealed
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    FencedError,
    InvariantError,
)

QUICK = settings(max_examples=80, deadline=None, derandomize=True)
EPOCH = 3


def ref(prev, low, high, *, kind="segment", branch="b1", epoch=EPOCH, tag="s", size_bytes=1000):
    return ObjectRef(
        kind=kind,
        branch=branch,
        prev=prev,
        min=low,
        max=high,
        epoch=epoch,
        hash=f"{tag}{low:x}-{high:x}".rjust(32, "0"),
        size_bytes=size_bytes,
        first_at=1000 + low,
        last_at=1000 + high,
        after=f"{high:016x}",
    )


def snapshot(txid):
    return ref(0, txid, txid, kind="snapshot", tag="f")


def new(**fields):
    return Manifest(db="d1", branch_id="b1", branch="main", created_at=1, **fields)


def owned(start_txid=0):
    return manifest.own(new(), epoch=EPOCH, owner=f"token-{EPOCH}", start_txid=start_txid)


def chain(*steps):
    """Return a manifest made of segments (prev, low, high) and snapshots (a txid), in order."""
    made = owned()
    for step in steps:
        if isinstance(step, int):
            made = manifest.add_snapshot(made, (snapshot(step),), epoch=EPOCH)
        else:
            made = manifest.append_segments(made, (ref(*step),), epoch=EPOCH)
    return manifest.decode(manifest.encode(made))


def spans(plan):
    return [(part.kind, part.min, part.max) for part in plan]


# ---- bytes


def full():
    made = chain((0, 1, 4), 4, (4, 5, 9), (9, 700, 702))
    made = manifest.set_checkpoint(made, "good", Checkpoint(5, 77))
    made = manifest.pin(made, "f1", Pin("fork", 8))
    made = manifest.record_rewind(made, Rewind(702, 5, 701, 99), epoch=EPOCH)
    return replace(made, commit_id="c" * 16, expires_at=5, parent=Parent("b0", "trunk", 0))


def test_manifest_reads_back_as_written():
    assert manifest.decode(manifest.encode(full())) == full()


def test_manifest_cut_off_at_any_byte_is_corrupt():
    data = manifest.encode(full())

    for size in range(len(data)):
        with pytest.raises(CorruptionError, match="cannot be read"):
            manifest.decode(data[:size])


def test_damaged_manifest_is_read_or_corrupt_and_nothing_else():
    data = manifest.encode(full())

    for at in range(len(data)):
        for damage in (0x01, 0x80, 0x20):
            damaged = bytearray(data)
            damaged[at] ^= damage
            try:
                manifest.decode(bytes(damaged))
            except CorruptionError:
                continue


def test_deeply_nested_manifest_is_corrupt():
    with pytest.raises(CorruptionError):
        manifest.decode(b'{"unknown":' + b"[" * 1_000_000)


def test_manifest_of_a_newer_format_says_so():
    with pytest.raises(CorruptionError, match="use a newer one"):
        manifest.decode(manifest.encode(new(format=manifest.FORMAT_VERSION + 1)))


def test_unknown_fields_are_ignored():
    data = manifest.encode(full())

    assert manifest.decode(sealed(unsealed(data)[:-1] + b',"later":{"x":[1]}}')) == full()


@pytest.mark.parametrize(
    "broken",
    [
        {"head_txid": 703},
        {"head_txid": 9},
        {"txid_ceiling": 701},
        {"segments": (ref(0, 1, 4), ref(5, 6, 9), ref(9, 700, 702))},
        {"segments": ()},
    ],
)
def test_manifest_that_contradicts_itself_is_corrupt(broken):
    with pytest.raises(CorruptionError, match="contradicts itself"):
        manifest.decode(manifest.encode(replace(full(), **broken)))


def test_object_names_carry_range_epoch_and_content_and_sort_by_txid():
    part = ref(0, 1, 42)

    assert part.key_name == f"{1:016d}-{42:016d}-{EPOCH:08d}-{part.hash}"
    assert layout.object_key("d1", part) == f"v1/d1/branches/b1/segments/{part.key_name}"
    assert layout.object_key("d1", snapshot(7)).startswith("v1/d1/branches/b1/snapshots/")
    assert ref(0, 9, 9).key_name < ref(0, 10, 10).key_name


# ---- fencing


TRANSITIONS = {
    "raise_ceiling": lambda m, epoch: manifest.raise_ceiling(m, epoch=epoch, txid=9),
    "release": lambda m, epoch: manifest.release(m, epoch=epoch, start_txid=0),
    "append_segments": lambda m, epoch: manifest.append_segments(m, (ref(0, 1, 1),), epoch=epoch),
    "add_snapshot": lambda m, epoch: manifest.add_snapshot(m, (snapshot(1),), epoch=epoch),
    "record_rewind": lambda m, epoch: manifest.record_rewind(m, Rewind(1, 1, 1, 1), epoch=epoch),
}


@pytest.mark.parametrize("name", TRANSITIONS)
def test_owners_transitions_are_fenced_by_any_other_epoch(name):
    for epoch in (EPOCH - 1, EPOCH + 1):
        with pytest.raises(FencedError, match="epoch"):
            TRANSITIONS[name](owned(), epoch)
    assert TRANSITIONS[name](owned(), EPOCH)


@pytest.mark.parametrize("epoch", [0, EPOCH - 1, EPOCH])
def test_ownership_needs_a_higher_epoch(epoch):
    with pytest.raises(FencedError):
        manifest.own(owned(), epoch=epoch, owner="somebody", start_txid=0)


@pytest.mark.parametrize(
    "name", ["append_segments", "add_snapshot", "record_rewind", "release", "raise_ceiling"]
)
def test_transition_that_has_landed_changes_nothing_when_applied_again(name):
    landed = TRANSITIONS[name](owned(), EPOCH)

    assert TRANSITIONS[name](landed, EPOCH) == landed


@pytest.mark.parametrize("name", ["append_segments", "add_snapshot", "record_rewind", "release"])
def test_transition_that_has_landed_needs_no_second_swap(name):
    landed = TRANSITIONS[name](owned(), EPOCH)

    assert TRANSITIONS[name](landed, EPOCH) is landed


# ---- txids


def test_owner_reserves_txids_ahead_of_its_start():
    assert owned(start_txid=50).txid_ceiling == 50 + CEILING_STEP


def test_ceiling_never_comes_down_but_at_a_clean_release():
    made = owned(start_txid=500)

    assert manifest.raise_ceiling(made, epoch=EPOCH, txid=1).txid_ceiling == made.txid_ceiling
    assert (
        manifest.own(made, epoch=EPOCH + 1, owner="somebody", start_txid=0).txid_ceiling == made.txid_ceiling
    )
    appended = manifest.append_segments(made, (ref(0, 501, 502),), epoch=EPOCH)
    assert appended.txid_ceiling == 502 + CEILING_STEP
    assert manifest.release(appended, epoch=EPOCH, start_txid=500).txid_ceiling == 502


def test_release_without_commits_keeps_what_the_owner_skipped():
    assert manifest.release(owned(start_txid=500), epoch=EPOCH, start_txid=500).txid_ceiling == 500


def test_ceiling_is_raised_with_room_above_the_txid():
    made = owned()

    raised = manifest.raise_ceiling(made, epoch=EPOCH, txid=made.txid_ceiling + 1)

    assert raised.txid_ceiling == made.txid_ceiling + 1 + CEILING_STEP


# ---- the chain


def test_appended_segment_moves_the_head():
    made = chain((0, 1, 4))

    assert (made.head_txid, made.head_at, made.head_checksum) == (4, 1004, f"{4:016x}")


@pytest.mark.parametrize("prev", [3, 5, 0])
def test_segment_that_does_not_follow_the_head_is_refused(prev):
    with pytest.raises(ConflictError, match="follows txid"):
        manifest.append_segments(chain((0, 1, 4)), (ref(prev, 6, 7),), epoch=EPOCH)


def test_txids_may_jump_while_the_previous_one_fits():
    made = chain((0, 1, 4), (4, 70000, 70001))

    assert made.head_txid == 70001
    assert not manifest.contains(made, 5)


def test_snapshot_of_a_state_in_the_chain_leaves_the_head():
    made = chain((0, 1, 4), (4, 5, 9), 4)

    assert made.head_txid == 9
    assert spans(manifest.restore_plan(made, 9)) == [("snapshot", 4, 4), ("segment", 5, 9)]


def test_snapshot_above_the_head_starts_a_new_run():
    made = chain((0, 1, 4), 8, (8, 9, 9))

    assert made.head_txid == 9
    assert [t for t in range(11) if manifest.contains(made, t)] == [1, 2, 3, 4, 8, 9]
    assert spans(manifest.restore_plan(made, 9)) == [("snapshot", 8, 8), ("segment", 9, 9)]
    assert spans(manifest.restore_plan(made, 3)) == [("segment", 1, 4)]


def test_snapshots_are_kept_in_order_of_txid():
    made = chain((0, 1, 9), 9, 4)

    assert [s.max for s in made.snapshots] == [4, 9]


# ---- restore plans


PLANS = {
    1: [("segment", 1, 4)],
    4: [("segment", 1, 4)],
    5: [("segment", 1, 4), ("segment", 5, 9)],
    9: [("segment", 1, 4), ("segment", 5, 9)],
    10: [("segment", 1, 4), ("segment", 5, 9), ("segment", 10, 10)],
    11: [("snapshot", 11, 11)],
    12: [("snapshot", 11, 11), ("segment", 11, 14)],
    14: [("snapshot", 11, 11), ("segment", 11, 14)],
}


@pytest.mark.parametrize("txid", PLANS)
def test_restore_reads_the_newest_base_at_or_below_and_what_follows(txid):
    made = chain((0, 1, 4), (4, 5, 9), (9, 10, 10), (10, 11, 14), 11)

    assert spans(manifest.restore_plan(made, txid)) == PLANS[txid]


@pytest.mark.parametrize("txid", [0, 5, 69999, 70002, -1, 2**63])
def test_txid_that_no_object_holds_cannot_be_restored(txid):
    with pytest.raises(ConflictError, match="cannot be restored"):
        manifest.restore_plan(chain((0, 1, 4), (4, 70000, 70001)), txid)


def test_txid_whose_base_is_past_retention_cannot_be_restored():
    made = replace(owned(), segments=(ref(3, 4, 5),), head_txid=5)

    with pytest.raises(ConflictError, match="past retention"):
        manifest.restore_plan(made, 4)


def parts(txid, *, of=3, upto=30):
    """Return a snapshot in parts of ten pages."""
    whole = snapshot(txid)
    return tuple(
        replace(whole, hash=f"{n}".rjust(32, "0"), first_page=10 * n + 1, last_page=min(10 * n + 10, upto))
        for n in range(of)
    )


def test_base_is_every_part_of_the_newest_snapshot():
    made = manifest.add_snapshot(chain((0, 1, 4), 3, (4, 5, 9)), parts(4), epoch=EPOCH)

    assert [(r.max, r.first_page) for r in made.snapshots] == [(3, 0), (4, 1), (4, 11), (4, 21)]
    assert manifest.restore_plan(made, 7) == (*parts(4), made.segments[1])
    assert manifest.restore_plan(made, 4) == parts(4)
    assert manifest.bytes_since_base(made) == (1, 1000, 3000)
    assert manifest.add_snapshot(made, parts(4), epoch=EPOCH) is made
    assert manifest.decode(manifest.encode(made)) == made


def test_gap_in_the_chain_is_corrupt():
    made = replace(owned(), segments=(ref(0, 1, 2), ref(3, 4, 5)), head_txid=5)

    with pytest.raises(CorruptionError, match="gap"):
        manifest.restore_plan(made, 5)


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "jump", "snap", "lost"]), st.integers(1, 5)), max_size=14
)


@QUICK
@given(steps=STEPS, data=st.data())
def test_any_history_restores_every_txid_that_was_shipped_and_no_other(steps, data):
    made, shipped = owned(), set()
    for kind, count in steps:
        head = made.head_txid
        if kind in {"append", "jump"}:
            low = head + 1 + (7 * count if kind == "jump" else 0)
            made = manifest.append_segments(made, (ref(head, low, low + count - 1),), epoch=EPOCH)
            shipped |= set(range(low, low + count))
        elif shipped:
            at = head + count if kind == "lost" else sorted(shipped)[-min(count, len(shipped))]
            made = manifest.add_snapshot(made, (snapshot(at),), epoch=EPOCH)
            shipped.add(at)
    made = manifest.decode(manifest.encode(made))

    assert made.head_txid == max(shipped, default=0)
    for txid in range(made.head_txid + 2):
        assert manifest.contains(made, txid) is (txid in shipped)
        if txid in shipped:
            check_plan(manifest.restore_plan(made, txid), txid)
    if shipped:
        at = data.draw(st.sampled_from(sorted(shipped)))
        child = fork_at(made, at)
        assert manifest.decode(manifest.encode(child)) == child
        kept = {t for t in range(made.head_txid + 2) if manifest.contains(child, t)}
        assert kept == {t for t in shipped if t <= at}
        for txid in kept:
            check_plan(manifest.restore_plan(child, txid), txid)


def check_plan(plan, txid):
    assert plan[0].is_base
    for before, after in itertools.pairwise(plan):
        assert after.kind == "segment"
        assert after.prev <= before.end < after.end
    assert plan[-1].min <= txid <= plan[-1].end


# ---- names


def test_checkpoints_are_set_moved_and_deleted():
    made = manifest.set_checkpoint(chain((0, 1, 4)), "good", Checkpoint(2, 1))

    moved = manifest.set_checkpoint(made, "good", Checkpoint(3, 2))

    assert moved.checkpoints == {"good": Checkpoint(3, 2)}
    assert manifest.delete_checkpoint(moved, "good").checkpoints == {}
    in_runs = replace(made, checkpoint_runs=(RunRef("b1", 3, "ab", 9),))
    assert manifest.delete_checkpoint(in_runs, "other").checkpoints == {**made.checkpoints, "other": None}


def test_rewinds_are_bounded_and_the_newest_kept():
    made = owned()
    for txid in range(manifest.REWINDS_KEPT + 5):
        made = manifest.record_rewind(made, Rewind(txid, 1, 1, 1), epoch=EPOCH)

    assert [made.rewinds[0].txid, made.rewinds[-1].txid] == [5, manifest.REWINDS_KEPT + 4]
    assert len(made.rewinds) == manifest.REWINDS_KEPT


# ---- forks


def fork_at(parent, txid):
    return manifest.fork(
        parent,
        branch_id="b2",
        branch="fork",
        txid=txid,
        head_at=9,
        head_checksum="ab" * 8,
        created_at=2,
        expires_at=None,
    )


def test_fork_inside_a_segment_names_it_only_up_to_the_txid():
    child = fork_at(chain((0, 1, 4), (4, 5, 9)), 7)

    assert [(s.min, s.max, s.end) for s in child.segments] == [(1, 4, 4), (5, 9, 7)]
    assert (child.head_txid, child.txid_ceiling, child.epoch) == (7, 7, 0)
    assert child.parent == Parent("b1", "main", 7)
    assert [t for t in range(12) if manifest.contains(child, t)] == list(range(1, 8))
    assert manifest.decode(manifest.encode(child)) == child


def test_fork_goes_on_from_its_own_head_with_objects_of_its_own():
    child = manifest.own(fork_at(chain((0, 1, 4), (4, 5, 9)), 7), epoch=1, owner="forker", start_txid=7)

    grown = manifest.append_segments(child, (ref(7, 8, 8, branch="b2"),), epoch=1)

    assert manifest.decode(manifest.encode(grown)) == grown
    keys = [layout.object_key("d1", part) for part in manifest.restore_plan(grown, 8)]
    assert [key.split("/")[3] for key in keys] == ["b1", "b1", "b2"]
    assert manifest.restore_plan(grown, 8)[1].end == 7


def test_fork_of_a_fork_keeps_the_lower_limit():
    child = fork_at(chain((0, 1, 4), (4, 5, 9)), 7)

    assert [s.end for s in fork_at(child, 6).segments] == [4, 6]
    assert [s.end for s in fork_at(child, 7).segments] == [4, 7]
    with pytest.raises(ConflictError):
        fork_at(child, 8)


def test_fork_takes_no_snapshot_above_its_txid():
    child = fork_at(chain((0, 1, 4), 3, (4, 5, 9), 9), 7)

    assert [s.max for s in child.snapshots] == [3]


def test_fork_takes_no_names_of_its_parent():
    child = fork_at(full(), 5)

    assert (child.checkpoints, child.pins, child.rewinds) == ({}, {}, ())


def test_fork_of_an_empty_branch_is_empty():
    child = fork_at(new(), 0)

    assert (child.head_txid, child.segments) == (0, ())


def test_fork_at_a_txid_that_was_lost_is_refused():
    with pytest.raises(ConflictError):
        fork_at(chain((0, 1, 4), (4, 9, 9)), 6)


def test_pins_come_and_go_by_the_forks_id():
    made = manifest.pin(chain((0, 1, 4)), "f1", Pin("fork", 3))

    assert made.pins == {"f1": Pin("fork", 3)}
    assert manifest.unpin(made, "f1").pins == {}
    assert manifest.unpin(made, "other") == made


def test_deleted_branch_fences_its_owner_and_takes_no_fork():
    made = manifest.delete(chain((0, 1, 4)), at_ms=9)

    assert manifest.delete(made, at_ms=10) is made
    for change in (
        lambda: manifest.append_segments(made, (ref(4, 5, 5),), epoch=EPOCH),
        lambda: manifest.own(made, epoch=EPOCH + 1, owner="somebody", start_txid=4),
        lambda: manifest.pin(made, "f1", Pin("fork", 3)),
    ):
        with pytest.raises(FencedError, match="deleted"):
            change()


def test_round_is_found_in_the_object_that_holds_it():
    made = chain((0, 1, 4), 8, (8, 9, 9))

    assert [manifest.round_ref(made, t).max for t in (1, 4, 8, 9)] == [4, 4, 8, 9]
    with pytest.raises(InvariantError):
        manifest.round_ref(made, 6)


def test_cost_of_a_restore_counts_what_follows_the_base():
    assert manifest.bytes_since_base(new()) == (0, 0, 0)
    assert manifest.bytes_since_base(chain((0, 1, 4), (4, 5, 9))) == (1, 1000, 1000)
    assert manifest.bytes_since_base(chain((0, 1, 4), (4, 5, 9), 9)) == (0, 0, 1000)


def test_values_are_frozen():
    with pytest.raises(AttributeError):
        full().epoch = 9
    assert msgspec.structs.replace(full(), epoch=9).epoch == 9


def test_two_rewinds_that_wait_for_one_swap_are_noted_once_each_however_often_it_is_tried():
    first, second = Rewind(5, 1, 4, 9), Rewind(6, 4, 5, 10)

    def both(current):
        noted = manifest.record_rewind(current, first, epoch=EPOCH)
        return manifest.record_rewind(noted, second, epoch=EPOCH)

    assert both(both(owned())).rewinds == (first, second)
