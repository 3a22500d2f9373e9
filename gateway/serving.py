"""The gateway as a process: what it knows of the cluster, its application, and the server in front of it."""

import asyncio
import signal
import socket
from collections.abc import Callable
from typing import Protocol

import structlog

from gateway.app import Gateway, Limits, Shown
from gateway.forwarding import Forwarder
from gateway.metrics import GatewayMetrics
from gateway.placements import PlacementCache
from gateway.settings import GatewaySettings
from memoturnd.config import connections_limit
from memoturnd.http.protocol import ConnectionLimits, bounded_protocol
from memoturnd.http.routes import ROUTES
from memoturnd.leases.etcd import CALL_SHARE, EtcdWatching
from memoturnd.leases.etcd_client import EtcdClient, endpoints
from memoturnd.metrics import watch_loop_lag
from memoturnd.seams.clock import Clock, SystemClock, SystemRandomness
from memoturnd.seams.leases import Watching
from memoturnd.serving import BACKLOG, Server, bind, raise_descriptor_limit, stop
from memoturnd.settings_table import Address

GRACE_S = 5
"""How long requests under way may take to end when the gateway stops."""
CONNECTIONS_PER_REQUEST = 4
"""Connections of clients for each request that may be forwarded at once; many idle, or take an answer slowly."""
_log = structlog.get_logger(__name__)


class Settings(Limits, Protocol):
    """The settings of a gateway but for where it learns who owns what."""

    @property
    def listen(self) -> Address:
        """Address to listen on."""
        ...


async def serve(settings: GatewaySettings) -> None:
    """Run a gateway on etcd until SIGTERM or SIGINT. Raises ConfigurationError, OSError when the address cannot be bound."""
    clock = SystemClock()
    client = EtcdClient(
        endpoints(settings.etcd.reveal(), settings.etcd_ca_file), timeout_s=CALL_SHARE * settings.lease_ttl_s
    )
    watching = EtcdWatching(client, clock, ttl_s=settings.lease_ttl_s, prefix=settings.etcd_prefix)
    try:
        await serve_watching(settings, watching, clock=clock)
    finally:
        await watching.close()


async def serve_watching(
    settings: Settings,
    watching: Watching,
    *,
    clock: Clock | None = None,
    sockets: list[socket.socket] | None = None,
    on_ready: Callable[[int], None] = lambda _port: None,
    shown: Shown | None = None,
) -> None:
    """Run a gateway that follows `watching` until SIGTERM or SIGINT; `on_ready` is told the port once it can route.

    It listens on `sockets`, which are bound already, or else on the address of the settings. Raises OSError when that
    cannot be bound. With `shown` other metrics than its own are shown.
    """
    loop = asyncio.get_running_loop()
    clock = clock or SystemClock()
    descriptors = raise_descriptor_limit()
    sockets = sockets or bind(settings.listen, variable="MEMOTURN_GATEWAY_LISTEN")
    metrics = GatewayMetrics()
    forwarder = Forwarder(now_s=clock.monotonic_s)
    placements = PlacementCache(now_s=clock.monotonic_s, left=forwarder.drop)
    app = Gateway(
        placements,
        forwarder,
        settings,
        routes=ROUTES,
        clock=clock,
        randomness=SystemRandomness(),
        metrics=metrics,
        shown=shown,
    )
    connections = connections_limit(
        CONNECTIONS_PER_REQUEST * settings.gateway_concurrency // 2, 2 * descriptors
    )
    server = Server.of(app, bounded_protocol(ConnectionLimits(connections), metrics), grace_s=GRACE_S)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, server, number)
    port: int = sockets[0].getsockname()[1]
    try:
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(placements.feed(watching))
            telling = group.create_task(_tell(placements, port, on_ready))
            watching_lag = group.create_task(watch_loop_lag(metrics, clock))
            for bound in sockets:
                bound.listen(BACKLOG)
            _log.info("memoturn-gateway is up", url=f"http://{Address(settings.listen.host, port)}")
            await server.serve(sockets)
            feeding.cancel()
            telling.cancel()
            watching_lag.cancel()
    finally:
        for listening in sockets:
            listening.close()
        await forwarder.close()
    _log.info("stopped")


async def _tell(placements: PlacementCache, port: int, on_ready: Callable[[int], None]) -> None:
    while not placements.can_route:
        await placements.changed(None, 0.5)
    _log.info("requests can be routed", nodes=len(placements.nodes), placements=placements.owners)
    on_ready(port)
