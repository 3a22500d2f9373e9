"""How many requests a background pass has under way."""

import asyncio

import pytest
from family import Family, MovedClock

from memoturnd.replication import collector, few_at_once
from memoturnd.replication.few_at_once import FEW, MANY, MORE, each


class Desk:
    """Work that counts itself; `late` says whether foreground work is late at the n-th item."""

    def __init__(self, late=lambda _done: False):
        self.late = late
        self.done = []
        self.running = 0
        self.most = []
        self.clock = MovedClock()

    async def work(self, item):
        self.running += 1
        self.most.append(self.running)
        await asyncio.sleep(0)
        self.done.append(item)
        self.running -= 1

    async def run(self, count):
        is_busy = lambda: self.late(len(self.done))  # noqa: E731 - read at each look
        await asyncio.wait_for(each(range(count), self.work, clock=Yielding(), is_busy=is_busy), 30)
        assert sorted(self.done) == list(range(count))


class Yielding(MovedClock):
    """Time that passes at once, and lets others run."""

    async def sleep(self, seconds):
        self.at_s += seconds
        await asyncio.sleep(0)


@pytest.mark.parametrize(("count", "most"), [(0, 0), (3, 3), (MANY, FEW), (MANY + 1, MORE)])
async def test_few_requests_are_under_way_and_more_where_there_are_many(count, most):
    desk = Desk()
    await desk.run(count)
    assert max(desk.most, default=0) == most


async def test_while_foreground_work_is_late_there_are_few_however_many_wait():
    desk = Desk(late=lambda done: done < MANY)
    await desk.run(2 * MANY)
    assert max(desk.most[:MANY]) == FEW
    assert max(desk.most) == MORE

    always = Desk(late=lambda _done: True)
    await always.run(2 * MANY)
    assert max(always.most) == FEW


async def test_error_ends_its_worker_and_is_raised_when_the_others_are_done():
    done = []

    async def work(item):
        await asyncio.sleep(0)
        if item == 1:
            raise ValueError("one")
        done.append(item)

    with pytest.raises(ValueError, match="one"):
        await each(range(9), work, clock=MovedClock(), is_busy=lambda: False)
    assert done == [0, 2, 3, 4, 5, 6, 7, 8]


class Slow:
    """A store that answers each GET of a manifest some turns of the loop later, and counts those under way."""

    def __init__(self, inner):
        self.inner = inner
        self.running = self.most = 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    async def get(self, key):
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(3):
            await asyncio.sleep(0)
        self.running -= 1
        return await self.inner.get(key)


async def test_manifests_of_many_forks_are_read_side_by_side_new_deleted_or_neither(monkeypatch):
    """One after another they would take longer than a chore may, at the latency of a bucket."""
    monkeypatch.setattr(few_at_once, "MANY", 15)
    family = await Family().begin()
    for number in range(20):
        await family.fork(f"f{number}", f"{number:016x}")

    most = []
    for prepare in ("new", "settled", "deleted"):
        if prepare == "deleted":
            for number in range(20):
                await family.delete(f"f{number}")
        slow = Slow(family.store)
        with monkeypatch.context() as only:
            if prepare != "settled":  # what comes before the marking
                only.setattr(collector.Collector, "_collect_live", _nothing)
            await family.collect(slow)
        most.append(slow.most)

    assert most == [MORE, MORE, MORE]
    assert len(await family.branches()) == 21


async def _nothing(_self, _file):
    return 0, None
