"""Three HTTP clients: a new connection per request, one kept open, and an asyncio one for many at once."""

import asyncio
import socket
import urllib.request
from typing import Any, Protocol, cast

import msgspec

_TIMEOUT_S = 60
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class RequestFailedError(Exception):
    """The node answered with an error."""


class Client(Protocol):
    """Sends one request at a time."""

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the answer's body. Raises RequestFailedError, or urllib's HTTPError."""
        ...


def encode(value: Any) -> bytes:
    """Return JSON."""
    return msgspec.json.encode(value)


def request_bytes(method: str, path: str, body: bytes | None = None, headers: str = "") -> bytes:
    """Return a whole request; `headers` are extra lines, each ending with CRLF."""
    kind = "" if body is None or method == "PUT" else "Content-Type: application/json\r\n"
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}{length}{headers}\r\n"
    return head.encode() + (body or b"")


class FreshClient:
    """urllib, as the original script: every request opens a TCP connection of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._base = f"http://{host}:{port}"
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Return the answer's body. Raises urllib.error.HTTPError."""
        headers = {} if body is None or method == "PUT" else {"Content-Type": "application/json"}
        request = urllib.request.Request(self._base + path, body, headers, method=method)
        with self._open(request, timeout=_TIMEOUT_S) as answer:
            content: bytes = answer.read()
        return content


class KeptClient:
    """A blocking socket that stays open, with next to no work of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._socket = socket.create_connection((host, port), _TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, method: str, path: str, body: bytes | None = None, headers: str = "") -> bytes:
        """Return the answer's body; `headers` as in `request_bytes`. Raises RequestFailedError."""
        self._socket.sendall(request_bytes(method, path, body, headers))
        received = self._socket.recv(65536)
        while (size := answer_size(received)) is None or len(received) < size[1]:
            more = self._socket.recv(1 << 20)
            if not more:
                raise RequestFailedError("the node closed the connection")
            received += more
        if not 200 <= status_of(received) < 300:
            raise RequestFailedError(received.decode(errors="replace"))
        return received[size[0] :]

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def answer_size(received: bytes | bytearray) -> tuple[int, int] | None:
    """Return where the body starts and ends, None while the head is incomplete."""
    head_end = received.find(_HEAD_END)
    if head_end < 0:
        return None
    at = received.find(_LENGTH, 0, head_end)
    start = head_end + len(_HEAD_END)
    if at < 0:
        return start, start
    return start, start + int(received[at + len(_LENGTH) : received.find(b"\r", at)])


def status_of(received: bytes | bytearray) -> int:
    """Return the status of an answer."""
    return int(received[9:12])


class Connection(asyncio.Protocol):
    """One kept connection of the asyncio client: one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._waiter: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None
        self.last = b""
        """The last answer that was an error."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not derive from it

    def data_received(self, data: bytes) -> None:
        """End the waiting request once its answer is whole."""
        self._received += data
        size = answer_size(self._received)
        if size is None or len(self._received) < size[1]:
            return
        status = status_of(self._received)
        if status >= 300:
            self.last = bytes(self._received)
        self._received.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the waiting request."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or RequestFailedError("the node closed the connection"))

    async def send(self, request: bytes) -> int:
        """Send a whole request and return the answer's status."""
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()
