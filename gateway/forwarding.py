"""The one forwarder: sends a request to a node as it came, and hands back what the node answers as it comes.

Nothing is added, dropped or changed on the way but what belongs to a connection rather than to a message (RFC 9110, 7.6.1). Bodies
go through in pieces both ways; a short one of a request is kept, so that it can be sent again.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from typing import Final

import aiohttp
from multidict import CIMultiDict
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope
from yarl import URL

from memoturnd.errors import InvalidRequestError

Header = tuple[bytes, bytes]

FORWARDED: Final = b"memoturn-forwarded"
"""On a request that somebody forwards because he knows its owner: who gets it and is not that does not forward it again."""
HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Headers about a connection, which end with it; so do those that `Connection` names."""
KEPT_BODY_BYTES: Final = 1 << 20
"""Longest body of a request that is kept to be sent again; a longer one goes through in pieces, once."""
CONNECT_S: Final = 2.0
IDLE_S: Final = 2.0
"""How long an unused connection is kept: well below the 5 s after which a node closes it, which a request could cross."""
CONNECTIONS_PER_NODE: Final = 2048
"""As many as a node serves by default: those that follow its change feeds, up to half of them, must not keep others from it."""
SILENCE_S: Final = 90.0
"""Longest time between two pieces of an answer: a node that waits for a change says nothing for 60 s, all others speak more often."""
WHOLE_BYTES: Final = 64 * 1024
"""Answers up to this size are taken in one piece."""
_HEADER_BYTES: Final = 64 * 1024
_DROPPED: Final = HOP_BY_HOP | {FORWARDED, b"expect"}
_REPLACED: Final = HOP_BY_HOP | {b"date"}
"""Headers of an answer that whoever sends it on writes itself, or that end with the connection."""
_SKIPPED: Final = frozenset({"Accept", "Accept-Encoding", "User-Agent", "Content-Type"})
"""What the HTTP client would add by itself."""


class UnconnectedError(Exception):
    """No connection to the node came about: nothing was sent."""


class LostError(Exception):
    """The request was sent, at least in part, and no answer came, or only a part of it."""


