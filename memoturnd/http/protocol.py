"""uvicorn's HTTP/1.1 protocol with the bounds that it lacks: connections, header bytes, header time.

uvicorn starts to count a request once its headers are complete, so a client that never completes them would
cost a descriptor for ever, and one that sends headers without end would cost memory. What goes wrong before
a request exists is answered in the error envelope too.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import Counter, Gauge
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from memoturnd.errors import InvalidRequestError, MemoturnError, OverloadedError, RequestTimeoutError
from memoturnd.http.envelope import error_reply

HEADER_BYTES = 64 * 1024
"""Most bytes that the request line and the headers of one request may have together."""
ABORT = "memoturn.abort"
"""ASGI extension: its `abort` ends the connection at once, without sending what waits to be sent."""
GONE = "memoturn.gone"
"""ASGI extension: what stands under its key `call` is called when the connection ends while the request is being served."""
HEADERS_S = 10.0
"""Longest time from opening a connection, or from the first byte of a later request, to complete headers."""


PROBES = frozenset({b"/health", b"/ready", b"/metrics"})
SPARE = 16
"""Connections beyond the bound, for `PROBES` alone: who restarts what does not answer would end a node for being busy."""
SPARE_S = 1.0
"""Longest time from opening one of these to complete headers."""


class ConnectionMetrics(Protocol):
    """Where connections are counted."""

    connections: Gauge
    connections_limit: Gauge
    shed: dict[str, Counter]


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The bounds of one node's connections."""

    connections: int
    headers_s: float = HEADERS_S
    header_bytes: int = HEADER_BYTES


def bounded_protocol(limits: ConnectionLimits, metrics: ConnectionMetrics) -> type[asyncio.Protocol]:
    """Return the protocol class for uvicorn's `http` setting."""
    metrics.connections_limit.set(limits.connections)

    class Bounded(BoundedProtocol):
        pass

    Bounded.limits, Bounded.metrics = limits, metrics
    return Bounded


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Made by `bounded_protocol`, which sets the class's bounds."""

    limits: ConnectionLimits
    metrics: ConnectionMetrics

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._header_timer: asyncio.TimerHandle | None = None
        self._header_bytes = 0
        self._idle_since_s: float | None = None
        self._is_spare = False

    def give_up(self, *, idle_s: float) -> None:
        """Close a connection on which nothing came for `idle_s`; let another one end with the answer that is under way."""
        if self._idle_since_s is None:
            if self.cycle is not None:
                self.cycle.keep_alive = False
        elif self.loop.time() - self._idle_since_s > idle_s:
            self.shutdown()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or turn it away where too many are open."""
        super().connection_made(transport)
        self._idle_since_s = self.loop.time()
        self.metrics.connections.set(len(self.connections))
        self._is_spare = self._beyond(0)
        if self._beyond(SPARE):
            self._turn_away()
        else:
            self._await_headers(
                min(SPARE_S, self.limits.headers_s) if self._is_spare else self.limits.headers_s
            )

    def _beyond(self, spare: int) -> bool:
        return len(self.connections) > self.limits.connections + spare

    def _turn_away(self) -> None:
        self.metrics.shed["connections"].inc()
        self._refuse(
            OverloadedError(
                f"{self.limits.connections} connections are open, which is the bound; close some, or try again"
            )
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)
        self.metrics.connections.set(len(self.connections))
        scope = getattr(self, "scope", None)
        if scope is not None and (call := scope["extensions"][GONE].get("call")) is not None:
            call()

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless the connection was turned away."""
        self._idle_since_s = None
        if not self.transport.is_closing():
            super().data_received(data)

    def on_message_begin(self) -> None:
        """Start to count a request's headers."""
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"abort": self.transport.abort}, GONE: {}}
        self._header_bytes = 0
        if self._header_timer is None:
            self._await_headers(self.limits.headers_s)

    def on_url(self, url: bytes) -> None:
        """Count the request line."""
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._count(name, value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request: from here on its own limits hold."""
        self._stop_timer()
        if self._is_spare and self._beyond(0) and self.url.partition(b"?")[0] not in PROBES:
            self._turn_away()
            raise ValueError("no connection to spare")  # ends the parsing
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """End a request; the next one that came already begins."""
        super().on_response_complete()
        if self.timeout_keep_alive_task is not None:
            self._idle_since_s = self.loop.time()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP request."""
        if not self.transport.is_closing():
            self._refuse(InvalidRequestError(f"{msg} Send HTTP/1.1 with an ASCII request line."))

    def _count(self, *parts: bytes) -> None:
        self._header_bytes += sum(map(len, parts))
        if self._header_bytes > self.limits.header_bytes:
            self._refuse(
                InvalidRequestError(
                    f"the request's headers are over {self.limits.header_bytes} bytes; send less"
                )
            )
            raise ValueError("headers too large")  # ends the parsing

    def _await_headers(self, within_s: float) -> None:
        self._header_timer = self.loop.call_later(within_s, self._too_slow)

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _too_slow(self) -> None:
        self._header_timer = None
        if self._is_spare and self._beyond(0):
            self._turn_away()
            return
        self._refuse(
            RequestTimeoutError(
                f"the request's headers did not come within {self.limits.headers_s:g} s; send it again"
            )
        )

    def _refuse(self, error: MemoturnError) -> None:
        """Answer with the error and close."""
        self._stop_timer()
        answer = error_reply(error)
        lines = [b"HTTP/1.1 %d \r\n" % answer.status]
        lines += [b"%s: %s\r\n" % header for header in answer.headers]
        lines += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(answer.body), answer.body]
        self.transport.write(b"".join(lines))
        self.transport.close()
