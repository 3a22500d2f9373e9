"""A TCP proxy that fails like a network: between clients and a server, one asyncio task per direction.

    async with FaultProxy("127.0.0.1", 9000) as proxy:
        proxy.drop_replies(r"^PUT ", times=1)      # the request is delivered, its answer is not
        proxy.mode = Mode.BLACKHOLE                # nothing is answered any more
        proxy.modes["n1"] = Mode.REFUSE            # for one client alone, as `source` names it by its port

Interim answers (`HTTP/1.1 100 Continue`) pass even where an answer is dropped, else the body is never sent.
"""

import asyncio
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from typing import Self

MOST_HEADS = 20_000


class Mode(Enum):
    """What happens to bytes and connections."""

    PASS = "pass"
    BLACKHOLE = "blackhole"
    """Connections are accepted, bytes are swallowed."""
    RESET = "reset"
    """Connections are accepted, then reset at the first byte."""
    REFUSE = "refuse"
    """Connections are reset as soon as they are made; see also `FaultProxy.refuse`."""


class Ending(Enum):
    """How the client's connection ends where an answer is dropped."""

    RESET = "reset"
    CLOSE = "close"
    HANG = "hang"


@dataclass
class _Drop:
    pattern: re.Pattern[str]
    times: int
    ending: Ending


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    source: str = ""
    drop: _Drop | None = None
    robbed: bool = False
    """Whether bytes of it were swallowed, so that it is of no use any more."""
    tasks: list["asyncio.Task[None]"] = field(default_factory=list)


class FaultProxy:
    """`requests` are the heads of the requests that came; `dropped` counts answers that were not passed on."""

    def __init__(
        self, host: str, port: int, *, listen: str = "127.0.0.1", source: Callable[[int], str] | None = None
    ) -> None:
        self._target = (host, port)
        self._listen = listen
        self._source = source
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._handlers: set[asyncio.Task[None]] = set()
        self._drops: list[_Drop] = []
        self.port = 0
        self.mode = Mode.PASS
        self.modes: dict[str, Mode] = {}
        self.latency_s = 0.0
        self.requests: list[str] = []
        self.dropped = 0

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def accept(self) -> None:
        """Listen, on the same port as before."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accepted, self._listen, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Close everything: connections are refused until `accept`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()
        tasks = [*self._handlers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cut(self, source: str | None = None, *, robbed: bool = False) -> None:
        """Reset every connection that is open, or those of one source, or those that lost bytes."""
        for connection in list(self._connections):
            if source in (None, connection.source) and (connection.robbed or not robbed):
                _reset(connection.client)
                _reset(connection.server)

    def drop_replies(self, pattern: str, times: int = 1, ending: Ending = Ending.RESET) -> None:
        """Deliver the next `times` requests whose head matches, and keep their answers to ourselves."""
        self._drops.append(_Drop(re.compile(pattern, re.IGNORECASE | re.MULTILINE), times, ending))

    def count(self, pattern: str) -> int:
        """Return how many requests had a matching head."""
        return sum(
            re.search(pattern, head, re.IGNORECASE | re.MULTILINE) is not None for head in self.requests
        )

    # ---- one connection

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._handlers.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        source = self._source(writer.get_extra_info("peername")[1]) if self._source else ""
        if self.modes.get(source, self.mode) is Mode.REFUSE:
            _reset(writer)
            return
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        connection = _Connection(writer, server_writer, source)
        self._connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                up = group.create_task(self._up(reader, connection))
                down = group.create_task(self._down(server_reader, connection))
                await asyncio.wait([up, down], return_when=asyncio.FIRST_COMPLETED)
                up.cancel()
                down.cancel()
        except* OSError:
            pass
        finally:
            self._connections.discard(connection)
            server_writer.close()
            with suppress(OSError):
                await server_writer.wait_closed()

    async def _up(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while data := await reader.read(65536):
            if head := _request_head(data):
                self.requests.append(head)
                if len(self.requests) > MOST_HEADS:
                    del self.requests[: MOST_HEADS // 2]
                self._mark(head, connection)
            mode = self.modes.get(connection.source, self.mode)
            if mode in (Mode.RESET, Mode.REFUSE):
                _reset(connection.client)
                return
            if mode is Mode.BLACKHOLE:
                connection.robbed = True
                continue
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            connection.server.write(data)
            await connection.server.drain()

    async def _down(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while data := await reader.read(65536):
            if self.modes.get(connection.source, self.mode) is Mode.BLACKHOLE:
                connection.robbed = True
                continue
            if connection.drop is not None:
                interim, data = _without_interim(data)
                if interim:
                    connection.client.write(interim)
                if not data:
                    continue
                self.dropped += 1
                if connection.drop.ending is Ending.HANG:
                    await asyncio.Event().wait()
                if connection.drop.ending is Ending.RESET:
                    _reset(connection.client)
                return
            connection.client.write(data)
            await connection.client.drain()

    def _mark(self, head: str, connection: _Connection) -> None:
        connection.drop = None
        for drop in self._drops:
            if drop.times > 0 and drop.pattern.search(head):
                drop.times -= 1
                connection.drop = drop
                return


def _request_head(data: bytes) -> str | None:
    """Return the request line and headers where `data` begins a request. A body in front of it would hide it, but
    clients send the two apart or the body last.
    """
    if not re.match(rb"[A-Z]+ \S+ HTTP/1\.[01]\r\n", data):
        return None
    return data.partition(b"\r\n\r\n")[0].decode("latin-1")


def _without_interim(data: bytes) -> tuple[bytes, bytes]:
    """Split leading `100 Continue` answers off."""
    interim = b""
    while data.startswith(b"HTTP/1.1 1"):
        first, separator, data = data.partition(b"\r\n\r\n")
        interim += first + separator
    return interim, data


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the other side sees a reset, not an end."""
    raw = writer.get_extra_info("socket")
    if raw is not None:
        with suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if writer.transport is not None:
        writer.transport.abort()
