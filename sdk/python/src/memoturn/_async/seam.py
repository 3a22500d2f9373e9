"""What is not the same for both clients but for the words: this file stands in each of them, written by hand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Final, TypeVar, cast

import httpx

T = TypeVar("T")

sleep: Final = asyncio.sleep


async def blocking(function: Callable[..., T], *arguments: object) -> T:
    """Call a function that may block, beside the event loop."""
    return await asyncio.to_thread(function, *arguments)


async def opening(function: Callable[..., T], close: Callable[[T], object], *arguments: object) -> T:
    """Call a function that opens something and may block; what it opens for a cancelled caller is closed again."""
    opened = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(opened)
    except asyncio.CancelledError:
        with suppress(Exception):  # the caller is told of the cancellation alone
            await asyncio.to_thread(close, await opened)
        raise


def kept_whole(response: httpx.Response) -> httpx.Response:
    """Return the response such that a cancellation in the midst of its closing does not lose its connection.

    httpx's pool counts a connection as busy for ever when the task that gives it back is cancelled just then.
    """
    response.stream = _Kept(cast("httpx.AsyncByteStream", response.stream))
    return response


class _Kept(httpx.AsyncByteStream):
    """A body whose closing goes on when whoever waits for it is cancelled."""

    def __init__(self, body: httpx.AsyncByteStream) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._body:
            yield piece

    async def aclose(self) -> None:
        """Give the connection back."""
        await asyncio.shield(asyncio.ensure_future(self._body.aclose()))
