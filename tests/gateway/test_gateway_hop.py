"""Nothing is lost on a hop, and nothing is added: header by header, both ways, for every method and size."""

import asyncio
import base64

import httpx
import pytest
from gateway_support import Echo, behind_gateway, gateway, raw_exchange, served

SENT = [
    ("authorization", "Bearer x.y.z"),
    ("memoturn-txid", "7"),
    ("memoturn-min-txid", "12"),
    ("memoturn-durability", "durable"),
    ("memoturn-branch", "feature"),
    ("memoturn-consistency", "cached"),
    ("memoturn-at", "12"),
    ("memoturn-tenant", "acme"),
    ("memoturn-meta", '{"a":"\u00fc"}'),
    ("memoturn-request-id", "req-1"),
    ("x-memoturn-internal", "key"),
    ("idempotency-key", "k1"),
    ("if-match", '"a"'),
    ("if-none-match", '"b"'),
    ("accept", "text/event-stream"),
    ("accept-encoding", "br"),
    ("content-type", "application/json; charset=utf-8"),
    ("cookie", "a=b; c=d"),
    ("range", "bytes=0-1"),
    ("user-agent", "mine/1"),
    ("x-empty", ""),
    ("x-twice", "1"),
    ("x-twice", "2"),
]
BACK = [
    (b"memoturn-txid", b"9"),
    (b"memoturn-durable-txid", b"8"),
    (b"memoturn-durability", b"local"),
    (b"memoturn-replica-age-ms", b"5"),
    (b"memoturn-erasure-id", b"ers_1"),
    (b"memoturn-limit", b"requests"),
    (b"idempotent-replayed", b"true"),
    (b"retry-after", b"3"),
    (b"etag", b'"x"'),
    (b"content-type", b"application/x-ndjson"),
    (b"content-encoding", b"gzip"),
    (b"set-cookie", b"a=1"),
    (b"set-cookie", b"b=2"),
    (b"www-authenticate", b"Bearer"),
    (b"memoturn-request-id", b"req-1"),
    (b"x-latin", b"\xe9"),
]
_ADDED = {b"memoturn-forwarded", b"content-length", b"host"}


def mine(headers):
    return sorted((name, value) for name, value in headers if name not in _ADDED)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize("body", [b"", b"\x00\xff{}", b"x" * 1_000_000], ids=["0B", "4B", "1MB"])
async def test_method_path_query_headers_and_body_arrive_as_they_were_sent(method, body):
    async with behind_gateway() as (parts, [echo]):
        echo.headers = BACK
        echo.body = b"\x1f\x8b not gzip at all"
        async with httpx.AsyncClient(base_url=parts.url) as client:
            url = httpx.URL(parts.url, raw_path=b"/v1/db/notes/kv/n/a%2Fb%20c//..%2f?x=%2B+1&x=2&=&%00")
            request = client.build_request(method, url, content=body)
            request.headers = httpx.Headers(
                [
                    (k.encode(), v.encode())
                    for k, v in [*SENT, ("host", "127.0.0.1:1"), ("content-length", str(len(body)))]
                ]
            )
            answer = await client.send(request, stream=True)
            got = b"".join([chunk async for chunk in answer.aiter_raw()])

    [(seen_method, path, query, headers, seen_body)] = echo.seen
    assert (seen_method, path, query) == (method, b"/v1/db/notes/kv/n/a%2Fb%20c//..%2f", b"x=%2B+1&x=2&=&%00")
    assert seen_body == body
    assert mine(headers) == sorted((name.encode(), value.encode()) for name, value in SENT)
    assert (b"host", b"127.0.0.1:1") in headers
    assert answer.status_code == 200
    assert got == (b"" if method == "HEAD" else echo.body)
    back = [(name.lower(), value) for name, value in answer.headers.raw]
    assert sorted(item for item in back if item[0] not in {b"content-length", b"date"}) == sorted(BACK)
    assert answer.headers["content-length"] == str(len(echo.body))


@pytest.mark.parametrize(
    "status", [200, 201, 204, 206, 304, 400, 401, 403, 404, 409, 412, 413, 422, 429, 500, 502]
)
async def test_every_status_comes_back(status):
    async with behind_gateway() as (parts, [echo]):
        echo.status, echo.body = status, b"{}"
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{parts.url}/v1/db/notes/kv/n/k")

    assert answer.status_code == status
    assert answer.content == (b"" if status in {204, 304} else b"{}")
    assert len(echo.seen) == 1


