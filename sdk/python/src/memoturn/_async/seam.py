"""What is not the same for both clients but for the words: this file stands in each of them, written by hand."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

sleep: Final = asyncio.sleep


async def blocking(function: Callable[..., T], *arguments: object) -> T:
    """Call a function that may block, beside the event loop."""
    return await asyncio.to_thread(function, *arguments)
