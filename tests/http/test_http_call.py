"""A request's query, headers, path and body are checked before a handler sees them."""

import threading

import pytest
from starlette.requests import ClientDisconnect

from memoturnd.core.durability import Durability
from memoturnd.errors import InvalidRequestError, OverloadedError, PayloadTooLargeError, UnsupportedMediaError
from memoturnd.http.call import INLINE_BODY_BYTES, Call, decode_part, headers_of
from memoturnd.http.gates import BodyMemory


def call(query=b"", **headers):
    raw = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return Call(None, {}, headers_of(raw), query)


@pytest.mark.parametrize(
    "value",
    ["abc", "-1", "1.5", "", "+1", " 1", "1_0", "٣", "9007199254740992", "9" * 400, "0x10", "1e3", "NaN"],
)
def test_odd_integer_is_refused(value):
    with pytest.raises(InvalidRequestError, match="`ttl` must be an integer from 0 to 2\\^53-1"):
        call(f"ttl={value.replace('+', '%2B')}".encode()).integer("ttl")


@pytest.mark.parametrize(("value", "integer"), [("0", 0), ("007", 7), ("9007199254740991", 2**53 - 1)])
def test_plain_integer_is_taken(value, integer):
    assert call(f"ttl={value}".encode()).integer("ttl") == integer


def test_limit_is_clamped():
    assert call(b"limit=5000").limit("limit", 100) == 1000
    assert call().limit("limit", 100) == 100


def test_query_value_given_twice_is_refused():
    with pytest.raises(InvalidRequestError, match="2 times"):
        call(b"limit=1&limit=2").limit("limit", 100)


def test_unknown_query_values_are_ignored():
    assert call(b"later=1&later=2&limit=3").limit("limit", 100) == 3


@pytest.mark.parametrize("query", [b"prefix=%ff", b"prefix=%00", b"%ff=1", b"prefix=\xff"])
def test_query_that_is_not_text_is_refused(query):
    with pytest.raises(InvalidRequestError):
        call(query)


def test_query_is_percent_decoded():
    assert call(b"prefix=a%2Fb+c%C3%A9").text("prefix") == "a/b cé"


@pytest.mark.parametrize(("value", "flag"), [("true", True), ("1", True), ("false", False), ("0", False)])
def test_flag_is_read(value, flag):
    assert call(f"turns={value}".encode()).flag("turns") is flag


def test_odd_flag_is_refused():
    with pytest.raises(InvalidRequestError, match="`turns`"):
        call(b"turns=yes").flag("turns")


@pytest.mark.parametrize(
    ("value", "level"),
    [
        (b"durable", Durability.DURABLE),
        (b" DuraBLE ", Durability.DURABLE),
        (b"replicated", Durability.REPLICATED),
        (b"local", Durability.LOCAL),
    ],
)
def test_durability_is_read_without_case(value, level):
    assert call(memoturn_durability=value).durability is level


@pytest.mark.parametrize("value", [b"", b"yes", b"durable,durable", b"standard"])
def test_odd_durability_is_refused(value):
    with pytest.raises(InvalidRequestError, match="Memoturn-Durability"):
        _ = call(memoturn_durability=value).durability


@pytest.mark.parametrize("value", [b"", b"x", b"-1", b"1.0", b"9007199254740992", b"\xb2"])
def test_odd_read_floor_is_refused(value):
    with pytest.raises(InvalidRequestError, match="Memoturn-Min-Txid"):
        _ = call(memoturn_min_txid=value).min_txid


def test_read_floor_is_read():
    assert call().min_txid == 0
    assert call(memoturn_min_txid=b"9007199254740991").min_txid == 2**53 - 1


def test_header_given_twice_is_refused_where_it_would_change_the_meaning():
    for name in (b"memoturn-durability", b"host", b"origin"):
        with pytest.raises(InvalidRequestError, match=name.decode()):
            headers_of([(name, b"durable"), (b"accept", b"*/*"), (name, b"local")])


def test_other_headers_may_come_twice():
    assert headers_of([(b"via", b"a"), (b"via", b"b")]) == {b"via": b"b"}


def test_branch_in_the_query_wins_over_the_header():
    assert call(b"branch=a", memoturn_branch=b"b").branch == "a"
    assert call(memoturn_branch=b"b").branch == "b"
    assert call().branch == "main"


