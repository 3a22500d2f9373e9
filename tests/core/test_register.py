import pytest

from memoturnd.core import register
from memoturnd.core.keyed import RunRef
from memoturnd.core.register import Register, RegisteredBranch, replace
from memoturnd.errors import AlreadyExistsError, CorruptionError

MAIN = RegisteredBranch("b1", 1)
FORK = RegisteredBranch("b2", 2, parent="main", fork_txid=5, expires_at=99)


def full():
    return Register(
        uuid="d" * 32,
        name="app--user",
        created_at=1,
        commit_id="c" * 16,
        branches={"main": MAIN, "fork": FORK},
    )


def test_register_reads_back_as_written():
    assert register.decode(register.encode(full())) == full()


def test_register_cut_off_at_any_byte_is_corrupt():
    data = register.encode(full())

    for size in range(len(data)):
        with pytest.raises(CorruptionError, match=r"database\.json"):
            register.decode(data[:size])


def test_damaged_register_is_read_or_corrupt_and_nothing_else():
    data = register.encode(full())

    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x80
        try:
            register.decode(bytes(damaged))
        except CorruptionError:
            continue


def test_register_of_a_newer_format_says_so():
    with pytest.raises(CorruptionError, match="use a newer one"):
        register.decode(register.encode(replace(full(), format=register.FORMAT_VERSION + 1)))


def test_branch_is_added_once_and_its_name_is_taken_for_others():
    before = Register(uuid="d", name="n", created_at=1, branches={"main": MAIN})

    after = register.add_branch(before, "fork", FORK)

    assert after.branches == {"main": MAIN, "fork": FORK}
    assert register.add_branch(after, "fork", FORK) is after
    with pytest.raises(AlreadyExistsError):
        register.add_branch(after, "fork", RegisteredBranch("b3", 3))


def test_branch_is_removed_only_by_its_own_id():
    assert register.remove_branch(full(), "fork", "b2").branches == {"main": MAIN}
    for name, branch_id in (("fork", "b3"), ("other", "b2")):
        before = full()
        assert register.remove_branch(before, name, branch_id) is before


def test_deleted_register_says_so_and_keeps_its_branches():
    deleted = register.mark_deleted(full(), at_ms=9)

    assert (deleted.state, deleted.deleted_at, deleted.branches) == ("deleted", 9, full().branches)
    assert register.mark_deleted(deleted, at_ms=10) is deleted


def test_deleted_branch_frees_its_name_and_stays_known_by_its_id():
    gone = register.delete_branch(full(), "fork", FORK, at_ms=9)

    assert gone.branches == {"main": MAIN, "fork#b2": replace(FORK, deleted_at=9)}
    assert register.is_deleted_name(register.deleted_name("fork", "b2"))
    assert not any(map(register.is_deleted_name, full().branches))
    again = register.add_branch(gone, "fork", RegisteredBranch("b3", 10))
    assert again.branches["fork"].id == "b3"


def test_branch_that_may_lie_in_a_run_is_remembered_as_gone():
    before = replace(full(), branches={"main": MAIN}, branch_runs=(RunRef("", 3, "ab", 9),))

    after = register.remove_branch(before, "fork", "b2")

    assert after.branches == {"main": MAIN, "fork": None}
    assert register.remove_branch(after, "fork", "b2") is after
    assert register.add_branch(after, "fork", FORK).branches["fork"] == FORK


# ---- deleted and half-made branches

RUN = RunRef("", 64, "a" * 32, 1)


def in_a_run():
    """A register whose branch `fork` lies in a run, as its caller has found out."""
    return replace(full(), branches={"main": MAIN}, branch_runs=(RUN,))


@pytest.mark.parametrize("before", [full(), in_a_run()])
def test_deleted_branch_frees_its_name_and_can_come_back_or_be_purged(before):
    deleted = register.delete_branch(before, "fork", FORK, at_ms=7)
    entry = deleted.branches["fork#b2"]

    assert entry == replace(FORK, deleted_at=7)
    assert deleted.branches.get("fork") is None
    back = register.undelete_branch(deleted, "fork", entry)
    assert back.branches["fork"] == FORK
    assert back.branches.get("fork#b2") is None
    assert register.undelete_branch(back, "fork", entry) is back
    purged = register.purge_branch(deleted, "fork", "b2")
    assert purged.branches.get("fork#b2") is None
    assert register.purge_branch(purged, "fork", "b2").branches == purged.branches


def test_deleted_branch_does_not_take_a_name_that_is_another_ones_by_now():
    deleted = register.delete_branch(full(), "fork", FORK, at_ms=7)
    taken = register.add_branch(deleted, "fork", RegisteredBranch("b3", 3))

    with pytest.raises(AlreadyExistsError):
        register.undelete_branch(taken, "fork", deleted.branches["fork#b2"])


def test_half_made_fork_is_begun_anew_under_its_id_and_no_other_ones_name_is_taken():
    new = RegisteredBranch("b2", 50, parent="main", fork_txid=6, is_new=True)

    assert register.renew_branch(full(), "fork", new).branches["fork"] == new
    assert register.renew_branch(in_a_run(), "fork", new).branches["fork"] == new
    with pytest.raises(AlreadyExistsError):
        register.renew_branch(full(), "fork", replace(new, id="b3"))


def test_only_the_fork_that_was_looked_at_is_settled_or_given_up():
    new = replace(FORK, is_new=True)
    before = replace(full(), branches={"main": MAIN, "fork": new})

    assert register.settle_branch(before, "fork", new).branches["fork"] == FORK
    assert register.settle_branch(in_a_run(), "fork", new).branches["fork"] == FORK
    assert register.abort_branch(before, "fork", new, at_ms=7).branches["fork#b2"].is_new
    for other in (RegisteredBranch("b3", 3), None):
        moved = replace(before, branches={"main": MAIN, "fork": other}, branch_runs=(RUN,))
        assert register.settle_branch(moved, "fork", new) is moved
        assert register.abort_branch(moved, "fork", new, at_ms=7) is moved


def test_deleted_database_is_purged_once_and_never_lives_again():
    deleted = register.mark_deleted(full(), at_ms=7)
    purging = register.begin_purge(deleted, deleted_by_ms=7)

    assert (deleted.state, deleted.deleted_at, purging.state) == ("deleted", 7, "purging")
    assert register.begin_purge(purging, deleted_by_ms=9) is purging
    assert register.mark_deleted(purging, at_ms=9) is purging
    assert register.undelete(purging) is purging


def test_database_that_is_back_or_was_deleted_anew_is_not_purged():
    deleted = register.mark_deleted(full(), at_ms=7)
    back = register.undelete(deleted)

    assert back == replace(full(), commit_id=back.commit_id)
    assert register.undelete(back) is back
    assert register.begin_purge(back, deleted_by_ms=9) is back
    assert register.begin_purge(deleted, deleted_by_ms=6) is deleted


def test_import_is_finished_or_given_up_whichever_is_first():
    importing = replace(full(), state="importing")
    finished, given_up = register.finish_import(importing), register.give_up_import(importing)

    assert (finished.state, given_up.state) == ("live", "purging")
    assert register.give_up_import(finished) is finished
    assert register.finish_import(given_up) is given_up
    assert register.mark_deleted(importing, at_ms=7).state == "deleted"
