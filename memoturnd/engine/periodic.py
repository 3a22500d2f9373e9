"""Work that a node does again and again in the background, one failure of which must not end the node."""

from collections.abc import Awaitable, Callable

import structlog

from memoturnd.errors import MemoturnError
from memoturnd.seams.clock import Clock

_log = structlog.get_logger(__name__)


async def periodic(clock: Clock, every_s: float, name: str, work: Callable[[], Awaitable[object]]) -> None:
    """Do `work` every `every_s` seconds for ever; an error is logged, and the next turn tries again."""
    while True:
        await clock.sleep(every_s)
        try:
            await work()
        except MemoturnError as error:
            _log.warning(f"{name} failed; it is tried again", error=str(error))
        except Exception:  # noqa: BLE001 - the boundary of a background task: a bug here must not stop the node
            _log.exception(f"{name} failed unexpectedly; it is tried again")