async def test_headers_about_the_connection_end_with_it():
    async with behind_gateway() as (parts, [echo]):
        echo.headers = [
            (b"connection", b"keep-alive, x-mine"),
            (b"keep-alive", b"timeout=9"),
            (b"x-mine", b"1"),
        ]
        answer = await raw_exchange(
            parts.url,
            b"GET /v1/databases HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\n"
            b"TE: trailers\r\nProxy-Authorization: x\r\nMemoturn-Forwarded: 1\r\nX-Stays: 2\r\n\r\n",
        )

    names = {name for name, _ in echo.seen[0][3]}
    assert (
        names & {b"connection", b"x-hop", b"keep-alive", b"te", b"proxy-authorization", b"memoturn-forwarded"}
        == set()
    )
    assert b"x-stays" in names
    assert b"x-mine" not in answer
    assert b"timeout=9" not in answer


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Content-Length: +4\r\n",
        b"X-Bad: a\x00b\r\n",
        b"X-Bad : a\r\n",
        b"X-B\xe9d: a\r\n",
    ],
)
async def test_a_request_whose_end_is_in_doubt_is_not_sent_on(head):
    async with behind_gateway() as (parts, [echo]):
        request = (
            b"POST /v1/databases HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + head + b"\r\n0\r\n\r\nGET /x"
        )
        answer = await raw_exchange(parts.url, request)

    assert answer.startswith(b"HTTP/1.1 400")
    assert echo.seen == []


@pytest.mark.parametrize(
    "line", [b"GET *@%s/x HTTP/1.1", b"OPTIONS * HTTP/1.1", b"PUT *:1@%s/v1/databases HTTP/1.1"]
)
async def test_no_target_leads_to_anybody_but_a_node(line):
    other = Echo()
    async with served(other) as elsewhere, behind_gateway() as (parts, [echo]):
        there = elsewhere.removeprefix("http://").encode()
        request = line.replace(b"%s", there) + b"\r\nHost: a\r\nConnection: close\r\n\r\n"
        answer = await raw_exchange(parts.url, request)

    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"invalid_request"' in answer
    assert echo.seen == other.seen == []


async def test_a_token_that_is_nested_without_end_is_for_a_node_to_refuse():
    nested = base64.urlsafe_b64encode(b'{"x":' + b"[" * 9000)
    async with behind_gateway() as (parts, [echo]):
        answer = await raw_exchange(
            parts.url,
            b"GET /v1/db/notes/kv/n/k HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
            b"Authorization: Bearer a." + nested + b".c\r\n\r\n",
        )

    assert answer.startswith(b"HTTP/1.1 200")
    assert len(echo.seen) == 1


@pytest.mark.parametrize("sent", [b"", b"{"], ids=["nothing", "a part"])
async def test_a_body_that_does_not_come_is_not_waited_for_without_end(sent):
    head = b"POST /v1/databases HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 9\r\n\r\n"
    async with behind_gateway(request_timeout_s=0.2) as (parts, [echo]):
        answer = await raw_exchange(parts.url, head + sent)

    assert answer.startswith(b"HTTP/1.1 503")
    assert b"memoturn-applied: false" in answer
    assert echo.seen == []


async def test_header_bytes_that_could_not_be_passed_on_as_they_are_are_refused():
    async with behind_gateway() as (parts, [echo]):
        answer = await raw_exchange(
            parts.url, b"GET /v1/databases HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Latin: \xe9\r\n\r\n"
        )

    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"code":"invalid_request"' in answer
    assert echo.seen == []


class Source:
    """An upstream that streams 200 MB down, and counts what comes up."""

    def __init__(self, size_bytes=200 << 20):
        self.size_bytes = size_bytes
        self.taken_bytes = 0
        self.sent_bytes = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, scope, receive, send):
        while True:
            await self.gate.wait()
            message = await receive()
            self.taken_bytes += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["method"] == "GET":
            while self.sent_bytes < self.size_bytes:
                await send({"type": "http.response.body", "body": b"y" * 65536, "more_body": True})
                self.sent_bytes += 65536
        await send({"type": "http.response.body", "body": b""})


