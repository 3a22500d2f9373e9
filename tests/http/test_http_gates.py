"""The gates: how often, and how many at once."""

import asyncio
from random import Random

import pytest
from harness import HandClock

from memoturnd.core.limits import Owner
from memoturnd.errors import OverloadedError
from memoturnd.http.gates import WAITERS_PER_SLOT, BodyMemory, InFlight, TokenBucket


def test_bucket_gives_a_burst_of_twice_its_rate_then_refuses():
    bucket = TokenBucket(10, HandClock())

    for _ in range(20):
        bucket.take()
    with pytest.raises(OverloadedError, match="10 per second") as caught:
        bucket.take()

    assert caught.value.retry_after_s == 1


def test_bucket_fills_at_its_rate_and_not_beyond_the_burst():
    clock = HandClock()
    bucket = TokenBucket(10, clock)
    for _ in range(20):
        bucket.take()

    clock.at_s += 0.125
    bucket.take()
    with pytest.raises(OverloadedError):
        bucket.take()
    clock.at_s += 1000
    for _ in range(20):
        bucket.take()
    with pytest.raises(OverloadedError):
        bucket.take()


def test_bucket_of_a_slow_rate_still_lets_one_through_and_says_how_long_to_wait():
    bucket = TokenBucket(0.1, HandClock())

    bucket.take()
    with pytest.raises(OverloadedError) as caught:
        bucket.take()

    assert caught.value.retry_after_s == 10


async def test_one_more_than_the_limit_waits_until_a_slot_is_free():
    slots = InFlight(1)
    await slots.enter()

    waiting = asyncio.create_task(slots.enter())
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert (slots.running, slots.waiting, waiting.done()) == (1, 1, False)
    slots.leave()
    await waiting
    assert (slots.running, slots.waiting) == (1, 0)


async def test_waiting_is_bounded():
    slots = InFlight(1)
    await slots.enter()
    waiting = [asyncio.create_task(slots.enter(Owner(f"t{tenant}"))) for tenant in range(WAITERS_PER_SLOT)]
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError, match="1 requests are running and 8 wait"):
        await slots.enter(Owner("another"))

    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_waiter_that_gives_up_leaves_no_slot_taken():
    slots = InFlight(1)
    await slots.enter()
    waiting = asyncio.create_task(slots.enter())
    await asyncio.sleep(0)

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    slots.leave()
    await slots.enter()

    assert (slots.running, slots.waiting) == (1, 0)


APP, WEB, ACME = Owner("default", "app"), Owner("default", "web"), Owner("acme", "app")


async def fill(slots, owner, count):
    """Let so many requests come; return the tasks of those that wait, and how many were turned away."""
    tasks = [asyncio.create_task(slots.enter(owner)) for _ in range(count)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    refused = sum(task.done() and task.exception() is not None for task in tasks)
    return [task for task in tasks if not task.done()], refused


async def end(*tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_nobody_takes_all_slots_nor_all_places_to_wait():
    slots = InFlight(12)

    waiting, refused = await fill(slots, APP, 200)
    assert (slots.running, slots.waiting) == (8, 64)
    assert refused == 200 - 8 - 64

    more, _ = await fill(slots, WEB, 2)
    assert (more, slots.running) == ([], 10)
    more, _ = await fill(slots, ACME, 2)
    assert (more, slots.running) == ([], 12)
    more, refused = await fill(slots, Owner("third", "app"), 3)
    assert (len(more), refused) == (3, 0)

    await end(*waiting, *more)


async def test_a_slot_that_becomes_free_goes_to_each_tenant_and_namespace_in_turn():
    slots = InFlight(1)
    await slots.enter(APP)
    order, tasks = [], []

    async def one(owner, number):
        await slots.enter(owner)
        order.append((owner, number))
        slots.leave(owner)

    for owner, count in ((APP, 4), (WEB, 1), (ACME, 1)):
        tasks += [asyncio.create_task(one(owner, number)) for number in range(count)]
        await asyncio.sleep(0)
    slots.leave(APP)
    await asyncio.gather(*tasks)

    assert order == [(APP, 0), (ACME, 0), (WEB, 0), (APP, 1), (APP, 2), (APP, 3)]
    assert (slots.running, slots.waiting, slots._running, slots._waiting, len(slots._queues)) == (
        0,
        0,
        {},
        {},
        0,
    )


async def test_who_is_alone_gets_a_slot_at_once_while_another_fills_his_share():
    slots = InFlight(100)
    waiting, _ = await fill(slots, APP, 500)

    await asyncio.wait_for(slots.enter(ACME), 1)

    await end(*waiting)


@pytest.mark.parametrize("seed", range(20))
async def test_no_slot_is_lost_or_made_whoever_comes_leaves_and_gives_up(seed):
    random = Random(seed)
    slots = InFlight(random.randint(1, 8))
    owners = [Owner(f"t{tenant}", f"n{space}") for tenant in range(3) for space in range(2)]
    running, tasks = [], {}

    async def one(owner):
        await slots.enter(owner)
        running.append(owner)

    for _ in range(400):
        match random.randrange(4):
            case 0 | 1:
                owner = random.choice(owners)
                tasks[asyncio.create_task(one(owner))] = owner
            case 2 if running:
                slots.leave(running.pop(random.randrange(len(running))))
            case 3 if tasks:
                random.choice([*tasks]).cancel()
        for _ in range(random.randrange(3)):
            await asyncio.sleep(0)
        assert slots.running <= slots.limit
    while running or slots.waiting:
        for owner in running:
            slots.leave(owner)
        running.clear()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)

    assert (slots.running, slots.waiting, slots._running, slots._waiting) == (0, 0, {}, {})


def test_body_memory_is_full_at_its_limit_and_free_again_when_given_back():
    memory = BodyMemory(10)

    memory.take(4)
    memory.take(6)
    memory.take(0)
    with pytest.raises(OverloadedError, match="hold 10 of 10 bytes, too many for 1 more"):
        memory.take(1)
    memory.give(4)
    memory.take(4)

    assert memory.held_bytes == 10
