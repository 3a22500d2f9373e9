"""The synchronous client with the asynchronous one's manners, so that each test is written once and runs on both.

Which method is awaited, and which is iterated, is what the asynchronous twin of its class says.
"""

import asyncio
import importlib
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

_END = object()


class Twin:
    """An object of the synchronous client, whose methods run on a thread."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        if not callable(value):
            return _twinned(value)
        kind = getattr(_twin_class(type(self.inner)), name)
        if inspect.iscoroutinefunction(kind):

            async def call(*args: Any, **options: Any) -> Any:
                return _twinned(await asyncio.to_thread(value, *args, **options))

            return call

        def plain(*args: Any, **options: Any) -> Any:
            found = value(*args, **options)
            return _iterated(found) if isinstance(found, Iterator) else _twinned(found)

        return plain


def _twinned(value: Any) -> Any:
    return Twin(value) if type(value).__module__.startswith("memoturn._sync.") else value


def _twin_class(cls: type) -> Any:
    module = importlib.import_module(cls.__module__.replace("._sync", "._async"))
    return getattr(module, f"Async{cls.__name__}")


async def _iterated(rows: Iterator[Any]) -> AsyncIterator[Any]:
    try:
        while (row := await asyncio.to_thread(next, rows, _END)) is not _END:
            yield row
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            await asyncio.to_thread(close)