class Body:
    """The body of a request: kept whole where it is short, else its first pieces and what is still to come."""

    __slots__ = ("_receive", "_wait_s", "is_spent", "kept", "size_bytes")

    def __init__(self, kept: bytes = b"", receive: Receive | None = None, wait_s: float = 30.0) -> None:
        self.kept = kept
        self.size_bytes = len(kept)
        self.is_spent = False
        """Whether a part of it that was not kept has been sent."""
        self._receive = receive
        self._wait_s = wait_s

    @property
    def is_whole(self) -> bool:
        """Whether all of it is kept."""
        return self._receive is None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body. Raises ClientDisconnect, TimeoutError when the client stops sending."""
        if self.is_spent:
            raise RuntimeError("a body that was not kept can be sent once")
        if self.kept:
            yield self.kept
        while self._receive is not None:
            self.is_spent = True
            async with asyncio.timeout(self._wait_s):
                message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if chunk := message.get("body", b""):
                yield chunk
            if not message.get("more_body"):
                return

    def replay(self) -> Receive:
        """Return what an application receives the body with, from its beginning, where none of it that was not kept is spent."""
        kept, rest = self.kept, self._receive
        first: list[Message] = [{"type": "http.request", "body": kept, "more_body": rest is not None}]

        async def receive() -> Message:
            if first:
                return first.pop()
            if rest is None:
                return {"type": "http.disconnect"}
            self.is_spent = True
            return await rest()

        return receive


def has_body(headers: list[Header]) -> bool:
    """Return whether a request says that it has a body."""
    return any(
        (name == b"content-length" and value != b"0") or name == b"transfer-encoding"
        for name, value in headers
    )


async def body_of(
    receive: Receive,
    *,
    keep_bytes: int = KEPT_BODY_BYTES,
    wait_s: float = 30.0,
    hold: Callable[[int], None] = lambda _: None,
) -> Body:
    """Return a request's body, up to `keep_bytes` of which are read; `hold` is told the bytes of each piece as it comes.

    Raises ClientDisconnect, TimeoutError, and what `hold` raises.
    """
    pieces, size_bytes = [], 0
    while True:
        async with asyncio.timeout(wait_s):
            message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece = message.get("body", b"")
        hold(len(piece))
        pieces.append(piece)
        size_bytes += len(piece)
        if not message.get("more_body"):
            return Body(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if size_bytes > keep_bytes:
            return Body(b"".join(pieces), receive, wait_s)


class Request:
    """A request as it is sent on: `target` is its raw path and query; `headers` are end to end already."""

    __slots__ = ("body", "headers", "method", "target")

    def __init__(self, method: str, target: str, headers: "CIMultiDict[str]", body: Body) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


def target_of(scope: Scope) -> str:
    """Return the path and query of a request, byte for byte. Raises InvalidRequestError where they are not ASCII, or no path.

    `*` is a target too (RFC 9112, 3.2.4), and the parser lets anything follow it. Behind a node's address that would be a part of
    the address: in `http://node:8080*@elsewhere/` the node's is a user name.
    """
    raw: bytes = scope["raw_path"]
    query: bytes = scope["query_string"]
    if not raw.startswith(b"/"):
        raise InvalidRequestError("the request's target is no path; begin it with `/`")
    try:
        return (raw + b"?" + query if query else raw).decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidRequestError("the request's target is not ASCII; percent-encode it") from error


def end_to_end(headers: list[Header], *, drop: frozenset[bytes] = _DROPPED) -> list[Header]:
    """Return the headers without those about the connection."""
    nominated = _nominated(headers)
    gone = drop if nominated is None else drop | nominated
    return [header for header in headers if header[0].lower() not in gone]


def _nominated(headers: list[Header]) -> frozenset[bytes] | None:
    values = [value for name, value in headers if name.lower() == b"connection"]
    if not values:
        return None
    return frozenset(part.strip().lower() for value in values for part in value.split(b","))


def as_sent(headers: list[Header], request_id: bytes, *, is_seen_to: bool = False) -> "CIMultiDict[str]":
    """Return the headers of a request for the HTTP client, with its id. Raises InvalidRequestError for bytes that are not UTF-8.

    With `is_seen_to` the origin of the page that sent it has been let in here, and is nobody else's to judge.
    """
    sent: CIMultiDict[str] = CIMultiDict()
    try:
        for name, value in end_to_end(headers):
            if name != b"memoturn-request-id" and not (is_seen_to and name == b"origin"):
                sent.add(name.decode("ascii"), value.decode())
    except UnicodeDecodeError as error:
        raise InvalidRequestError("a header of the request is not UTF-8; encode it") from error
    sent.add("memoturn-request-id", request_id.decode())
    return sent


class Upstream:
    """A node's answer: its head, and its body as it comes. `close` gives the connection back, or ends it before the body's end.

    Implements memoturnd.http.streaming.Stream. `size_bytes` is what Content-Length says.
    """

    __slots__ = ("_done", "_response", "body", "headers", "size_bytes", "status")

    def __init__(
        self, response: aiohttp.ClientResponse, body: bytes | None, done: Callable[[], None]
    ) -> None:
        self.status = response.status
        self.headers = [
            (name.lower(), value) for name, value in end_to_end(list(response.raw_headers), drop=_REPLACED)
        ]
        self.body = body
        """The whole body, where it was short; None where it is still to come."""
        self._response = response
        self._done: Callable[[], None] | None = done
        length = response.headers.get("Content-Length")
        self.size_bytes = int(length) if length is not None and length.isdecimal() else None

    def header(self, name: bytes) -> bytes | None:
        """Return a header's value by its lower-case name, None without it."""
        return next((value for one, value in self.headers if one == name), None)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body. Raises LostError where the node breaks it off."""
        if self.body is not None:
            if self.body:
                yield self.body
            return
        try:
            while chunk := await self._next():
                yield chunk
        except TimeoutError as error:
            raise LostError(f"the node said nothing for {SILENCE_S:g} s amid its answer") from error
        except (aiohttp.ClientError, OSError) as error:
            raise LostError(f"the node broke its answer off: {error or type(error).__name__}") from error

    async def _next(self) -> bytes:
        """Return what has come, empty at the end. Raises TimeoutError."""
        async with asyncio.timeout(SILENCE_S):
            return await self._response.content.readany()

    def close(self) -> None:
        """Give the connection back; where the body has not come to its end, it is ended with it."""
        if self._done is not None:
            done, self._done = self._done, None
            self._response.close()
            done()


class _Peer:
    """The connections to one address."""

    def __init__(self, address: str, connect_s: float, connections: int) -> None:
        self.base = URL(address)
        self.in_use = 0
        self.last_used_s = 0.0
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections, keepalive_timeout=IDLE_S, ttl_dns_cache=10, force_close=False
            ),
            # The wait for a free connection counts as well: who has had none has sent nothing.
            timeout=aiohttp.ClientTimeout(
                total=None, connect=connect_s, sock_connect=connect_s, sock_read=None
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_SKIPPED,
            auto_decompress=False,
            trust_env=False,
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
            read_bufsize=WHOLE_BYTES,
        )
        # The client would send PUT and DELETE again by itself when a kept connection turns out to be closed: whether a write may
        # be repeated is for memoturnd.core.retries to say.
        self.session._retry_connection = False  # noqa: SLF001


class Forwarder:
    """Sends requests to nodes by their addresses; `connect_s` bounds how long a connection may take."""

    def __init__(
        self,
        *,
        now_s: Callable[[], float],
        connect_s: float = CONNECT_S,
        connections: int = CONNECTIONS_PER_NODE,
        peers_limit: int = 1024,
    ) -> None:
        self._now_s = now_s
        self._connect_s = connect_s
        self._connections = connections
        self._peers_limit = peers_limit
        self._peers: dict[str, _Peer] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def send(self, address: str, request: Request, *, forwarded: bool, timeout_s: float) -> Upstream:
        """Send a request, and return the answer once its head is there.

        With `forwarded` the node may not forward it again. Raises UnconnectedError, LostError, TimeoutError after `timeout_s`,
        ClientDisconnect where the client's body breaks off.
        """
        peer = self._peer(address)
        headers = request.headers
        if forwarded:
            headers = headers.copy()
            headers["memoturn-forwarded"] = "1"
        body = request.body
        data = (
            None if not body.size_bytes and body.is_whole else (body.kept if body.is_whole else body.chunks())
        )
        peer.in_use += 1
        release = _once(peer)
        response = None
        try:
            async with asyncio.timeout(timeout_s):
                response = await peer.session.request(
                    request.method,
                    URL(f"{peer.base.scheme}://{peer.base.raw_authority}{request.target}", encoded=True),
                    headers=headers,
                    data=data,
                    allow_redirects=False,
                )
                whole = await _whole(response, request.method)
            return Upstream(response, whole, release)
        except BaseException as error:
            if response is not None:
                response.close()
            release()
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                raise UnconnectedError(f"{address} cannot be connected to: {error}") from error
            if isinstance(error, aiohttp.ClientError | OSError) and not isinstance(error, TimeoutError):
                if isinstance(error.__cause__, ClientDisconnect):
                    raise error.__cause__ from error
                raise LostError(f"{address} did not answer: {error or type(error).__name__}") from error
            raise

    def drop(self, address: str) -> None:
        """End every connection to an address: who waits for an answer from there waits in vain."""
        peer = self._peers.pop(address, None)
        if peer is not None:
            self._close(peer)

    async def close(self) -> None:
        """End every connection."""
        for address in list(self._peers):
            self.drop(address)
        await asyncio.gather(*self._closing)

    def _peer(self, address: str) -> _Peer:
        peer = self._peers.get(address)
        if peer is None:
            if len(self._peers) >= self._peers_limit:
                idle = [one for one, peer in self._peers.items() if not peer.in_use]
                for one in sorted(idle, key=lambda one: self._peers[one].last_used_s)[:1]:
                    self.drop(one)
            peer = self._peers[address] = _Peer(address, self._connect_s, self._connections)
        peer.last_used_s = self._now_s()
        return peer

    def _close(self, peer: _Peer) -> None:
        task = asyncio.get_running_loop().create_task(_closed(peer.session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _closed(session: aiohttp.ClientSession) -> None:
    with suppress(Exception):
        await session.close()


def _once(peer: _Peer) -> Callable[[], None]:
    def release() -> None:
        peer.in_use -= 1

    return release


async def _whole(response: aiohttp.ClientResponse, method: str) -> bytes | None:
    """Return the body of a short answer, None for another."""
    if method == "HEAD" or response.status in {204, 304}:
        return b""
    length = response.headers.get("Content-Length")
    if length is not None and length.isdecimal() and int(length) <= WHOLE_BYTES:
        return await response.read()
    return None