@pytest.mark.parametrize("part", [b"%ff", b"%00", b"\xff", b"%c3%28", b"%ed%a0%80"])
def test_path_part_that_is_not_text_is_refused(part):
    with pytest.raises(InvalidRequestError):
        decode_part(part)


def test_path_part_is_decoded_once():
    assert decode_part(b"a%2Fb%2520%C3%A9+") == "a/b%20é+"


@pytest.mark.parametrize(
    "value", [b"application/json", b"Application/JSON; charset=utf-8", b"application/x+json", b""]
)
def test_json_content_types_are_taken(value):
    call(content_type=value).require_json()


@pytest.mark.parametrize("headers", [{"content_type": b"text/plain"}, {"content_encoding": b"gzip"}])
def test_other_content_types_are_refused(headers):
    with pytest.raises(UnsupportedMediaError):
        call(**headers).require_json()


async def test_only_a_large_body_is_decoded_beside_the_event_loop():
    request = call()
    used = {}
    for size in (INLINE_BODY_BYTES, INLINE_BODY_BYTES + 1):
        request.body = b"x" * size
        used[size] = await request.decoded_large(lambda body: threading.current_thread())

    request.body = b'{"a": [%s1]}' % (b"1," * INLINE_BODY_BYTES)
    size, thread = await request.parsed(lambda value: (len(value["a"]), threading.current_thread()))

    assert size == INLINE_BODY_BYTES + 1
    assert thread is not threading.main_thread()
    assert used[INLINE_BODY_BYTES] is threading.main_thread()
    assert used[INLINE_BODY_BYTES + 1] is not threading.main_thread()


async def test_empty_body_is_never_decoded():
    with pytest.raises(InvalidRequestError, match="empty"):
        await call().decoded_large(bytes)


def receiver(*chunks, end=True):
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append(
        {"type": "http.request", "body": b"", "more_body": False} if end else {"type": "http.disconnect"}
    )

    async def receive():
        return messages.pop(0)

    return receive


async def test_body_is_joined_from_its_chunks():
    request = call()

    await request.read_body(receiver(b"ab", b"c"), 3, BodyMemory(3))

    assert request.body == b"abc"


async def test_body_that_grows_over_its_limit_is_refused():
    with pytest.raises(PayloadTooLargeError, match="over 3 bytes"):
        await call().read_body(receiver(b"ab", b"cd", b"never read"), 3, BodyMemory(9))


async def test_declared_body_over_its_limit_is_refused_without_reading():
    async def receive():
        raise AssertionError

    with pytest.raises(PayloadTooLargeError):
        await call(content_length=b"4").read_body(receive, 3, BodyMemory(9))


async def test_body_of_a_client_that_went_away_is_not_a_body():
    with pytest.raises(ClientDisconnect):
        await call().read_body(receiver(b"ab", end=False), 3, BodyMemory(9))


async def test_declared_body_takes_its_memory_once_and_before_it_is_read():
    request, memory, seen = call(content_length=b"3"), BodyMemory(3), []
    chunks = receiver(b"ab", b"c")

    async def receive():
        seen.append(memory.held_bytes)
        return await chunks()

    await request.read_body(receive, 3, memory)

    assert (seen, memory.held_bytes, request.held_bytes) == ([3, 3, 3], 3, 3)


async def test_declared_body_over_the_memory_is_refused_without_reading():
    async def receive():
        raise AssertionError

    request, memory = call(content_length=b"3"), BodyMemory(4)
    memory.take(2)

    with pytest.raises(OverloadedError, match="hold 2 of 4 bytes"):
        await request.read_body(receive, 3, memory)

    assert (memory.held_bytes, request.held_bytes) == (2, 0)


async def test_streamed_body_takes_memory_as_it_comes_and_is_cut_off_where_that_ends():
    request, memory = call(), BodyMemory(4)
    memory.take(1)

    with pytest.raises(OverloadedError):
        await request.read_body(receiver(b"ab", b"cd", b"never read"), 9, memory)

    assert (memory.held_bytes, request.held_bytes) == (3, 2)


async def test_body_in_one_piece_takes_its_memory():
    async def receive():
        return {"type": "http.request", "body": b"abc"}

    request, memory = call(), BodyMemory(4)

    await request.read_body(receive, 3, memory)

    assert (request.body, memory.held_bytes, request.held_bytes) == (b"abc", 3, 3)
    with pytest.raises(OverloadedError):
        await call().read_body(receive, 3, memory)
