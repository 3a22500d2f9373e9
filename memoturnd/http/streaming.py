"""Bodies too large for memory: files that are sent, and files that are received, a piece at a time.

Such a transfer has no deadline as a whole, because it takes as long as the line is slow. It ends when nothing
moves for a request's time, and when it falls below a slowest pace, so that nobody holds a place for ever.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Send

from memoturnd.errors import PayloadTooLargeError, RequestTimeoutError
from memoturnd.seams.clock import Clock

SLOWEST_BYTES_PER_S: Final = 16 * 1024
"""Pace that a transfer has to keep on average, after the first seconds of grace."""


class Stream(Protocol):
    """The body of an answer that is sent as it is read. `close` may be called at any time, and twice."""

    @property
    def size_bytes(self) -> int | None:
        """Bytes that `chunks` yields in all; None where that is not known before, and nothing holds up the pace."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body, piece by piece."""
        ...

    def close(self) -> None:
        """Give back what the body takes."""
        ...


class Pace:
    """How long a transfer that began now may wait for its next piece."""

    def __init__(self, clock: Clock, stall_s: float) -> None:
        self._clock = clock
        self.stall_s = stall_s
        """Seconds that one piece may take."""
        self._started_s = clock.monotonic_s()

    def wait_s(self, moved_bytes: int) -> float:
        """Return the seconds until the next piece must have moved, after `moved_bytes`. Raises TimeoutError at 0."""
        due_s = self._started_s + self.stall_s + moved_bytes / SLOWEST_BYTES_PER_S
        left_s = min(self.stall_s, due_s - self._clock.monotonic_s())
        if left_s <= 0:
            raise TimeoutError
        return left_s


async def send_chunks(stream: Stream, receive: Receive, send: Send, pace: Pace) -> bool:
    """Send the body that `stream` has; False when the client is gone, or too slow, before its end."""
    gone = asyncio.create_task(_until_gone(receive))
    sent_bytes = 0
    try:
        async with aclosing(stream.chunks()) as chunks:
            async for chunk in chunks:
                sent_bytes += len(chunk)
                more = stream.size_bytes is None or sent_bytes < stream.size_bytes
                wait_s = pace.stall_s if stream.size_bytes is None else pace.wait_s(sent_bytes)
                async with asyncio.timeout(wait_s):
                    await send({"type": "http.response.body", "body": chunk, "more_body": more})
                if gone.done():
                    return not more
        if not stream.size_bytes:
            await send({"type": "http.response.body", "body": b""})
            return True
    except TimeoutError:
        return False
    finally:
        gone.cancel()
        await asyncio.wait([gone])
    return sent_bytes == stream.size_bytes


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def receive_chunks(receive: Receive, limit_bytes: int, pace: Pace) -> AsyncIterator[bytes]:
    """Yield a request's body as it comes.

    Raises PayloadTooLargeError beyond `limit_bytes`, RequestTimeoutError when it stops or crawls, and
    ClientDisconnect.
    """
    received_bytes = 0
    more = True
    while more:
        try:
            async with asyncio.timeout(pace.wait_s(received_bytes)):
                message = await receive()
        except TimeoutError as error:
            raise RequestTimeoutError(
                f"the file came too slowly: {received_bytes} bytes so far; nothing was changed, send it again"
            ) from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        more = message.get("more_body", False)
        received_bytes += len(chunk)
        if received_bytes > limit_bytes:
            raise too_large(limit_bytes)
        if chunk:
            yield chunk


def too_large(limit_bytes: int) -> PayloadTooLargeError:
    """Return the error for a file over `limit_bytes`."""
    return PayloadTooLargeError(
        f"the file is over {limit_bytes} bytes, which is what MEMOTURN_MAX_IMPORT_BYTES lets this node take"
    )
