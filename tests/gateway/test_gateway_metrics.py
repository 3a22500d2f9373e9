"""What a gateway measures: by route and never by name, and what it knows of the cluster."""

import httpx
from gateway_support import behind_gateway, gateway

OWNERS = {("app--known", "main"): ("n0", 1)}


async def scraped(client):
    lines = (await client.get("/metrics")).text.splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[:1] != "#")
    }


async def hammer(client, numbers):
    for n in numbers:
        await client.get(f"/v1/db/app--p{n}/kv/ns{n}/key{n}", headers={"memoturn-tenant": f"t{n}"})
        await client.post(f"/v1/memory/ns{n}/p{n}/recall", json={"query": f"s{n}"})
        await client.get(f"/nowhere/{n}")
        await client.request("PROPFIND", f"/v1/db/app--p{n}/kv/ns{n}/key{n}")


async def test_no_number_of_names_makes_more_series():
    async with behind_gateway() as (parts, _), httpx.AsyncClient(base_url=parts.url) as client:
        await hammer(client, range(2))
        few = await scraped(client)
        await hammer(client, range(2, 100))
        many = await scraped(client)

    assert many.keys() == few.keys()
    key = 'route="/v1/db/{db}/kv/{ns}/{key}",status="2xx"'
    assert many[f'memoturn_gateway_request_seconds_count{{method="GET",{key}}}'] == 100
    assert many[f'memoturn_gateway_request_seconds_count{{method="other",{key}}}'] == 100
    assert many['memoturn_gateway_request_seconds_count{method="GET",route="unmatched",status="2xx"}'] == 100


async def test_looks_for_owners_and_told_changes_are_counted():
    async with (
        behind_gateway(owners=OWNERS) as (parts, _),
        httpx.AsyncClient(base_url=parts.url) as client,
    ):
        for name in ("known", "known", "new"):
            await client.get(f"/v1/db/app--{name}/kv/ns/k")
        told = await scraped(client)

    assert told['memoturn_gateway_placement_reads_total{outcome="hit"}'] == 2
    assert told['memoturn_gateway_placement_reads_total{outcome="miss"}'] == 1
    assert told["memoturn_gateway_watch_changes_total"] == 1
    assert told["memoturn_gateway_can_route"] == 1


async def test_a_gateway_that_cannot_route_says_so():
    async with gateway() as parts, httpx.AsyncClient(base_url=parts.url) as client:
        assert (await scraped(client))["memoturn_gateway_can_route"] == 0
