"""A lease that ends while it is used: nothing is acknowledged that the next owner lacks, and nobody is left hanging.

Guards: memoturnd.engine.shared_branch, `may_commit` in memoturnd.engine.writer, `_leave_to_owner` in takeover.
"""

import asyncio

import pytest
from profiles import BY_HAND, everything, get, put
from sharing import sharing

from memoturnd.core.durability import Durability
from memoturnd.errors import (
    FencedError,
    NotDurableError,
    NotOwnerError,
    RetryableError,
    StoreUnavailableError,
)
from memoturnd.seams.profile import Work


@pytest.fixture
async def two(tmp_path):
    async with sharing(tmp_path, "a", "b", **BY_HAND) as shared:
        await shared.nodes["a"].databases.create("db")
        yield shared


async def profiles(shared):
    return [await node.profile("db") for node in shared.nodes.values()]


async def rows(profile):
    return (await profile.read(everything)).value


async def leave_as_a_kill_does(shared, mine):
    shared.leases["a"].expire()
    await mine.owned.shipper.compactor.stop()
    mine.close_connections()
    mine.owned = mine._conn = None


async def test_owner_whose_deadline_has_passed_takes_the_branch_again_with_its_tail(two):
    mine, _ = await profiles(two)
    first = await mine.write(put("x", "1"))
    epoch = mine.owned.epoch
    two.leases["a"].lapse()

    second = await mine.write(put("y", "2"))

    assert second.txid == first.txid + 1
    assert mine.owned.epoch > epoch
    assert await rows(mine) == {"x": "1", "y": "2"}
    assert two.nodes["a"].metrics.leases_lapsed._value.get() == 1


async def test_write_behind_the_end_of_the_lease_goes_to_the_new_owner(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    two.leases["a"].expire()
    await theirs.write(put("x", "2"))

    with pytest.raises(NotOwnerError) as told:
        await mine.write(put("x", "stale"))

    assert told.value.owner.node_id == "b"
    assert await rows(theirs) == {"x": "2"}


@pytest.mark.parametrize("work", [Work.POINT, Work.HEAVY, Work.USER])
async def test_a_local_write_that_outlives_the_lease_is_acknowledged_only_if_the_manifest_takes_it(two, work):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)

    def at_the_deadline(conn, now_ms):
        two.leases["a"].lapse()
        return put("x", "2")(conn, now_ms)

    written = await mine.write(at_the_deadline, work=work)

    assert written.durable
    assert await rows(theirs) == {"x": "2"} if two.owner(theirs) != "a" else True
    assert await rows(mine) == {"x": "2"}


@pytest.mark.parametrize("work", [Work.POINT, Work.HEAVY])
async def test_a_local_write_is_not_acknowledged_where_another_owner_came_between(two, work):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    two.leases["a"].expire()
    two.leases["a"].lapsed = False  # a pause: the node does not know yet
    await theirs.write(put("x", "2"), durability=Durability.DURABLE)

    def at_the_deadline(conn, now_ms):
        two.leases["a"].lapse()
        return put("x", "lost")(conn, now_ms)

    with pytest.raises((FencedError, NotDurableError)):
        await mine.write(at_the_deadline, work=work)

    assert await rows(theirs) == {"x": "2"}
    with pytest.raises(NotOwnerError):
        await mine.write(put("x", "late"))


