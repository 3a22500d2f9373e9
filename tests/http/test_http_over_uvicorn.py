"""The application over real sockets, served as the node serves it."""

import asyncio
import contextlib
import json

import httpx
import pytest
import uvicorn
from fake_model import settings_of
from http_calls import FACT
from http_support import limits, running_node

from memoturnd.http.app import create_app


@contextlib.asynccontextmanager
async def served(app, *, http="httptools"):
    config = uvicorn.Config(
        app, port=0, loop="none", http=http, lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event to wait for
        await asyncio.sleep(0.005)
    try:
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        await serving


@pytest.fixture
async def address(node):
    async with served(create_app(node, limits())) as address:
        yield address


async def exchange(address, request):
    """Send bytes, and return what comes back until the node has nothing more to say."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), head, body


async def test_requests_share_a_connection_and_keys_come_raw_from_the_path(address):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}") as client:
        assert (await client.get("/health")).text == "ok"
        assert (await client.post("/v1/databases", json={"name": "notes"})).status_code == 201
        put = await client.put("/v1/db/notes/kv/n/a%2Fb", content=b"\x00\xff")
        read = await client.get("/v1/db/notes/kv/n/a%2Fb")
        head = await client.head("/v1/db/notes/kv/n/a%2Fb")
        gone = await client.delete("/v1/db/notes/kv/n/a%2Fb")
        missing = await client.get("/v1/db/notes/kv/n/a%2Fb")

    assert put.headers["memoturn-durability"] == "local"
    assert read.content == b"\x00\xff"
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "2")
    assert (gone.status_code, gone.content) == (204, b"")
    assert missing.json()["code"] == "not_found"


async def test_body_over_its_limit_is_answered_before_it_is_read(address):
    size = (1 << 20) + 1
    request = b"POST /v1/memory/app/ann/recall HTTP/1.1\r\nHost: [::1]\r\nContent-Length: %d\r\n\r\n" % size

    status, _, body = await exchange(address, request)

    assert (status, json.loads(body)["code"]) == (413, "payload_too_large")


async def test_chunked_body_over_its_limit_is_cut_off(address):
    request = b"POST /v1/memory/app/ann/recall HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"

    status, _, body = await exchange(address, request + chunk * 17)

    assert (status, json.loads(body)["code"]) == (413, "payload_too_large")


async def test_client_that_sent_a_body_too_large_reads_the_answer_and_goes_on(address):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}") as client:
        refused = await client.post("/v1/memory/app/ann/recall", content=b" " * (3 << 20))
        after = await client.get("/health")

    assert (refused.status_code, after.status_code) == (413, 200)


@pytest.mark.parametrize("path", [b"/v1/db/a%ff/kv/n", b"/v1/db/a%00/kv/n", b"/v1/db/notes/kv/n/%zz%c3"])
async def test_odd_bytes_in_a_path_are_answered(address, path):
    status, head, body = await exchange(address, b"GET " + path + b" HTTP/1.1\r\nHost: [::1]\r\n\r\n")

    assert (status, json.loads(body)["code"]) == (400, "invalid_request")
    assert b"memoturn-request-id: " in head


async def test_client_that_hangs_up_in_its_body_disturbs_nobody(address, node):
    _, writer = await asyncio.open_connection(*address)
    writer.write(b"PUT /v1/db/x/kv/n/k HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    await asyncio.sleep(0.02)
    assert b"memoturn_http_in_flight_requests 1.0" in node.metrics.render()

    writer.close()
    await writer.wait_closed()

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}") as client:
        assert (await client.get("/health")).text == "ok"
    assert b"memoturn_http_in_flight_requests 0.0" in node.metrics.render()


async def held_open(address, request, count):
    """Open connections that send `request`, which does not end, and nothing more."""
    opened = [await asyncio.open_connection(*address) for _ in range(count)]
    for _, writer in opened:
        writer.write(request)
        await writer.drain()
    await asyncio.sleep(0.02)
    return opened


async def closed(opened):
    for _, writer in opened:
        writer.close()
        await writer.wait_closed()


async def test_connections_that_never_end_their_headers_hold_no_slot(node):
    async with served(create_app(node, limits(max_concurrency=1))) as address:
        opened = await held_open(address, b"PUT /v1/db/x/kv/n/k HTTP/1.1\r\nHost: [::1]\r\nX-Slow: a", 20)
        during = node.metrics.render()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}") as client:
            answer = await client.post("/v1/databases", json={"name": "notes"})
        await closed(opened)

    assert answer.status_code == 201
    assert b"memoturn_http_in_flight_requests 0.0" in during
    assert b"memoturn_http_waiting_requests 0.0" in during


async def test_body_that_does_not_arrive_in_time_frees_its_slot_and_its_memory(node):
    bounds = {"max_concurrency": 1, "max_body_bytes": 1024, "memory_budget_bytes": 1024}
    async with served(create_app(node, limits(request_timeout_s=0.1, **bounds))) as address:
        head = b"PUT /v1/db/x/kv/n/k HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 1024\r\n\r\nhalf"
        opened = await held_open(address, head, 1)
        during = node.metrics.render()
        status = await opened[0][0].readline()
        after = node.metrics.render()
        await closed(opened)

    assert b"memoturn_http_in_flight_requests 1.0" in during
    assert b"memoturn_http_body_bytes 1024.0" in during
    assert status.split()[1] == b"408"
    assert b"memoturn_http_in_flight_requests 0.0" in after
    assert b"memoturn_http_body_bytes 0.0" in after


async def test_a_client_that_leaves_while_its_answer_is_written_ends_the_models_request(address, model):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}") as client:
        await client.post("/v1/memory/app/ann/memories", json={"memories": [FACT]})
        model.piece, model.pause_s = 1, 0.1
        asked = {"question": "is it dark?", "stream": True}
        async with client.stream("POST", "/v1/memory/app/ann/ask", json=asked) as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            async for line in answer.aiter_lines():
                if line.startswith("event: delta"):
                    break
            assert model.at_once == 1

    await asyncio.wait_for(model.ended.wait(), 5)
    assert model.gone


async def test_a_model_that_is_silent_keeps_the_connection_and_a_leaving_client_ends_it(address, model):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{address[1]}", timeout=10) as client:
        await client.post("/v1/memory/app/ann/memories", json={"memories": [FACT]})
        model.pause_s = 3600
        asked = {"question": "is it dark?", "stream": True}
        async with client.stream("POST", "/v1/memory/app/ann/ask", json=asked) as answer:
            beats = 0
            async for line in answer.aiter_lines():
                beats += line.startswith(": waiting")
                if beats == 2:
                    break

    await asyncio.wait_for(model.ended.wait(), 5)
    assert model.gone


async def test_a_client_that_leaves_a_stream_that_goes_on_gives_back_its_place_among_the_calls(
    tmp_path, model
):
    asked = {"question": "is it dark?", "stream": True}
    async with (
        running_node(tmp_path, **settings_of(model, MODEL_CONCURRENCY="1")) as node,
        served(create_app(node, limits())) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=10) as client,
    ):
        await client.post("/v1/memory/app/ann/memories", json={"memories": [FACT]})
        model.piece, model.pause_s = 1, 0.2
        for _ in range(3):
            async with client.stream("POST", "/v1/memory/app/ann/ask", json=asked) as answer:
                await anext(answer.aiter_lines())
        model.pause_s = 0
        whole = await client.post("/v1/memory/app/ann/ask", json=asked)

    assert "event: done" in whole.text
