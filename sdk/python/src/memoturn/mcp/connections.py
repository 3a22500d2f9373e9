"""An HTTP connection that has to say what it wants: who sends no request in time is closed."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

ALWAYS = frozenset({"/health", "/metrics"})
"""What is answered beyond the bound of connections too: a busy server is not to be taken for a dead one, and restarted."""
KEEP_ALIVE_S = 15
"""How long a connection may be idle between requests."""
HEADERS_S = 10.0
"""How long the head of a request may take, from the connection's beginning or from the request's first byte."""


class Connection(H11Protocol):
    """One connection. Uvicorn bounds how long it may be idle between requests, and not how long a request may begin."""

    _overdue: asyncio.TimerHandle | None = None
    _connections_max: int | None = None

    @property
    def limit_concurrency(self) -> int | None:
        """The bound beyond which uvicorn answers 503; none for the request that is to be answered all the same."""
        return None if self.scope and self.scope["path"] in ALWAYS else self._connections_max

    @limit_concurrency.setter
    def limit_concurrency(self, bound: int | None) -> None:
        self._connections_max = bound

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on with a request, and wait for the rest of its head where that is not there."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._overdue is None:
            self._overdue = self.loop.call_later(HEADERS_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None
