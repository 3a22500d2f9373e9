"""No swap names an object that was put so long ago that the collector may have taken it for garbage."""

import asyncio

import pytest
from harness import node_on
from profiles import BY_HAND, everything, manifest_of, put

from memoturnd.core import compaction, layout
from memoturnd.core.durability import Durability
from memoturnd.errors import MemoturnError
from memoturnd.replication import swap
from memoturnd.replication.compactor import REUSE_S
from memoturnd.seams.clock import SystemClock
from memoturnd.stores.faulty import Fault, FaultKind, FaultyStore
from memoturnd.stores.memory import MemoryStore


class Ahead(SystemClock):
    """A steady clock that a test moves ahead; waiting takes no time."""

    def __init__(self):
        self.ahead_s = 0.0

    def monotonic_s(self):
        return super().monotonic_s() + self.ahead_s

    def now_ms(self):
        return super().now_ms() + round(1000 * self.ahead_s)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(swap, "_BACKOFF_S", 0.0005)


@pytest.fixture
def clock():
    return Ahead()


@pytest.fixture
async def shipped(tmp_path, clock):
    """Yield (store, branch) with one durable write, on a store whose swaps can be made to fail."""
    store = FaultyStore(MemoryStore(), clock)
    async with node_on(
        tmp_path / "n", store, clock=clock, WARM_AFTER_S="36000", COLD_AFTER_S="36000", **BY_HAND
    ) as node:
        await node.databases.create("a")
        branch = await node.profile("a")
        await branch.write(put("x", "0"), durability=Durability.DURABLE)
        yield store, branch
        store.faults.clear()
        for delayed in list(store._delayed):
            await delayed.apply()


def segments_in(store):
    return sorted(key for key in store.inner._objects if "/segments/" in key)


async def failing_ship(branch):
    with pytest.raises(MemoturnError):
        await branch.owned.shipper.ship()


async def test_segment_that_is_sent_again_soon_keeps_its_name_and_later_gets_another(shipped, clock):
    store, branch = shipped
    await branch.write(put("x", "1"))
    store.faults.append(Fault(FaultKind.LOST_REQUEST, {"put_if_match"}, times=None))
    before = len(segments_in(store))

    await failing_ship(branch)
    await failing_ship(branch)
    assert len(segments_in(store)) == before + 1, "the same bytes under the same name"
    clock.ahead_s += REUSE_S + 1
    await failing_ship(branch)
    first, second = segments_in(store)[-2:]
    assert first[:-33] == second[:-33], "the same rounds"

    await store.delete(first)  # as the collector would
    await store.delete(second)
    clock.ahead_s += REUSE_S + 1
    store.faults.clear()
    await branch.owned.shipper.ship()
    current = await manifest_of(store, branch)
    named = [layout.object_key(current.db, ref) for ref in current.objects]
    assert set(named) <= set(store.inner._objects), "every object that is named is there"
    assert (await branch.read(everything)).value == {"x": "1"}


async def test_swap_of_the_first_name_that_lands_late_is_not_repeated(shipped, clock):
    store, branch = shipped
    await branch.write(put("x", "1"))
    store.faults.append(Fault(FaultKind.LOST_REPLY, {"put_if_match"}, times=1))
    store.faults.append(Fault(FaultKind.STATUS_503, {"get"}, key="manifest", times=None))
    await failing_ship(branch)
    clock.ahead_s += REUSE_S + 1
    store.faults.clear()

    await branch.owned.shipper.ship()

    current = await manifest_of(store, branch)
    assert current.head_txid == branch.txid == branch.durable_txid
    assert [ref.max for ref in current.segments].count(branch.txid) == 1


async def test_join_that_waited_too_long_for_a_swap_is_dropped(shipped, clock):
    store, branch = shipped
    shipper = branch.owned.shipper
    while shipper.compactor.running is None:
        await branch.write(put("x", "v"), durability=Durability.DURABLE)
    await asyncio.wait([shipper.compactor.running])
    assert shipper._notes
    inputs = len((await manifest_of(store, branch)).segments)
    assert inputs >= compaction.JOIN_SEGMENTS - 1
    clock.ahead_s += REUSE_S + 1

    await branch.write(put("x", "last"), durability=Durability.DURABLE)

    current = await manifest_of(store, branch)
    assert len(current.segments) == inputs + 1, "nothing was joined"
    assert not shipper._notes
