"""Server-sent events, however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.language_models.open import url_of
from memoturnd.language_models.sse import Event, events_in

STREAM = (
    b": comment\n\nevent: one\ndata: 1\n\ndata: a\ndata: b\r\n\r\nid: 7\n\nevent: none\n\n"
    + "data:schön \U0001f600\n\n".encode()
    + b"data: cut off"
)
EVENTS = [Event("one", "1"), Event("message", "a\nb"), Event("message", "schön \U0001f600")]


async def read(data, sizes, limit_bytes=10_000):
    async def chunks():
        at, turn = 0, 0
        while at < len(data):
            size = sizes[turn % len(sizes)]
            yield data[at : at + size]
            at, turn = at + size, turn + 1

    return [event async for event in events_in(chunks(), limit_bytes)]


@given(st.lists(st.integers(1, 7), min_size=1, max_size=20))
async def test_events_are_the_same_wherever_the_bytes_are_cut(sizes):
    assert await read(STREAM, sizes) == EVENTS


async def test_a_stream_that_is_too_long_or_no_text_is_refused():
    with pytest.raises(ValueError, match="over 100 bytes"):
        await read(b"x" * 101, [10], 100)
    with pytest.raises(ValueError, match="utf-8"):
        await read(b"data: \xff\n\n", [3])


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://api.anthropic.com", "https://api.anthropic.com/v1/messages"),
        ("https://api.anthropic.com/v1/", "https://api.anthropic.com/v1/messages"),
        ("http://h:1/openai", "http://h:1/openai/v1/messages"),
        ("http://h/api/v3", "http://h/api/v3/messages"),
        ("http://h/vault", "http://h/vault/v1/messages"),
    ],
)
def test_a_base_url_may_or_may_not_have_its_version(base, url):
    assert url_of(base, "messages") == url
