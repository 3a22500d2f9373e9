"""Limits and usage of a real node: what survives a kill, and what a flood costs others."""

import asyncio
import statistics
import time

import httpx
from calls import Profile, ok

KEY = "/v1/db/app--ann/kv/ns/k"


def usage(client):
    return ok(client.get("/v1/namespaces/app/usage")).json()["days"]


def within(seconds, condition):
    deadline_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline_s, "not in time"
        time.sleep(0.05)


def test_quotas_stay_and_a_kill_takes_no_more_usage_than_one_flush(home):
    node = home.start(USAGE_FLUSH_S="1", CONTROL_RATE="1000")
    with httpx.Client(base_url=node.url) as client:
        Profile(client, "ann")
        ok(client.put("/v1/namespaces/app/quotas", json={"memories": 5, "writes_per_s": 0.001}))
        ok(client.post("/v1/memory/app/ann/memories", json={"memories": [{"type": "event", "summary": "x"}]}))
        within(10, lambda: usage(client) and usage(client)[0]["memories"] == 1)
        before = usage(client)[0]["requests"]
        ok(client.get("/v1/memory/app/ann/topics"))
    node.kill()

    node = home.start(USAGE_FLUSH_S="1", CONTROL_RATE="1000")
    with httpx.Client(base_url=node.url) as client:
        [day] = usage(client)
        assert (day["memories"], day["writes"]) == (1, 1)
        assert before <= day["requests"] <= before + 1
        shown = ok(client.get("/v1/namespaces/app/quotas")).json()
        assert shown["quotas"]["memories"] == 5
        batch = {"memories": [{"type": "event", "summary": "y"}]}
        answers = [client.post("/v1/memory/app/ann/memories", json=batch) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 429]
        assert answers[1].headers["memoturn-limit"] == "writes_per_s"


async def test_a_flood_of_refusals_is_answered_slowly_and_others_at_once(home):
    node = home.start(CONTROL_RATE="1000")
    limits = httpx.Limits(max_connections=200)
    async with (
        httpx.AsyncClient(base_url=node.url, limits=limits, timeout=30) as client,
        httpx.AsyncClient(base_url=node.url, timeout=30) as quiet,
    ):
        await client.put("/v1/namespaces/app/quotas", json={"requests_per_s": 0})
        counts = {200: 0, 404: 0, 429: 0}
        until_s = time.monotonic() + 3

        async def hammer():
            while time.monotonic() < until_s:
                counts[(await client.get(KEY)).status_code] += 1

        async def other():
            took_s = []
            while time.monotonic() < until_s:
                began_s = time.monotonic()
                assert (await quiet.get("/v1/db/web--ann/kv/ns/k")).status_code == 404
                took_s.append(time.monotonic() - began_s)
                await asyncio.sleep(0.02)
            return statistics.median(took_s)

        *_, usual_s = await asyncio.gather(*(hammer() for _ in range(60)), other())

    assert counts[200] == 0
    assert 60 <= counts[429] <= 3 * 2.5 * 60, "each connection gets about one a second"
    assert (
        usual_s < 0.2
    )  # how much more it is for others than alone is measured by `python -m bench --only fairness`
