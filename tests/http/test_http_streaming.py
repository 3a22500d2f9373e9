"""Bodies that are sent and received piece by piece, over real sockets."""

import asyncio
import json
import time

import httpx
import pytest
import structlog
from http_support import limits
from test_http_over_uvicorn import served
from test_http_pipeline import Stage, route

from memoturnd.http.app import create_app
from memoturnd.http.envelope import BYTES, Answer, reply
from memoturnd.http.protocol import ConnectionLimits, bounded_protocol
from memoturnd.http.route import Body, Kind
from memoturnd.http.streaming import Pace
from memoturnd.metrics import Metrics

CHUNK = b"x" * 65536


class Source:
    """A body of `count` chunks that tells how far it was read, and whether it was closed."""

    def __init__(self, count, *, fails_at=None):
        self.size_bytes = count * len(CHUNK)
        self.read = 0
        self.closed = asyncio.Event()
        self._count = count
        self._fails_at = fails_at

    async def chunks(self):
        for number in range(self._count):
            if number == self._fails_at:
                raise OSError(5, "the disk is gone")
            self.read += 1
            yield CHUNK

    def close(self):
        self.closed.set()


def sending(source):
    async def handler(_call):
        return Answer(200, headers=[BYTES], stream=source)

    return route(handler, method="GET", kind=Kind.READ, body=Body.NONE)


async def counting(call):
    size = 0
    async for chunk in call.file:
        size += len(chunk)
    return reply({"size": size})


def app_of(*routes, **changes):
    return create_app(Stage(), limits(**changes), routes=routes)


def url(address):
    return f"http://127.0.0.1:{address[1]}/x"


async def ask(address, request):
    reader, writer = await asyncio.open_connection(*address, limit=4096)
    writer.write(request)
    return reader, writer


GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_body_is_sent_whole_and_its_source_closed():
    source = Source(100)
    async with served(app_of(sending(source))) as address, httpx.AsyncClient() as client:
        answer = await client.get(url(address))
        again = await client.get(url(address))

    assert len(answer.content) == len(again.content) == source.size_bytes
    assert int(answer.headers["content-length"]) == source.size_bytes
    assert source.closed.is_set()


async def test_empty_body_is_sent():
    async with served(app_of(sending(Source(0)))) as address, httpx.AsyncClient() as client:
        answer = await client.get(url(address))

    assert (answer.status_code, answer.content) == (200, b"")


async def test_body_is_read_no_faster_than_the_client_takes_it():
    source = Source(2000)
    async with served(app_of(sending(source))) as address:
        reader, writer = await ask(address, GET)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.2)
        ahead = source.read
        writer.transport.abort()

    assert ahead < 400  # what the kernel's buffers and ours take


async def test_client_that_leaves_ends_the_reading():
    source = Source(10**6)
    async with served(app_of(sending(source))) as address:
        reader, writer = await ask(address, GET)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
        await asyncio.wait_for(source.closed.wait(), 5)

    assert source.read < 10**5


@pytest.mark.parametrize("bounded", [True, False])
async def test_client_that_stops_reading_is_cut_off(bounded):
    source = Source(10**6)
    app = app_of(sending(source), request_timeout_s=0.2)
    metrics = Metrics()
    protocol = bounded_protocol(ConnectionLimits(10), metrics) if bounded else "httptools"
    async with served(app, http=protocol) as address:
        reader, writer = await ask(address, GET)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.wait_for(source.closed.wait(), 5)
        if bounded:
            await asyncio.sleep(0.1)
            assert b"memoturn_http_connections 0.0" in metrics.render()  # it is not kept until all is taken
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(source.size_bytes)
        writer.transport.abort()

    assert source.read < 1000


async def test_download_that_fails_half_way_is_not_taken_for_whole():
    source = Source(100, fails_at=50)
    app = app_of(sending(source))
    protocol = bounded_protocol(ConnectionLimits(10), Metrics())
    with structlog.testing.capture_logs() as logs:
        async with served(app, http=protocol) as address, httpx.AsyncClient() as client:
            with pytest.raises(httpx.TransportError):
                await client.get(url(address))

    assert source.closed.is_set()
    assert [entry["event"] for entry in logs] == ["download_failed"]


async def test_slow_download_may_take_longer_than_a_request():
    source = Source(40)
    async with served(app_of(sending(source), request_timeout_s=0.3)) as address:
        reader, writer = await ask(address, GET)
        await reader.readuntil(b"\r\n\r\n")
        began_s, size = time.monotonic(), 0
        while size < source.size_bytes:
            size += len(await reader.read(1 << 16))
            await asyncio.sleep(0.01)
        took_s = time.monotonic() - began_s
        writer.close()

    assert took_s > 0.3


# ---- files that come


FILE = route(counting, method="PUT", kind=Kind.CONTROL, body=Body.FILE)
PUT = b"PUT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"


async def status_and_code(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    return int(head.split()[1]), json.loads(await reader.readexactly(int(length.split()[1])))


async def test_file_that_keeps_coming_may_take_longer_than_a_request():
    async with served(app_of(FILE, request_timeout_s=0.3)) as address:
        reader, writer = await ask(address, PUT % (8 * len(CHUNK)))
        for _ in range(8):
            await asyncio.sleep(0.08)
            writer.write(CHUNK)
        assert await status_and_code(reader) == (200, {"size": 8 * len(CHUNK)})
        writer.close()


async def test_file_that_stops_coming_is_given_up():
    async with served(app_of(FILE, request_timeout_s=0.2)) as address:
        reader, writer = await ask(address, PUT % (8 * len(CHUNK)) + CHUNK)
        status, body = await status_and_code(reader)
        writer.close()

    assert (status, body["code"]) == (408, "request_timeout")
    assert "65536 bytes so far" in body["error"]


async def test_file_that_crawls_is_given_up():
    async with served(app_of(FILE, request_timeout_s=0.3)) as address:
        reader, writer = await ask(address, PUT % 1000)
        for _ in range(100):
            if reader._buffer:
                break
            writer.write(b"x")
            await asyncio.sleep(0.02)
        assert (await status_and_code(reader))[0] == 408
        writer.close()


async def test_file_whose_sender_leaves_is_given_up():
    ended = asyncio.Event()

    async def waiting(call):
        try:
            async for _ in call.file:
                pass
        finally:
            ended.set()

    async with served(app_of(route(waiting, method="PUT", kind=Kind.CONTROL, body=Body.FILE))) as address:
        _, writer = await ask(address, PUT % 10**6 + CHUNK)
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), 5)


def test_pace_allows_a_stall_and_asks_for_an_average(hand_clock):
    pace = Pace(hand_clock, 10.0)
    assert pace.wait_s(0) == 10.0
    hand_clock.at_s += 8
    assert pace.wait_s(0) == 2.0
    assert pace.wait_s(16 * 1024 * 100) == 10.0
    hand_clock.at_s += 3
    with pytest.raises(TimeoutError):
        pace.wait_s(16 * 1024)