async def test_what_a_paused_owner_committed_is_kept_without_taking_the_branch(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    await mine.write(put("x", "local"))
    epoch = mine.owned.epoch
    two.leases["a"].expire()
    await theirs.write(put("x", "2"), durability=Durability.DURABLE)

    with pytest.raises(NotOwnerError):
        await mine.write(put("x", "late"))

    assert two.owner(theirs) == "b"
    (kept,) = await two.nodes["b"].branches.list("db")
    assert kept.name == f"recovered-{epoch}"
    assert await rows(await two.nodes["b"].profile("db", kept.name)) == {"x": "local"}
    assert not mine.files.exists()


async def test_copies_are_not_said_to_be_gone_before_a_tail_was_seen_to(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    await mine.write(put("y", "local"))
    await leave_as_a_kill_does(two, mine)
    await theirs.write(put("x", "2"), durability=Durability.DURABLE)
    node, uuid = two.nodes["a"], mine.ref.database.uuid

    two.leases["a"].down = True
    assert not await node.tiers.let_go(uuid)
    two.leases["a"].down = False
    assert await node.tiers.let_go(uuid)

    assert not mine.files.exists()
    assert node.metrics.recovered_branches._value.get() == 1  # where an erasure under way finds it


async def test_what_an_earlier_life_left_is_kept_although_another_node_owns_the_branch(tmp_path):
    async with sharing(tmp_path, "a", "b", **BY_HAND) as shared:
        await shared.nodes["a"].databases.create("db")
        mine, theirs = await profiles(shared)
        await mine.write(put("x", "1"), durability=Durability.DURABLE)
        await mine.write(put("x", "local"))
        epoch = mine.owned.epoch
        await leave_as_a_kill_does(shared, mine)
        await theirs.write(put("x", "2"), durability=Durability.DURABLE)

        await shared.nodes["a"].recover([mine])

        assert shared.owner(theirs) == "b"
        (kept,) = await shared.nodes["b"].branches.list("db")
        assert kept.name == f"recovered-{epoch}"
        assert await rows(theirs) == {"x": "2"}


async def test_recovery_waits_for_an_owner_that_does_not_stand_in_the_manifest_yet(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    await mine.write(put("x", "local"))
    await leave_as_a_kill_does(two, mine)
    await two.leases["b"].acquire(mine.branch_id)

    with pytest.raises(NotOwnerError):
        await mine.write(put("x", "late"))
    assert mine.files.exists()
    recovering = asyncio.create_task(two.nodes["a"].recover([mine]))
    await asyncio.sleep(0.3)
    assert not recovering.done()
    await theirs.write(put("x", "2"))
    await asyncio.wait_for(recovering, 10)

    assert len(await two.nodes["b"].branches.list("db")) == 1


async def test_queued_writes_of_an_owner_that_lost_its_lease_run_once_it_has_it_again(two):
    mine, _ = await profiles(two)
    await mine.write(put("x", "0"))

    async with mine.gate:
        waiting = [asyncio.create_task(mine.write(put(f"k{n}", "v"), work=Work.HEAVY)) for n in range(5)]
        await asyncio.sleep(0.05)
        two.leases["a"].lapse()
    await asyncio.wait_for(asyncio.gather(*waiting), 10)

    assert len(await rows(mine)) == 6


async def test_queued_writes_go_to_the_new_owner_and_are_applied_nowhere(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "0"), durability=Durability.DURABLE)

    async with mine.gate:
        waiting = [asyncio.create_task(mine.write(put(f"k{n}", "v"), work=Work.HEAVY)) for n in range(5)]
        await asyncio.sleep(0.05)
        two.leases["a"].expire()
        await theirs.write(put("x", "1"))
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)

    assert [type(error) for error in told] == [NotOwnerError] * 5
    assert await rows(theirs) == {"x": "1"}
    assert await two.nodes["b"].branches.list("db") == []


async def test_nobody_hangs_while_neither_store_nor_leases_answer(two, monkeypatch):
    mine, _ = await profiles(two)
    await mine.write(put("x", "1"))
    durable = asyncio.create_task(mine.write(put("x", "2"), durability=Durability.DURABLE))

    async def fails(*_args, **_options):
        raise StoreUnavailableError("cut off (a test)")

    monkeypatch.setattr(type(two.store), "put_if_match", fails)
    await asyncio.sleep(0.05)
    two.leases["a"].lapse()
    two.leases["a"].down = True

    with pytest.raises(RetryableError):
        await asyncio.wait_for(mine.write(put("x", "3")), 20)
    with pytest.raises(RetryableError):
        await asyncio.wait_for(mine.read(everything), 20)
    with pytest.raises(NotDurableError):
        await asyncio.wait_for(durable, 20)

    monkeypatch.undo()
    two.leases["a"].down = False
    assert await rows(mine) == {"x": "2"}


async def test_a_durable_write_that_waits_is_answered_by_the_last_ship_of_a_lease_that_has_ended(two):
    mine, _ = await profiles(two)
    await mine.write(put("x", "1"))
    async with mine.gate:
        durable = asyncio.create_task(
            mine.write(put("x", "2"), durability=Durability.DURABLE, work=Work.HEAVY)
        )
        await asyncio.sleep(0.05)
    await asyncio.sleep(0)
    two.leases["a"].lapse()

    assert (await asyncio.wait_for(durable, 5)).durable


async def test_a_primary_read_is_not_answered_from_a_state_that_may_be_old(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)

    ends = [two.leases["a"].lapse]

    def while_the_lease_ends(conn, now_ms):
        value = get("x")(conn, now_ms)
        if ends:
            ends.pop(0)()
        return value

    assert (await mine.read(while_the_lease_ends)).value == "1"  # taken again: nobody came between
    two.leases["a"].expire()
    two.leases["a"].lapsed = False
    await theirs.write(put("x", "2"))
    ends.append(two.leases["a"].lapse)
    with pytest.raises(NotOwnerError):
        await mine.read(while_the_lease_ends)


async def test_a_refusal_by_a_state_that_may_be_old_is_not_told(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    two.leases["a"].expire()
    two.leases["a"].lapsed = False
    await theirs.write(put("x", "2"), durability=Durability.DURABLE)

    def refuse(_conn, _now_ms):
        two.leases["a"].lapse()
        raise StoreUnavailableError("x is 1")

    with pytest.raises(NotOwnerError):
        await mine.write(refuse)


async def test_a_write_that_changes_nothing_tells_no_old_state(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    two.leases["a"].expire()
    two.leases["a"].lapsed = False
    await theirs.write(put("x", "2"), durability=Durability.DURABLE)

    def look(conn, now_ms):
        two.leases["a"].lapse()
        return get("x")(conn, now_ms), False

    with pytest.raises(NotOwnerError):
        await mine.write(look, durability=Durability.DURABLE)


async def test_a_rewind_under_way_when_the_lease_ends_stands_or_is_not_told(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    await mine.write(put("x", "2"), durability=Durability.DURABLE)
    async with mine.gate:
        rewinding = asyncio.create_task(two.nodes["a"].branches.rewind("db", "main", "head~1"))
        await asyncio.sleep(0.1)
        two.leases["a"].expire()
        await theirs.write(put("x", "3"))

    with pytest.raises((FencedError, NotOwnerError, RetryableError)):
        await asyncio.wait_for(rewinding, 10)
    assert await rows(theirs) == {"x": "3"}


async def test_a_branch_goes_cold_although_the_lease_service_fails(two):
    mine, theirs = await profiles(two)
    await mine.write(put("x", "1"))
    two.leases["a"].down = True

    assert await two.nodes["a"].tiers.evict(mine)
    assert not mine.files.exists()
    assert two.owner(mine) == "a"

    two.leases["a"].down = False
    await two.nodes["a"].tiers.sweep()
    assert two.owner(mine) is None
    await theirs.write(put("x", "2"))
    assert await rows(theirs) == {"x": "2"}


async def test_housekeeping_is_left_to_the_owner(two):
    mine, _ = await profiles(two)
    await mine.write(put("x", "1"), durability=Durability.DURABLE)
    two.leases["a"].lapse()

    assert await mine.sweep(lambda conn, now_ms: (1, True)) == 0
