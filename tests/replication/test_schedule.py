"""Which branch is shipped when: with a clock that the test moves, and shippers that only count."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from memoturnd.errors import FencedError, StoreUnavailableError
from memoturnd.replication.schedule import ShipScheduler


class Hands:
    """A clock whose hands the test moves; sleeping is not used by the scheduler."""

    def __init__(self):
        self.now_s = 1000.0

    def now_ms(self):
        return int(self.now_s * 1000)

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, seconds):
        await asyncio.sleep(0)


class Ship:
    """What the scheduler sees of a branch."""

    def __init__(self, name, ships):
        self.label = name
        self.dirty_since_s = None
        self.urgent = False
        self.stopped = False
        self.error = None
        self.hold = None
        self.more = False
        """Whether a commit arrives while the next ship is under way."""
        self._ships = ships

    async def ship(self):
        self._ships.append(self.label)
        self.urgent = False
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        self.dirty_since_s = 1.0 if self.more else None
        self.more = False


class Rig:
    def __init__(self, *, interval_s=0.2, rate_per_s=100.0, concurrency=4):
        self.clock = Hands()
        self.ships = []
        self.scheduler = ShipScheduler(
            self.clock, interval_s=interval_s, rate_per_s=rate_per_s, concurrency=concurrency
        )

    def branch(self, name):
        return Ship(name, self.ships)

    def dirty(self, ship):
        ship.dirty_since_s = self.clock.now_s
        self.scheduler.note(ship, urgent=False)

    def wait_for(self, ship):
        ship.dirty_since_s = ship.dirty_since_s or self.clock.now_s
        ship.urgent = True
        self.scheduler.note(ship, urgent=True)

    async def pass_s(self, seconds, step_s=0.05):
        """Move the clock on in steps, letting the scheduler look after each; return what was shipped."""
        before = len(self.ships)
        for _ in range(round(seconds / step_s)):
            self.clock.now_s += step_s
            self.scheduler._changed.set()
            for _ in range(6):
                await asyncio.sleep(0)
        return self.ships[before:]


@asynccontextmanager
async def running(**settings):
    rig = Rig(**settings)
    task = asyncio.ensure_future(rig.scheduler.run())
    await asyncio.sleep(0)
    try:
        yield rig
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_dirty_branch_is_shipped_one_interval_later_and_once():
    async with running() as rig:
        rig.dirty(rig.branch("a"))

        assert await rig.pass_s(0.15) == []
        assert await rig.pass_s(0.1) == ["a"]
        assert await rig.pass_s(1) == []


async def test_branch_that_somebody_waits_for_is_shipped_at_once():
    async with running() as rig:
        rig.dirty(rig.branch("early"))
        rig.wait_for(rig.branch("awaited"))

        assert await rig.pass_s(0.05) == ["awaited"]
        assert await rig.pass_s(0.2) == ["early"]


async def test_branch_that_becomes_urgent_is_shipped_once():
    async with running() as rig:
        branch = rig.branch("a")
        rig.dirty(branch)
        rig.wait_for(branch)
        rig.wait_for(branch)

        assert await rig.pass_s(1) == ["a"]


async def test_rate_bounds_the_ships_and_the_oldest_go_first():
    async with running(rate_per_s=10.0) as rig:
        for n in range(60):
            rig.dirty(rig.branch(n))
        first = await rig.pass_s(0.25)

        assert first == list(range(len(first)))
        assert 10 <= len(first) <= 14, "what was saved up, then ten a second"
        later = await rig.pass_s(2)
        assert 18 <= len(later) <= 22
        assert rig.ships == list(range(len(rig.ships)))


async def test_no_more_ships_at_once_than_slots():
    async with running(concurrency=2) as rig:
        go = asyncio.Event()
        for n in range(5):
            branch = rig.branch(n)
            branch.hold = go
            rig.dirty(branch)

        assert await rig.pass_s(1) == [0, 1]
        go.set()
        assert await rig.pass_s(0.1) == [2, 3, 4]


async def test_branch_that_fails_backs_off_alone():
    """Guard: `_failures` per branch in memoturnd.replication.schedule.ShipScheduler._ship."""
    async with running() as rig:
        bad, good = rig.branch("bad"), rig.branch("good")
        bad.error = StoreUnavailableError("no")
        rig.dirty(bad)
        shipped = []
        for _ in range(50):
            rig.dirty(good)
            shipped += await rig.pass_s(0.4)

        assert shipped.count("good") == 50
        assert 6 <= shipped.count("bad") <= 12, "0.1 s, doubled up to 5 s, over 20 s"
        bad.error = None
        assert "bad" in await rig.pass_s(6)
        assert "bad" not in await rig.pass_s(6)


async def test_bug_in_one_branch_does_not_stop_the_others():
    async with running() as rig:
        bad, good = rig.branch("bad"), rig.branch("good")
        bad.error = ZeroDivisionError()
        rig.dirty(bad)
        await rig.pass_s(0.3)
        rig.dirty(good)

        assert "good" in await rig.pass_s(0.3)


@pytest.mark.parametrize("error", [FencedError("x"), None])
async def test_branch_that_stopped_is_not_shipped_again(error):
    async with running() as rig:
        branch = rig.branch("a")
        branch.error = error
        rig.dirty(branch)
        branch.stopped = True
        await rig.pass_s(0.3)
        branch.dirty_since_s = 1.0

        assert await rig.pass_s(6) == []


async def test_dropped_branch_is_forgotten():
    async with running() as rig:
        branch = rig.branch("a")
        rig.dirty(branch)
        rig.scheduler.drop(branch)

        assert await rig.pass_s(1) == []


async def test_commit_during_a_ship_gets_a_ship_of_its_own():
    """Guard: the look at `dirty_since_s` when a ship has ended, in ShipScheduler._ship."""
    async with running() as rig:
        branch = rig.branch("a")
        branch.hold, branch.more = asyncio.Event(), True
        rig.dirty(branch)
        await rig.pass_s(0.25)
        rig.scheduler.note(branch, urgent=False)
        assert await rig.pass_s(1) == []

        branch.hold.set()

        assert await rig.pass_s(0.15) == []
        assert await rig.pass_s(0.2) == ["a"]
        assert await rig.pass_s(1) == []


async def test_urgent_branch_that_fails_is_not_hammered():
    async with running() as rig:
        branch = rig.branch("a")
        branch.error = StoreUnavailableError("no")
        rig.wait_for(branch)

        assert 3 <= len(await rig.pass_s(2)) <= 6
