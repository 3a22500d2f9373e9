"""A node that stops gives its branches to others while it answers, and closes no connection that a request may be on."""

import asyncio
import time

import aiohttp
import httpx
import pytest
from node_support import cluster, gateway_of

from memoturnd.engine import shared_branch
from memoturnd.errors import NotOwnerError, StoreUnavailableError
from memoturnd.http.protocol import ConnectionLimits, bounded_protocol
from memoturnd.metrics import Metrics
from memoturnd.serving import Server, bind
from memoturnd.settings_table import Address


async def owned_by(one, client, *names):
    """Databases that the node owns, with a key in each."""
    for name in names:
        assert (await client.post("/v1/databases", json={"name": name})).status_code == 201
        branch = await one.node.profile(name)
        await branch.own()
        assert (await client.put(f"/v1/db/{name}/kv/n/k", content=b"1")).status_code == 200
        assert one.node.tiers.find(branch.branch_id).is_ours


async def test_writes_go_on_elsewhere_while_branches_are_handed_over(tmp_path):
    async with cluster(tmp_path, "n1", "n2") as made, gateway_of(made) as gateway:
        one, two = made.nodes["n1"], made.nodes["n2"]
        async with httpx.AsyncClient(base_url=gateway.url, timeout=30) as client:
            await owned_by(one, client, "a", "b")
            outcomes, done = [], asyncio.Event()

            async def write(name, number):
                count = 0
                while not done.is_set():
                    answer = await client.put(f"/v1/db/{name}/kv/n/{number}", content=b"%d" % count)
                    outcomes.append((answer.status_code, answer.text[:200]))
                    count += answer.status_code == 200
                return name, number, count - 1

            writing = [asyncio.create_task(write(name, n)) for name in "ab" for n in range(2)]
            await asyncio.sleep(0.2)
            assert await one.node.hand_over() == 0
            await asyncio.sleep(0.2)
            done.set()
            last = await asyncio.gather(*writing)
            assert {status for status, _ in outcomes} == {200}, outcomes[-3:]
            for name, number, count in last:
                assert (await client.get(f"/v1/db/{name}/kv/n/{number}")).content == b"%d" % count
            for name in "ab":
                branch_id = (await one.node.profile(name)).branch_id
                assert (await two.leases.owner_of(branch_id)).node_id == "n2"


async def test_a_node_that_stops_names_another_one_for_what_it_had_and_never_had(tmp_path):
    async with cluster(tmp_path, "n1", "n2") as made:
        one = made.nodes["n1"]
        async with httpx.AsyncClient(base_url=one.url, timeout=30) as client:
            await owned_by(one, client, "had")
            await client.post("/v1/databases", json={"name": "new"})
            await one.node.hand_over()
            for name in ("had", "new"):
                told = await client.put(
                    f"/v1/db/{name}/kv/n/k", content=b"2", headers={"Memoturn-Forwarded": "1"}
                )
                assert told.status_code == 421
                assert told.headers["memoturn-applied"] == "false"
                assert told.headers["memoturn-owner-node"] == "n2"
                assert (await client.put(f"/v1/db/{name}/kv/n/k", content=b"3")).status_code == 200
                assert (await client.get(f"/v1/db/{name}/kv/n/k")).content == b"3"


async def test_a_closed_branch_is_given_back_as_soon_as_it_is_asked_for(tmp_path):
    """Many may be closed and kept: who needs one does not wait for its turn."""
    async with cluster(tmp_path, "n1", "n2") as made:
        one, two = made.nodes["n1"], made.nodes["n2"]
        async with httpx.AsyncClient(base_url=one.url, timeout=30) as client:
            await owned_by(one, client, "warm")
            branch = await one.node.profile("warm")
            assert await branch.close()
            assert branch.lease is not None
            one.node._services.draining.begin()
            with pytest.raises(NotOwnerError) as refused:
                await branch.write(lambda _conn, _now_ms: (None, True))
            assert refused.value.owner.node_id == "n2"
            assert await two.leases.owner_of(branch.branch_id) is None


async def test_nobody_is_named_where_nobody_else_is_there(tmp_path):
    async with cluster(tmp_path, "n1") as made:
        one = made.nodes["n1"]
        async with httpx.AsyncClient(base_url=one.url, timeout=30) as client:
            await owned_by(one, client, "only")
            await one.node.hand_over()
            answer = await client.put("/v1/db/only/kv/n/k", content=b"2")
            assert (answer.status_code, answer.headers["memoturn-applied"]) == (503, "false")
            assert (await client.get("/v1/db/only/kv/n/k")).content == b"1"


async def test_a_branch_that_cannot_be_shipped_goes_on_being_served(tmp_path, monkeypatch):
    monkeypatch.setattr(shared_branch, "CLOSE_AGAIN_S", 0.001)
    async with cluster(tmp_path, "n1", "n2") as made:
        one = made.nodes["n1"]
        async with httpx.AsyncClient(base_url=one.url, timeout=30) as client:
            await owned_by(one, client, "stuck")
            branch = await one.node.profile("stuck")

            async def refuse():
                raise StoreUnavailableError("the store is away")

            monkeypatch.setattr(branch.owned.shipper, "ship", refuse, raising=False)
            assert await one.node.hand_over() == 1
            assert (await client.put("/v1/db/stuck/kv/n/k", content=b"2")).status_code == 200
            assert branch.is_ours
            monkeypatch.undo()


# ---- connections


class Stopping:
    """A server in front of an application that answers at once, and a hand-over that takes a while."""

    def __init__(self, hand_over_s):
        self.hand_over_s = hand_over_s

    async def __aenter__(self):
        async def app(scope, receive, send):
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

        self.server = Server.of(app, bounded_protocol(ConnectionLimits(100), Metrics()), grace_s=2)
        self.server.hand_over = lambda: asyncio.sleep(self.hand_over_s)
        sockets = bind(Address("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
        self.task = asyncio.create_task(self.server.serve(sockets))
        while not self.server.started:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_):
        self.server.should_exit = True
        await self.task


async def test_kept_connections_are_given_up_by_their_owners_and_not_cut_under_a_request():
    """A client that sends on kept connections all the time loses not one request."""
    async with Stopping(0.6) as stopping, aiohttp.ClientSession() as session:
        session._retry_connection = False
        seen = []

        async def ask():
            while True:
                try:
                    async with session.get(stopping.url) as answer:
                        seen.append(answer.headers.get("Connection", ""))
                        await answer.read()
                except aiohttp.ClientConnectorError:
                    return
                await asyncio.sleep(0.001)

        asking = [asyncio.create_task(ask()) for _ in range(8)]
        await asyncio.sleep(0.2)
        assert set(seen) == {""}
        stopping.server.should_exit = True
        await asyncio.gather(*asking)  # raises what a request that was cut off raises
        assert seen[-1] == "close"


async def test_a_connection_that_was_used_just_now_is_left_open_until_its_pool_gives_it_up():
    async with Stopping(0.0) as stopping, aiohttp.ClientSession() as session:
        async with session.get(stopping.url) as answer:
            await answer.read()
        stopping.server.should_exit = True
        await asyncio.sleep(1.5)
        session._retry_connection = False
        async with session.get(stopping.url) as answer:  # on the kept connection
            assert answer.headers["Connection"] == "close"
        started_s = time.monotonic()
        await stopping.task
        assert time.monotonic() - started_s < 1.5, "nobody is connected: nothing is waited for"