async def test_a_large_upload_goes_through_without_being_kept():
    source, size_bytes = Source(), 200 << 20
    source.gate.clear()
    handed_bytes = 0

    async def pieces():
        nonlocal handed_bytes
        while handed_bytes < size_bytes:
            handed_bytes += 1 << 16
            yield b"x" * (1 << 16)

    async with served(source) as url, gateway() as parts, httpx.AsyncClient(timeout=60) as client:
        parts.knows({"n0": url})
        sending = asyncio.create_task(client.put(f"{parts.url}/v1/databases/notes/import", content=pieces()))
        await asyncio.sleep(0.5)
        held_bytes = handed_bytes
        source.gate.set()
        answer = await sending

    assert answer.status_code == 200
    assert source.taken_bytes == size_bytes
    assert held_bytes < 24 << 20  # sockets' buffers and what is kept to be sent again; not the body


async def test_a_large_download_goes_at_the_clients_pace():
    source = Source()
    async with served(source) as url, gateway() as parts, httpx.AsyncClient(timeout=60) as client:
        parts.knows({"n0": url})
        got_bytes = 0
        async with client.stream("GET", f"{parts.url}/v1/db/notes/export") as answer:
            await asyncio.sleep(0.5)
            ahead_bytes = source.sent_bytes
            async for chunk in answer.aiter_raw():
                got_bytes += len(chunk)

    assert ahead_bytes < 24 << 20
    assert got_bytes == source.size_bytes


async def test_events_come_through_as_they_are_sent():
    step = asyncio.Queue()

    async def events(scope, receive, send):
        del scope, receive
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        while (event := await step.get()) is not None:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with served(events) as url, gateway() as parts, httpx.AsyncClient() as client:
        parts.knows({"n0": url})
        async with client.stream("GET", f"{parts.url}/v1/db/notes/changes") as answer:
            chunks = answer.aiter_raw()
            for event in (b"data: 1\n\n", b"data: 2\n\n"):
                step.put_nowait(event)
                assert await asyncio.wait_for(anext(chunks), 2) == event
            step.put_nowait(None)
            assert [chunk async for chunk in chunks] == []


@pytest.mark.parametrize("declared", [True, False])
async def test_an_answer_that_breaks_off_never_looks_whole(declared):
    async def broken(scope, receive, send):
        del receive
        headers = [(b"content-length", b"200000")] if declared else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
        await asyncio.sleep(0.05)
        scope["extensions"]["memoturn.abort"]["abort"]()

    async with served(broken) as url, gateway() as parts, httpx.AsyncClient() as client:
        parts.knows({"n0": url})
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{parts.url}/v1/db/notes/export")
        assert parts.metrics.failures["broken_off"]._value.get() == 1


@pytest.mark.parametrize("started", [False, True], ids=["before the answer", "in the answer"])
async def test_a_client_that_goes_ends_what_is_asked_of_the_node(started):
    gone, asked = asyncio.Event(), asyncio.Event()

    async def slow(scope, receive, send):
        del scope
        await receive()
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        asked.set()
        assert (await receive())["type"] == "http.disconnect"
        gone.set()

    async with served(slow) as url, gateway() as parts, httpx.AsyncClient() as client:
        parts.knows({"n0": url})
        task = asyncio.create_task(client.get(f"{parts.url}/v1/db/notes/kv/n/k"))
        await asyncio.wait_for(asked.wait(), 2)
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait_for(gone.wait(), 2)


async def test_an_answer_that_goes_silent_is_cut_off(monkeypatch):
    monkeypatch.setattr("gateway.forwarding.SILENCE_S", 0.2)
    gate = asyncio.Event()

    async def silent(scope, receive, send):
        del scope, receive
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"a part", "more_body": True})
        await gate.wait()
        await send({"type": "http.response.body", "body": b""})

    async with served(silent) as url, gateway() as parts, httpx.AsyncClient(timeout=5) as client:
        parts.knows({"n0": url})
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"{parts.url}/v1/db/notes/changes")
        gate.set()


async def test_a_client_that_does_not_read_is_cut_off():
    source = Source(64 << 20)
    async with served(source) as url, gateway(request_timeout_s=0.3) as parts:
        parts.knows({"n0": url})
        host, port = parts.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /v1/db/notes/export HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(1.5)
        assert parts.metrics.failures["broken_off"]._value.get() == 1
        got = 0
        try:
            while data := await reader.read(1 << 20):
                got += len(data)
        except ConnectionError:
            pass
        writer.close()

    assert got < source.size_bytes


async def test_the_request_id_is_made_where_none_came():
    async with behind_gateway() as (parts, [echo]), httpx.AsyncClient() as client:
        await client.get(f"{parts.url}/v1/databases")
    assert len(dict(echo.seen[0][3])[b"memoturn-request-id"]) == 16
