"""What is served asynchronously, for tests that are not asynchronous: on a thread of its own."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

START_S = 10


@contextmanager
def beside(serving: Callable[[], AbstractAsyncContextManager[Any]]) -> Iterator[Any]:
    """Enter the context on a thread with an event loop of its own, and leave it there at the end."""
    ready = threading.Event()
    found: dict[str, Any] = {}

    async def serve() -> None:
        found["loop"], found["stop"] = asyncio.get_running_loop(), asyncio.Event()
        async with serving() as served:
            found["served"] = served
            ready.set()
            await found["stop"].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(START_S)
        yield found["served"]
    finally:
        found["loop"].call_soon_threadsafe(found["stop"].set)
        thread.join()
