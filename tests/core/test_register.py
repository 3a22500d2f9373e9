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
