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
    """One event: its name, what its data says as JSON, and the id by which a client resumes, where it has one.

    Without a name it only gives the client that id.
    """

    name: str
    data: Any
    id: str = ""

    def encoded(self) -> bytes:
        """Return the event as it is sent."""
        id_ = b"id: %s\n" % self.id.encode() if self.id else b""
        if not self.name:
            return b"%s\n" % id_
        return b"%sevent: %s\ndata: %s\n\n" % (id_, self.name.encode(), _encode(self.data))


class EventStream:
    """Events as the body of an answer. Implements memoturnd.http.streaming.Stream.

    `release` gives back what the events take, and may be called twice; ending early cancels whoever makes them.
    """

    def __init__(
        self, events: AsyncGenerator[Event, None], release: Callable[[], None], heartbeat_s: float
    ) -> None:
        self._events = events
        self._release = release
        self._heartbeat_s = heartbeat_s

    @property
    def size_bytes(self) -> int | None:
        """Not known."""
        return None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the events as they happen."""
        following = asyncio.ensure_future(anext(self._events, None))
        try:
            while True:
                await asyncio.wait([following], timeout=self._heartbeat_s)
                if not following.done():
                    yield _BEAT
                    continue
                event = following.result()
                if event is None:
                    return
                yield event.encoded()
                following = asyncio.ensure_future(anext(self._events, None))
        finally:
            following.cancel()
            await asyncio.wait([following])
            await self._events.aclose()
            self.close()

    def close(self) -> None:
        """Give back what the events take."""
        self._release()


def event_reply(
    events: AsyncGenerator[Event, None], release: Callable[[], None], *, heartbeat_s: float = HEARTBEAT_S
) -> Answer:
    """Answer 200 with events, and a comment each `heartbeat_s` without one."""
    return Answer(200, headers=[EVENTS, _NO_STORE], stream=EventStream(events, release, heartbeat_s))
