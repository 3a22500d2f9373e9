"""What holds before a request exists: connections, header time, header bytes, and what is no HTTP at all."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager

import uvicorn

from memoturnd.config import connections_limit
from memoturnd.http.protocol import SPARE, ConnectionLimits, bounded_protocol
from memoturnd.metrics import Metrics


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def served(**limits):
    metrics = Metrics()
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app,
        http=bounded_protocol(ConnectionLimits(**{"connections": 100, **limits}), metrics),
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve([listening]))
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield listening.getsockname()[1], metrics
    finally:
        server.should_exit = True
        await task
        listening.close()


async def connect(port):
    return await asyncio.open_connection("127.0.0.1", port)


async def answer(reader):
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body) if body.startswith(b"{") else body


async def test_connection_over_the_bound_is_turned_away_and_others_go_on():
    async with served(connections=2) as (port, metrics):
        kept = [await connect(port) for _ in range(2)]
        await asyncio.sleep(0.05)
        reader, writer = await connect(port)
        status, body = await answer(reader)
        writer.close()

        assert (status, body["code"]) == (429, "overloaded")
        assert metrics.shed["connections"]._value.get() == 1
        for reader, writer in kept:
            writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert (await answer(reader))[0] == 200
            writer.close()


async def test_probes_and_scrapes_are_answered_when_all_connections_are_open():
    """An orchestrator would end the node for being busy, and all its clients would go to the next one."""
    async with served(connections=2) as (port, metrics):
        kept = [await connect(port) for _ in range(2)]
        for path in ("/health", "/ready", "/metrics?name[]=up"):
            reader, writer = await connect(port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
            assert (await answer(reader))[0] == 200
            writer.close()
        assert metrics.shed["connections"]._value.get() == 0

        reader, writer = await connect(port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"ok" in await asyncio.wait_for(reader.readuntil(b"ok"), 5)
        writer.write(b"GET /v1/databases HTTP/1.1\r\nhost: localhost\r\n\r\n")
        status, body = await answer(reader)
        writer.close()
        assert (status, body["code"]) == (429, "overloaded"), (
            "whatever comes behind a probe, it is for probes"
        )

        for _, writer in kept:
            writer.close()
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_connections_for_probes_have_a_bound_too():
    async with served(connections=2) as (port, _):
        kept = [await connect(port) for _ in range(2 + SPARE)]
        await asyncio.sleep(0.05)
        reader, writer = await connect(port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")

        assert (await answer(reader))[0] == 429
        for other in (writer, *(one for _, one in kept)):
            other.close()


async def test_headers_that_never_end_are_closed_in_time():
    async with served(headers_s=0.2) as (port, _):
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nhost: loc")
        status, body = await answer(reader)
        writer.close()

        assert (status, body["code"]) == (408, "request_timeout")


async def test_connection_that_says_nothing_is_closed_in_time():
    async with served(headers_s=0.2) as (port, _):
        reader, writer = await connect(port)

        assert (await answer(reader))[0] == 408
        writer.close()


async def test_slow_second_request_on_a_kept_connection_is_closed_in_time():
    async with served(headers_s=0.2) as (port, _):
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"ok" in await asyncio.wait_for(reader.readuntil(b"ok"), 5)
        writer.write(b"GET / HTTP/1.1\r\nho")

        assert (await answer(reader))[0] == 408
        writer.close()


async def test_headers_over_their_bytes_are_refused():
    async with served(header_bytes=1000) as (port, _):
        reader, writer = await connect(port)
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"a" * 2000 + b"\r\n\r\n")
        status, body = await answer(reader)
        writer.close()

        assert (status, body["code"]) == (400, "invalid_request")


async def test_what_is_no_http_is_answered_in_the_envelope():
    async with served() as (port, _):
        for garbage in (
            b"\x00\x01\x02\r\n\r\n",
            b"HELLO\r\n\r\n",
            b"GET /\xff\xfe HTTP/1.1\r\nhost: a\r\n\r\n",
        ):
            reader, writer = await connect(port)
            writer.write(garbage)
            status, body = await answer(reader)
            writer.close()

            assert (status, body["code"]) == (400, "invalid_request"), garbage


def test_connections_leave_descriptors_for_profiles():
    assert connections_limit(1024, 1_000_000) == 2048
    assert connections_limit(1024, 1024) == 256
    assert connections_limit(1, 40) == 16
