"""The gates: how often, and how many at once."""

import asyncio

import pytest
from http_support import HandClock

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
    waiting = [asyncio.create_task(slots.enter()) for _ in range(WAITERS_PER_SLOT)]
    await asyncio.sleep(0)

    with pytest.raises(OverloadedError, match="1 requests are running and 8 wait"):
        await slots.enter()

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
