"""The server over streamable HTTP: many clients, each with its own token.

`/mcp` speaks both eras of the protocol. With the handshake a client opens a session, which keeps the token of its
initialize request: that token is what the node is asked with, another one is refused. Without it every request brings
its own. Nobody's token is kept longer than his session, verified here, or used for anybody else.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import anyio
from mcp.server import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from memoturn.mcp.logs import digest, say
from memoturn.mcp.metrics import CONTENT_TYPE, Metrics
from memoturn.mcp.server import build
from memoturn.mcp.sessions import Session, Sessions
from memoturn.mcp.settings import LOOPBACK, HttpSettings, Settings
from memoturn.mcp.upstream import Upstream, Upstreams

PATH: Final = "/mcp"
_UPSTREAM: Final = "memoturn.upstream"
_SESSION_HEADER: Final = "mcp-session-id"
_VERSION_HEADER: Final = "mcp-protocol-version"
_SWEEP_S: Final = 15.0
_TOKEN_MAX: Final = 8192
_INVALID_REQUEST: Final = -32600
_DRAINED: Final = 4


class _Refused(Exception):  # noqa: N818 - it is an answer
    """A request that is turned away."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class HttpServer:
    """The ASGI application and what it keeps. `clock` tells seconds, for the expiry of sessions."""

    def __init__(
        self, settings: Settings, http: HttpSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.metrics = Metrics()
        self.metrics.sessions_limit.set(http.sessions_max)
        self.sessions: Sessions[Upstream] = Sessions(
            clock,
            sessions_max=http.sessions_max,
            sessions_per_token=http.sessions_per_token,
            idle_s=http.session_idle_s,
        )
        self._http = http
        self._upstreams = Upstreams(settings)
        self._manager = StreamableHTTPSessionManager(
            build(settings, self.metrics, _upstream_of),
            max_request_body_size=http.body_bytes,
            session_idle_timeout=None,  # `sessions` decides which end
            max_sessions=None,
        )
        routes = [
            Route("/health", _health, methods=["GET"]),
            Route("/metrics", self._metrics_page, methods=["GET"]),
            Route(PATH, _Endpoint(self)),
        ]
        self.app = Starlette(routes=routes, middleware=_cors(http.origins), lifespan=self._lifespan)

    async def sweep(self) -> None:
        """End the sessions that were idle for too long."""
        await self._end(self.sessions.idle(), "idle")

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request to `/mcp`."""
        request = Request(scope, receive)
        try:
            await self._admitted(request, scope, receive, send)
        except ClientDisconnect:
            return  # nobody is there who could read an answer
        except _Refused as refused:
            self.metrics.refused.labels(str(refused.status)).inc()
            body = {
                "jsonrpc": "2.0",
                "id": None,
                "error": {"code": _INVALID_REQUEST, "message": refused.message},
            }
            await JSONResponse(body, status_code=refused.status, headers=refused.headers)(
                scope, receive, send
            )

    async def _admitted(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        self._check_browser(request.headers)
        token = _token(request.headers, needed=not self._http.loopback)
        if request.method == "POST" and not request.headers.get("content-type", "").startswith(
            "application/json"
        ):
            raise _Refused(415, "Content-Type has to be application/json")
        if request.method not in {"POST", "DELETE"}:
            # Nothing is ever sent unasked, so there is no stream to hold open.
            raise _Refused(405, "only POST and DELETE are served here", Allow="POST, DELETE")
        version = request.headers.get(_VERSION_HEADER)
        session_id = request.headers.get(_SESSION_HEADER)
        body = await self._body(request)
        replay = _replay(body, receive)
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            scope[_UPSTREAM] = self._upstreams.of_token(token)
            await self._manager.handle_request(scope, replay, send)
        elif session_id is not None:
            await self._in_session(self._session(session_id, token), scope, replay, send)
        elif request.method == "POST" and _opens(body):
            await self._open(token, scope, replay, send)
        else:
            raise _Refused(
                400,
                "the header Mcp-Session-Id is missing; send initialize first, and then the id that it answers",
            )

    def _check_browser(self, headers: Headers) -> None:
        """Keep web pages out: those of other origins, and those that a false name has led here.

        On a port that others reach, any Host is served unless some are named: there every request needs a token.
        """
        host = headers.get("host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        local = name.strip("[]") in LOOPBACK
        named = name in {allowed.lower() for allowed in self._http.hosts}
        if not (local or named or not (self._http.loopback or self._http.hosts)):
            raise _Refused(421, f"the Host {name[:100]!r} is not served; name it with --allow-host")
        origin = headers.get("origin")
        if origin is not None and origin not in {*self._http.origins, f"http://{host}", f"https://{host}"}:
            raise _Refused(403, f"the Origin {origin[:100]!r} is not allowed; name it with --allow-origin")

    def _session(self, session_id: str, token: str | None) -> Session[Upstream]:
        session = self.sessions.get(session_id)
        if session is None:
            raise _Refused(404, "there is no such session, or it is over; send initialize to open another")
        if not self.sessions.owned_by(session, token):
            raise _Refused(401, "the session was opened with another token", WWW_Authenticate="Bearer")
        return session

    async def _in_session(
        self, session: Session[Upstream], scope: Scope, receive: Receive, send: Send
    ) -> None:
        scope[_UPSTREAM] = session.upstream
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        self.sessions.begin(session)
        try:
            await self._manager.handle_request(scope, receive, watch)
        finally:
            self.sessions.end(session)
        over = scope["method"] == "DELETE" or status == HTTPStatus.NOT_FOUND
        if over and self.sessions.remove(session.id) is not None:
            self._ended("closed", session)

    async def _open(self, token: str | None, scope: Scope, receive: Receive, send: Send) -> None:
        await self.sweep()
        leaving = self.sessions.admit(token)
        if leaving is None:
            raise _Refused(503, "all sessions are in use; try again in some seconds", Retry_After="5")
        try:
            await self._end(leaving, "displaced")
            upstream = scope[_UPSTREAM] = self._upstreams.open(token)

            async def register(message: Message) -> None:
                if message["type"] == "http.response.start" and message["status"] == HTTPStatus.OK:
                    session_id = Headers(raw=message["headers"]).get(_SESSION_HEADER)
                    if session_id:
                        self._opened(self.sessions.add(session_id, token, upstream), token)
                await send(message)

            await self._manager.handle_request(scope, receive, register)
        finally:
            self.sessions.settle(token)

    async def _body(self, request: Request) -> bytes:
        """Return the body. Raises _Refused for one that is too large or takes too long; so much of it is kept at most."""
        bound = self._http.body_bytes
        size = 0
        chunks = bytearray()
        try:
            with anyio.fail_after(self._http.body_timeout_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= bound:
                        chunks += chunk
                    elif size > bound * _DRAINED:
                        break
        except TimeoutError:
            raise _Refused(408, "the body did not arrive in time", Connection="close") from None
        if size > bound:
            # Some of the rest was read and dropped, so that the client reads this answer, and not that he was cut off.
            raise _Refused(413, f"the body is over {bound} bytes; send less at once", Connection="close")
        return bytes(chunks)

    async def _end(self, sessions: list[Session[Upstream]], reason: str) -> None:
        for session in sessions:
            # The manager ends a session when it is asked to, as its client would ask.
            headers = [(_SESSION_HEADER.encode(), session.id.encode())]
            scope = {
                "type": "http",
                "method": "DELETE",
                "path": PATH,
                "query_string": b"",
                "headers": headers,
            }
            await self._manager.handle_request(scope, _nothing, _drop)
            self._ended(reason, session)

    def _opened(self, session: Session[Upstream], token: str | None) -> None:
        self.metrics.sessions_opened.inc()
        self.metrics.sessions.set(len(self.sessions))
        say(
            "session_opened",
            session=digest(session.id),
            credential=digest(token),
            sessions=len(self.sessions),
        )

    def _ended(self, reason: str, session: Session[Upstream]) -> None:
        self.metrics.sessions_ended.labels(reason).inc()
        self.metrics.sessions.set(len(self.sessions))
        say("session_ended", session=digest(session.id), reason=reason, sessions=len(self.sessions))

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        async with self._manager.run(), anyio.create_task_group() as tasks:
            tasks.start_soon(self._sweeping)
            tasks.start_soon(self.metrics.watch_loop_lag)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    for session in self.sessions.clear():
                        self._ended("stopped", session)
                    await self._upstreams.close()

    async def _sweeping(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_S)
            await self.sweep()

    async def _metrics_page(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)


class _Endpoint:
    """The route as an ASGI application, which Starlette takes with every method."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._server.serve(scope, receive, send)


async def _health(_: Request) -> Response:
    return PlainTextResponse("ok")


def _upstream_of(ctx: ServerRequestContext[Any, Any]) -> Upstream:
    assert ctx.request is not None  # over HTTP every message has one
    upstream: Upstream = ctx.request.scope[_UPSTREAM]
    return upstream


def _cors(origins: tuple[str, ...]) -> list[Middleware]:
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=[_SESSION_HEADER],
        )
    ]


def _token(headers: Headers, *, needed: bool) -> str | None:
    values = headers.getlist("authorization")
    if not values and not needed:
        return None
    scheme, _, token = values[0].partition(" ") if values else ("", "", "")
    token = token.strip()
    is_one = token.isascii() and token.isprintable() and 0 < len(token) <= _TOKEN_MAX
    if len(values) != 1 or scheme.lower() != "bearer" or not is_one:
        message = "a token is needed; send it as Authorization: Bearer <token>"
        raise _Refused(401, message, WWW_Authenticate="Bearer")
    return token


def _opens(body: bytes) -> bool:
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and message.get("method") == "initialize"


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives the body that was read, then what comes after it: that the client left."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _drop(_: Message) -> None:
    pass
