"""Feeds through a gateway and through a node that does not own the branch, while owners are stopped and killed."""

import asyncio
import contextlib
import itertools
import json

import httpx

DB = "feeds--ann"
PHASE = 15


class Follower:
    """Follows by events through one of some addresses after the other, and comes again by the last id, as an event source does."""

    def __init__(self, urls, headers):
        self.told = []
        self.resets = 0
        self.ends = []
        self.last = "0"
        self._urls = itertools.cycle([f"{url}/v1/db/{DB}/changes" for url in urls])
        self._headers = {**headers, "Accept": "text/event-stream"}

    async def run(self):
        async with httpx.AsyncClient(timeout=30) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    await self._read(client)
                await asyncio.sleep(0.1)

    async def _read(self, client):
        headers = {**self._headers, "Last-Event-ID": self.last}
        async with client.stream("GET", next(self._urls), headers=headers) as answer:
            if answer.status_code != 200:
                return
            event = {}
            async for line in answer.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    event[name] = value
                    continue
                self._take(event)
                event = {}

    def _take(self, event):
        self.last = event.get("id", self.last)
        match event.get("event"):
            case "change":
                self.told.append(json.loads(event["data"])["txid"])
            case "reset":
                self.resets += 1
            case "end":
                self.ends.append(json.loads(event["data"])["reason"])


async def put(client, headers, n):
    """Put a key durably, until it is acknowledged; return its txid."""
    async with asyncio.timeout(30):
        while True:
            try:
                answer = await client.put(
                    f"/v1/db/{DB}/kv/ns/k{n}",
                    content=b"x",
                    headers={**headers, "Memoturn-Durability": "durable", "Idempotency-Key": f"put-{n}"},
                )
            except httpx.HTTPError:
                answer = None
            if answer is not None and answer.is_success:
                return int(answer.headers["memoturn-txid"])
            await asyncio.sleep(0.1)


async def test_no_feed_loses_or_repeats_a_commit_when_owners_stop_and_die(cluster):
    headers = cluster.bearer(cluster.token(ns="feeds"))
    gateway = cluster.gateways[0].url
    async with httpx.AsyncClient(base_url=gateway, timeout=30) as client:
        answer = await client.post(
            "/v1/memory/feeds/ann/memories",
            headers=headers,
            json={"memories": [{"type": "event", "summary": "begins"}]},
        )
        assert answer.status_code == 201, answer.text
        acknowledged = [int(answer.headers["memoturn-txid"])]
        followers = [
            Follower([gateway], headers),
            Follower([node.url for node in cluster.nodes], headers),
        ]
        tasks = [asyncio.create_task(one.run()) for one in followers]
        try:
            for phase, end in enumerate(("stop", "kill", None)):
                first = PHASE * phase
                acknowledged += [await put(client, headers, first + n) for n in range(PHASE)]
                owner = cluster.owner_node(DB)
                if end is not None:
                    await asyncio.to_thread(owner.stop if end == "stop" else owner.kill)
            acknowledged.append(await put(client, headers, 1000))
            async with asyncio.timeout(20):
                for one in followers:
                    while not one.told or one.told[-1] < acknowledged[-1]:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.05)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    for one in followers:
        assert one.told == acknowledged, one.ends
        assert one.resets == 0
    assert any("stopping" in one.ends for one in followers)
