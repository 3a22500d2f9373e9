"""A node reached directly forwards what another one owns, and nothing is lost on the way."""

import asyncio
import time

import httpx
import pytest
from gateway_support import served
from node_support import cluster, gateway_of

from memoturnd.leases.local import LocalLeases

KEY = "/v1/db/notes/kv/n/k"


@pytest.fixture
async def two(tmp_path):
    async with cluster(tmp_path, "n1", "n2") as made:
        yield made


@pytest.fixture
async def client():
    async with httpx.AsyncClient(timeout=20) as client:
        yield client


async def owned_by_first(two, client):
    """A database that n1 owns, and n1's and n2's addresses."""
    one, other = two.nodes["n1"].url, two.nodes["n2"].url
    assert (await client.post(f"{one}/v1/databases", json={"name": "notes"})).status_code == 201
    assert (await client.put(one + KEY, content=b"1")).status_code == 200
    return one, other


async def test_a_write_and_a_read_by_another_node_are_the_owners(two, client):
    one, other = await owned_by_first(two, client)

    put = await client.put(
        other + KEY, content=b"2", headers={"Memoturn-Durability": "durable", "Memoturn-Request-Id": "r"}
    )
    read = await client.get(other + KEY)

    assert put.status_code == 200
    assert put.headers["memoturn-durability"] == "durable"
    assert put.headers.get_list("memoturn-request-id") == ["r"]
    assert (read.content, read.headers["memoturn-txid"]) == (b"2", put.headers["memoturn-txid"])
    assert (await client.get(one + KEY)).content == b"2"
    assert {placed.owner.node_id for placed in two.table.placed.values()} == {"n1"}


async def test_bodies_of_what_is_forwarded_count_while_they_come(two, client):
    one, other = await owned_by_first(two, client)
    bodies = two.nodes["n2"].node.metrics
    arrived = asyncio.Event()

    async def pieces():
        yield b"x" * 400_000
        await arrived.wait()
        yield b"x"

    def held_bytes():
        return bodies.body_bytes.collect()[0].samples[0].value

    sending = asyncio.create_task(client.put(other + KEY, content=pieces()))
    async with asyncio.timeout(5):
        while held_bytes() < 400_000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    arrived.set()

    assert (await sending).status_code == 200
    assert held_bytes() == 0
    assert len((await client.get(one + KEY)).content) == 400_001


async def test_errors_heads_and_empty_answers_come_back_as_the_owner_gave_them(two, client):
    one, other = await owned_by_first(two, client)

    for method, path in [("HEAD", KEY), ("GET", KEY + "x"), ("DELETE", KEY), ("GET", "/v1/db/notes/kv/n")]:
        direct = await client.request(method, one + path)
        if method == "DELETE":
            await client.put(one + KEY, content=b"1")
        hop = await client.request(method, other + path)
        changing = {"date", "memoturn-request-id", "memoturn-txid", "memoturn-durable-txid"}
        kept = [{k: v for k, v in answer.headers.items() if k not in changing} for answer in (direct, hop)]
        assert (hop.status_code, hop.content, kept[1]) == (direct.status_code, direct.content, kept[0])


async def test_what_is_forwarded_already_is_not_forwarded_again(two, client):
    one, other = await owned_by_first(two, client)

    answer = await client.put(other + KEY, content=b"2", headers={"Memoturn-Forwarded": "1"})

    assert (answer.status_code, answer.json()["code"]) == (421, "not_owner")
    assert answer.headers["memoturn-applied"] == "false"
    assert (answer.headers["memoturn-owner-node"], answer.headers["memoturn-owner"]) == ("n1", one)
    assert answer.headers["memoturn-owner-epoch"] == str(two.table.epoch)
    assert (await client.get(one + KEY)).content == b"1"


async def test_a_large_file_and_a_stream_of_lines_go_through_a_node(two, client):
    one, other = await owned_by_first(two, client)
    for number in range(3):
        await client.put(f"{one}/v1/db/notes/kv/n/k{number}", content=b"x" * 1_000_000)

    direct = await client.get(f"{one}/v1/db/notes/export")
    hop = await client.get(f"{other}/v1/db/notes/export")

    assert hop.status_code == 200
    assert hop.content[:16] == b"SQLite format 3\0"
    assert len(hop.content) == len(direct.content) > 3_000_000


