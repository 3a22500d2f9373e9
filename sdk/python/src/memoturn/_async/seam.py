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
        await asyncio.wait([opened])
    except asyncio.CancelledError:
        with suppress(Exception):  # the caller is told of the cancellation alone
            await asyncio.to_thread(close, await opened)
        raise
    return opened.result()


async def exchange(client: httpx.AsyncClient, request: httpx.Request, *, is_whole: bool) -> httpx.Response:
    """Send a request, and return its answer: with its body if that `is_whole`, else to be read and closed.

    A task may be cancelled at any moment, and httpx's pool cannot bear that at every one: a connection that was just
    assigned, just made, or is just given back counts as busy for ever. So the exchange is a task of its own, which
    is ended at a moment that loses nothing, while its caller is gone.
    """
    ending = _Ending()
    request.extensions = {**request.extensions, "trace": ending.trace}
    task = asyncio.ensure_future(_exchanged(client, request, is_whole=is_whole))
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        ending.begin(task)
        raise
    return task.result()


async def _exchanged(client: httpx.AsyncClient, request: httpx.Request, *, is_whole: bool) -> httpx.Response:
    response = await client.send(request, stream=True)
    if is_whole or not response.is_success:
        try:
            await response.aread()
        finally:
            await response.aclose()
    else:
        response.stream = _Kept(cast("httpx.AsyncByteStream", response.stream))
    return response


class _Unwanted(Exception):  # noqa: N818 - no error: whoever asked has gone
    """Nobody waits for the exchange."""


class _Ending:
    """How far an exchange is, as the pool tells it, and the end of one that nobody waits for."""

    def __init__(self) -> None:
        self._at = ""
        self._is_unwanted = False

    async def trace(self, step: str, _: object) -> None:
        """Take a step: `connection.connect_tcp.started`, `http11.send_request_body.complete`. Raises _Unwanted."""
        if self._is_unwanted and step.endswith(".started") and "response_closed" not in step:
            raise _Unwanted  # nothing of the request was sent
        self._at = step

    def begin(self, task: "asyncio.Task[httpx.Response]") -> None:
        """End the exchange: at once where that loses no connection, else at its next step."""
        self._is_unwanted = True
        is_giving_back = "response_closed" in self._at
        if not is_giving_back and (self._at.startswith("http") or self._at.endswith(".started")):
            task.cancel()
        _unwanted.add(task)
        task.add_done_callback(_ended)


_unwanted: Final[set["asyncio.Task[httpx.Response]"]] = set()


def _ended(task: "asyncio.Task[httpx.Response]") -> None:
    _unwanted.discard(task)
    if not task.cancelled() and task.exception() is None and not task.result().is_closed:
        asyncio.ensure_future(task.result().aclose())  # noqa: RUF006 - what it waits for knows it


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
