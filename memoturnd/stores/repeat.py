"""Puts that are turned away by mistake."""

import asyncio
from collections.abc import Awaitable, Callable

from memoturnd.errors import StoreRefusedError

ATTEMPTS = 3
_PAUSE_S = 0.05


async def put_again(request: Callable[[], Awaitable[object]]) -> None:
    """Make a put that may be repeated, up to three times while the store refuses it. Raises what the last one did.

    MinIO says 403 AccessDenied, as to wrong credentials, where a delete beside the put has just emptied its folder.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            await request()
        except StoreRefusedError:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(_PAUSE_S * attempt)
        else:
            return
