"""The clients where things go wrong: killed nodes, lost answers, limits, threads, cancelled calls. Real nodes, with authentication."""

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit

import httpx
import memoturn
import pytest
from memoturn import AsyncMemoturn, Memoturn
from processes import NodeHome
from proxy import FaultProxy


def database(guarded, platform_key: str, name: str) -> str:
    """Make a database, and return an admin token of it."""
    with Memoturn(guarded.url, platform_key=platform_key) as operator:
        operator.create_database(name)
        return operator.create_token(name, "admin")["token"]


def number(client: Memoturn, db: str) -> int:
    return int(client.db(db).kv.get("n", "count") or b"0")


def test_writes_go_on_through_kills_of_the_node_and_none_is_applied_twice(tmp_path, platform_key):
    with NodeHome(tmp_path / "home", AUTH="on", PLATFORM_KEY=platform_key) as home:
        node = home.start()
        port = urlsplit(node.url).port
        token = database(node, platform_key, "orders")
        done = 0

        with Memoturn(node.url, token=token, retries=200, deadline_s=100) as client:
            counts = client.db("orders").kv

            def write() -> None:
                nonlocal done
                for _ in range(60):
                    counts.increment("n", "count")
                    done += 1

            writing = threading.Thread(target=write)
            writing.start()
            for kill_after in (10, 30):
                while done < kill_after and writing.is_alive():
                    writing.join(0.001)
                node.kill()
                node = home.start(port=port)
            writing.join()

            assert done == 60
            assert number(client, "orders") == 60


@pytest.mark.parametrize("lost", [1, 2])
async def test_a_write_whose_answer_is_lost_is_applied_once(guarded, platform_key, lost):
    name = f"lost-{lost}"
    token = database(guarded, platform_key, name)
    async with FaultProxy("127.0.0.1", urlsplit(guarded.url).port) as proxy:
        proxy.drop_replies("increment", times=lost)
        async with AsyncMemoturn(proxy.url, token=token) as client:
            counted = await client.db(name).kv.increment("n", "count")
            assert counted["value"] == 1
        assert proxy.dropped == lost
        assert proxy.count("increment") == lost + 1

        proxy.drop_replies("increment", times=lost)
        with Memoturn(proxy.url, token=token) as client:
            counted = await asyncio.to_thread(client.db(name).kv.increment, "n", "count")
            assert counted["value"] == 2


async def test_a_caller_may_send_again_later_what_came_to_no_answer(guarded, platform_key):
    token = database(guarded, platform_key, "later")
    async with FaultProxy("127.0.0.1", urlsplit(guarded.url).port) as proxy:
        proxy.drop_replies("increment", times=1)
        async with AsyncMemoturn(proxy.url, token=token, retries=0) as client:
            counts = client.db("later").kv
            with pytest.raises(memoturn.UnknownOutcomeError) as lost:
                await counts.increment("n", "count")
            assert lost.value.idempotency_key

            for _ in range(2):
                again = await counts.increment("n", "count", idempotency_key=lost.value.idempotency_key)
                assert again["value"] == 1


def test_a_limit_is_waited_for_as_the_node_asks(guarded, platform_key, mint):
    with Memoturn(guarded.url, platform_key=platform_key) as operator:
        operator.set_quotas("limited", {"writes_per_s": 4})
    token = mint("limited")
    item = [{"type": "event", "summary": "it happened"}]

    with Memoturn(guarded.url, token=token, retries=20) as client:
        profile = client.memory("limited", "ann")
        waits: list[float] = []
        sleep = client._http.sleep
        client._http.sleep = lambda wait_s: (waits.append(wait_s), sleep(wait_s))[1]
        for _ in range(12):
            profile.ingest(item)
        assert waits
        assert min(waits) >= 1.0, "Retry-After is in whole seconds"

    def flood(client: Memoturn) -> None:
        for _ in range(100):
            client.memory("limited", "ann").ingest(item)

    with (
        Memoturn(guarded.url, token=token, retries=0) as client,
        pytest.raises(memoturn.OverloadedError) as limited,
    ):
        flood(client)
    assert limited.value.limit == "writes_per_s"
    assert limited.value.retry_after is not None


def test_threads_share_a_client_and_each_sees_what_it_wrote(guarded, platform_key):
    token = database(guarded, platform_key, "threads")
    problems: list[object] = []
    with Memoturn(guarded.url, token=token) as client:
        db = client.db("threads")

        def work(worker: int) -> None:
            try:
                for n in range(10):
                    txid = db.kv.put("n", str(worker), str(n).encode())
                    db.kv.increment("n", "count")
                    if db.kv.get("n", str(worker)) != str(n).encode() or db.last_txid < txid:
                        problems.append((worker, n))
            except memoturn.MemoturnError as error:
                problems.append(error)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert problems == []
        assert number(client, "threads") == 80


async def test_cancelled_calls_leave_the_client_as_it_was(guarded, platform_key):
    token = database(guarded, platform_key, "cancelled")
    limits = httpx.Limits(max_connections=2)
    async with (
        httpx.AsyncClient(limits=limits) as connections,
        AsyncMemoturn(guarded.url, token=token, http_client=connections) as client,
    ):
        counts = client.db("cancelled").kv
        for _ in range(5):
            calls = [asyncio.ensure_future(counts.increment("n", "count")) for _ in range(8)]
            await asyncio.sleep(0.003)
            for call in calls:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

        async with asyncio.timeout(20):
            before = int(await counts.get("n", "count") or b"0")
            assert (await counts.increment("n", "count"))["value"] == before + 1


async def test_a_call_that_waits_to_be_repeated_can_be_cancelled():
    async with AsyncMemoturn("http://127.0.0.1:9", retries=100, deadline_s=1000) as client:
        call = asyncio.ensure_future(client.ready())
        await asyncio.sleep(0.5)
        assert not call.done()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        assert call.cancelled()


def test_a_name_that_stands_for_a_younger_database_is_read_as_it_is(guarded, platform_key):
    with (
        Memoturn(guarded.url, platform_key=platform_key) as operator,
        Memoturn(guarded.url, token=database(guarded, platform_key, "young")) as reader,
    ):
        for n in range(9):
            reader.db("young").kv.put("n", "k", b"old%d" % n)
        operator.delete_database("young")
        operator.create_database("young")
        writer_token = operator.create_token("young", "write")["token"]
        with Memoturn(guarded.url, token=writer_token) as writer:
            writer.db("young").kv.put("n", "k", b"new")

            stale = Memoturn(guarded.url, token=writer_token)
            stale._http.positions.see(("young", "main"), 99, 99)
            assert stale.db("young").kv.get("n", "k") == b"new"
            assert stale.db("young").last_txid == writer.db("young").last_txid
            stale.close()


def test_a_deadline_ends_the_repeats():
    with (
        Memoturn("http://127.0.0.1:9", retries=1000, deadline_s=1.0) as client,
        pytest.raises(memoturn.UnreachableError),
    ):
        client.ready()
