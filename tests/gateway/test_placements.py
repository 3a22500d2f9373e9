"""What a gateway knows of the cluster, without a cluster."""

import asyncio

import pytest

from gateway.placements import PlacementCache
from memoturnd.seams.leases import LiveNode, Owner, Placed, Placements

KEY = ("app--ann", "main")
NODE = LiveNode("n1", "http://127.0.0.1:1")
PLACED = Placed("b", *KEY, Owner("n1", NODE.address, 7))


@pytest.mark.parametrize("change", [PLACED, NODE, Placements((PLACED,), (NODE,))])
async def test_who_waits_for_an_owner_is_woken_in_the_order_of_coming(change):
    cache = PlacementCache(now_s=asyncio.get_running_loop().time)
    woken = []

    async def wait(number):
        await cache.changed(KEY, 5)
        woken.append(number)

    async with asyncio.timeout(2), asyncio.TaskGroup() as tasks:
        for number in range(50):
            tasks.create_task(wait(number))
            await asyncio.sleep(0)
        cache.take(change)

    assert woken == list(range(50))


async def test_who_waits_in_vain_goes_on_and_is_forgotten():
    cache = PlacementCache(now_s=asyncio.get_running_loop().time)
    async with asyncio.timeout(2):
        await asyncio.gather(*(cache.changed(key, 0.01) for key in (KEY, KEY, None)))

    assert not cache._waiting
