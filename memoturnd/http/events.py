"""Answers that are server-sent events: something happens, and the client hears of it at once.

While nothing happens a comment is sent now and then, so that a client that has gone is noticed, and that nothing on
the way takes the connection for dead.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final, NamedTuple

import msgspec

from memoturnd.http.envelope import EVENTS, Answer, Header

HEARTBEAT_S: Final = 1.0
_BEAT: Final = b": waiting\n\n"
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")
_encode = msgspec.json.Encoder().encode


class Event(NamedTuple):
    """One event: its name, and what its data says as JSON."""

    name: str
    data: Any


class EventStream:
    """Events as the body of an answer. Implements memoturnd.http.streaming.Stream.

    `release` gives back what the events take, and may be called twice; ending early cancels whoever makes them.
    """

    def __init__(self, events: AsyncGenerator[Event, None], release: Callable[[], None]) -> None:
        self._events = events
        self._release = release

    @property
    def size_bytes(self) -> int | None:
        """Not known."""
        return None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the events as they happen."""
        following = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                await asyncio.wait([following], timeout=HEARTBEAT_S)
                if not following.done():
                    yield _BEAT
                    continue
                event = following.result()
                if event is None:
                    return
                yield b"event: %s\ndata: %s\n\n" % (event.name.encode(), _encode(event.data))
                following = asyncio.ensure_future(anext(self._events, None))
        finally:
            following.cancel()
            await asyncio.wait([following])
            await self._events.aclose()
            self.close()

    def close(self) -> None:
        """Give back what the events take."""
        self._release()


def event_reply(events: AsyncGenerator[Event, None], release: Callable[[], None]) -> Answer:
    """Answer 200 with events."""
    return Answer(200, headers=[EVENTS, _NO_STORE], stream=EventStream(events, release))
