"""Lines and events of answers that come in pieces, wherever they were cut."""

import httpx
import memoturn
import pytest
from memoturn import Memoturn
from memoturn._async.address import AsyncAddress
from memoturn._core import streams
from memoturn._sync.address import Address

EVENTS = (
    b"id: 7\n\n"
    b": waiting\n\n"
    b'event: memories\ndata: {"memories":[],"txid":3}\n\n'
    b'id: 9\r\nevent: change\r\ndata: {"text":"a\xe2\x80\xa8bc\xc2\x85"}\r\n\r\n'
    b"event: done\ndata: {}\n\n"
)
PARSED = [
    ("", {}, "7"),
    ("memories", {"memories": [], "txid": 3}, ""),
    ("change", {"text": "a\u2028bc\x85"}, "9"),
    ("done", {}, ""),
]


def answering(body: bytes, piece_bytes: int = 1 << 20, **headers: str):
    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        pieces = (body[at : at + piece_bytes] for at in range(0, len(body), piece_bytes))
        return httpx.Response(200, content=pieces, headers=headers)

    seen: list[httpx.Request] = []
    return httpx.Client(transport=httpx.MockTransport(handler)), seen


def address(client: httpx.Client) -> Address:
    return Address(Memoturn("http://node", http_client=client)._http, "v1", "db", "app")


@pytest.mark.parametrize("piece_bytes", [1, 2, 3, 7, 1 << 20])
def test_events_come_whole_however_the_answer_is_cut(piece_bytes):
    client, seen = answering(EVENTS, piece_bytes)

    with address(client).events("GET", "changes", query={"since": 3}) as events:
        assert list(events) == PARSED

    assert seen[0].headers["accept"] == "text/event-stream"
    assert str(seen[0].url) == "http://node/v1/db/app/changes?since=3"


@pytest.mark.parametrize("piece_bytes", [1, 5, 1 << 20])
def test_a_line_of_json_ends_at_a_line_feed_alone(piece_bytes):
    client, _ = answering(b'{"a":"\xe2\x80\xa8\xc2\x85"}\n\n{"b":2}', piece_bytes)

    with address(client).lines("GET", "export") as lines:
        assert list(lines) == [{"a": "\u2028\x85"}, {"b": 2}]


def test_a_line_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(streams, "LINE_LIMIT_BYTES", 100)
    client, _ = answering(b"x" * 200, 10)

    with address(client).lines("GET", "export") as lines, pytest.raises(memoturn.ServerError, match="100"):
        list(lines)


def test_an_event_that_is_no_json_object_is_refused():
    client, _ = answering(b"event: x\ndata: [1]\n\n")

    with address(client).events("GET", "changes") as events, pytest.raises(memoturn.ServerError):
        list(events)


def test_an_error_of_the_block_stays_what_it_is():
    client, _ = answering(EVENTS)

    with pytest.raises(UnicodeError), address(client).events("GET", "changes"):
        raise UnicodeError


async def test_an_asynchronous_reader_gets_the_same_and_may_leave_early():
    async def body():
        yield EVENTS[:50]
        yield EVENTS[50:]

    transport = httpx.MockTransport(lambda _: httpx.Response(200, content=body()))
    async with httpx.AsyncClient(transport=transport) as client:
        http = memoturn.AsyncMemoturn("http://node", http_client=client)._http
        async with AsyncAddress(http, "v1", "db", "app").events("GET", "changes") as events:
            assert [event async for event in events] == PARSED
        async with AsyncAddress(http, "v1", "db", "app").events("GET", "changes") as events:
            assert await anext(events) == PARSED[0]
