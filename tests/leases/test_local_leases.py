import pytest

from memoturnd.errors import ConflictError
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.seams.leases import Lease, Owner


@pytest.fixture
def nodes():
    table = LeaseTable()
    return LocalLeases("a", "http://a:1", table), LocalLeases("b", "http://b:1", table)


async def test_acquired_branch_has_an_owner_with_its_address(nodes):
    lease = await nodes[0].acquire("branch")

    assert lease == Lease("branch", "a", lease.epoch)
    assert await nodes[1].owner_of("branch") == Owner("a", "http://a:1", lease.epoch)


async def test_branch_that_nobody_has_has_no_owner(nodes):
    assert await nodes[0].owner_of("branch") is None


async def test_branch_of_another_node_is_refused_naming_the_owner(nodes):
    await nodes[0].acquire("branch")

    with pytest.raises(ConflictError, match="a at http://a:1"):
        await nodes[1].acquire("branch")


async def test_epoch_grows_with_every_grant(nodes):
    first = await nodes[0].acquire("branch")
    again = await nodes[0].acquire("branch")
    await nodes[0].release(again)
    other = await nodes[1].acquire("branch")

    assert 0 < first.epoch < again.epoch < other.epoch


async def test_stale_lease_releases_nothing(nodes):
    stale = await nodes[0].acquire("branch")
    current = await nodes[0].acquire("branch")

    await nodes[0].release(stale)
    assert (await nodes[0].owner_of("branch")).epoch == current.epoch

    await nodes[0].release(current)
    await nodes[0].release(current)
    assert await nodes[0].owner_of("branch") is None


async def test_late_release_spares_the_next_owner(nodes):
    lease = await nodes[0].acquire("branch")
    await nodes[0].release(lease)
    await nodes[1].acquire("branch")

    await nodes[0].release(lease)

    assert (await nodes[0].owner_of("branch")).node_id == "b"


async def test_close_gives_back_only_what_this_node_holds(nodes):
    await nodes[0].acquire("one")
    await nodes[1].acquire("two")

    await nodes[0].close()

    assert await nodes[1].owner_of("one") is None
    assert (await nodes[1].owner_of("two")).node_id == "b"


async def test_released_branches_leave_no_memory_behind():
    table = LeaseTable()
    leases = LocalLeases("a", "http://a:1", table)
    for number in range(1000):
        await leases.release(await leases.acquire(f"branch{number}"))

    assert table.placed == {}


async def test_lease_never_expires(nodes):
    assert nodes[0].deadline() is None
