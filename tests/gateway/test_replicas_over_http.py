"""Replicas of nodes that ask one another over HTTP."""

import asyncio

import httpx
from node_support import cluster

from memoturnd.engine import replicas as following
from memoturnd.http import changes

KEY = "k" * 32
CACHED = {"memoturn-consistency": "cached"}


async def until(true, wait_s=10.0):
    async with asyncio.timeout(wait_s):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_replica_follows_its_owner_and_is_told_of_a_deletion(tmp_path):
    env = {"CLUSTER_KEY": KEY, "SHIP_INTERVAL_MS": "20"}
    async with cluster(tmp_path, "n1", "n2", **env) as nodes, httpx.AsyncClient() as client:
        one, two = nodes.nodes["n1"], nodes.nodes["n2"]
        await client.post(f"{one.url}/v1/databases", json={"name": "d"})

        async def put(value):
            answer = await client.put(
                f"{one.url}/v1/db/d/kv/n/k", content=value, headers={"memoturn-durability": "durable"}
            )
            assert answer.status_code == 200

        async def read():
            return await client.get(f"{two.url}/v1/db/d/kv/n/k", headers=CACHED)

        await put(b"1")
        assert (await read()).content == b"1"

        async def is_followed():
            return len(one.node._services.subscribers) == 1

        await until(is_followed)
        for value in (b"2", b"3"):
            await put(value)

        async def is_pushed():
            return (await read()).content == b"3"

        await until(is_pushed)
        assert two.node.metrics.replica_steps["pushed"]._value.get() >= 1
        assert int((await read()).headers["memoturn-replica-age-ms"]) < 2000
        assert (await client.delete(f"{one.url}/v1/databases/d")).is_success

        async def is_gone():
            return two.node.metrics.replica_steps["dropped"]._value.get() == 1

        await until(is_gone, wait_s=3)


async def test_a_feed_at_a_replica_goes_on_while_nobody_else_reads_there(tmp_path, monkeypatch):
    monkeypatch.setattr(following, "UNUSED_S", 1.5)
    monkeypatch.setattr(changes, "LOOK_S", 0.3)
    env = {"CLUSTER_KEY": KEY, "SHIP_INTERVAL_MS": "20", "WARM_AFTER_S": "2"}
    async with cluster(tmp_path, "n1", "n2", **env) as nodes, httpx.AsyncClient(timeout=20) as client:
        one, two = nodes.nodes["n1"], nodes.nodes["n2"]
        await client.post(f"{one.url}/v1/databases", json={"name": "d"})
        url, told = f"{two.url}/v1/db/d/changes", []
        note = told.append

        async def put(value):
            await client.put(
                f"{one.url}/v1/db/d/kv/n/k", content=value, headers={"memoturn-durability": "durable"}
            )

        async def follow():
            headers = {**CACHED, "accept": "text/event-stream"}
            async with client.stream("GET", url, params={"since": 0}, headers=headers) as answer:
                async for line in answer.aiter_lines():
                    note(line)

        async def has_told(count):
            assert "event: end" not in told
            return told.count("event: change") == count

        await put(b"1")
        task = asyncio.create_task(follow())
        await until(lambda: has_told(1))
        await put(b"2")
        await until(lambda: has_told(2))  # pushed
        await asyncio.sleep(4)  # beyond what an unused replica is followed and kept open for
        await put(b"3")
        await until(lambda: has_told(3), wait_s=3)

        async def polled():
            asked = {"since": 4, "wait_s": 10}
            while not (found := (await client.get(url, params=asked, headers=CACHED)).json()["changes"]):
                pass  # a poll may end early, where the copy is just replaced
            return [one["txid"] for one in found]

        late = asyncio.create_task(polled())
        await asyncio.sleep(0.5)
        await put(b"4")
        assert await asyncio.wait_for(late, 10) == [5]

        await client.delete(f"{one.url}/v1/databases/d")
        await asyncio.wait_for(task, 5)
        assert "event: end" in told
