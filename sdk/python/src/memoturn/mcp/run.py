"""Runs the server until its client leaves or a signal comes, and stops it so that what is under way ends."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator

import anyio
import uvicorn
from mcp.server.stdio import stdio_server

from memoturn.errors import InvalidRequestError
from memoturn.mcp.connections import KEEP_ALIVE_S, Connection
from memoturn.mcp.http import PATH, HttpServer
from memoturn.mcp.logs import say
from memoturn.mcp.metrics import Metrics
from memoturn.mcp.server import build
from memoturn.mcp.settings import HttpSettings, Settings
from memoturn.mcp.upstream import Upstreams

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STDIO_GRACE_S = 5.0
_HEADERS_BYTES = 64 * 1024
_BACKLOG = 1024


def stdio(settings: Settings) -> None:
    """Serve one client over stdio; see `serve_stdio`."""
    asyncio.run(serve_stdio(settings))


def http(settings: Settings, http_settings: HttpSettings) -> None:
    """Serve many clients over HTTP; see `serve_http`."""
    asyncio.run(serve_http(settings, http_settings))


async def serve_stdio(settings: Settings) -> None:
    """Serve the client at stdin and stdout until it closes either, or until a signal comes.

    Calls that are under way when a signal comes have 5 s to end; then the process leaves, whatever stdin does.
    """
    upstreams = Upstreams(settings)
    metrics = Metrics()
    upstream = upstreams.open(settings.token)
    server = build(settings, metrics, lambda _: upstream)
    try:
        async with stdio_server() as (read, write):
            with _on_signal(lambda: asyncio.ensure_future(_leave(metrics))):
                say("serving", transport="stdio", node=settings.url, place=str(upstream.place))
                try:
                    await server.run(read, write, server.create_initialization_options())
                except asyncio.CancelledError:
                    # The transport has failed: nobody reads stdout. Whoever holds stdin open would keep us for ever.
                    with anyio.CancelScope(shield=True):
                        await _leave(metrics)
    except Exception as error:
        if not _is_closed_pipe(error):
            raise
    finally:
        with anyio.CancelScope(shield=True):
            await upstreams.close()
    say("stopped", transport="stdio")


def _is_closed_pipe(error: BaseException) -> bool:
    inner: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    return isinstance(error, BrokenPipeError) if inner is None else all(map(_is_closed_pipe, inner))


async def _leave(metrics: Metrics) -> None:
    """End the process once no call is under way: a thread that waits for stdin cannot be woken otherwise."""
    with anyio.move_on_after(_STDIO_GRACE_S):
        while metrics.running:  # noqa: ASYNC110 - a look now and then is enough to leave
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)  # an answer that is written now reaches the client
    say("stopped", transport="stdio")
    logging.shutdown()
    os._exit(0)


async def serve_http(settings: Settings, http: HttpSettings) -> None:
    """Serve `http.host` and `http.port` until a signal comes. Raises InvalidRequestError when it cannot listen."""
    if settings.token:
        say("token_not_used", level=logging.WARNING, why="over HTTP every client sends its own token")
    listening = _bind(http)
    server = _Server(
        uvicorn.Config(
            HttpServer(settings, http).app,
            loop="asyncio",
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            limit_concurrency=http.connections_max,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=int(http.stop_grace_s),
            h11_max_incomplete_event_size=_HEADERS_BYTES,
        )
    )
    port = listening.getsockname()[1]

    def stop() -> None:
        server.force_exit = server.should_exit
        server.should_exit = True

    with _on_signal(stop):
        say("serving", transport="http", url=f"http://{http.host}:{port}{PATH}", node=settings.url)
        await server.serve(sockets=[listening])
    say("stopped", transport="http")


class _Server(uvicorn.Server):
    """A server that leaves signals to `serve_http`: uvicorn would raise them again when it has stopped."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield


@contextlib.contextmanager
def _on_signal(action: Callable[[], object]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    try:
        for number in _SIGNALS:
            loop.add_signal_handler(number, action)
    except (NotImplementedError, RuntimeError):  # Windows, or not the main thread
        yield
        return
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


def _bind(http: HttpSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in http.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((http.host, http.port))
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise InvalidRequestError(
            f"cannot listen on {http.host}:{http.port}: {error}; stop what listens there, or give another port",
            code="invalid_request",
        ) from error
    return listening
