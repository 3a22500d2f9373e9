"""Short tasks that nobody waits for: each ends by itself, fails alone, and is cancelled when the node stops."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from memoturnd.errors import MemoturnError
from memoturnd.replication.compactor import Tasks

_log = structlog.get_logger(__name__)


class Errands:
    """Those of one part of the node, in the node's task group."""

    def __init__(self, spawn: Tasks) -> None:
        self._spawn = spawn
        self._running: dict[asyncio.Task[None], None] = {}  # in the order in which they began
        self._closed = False

    def start(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        """Begin `work`; what it raises is logged."""
        if self._closed:
            work.close()
            return
        task = self._spawn(self._run(name, work))
        self._running[task] = None
        task.add_done_callback(self._running.pop)
        task.add_done_callback(lambda _: work.close())  # where it was cancelled before it began

    def close(self) -> None:
        """Cancel what runs, and begin nothing any more."""
        self._closed = True
        for task in list(self._running):
            task.cancel()

    @staticmethod
    async def _run(name: str, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except MemoturnError as error:
            _log.warning(f"{name} failed", error=str(error))
        except Exception:  # noqa: BLE001 - the boundary of a background task: a bug here must not stop the node
            _log.exception(f"{name} failed unexpectedly")
