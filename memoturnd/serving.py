"""What every server of the project does alike: bind its address, take what descriptors there are, and stop on a signal."""

import asyncio
import contextlib
import errno
import resource
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, cast

import structlog
import uvicorn

from memoturnd.settings_table import Address

if TYPE_CHECKING:
    from memoturnd.http.protocol import BoundedProtocol

BACKLOG = 2048
IDLE_S = 2.5
"""How long a connection was not used when a server that hands over closes it: gateways and nodes keep theirs for a shorter time
(gateway.forwarding.IDLE_S), so that no request is on its way."""
LINGER_S = 3.5
"""How long a server that hands over waits at most for connections to be given up."""
_LOOK_S = 0.02
_DESCRIPTORS = 1_048_576
_log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """A server that leaves signals to `serve`: uvicorn would raise them again before the node has drained."""

    before_end: Callable[[], None] | None = None
    """Called when it stops, before it waits for the requests that are under way: ends those that would not end by themselves."""

    hand_over: Callable[[], Awaitable[None]] | None = None
    """Awaited before it closes any connection: whoever asks meanwhile is answered, and told not to use his connection again."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, and wait for what is under way."""
        if self.before_end is not None:
            self.before_end()
        if self.hand_over is not None:
            await self._answer_while(self.hand_over())
        await super().shutdown(sockets)

    async def _answer_while(self, handing_over: Awaitable[None]) -> None:
        """Answer whoever asks, with the word that his connection ends, until all is handed over and the connections are gone.

        Only connections that were idle for so long that nobody sends on them any more are closed from here.
        """
        state, clock = self.server_state, asyncio.get_running_loop().time
        state.default_headers = [*state.default_headers, (b"connection", b"close")]
        task = asyncio.ensure_future(handing_over)
        until_s = clock() + LINGER_S
        while not task.done() or (state.connections and clock() < until_s):
            for connection in list(state.connections):
                cast("BoundedProtocol", connection).give_up(idle_s=IDLE_S)
            await asyncio.sleep(_LOOK_S)
        await task

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take no signal."""
        yield

    @classmethod
    def of(cls, app: Any, protocol: "type[asyncio.Protocol]", *, grace_s: int) -> "Server":
        """Return a server of `app` whose connections are `protocol`; when it stops, requests have `grace_s` seconds to end."""
        return cls(
            uvicorn.Config(
                app,
                loop="none",
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                backlog=BACKLOG,
                server_header=False,
                timeout_graceful_shutdown=grace_s,
            )
        )


class Outlet(Protocol):
    """Where a node serves, and what ends it. `name` is told to who finds its data directory held."""

    @property
    def name(self) -> str:
        """What it serves on."""
        ...

    def descriptors(self) -> int:
        """Return how many descriptors the process may have."""
        ...

    def bind(self) -> list[socket.socket]:
        """Return the bound sockets. Raises OSError that says what to do."""
        ...

    def port(self, sockets: list[socket.socket]) -> int:
        """Return the port that it serves on."""
        ...

    def serving(self, end: Callable[[int], None]) -> None:
        """Take what ends the server, by the number of a signal, now that it serves."""
        ...


class OwnProcess:
    """A process of its own: a port, as many descriptors as there are, and an end by SIGTERM or SIGINT. Implements Outlet."""

    def __init__(self, listen: Address) -> None:
        self._listen = listen
        self.name = str(listen)

    def descriptors(self) -> int:
        """Take as many as the system grants: connections and profiles share them."""
        return raise_descriptor_limit()

    def bind(self) -> list[socket.socket]:
        """Bind each address of the host. Raises OSError."""
        return bind(self._listen)

    def port(self, sockets: list[socket.socket]) -> int:
        """Return the port, which the system may have chosen."""
        return int(sockets[0].getsockname()[1])

    def serving(self, end: Callable[[int], None]) -> None:
        """End it on a signal."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, end, number)


def bind(listen: Address, *, variable: str = "MEMOTURN_LISTEN") -> list[socket.socket]:
    """Return a bound socket per address of the host, all on one port. Raises OSError that says what to do, with the setting's name."""
    sockets: list[socket.socket] = []
    try:
        _bind_each(listen, sockets)
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise OSError(
            f"cannot listen on {listen}: {error.strerror or error}; stop what listens there, or set "
            f"{variable} to a free port of this machine"
        ) from error
    return sockets


def _bind_each(listen: Address, sockets: list[socket.socket]) -> None:
    port = listen.port
    found = socket.getaddrinfo(listen.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    absent: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        bound = socket.socket(family, kind, protocol)
        sockets.append(bound)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            bound.bind((address[0], port, *address[2:]))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            # A name may stand for an address that this machine does not have, such as ::1 without IPv6.
            absent = error
            sockets.pop().close()
        else:
            port = port or bound.getsockname()[1]
    if absent is not None and not sockets:
        raise absent


def raise_descriptor_limit() -> int:
    """Take as many descriptors as the system grants, and return how many: connections and profiles share them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return descriptor_limit()


def descriptor_limit() -> int:
    """Return how many descriptors the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def stop(server: uvicorn.Server, number: int) -> None:
    """Let a server end on a signal."""
    _log.info("stopping", signal=signal.Signals(number).name)
    server.should_exit = True