async def test_branches_of_one_database_may_have_different_owners(two, client):
    one, other = await owned_by_first(two, client)
    made = await client.post(f"{other}/v1/db/notes/branches", json={"name": "feature"})
    assert made.status_code == 201

    put = await client.put(
        f"{other}/v1/db/notes@feature/kv/n/k", content=b"3", headers={"Memoturn-Durability": "durable"}
    )

    assert put.status_code == 200
    fork = await client.post(f"{one}/v1/db/notes@main/branches", json={"name": "third", "from": "feature"})
    assert fork.status_code == 201
    assert (await client.get(f"{one}/v1/db/notes@third/kv/n/k")).content == b"3"


async def test_an_owner_that_gives_back_leaves_the_request_to_who_has_it(two, client):
    _, other = await owned_by_first(two, client)
    await two.nodes["n1"].leases.close()

    put = await client.put(other + KEY, content=b"2")

    assert put.status_code == 200
    assert {placed.owner.node_id for placed in two.table.placed.values()} == {"n2"}


async def test_through_a_gateway_databases_are_spread_and_each_is_found_again(two, client):
    async with gateway_of(two) as parts:
        for number in range(12):
            name = f"db{number}"
            assert (await client.post(f"{parts.url}/v1/databases", json={"name": name})).status_code == 201
            put = await client.put(f"{parts.url}/v1/db/{name}/kv/n/k", content=name.encode())
            assert put.status_code == 200, put.text
        owners = {placed.database: placed.owner.node_id for placed in two.table.placed.values()}
        for number in range(12):
            assert (
                await client.get(f"{parts.url}/v1/db/db{number}/kv/n/k")
            ).content == f"db{number}".encode()
        assert parts.placements.owners == 12

    assert set(owners.values()) == {"n1", "n2"}
    assert {placed.database: placed.owner.node_id for placed in two.table.placed.values()} == owners


async def test_a_gateway_that_knows_the_wrong_owner_is_told_and_no_client_sees_it(two, client):
    from memoturnd.seams.leases import Owner, Placed

    _, other = await owned_by_first(two, client)
    async with gateway_of(two) as parts:
        [placed] = two.table.placed.values()
        parts.placements.take(Placed(placed.branch_id, "notes", "main", Owner("n2", other, 0)))

        put = await client.put(parts.url + KEY, content=b"2")

        assert put.status_code == 200
        assert parts.placements.owner(("notes", "main")).node_id == "n1"


async def test_writes_go_on_through_a_gateway_while_branches_change_hands(two, client):
    await owned_by_first(two, client)
    statuses = []

    async def write(stop):
        while not stop.is_set():
            answer = await client.post(f"{parts.url}/v1/db/notes/kv/n/count/increment", json={})
            statuses.append((answer.status_code, answer.text))

    async with gateway_of(two) as parts:
        stop = asyncio.Event()
        writing = [asyncio.create_task(write(stop)) for _ in range(4)]
        for _ in range(3):
            for name in ("n1", "n2"):
                await asyncio.sleep(0.1)
                for branch in list(two.nodes[name].node.tiers._all.values()):
                    if branch.is_ours:
                        await branch.close()
                        await branch.give_back()
        stop.set()
        await asyncio.gather(*writing)
        total = (await client.get(f"{parts.url}/v1/db/notes/kv/n/count")).text

    assert {status for status, _ in statuses} == {200}
    assert int(total) == len(statuses)


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_an_owner_that_says_nothing_is_waited_for_until_its_lease_ends(two, client, method):
    _, other = await owned_by_first(two, client)
    [branch] = [one for one in two.nodes["n1"].node.tiers._all.values() if one.is_ours]
    await branch.close()
    await branch.give_back()
    ended = asyncio.Event()

    async def silent(scope, receive, send):
        del scope, receive, send
        await ended.wait()

    async with served(silent) as address:
        await _waits_for(address, two, client, method, branch, other)
        ended.set()


async def _waits_for(address, two, client, method, branch, other):
    paused = LocalLeases("n3", address, two.table)
    await paused.acquire(branch.branch_id, database="notes", branch="main")

    headers = {"Idempotency-Key": "k"}
    asking = asyncio.create_task(client.request(method, other + KEY, content=b"2", headers=headers))
    await asyncio.sleep(0.3)
    assert not asking.done()
    await paused.close()

    began_s = time.monotonic()
    assert (await asking).status_code == 200
    assert time.monotonic() - began_s < 2
