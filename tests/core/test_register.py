import pytest

from memoturnd.core import register
from memoturnd.core.register import Register, RegisteredBranch
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
        register.decode(register.encode(full()).replace(b'"format":1', b'"format":2'))


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
    deleted = register.mark_deleted(full())

    assert (deleted.state, deleted.branches) == ("deleted", full().branches)
