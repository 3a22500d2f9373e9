"""The composition: settings become a store, a catalog, leases, a node and an HTTP server, and come down in order."""

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import uvicorn

from control_plane.catalogs.open import open_catalog
from control_plane.http.alone import SERVED_ALONE
from memoturnd.cluster_settings import identified
from memoturnd.config import Settings, connections_limit
from memoturnd.datadir import boot_id, instance_id, lock_data_dir
from memoturnd.embedders.open import open_embedder
from memoturnd.http.app import create_app
from memoturnd.http.auditing import Auditor
from memoturnd.http.protocol import ConnectionLimits, bounded_protocol
from memoturnd.http.route import Route
from memoturnd.http.routes import ROUTES
from memoturnd.language_models.open import open_models
from memoturnd.leases.open import Load, opened_leases
from memoturnd.metrics import Metrics
from memoturnd.node import STORE_TIMEOUT_S, Node, running
from memoturnd.seams.catalog import Catalog
from memoturnd.seams.clock import Clock, SystemClock, SystemRandomness
from memoturnd.seams.executor import PoolExecutor
from memoturnd.seams.leases import Leases
from memoturnd.settings_table import Address
from memoturnd.stores.open import open_store, probe
from memoturnd.stores.timed import TimedStore
from memoturnd.trust import cluster_key
from memoturnd.workers.child import tell_ready, when_orphaned
from memoturnd.workers.left_folders import left_by_workers, ship_left
from memoturnd.workers.settings import WorkerSettings

if TYPE_CHECKING:
    from memoturnd.http.forwarding import Forwarding

GRACE_S = 2
"""How long requests under way may take to end when the node stops; shipping and closing come after."""
PEER_SHARE = 0.9
"""Part of a request's time that a data-plane node may take of it, so that its failure is told before the request's own."""
_BACKLOG = 2048
_DESCRIPTORS = 1_048_576
_log = structlog.get_logger(__name__)


class _Server(uvicorn.Server):
    """A server that leaves signals to `serve`: uvicorn would raise them again before the node has drained."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, *, hosts_profiles: bool = True) -> None:
    """Run a node until SIGTERM or SIGINT, then stop accepting, ship, close and return.

    Without `hosts_profiles` it is a control plane alone: it serves the directory, and no profile.

    Raises ConfigurationError for a data directory that another process holds or a store that is unusable,
    OSError when the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    descriptors = _raise_descriptor_limit()
    connections = connections_limit(settings.max_concurrency, descriptors)
    with lock_data_dir(settings.data_dir, listen=str(settings.listen)):
        clock = SystemClock()
        embedder = open_embedder(settings, clock) if hosts_profiles else None
        store = open_store(
            settings.object_store, s3_client=settings.s3_client, connections=settings.s3_connections
        )
        executor = PoolExecutor(settings.sqlite_threads)
        metrics = Metrics()
        catalog = await open_catalog(settings, clock, metrics)
        load = Load()
        models = open_models(settings, clock)
        sockets: list[socket.socket] = []
        try:
            sockets = _bind(settings.listen)  # before anything is opened: a taken port ends the start early
            instance = instance_id(settings.data_dir)
            settings = identified(settings, instance, port=sockets[0].getsockname()[1])
            await probe(TimedStore(store, STORE_TIMEOUT_S))
            if hosts_profiles and (left := left_by_workers(settings)):
                await ship_left(
                    [settings, *left], store=store, catalog=catalog, clock=clock, executor=executor
                )
            if embedder is not None:
                await embedder.start()
            alone = replace(settings, etcd=None)  # a control plane owns no branch
            async with (
                opened_leases(
                    settings if hosts_profiles else alone,
                    clock,
                    instance=instance,
                    load=load,
                    metrics=metrics,
                ) as leases,
                running(
                    settings,
                    store=store,
                    leases=leases,
                    catalog=catalog,
                    clock=clock,
                    randomness=SystemRandomness(),
                    executor=executor,
                    boot_id=boot_id(),
                    metrics=metrics,
                    embedder=embedder,
                    models=models,
                    hosts_profiles=hosts_profiles,
                ) as node,
                _surroundings(node, settings, catalog, clock, hosts_profiles=hosts_profiles) as routes,
                forwarding_of(node, settings, leases, clock) as forwarding,
            ):
                load.measure = node.tiers.load
                server = _Server(
                    uvicorn.Config(
                        create_app(
                            node,
                            settings,
                            clock=clock,
                            routes=routes,
                            auditor=Auditor(node.audit, node.audit_rules, clock),
                            forwarding=forwarding,
                        ),
                        loop="none",
                        http=bounded_protocol(ConnectionLimits(connections), node.metrics),
                        lifespan="off",
                        log_config=None,
                        access_log=False,
                        backlog=_BACKLOG,
                        server_header=False,
                        timeout_graceful_shutdown=GRACE_S,
                    )
                )
                for number in (signal.SIGTERM, signal.SIGINT):
                    loop.add_signal_handler(number, _stop, server, number)
                for bound in sockets:
                    bound.listen(_BACKLOG)  # who believes the announcement must be able to connect
                _announce(settings, port=sockets[0].getsockname()[1], hosts_profiles=hosts_profiles)
                if isinstance(settings, WorkerSettings):
                    when_orphaned(loop, lambda: _stop(server, signal.SIGHUP))
                    tell_ready(settings.advertise)
                await server.serve(sockets)
                _log.info("draining")
        finally:
            for listening in sockets:
                listening.close()
            if embedder is not None:
                await embedder.close()
            await models.close()
            await catalog.close()
            await store.close()
            executor.close()
    _log.info("stopped")


@contextlib.asynccontextmanager
async def _surroundings(
    node: Node, settings: Settings, catalog: Catalog, clock: Clock, *, hosts_profiles: bool
) -> AsyncIterator[tuple[Route, ...]]:
    """Return the routes to serve; a control plane leaves to data-plane nodes what only they can do."""
    if hosts_profiles:
        yield ROUTES
        return
    from control_plane.peers import Peers  # the HTTP client is for a control plane and for clusters
    from memoturnd.peers import HttpPeers

    http = HttpPeers(await cluster_key(node.authority, settings))
    peers = Peers(catalog, clock, http, timeout_s=PEER_SHARE * settings.request_timeout_s)
    node.databases.delete_by(peers.delete_database)
    try:
        yield SERVED_ALONE
    finally:
        await http.close()


@contextlib.asynccontextmanager
async def forwarding_of(
    node: Node, settings: Settings, leases: Leases, clock: Clock
) -> AsyncIterator["Forwarding | None"]:
    """Return what sends requests to other nodes, None for a node that shares nothing with others."""
    if not leases.is_shared:
        yield None
        return
    from memoturnd.http.forwarding import Forwarding  # the HTTP client is for clusters

    forwarding = Forwarding(node, settings, clock)
    try:
        yield forwarding
    finally:
        await forwarding.close()


def _bind(listen: Address) -> list[socket.socket]:
    """Return a bound socket per address of the host, all on one port. Raises OSError that says what to do."""
    sockets: list[socket.socket] = []
    try:
        _bind_each(listen, sockets)
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise OSError(
            f"cannot listen on {listen}: {error.strerror or error}; stop what listens there, or set "
            "MEMOTURN_LISTEN to a free port of this machine"
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


def _raise_descriptor_limit() -> int:
    """Take as many descriptors as the system grants, and return how many: connections and profiles share them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and wanted > soft:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def _stop(server: uvicorn.Server, number: int) -> None:
    _log.info("stopping", signal=signal.Signals(number).name)
    server.should_exit = True


def _announce(settings: Settings, *, port: int, hosts_profiles: bool) -> None:
    if not hosts_profiles:
        _log.info(
            "memoturn-control is up",
            url=f"http://{Address(settings.listen.host, port)}",
            data_dir=str(settings.data_dir),
            object_store=settings.object_store,
        )
        return
    survives = {
        "normal": "kill -9, not power loss (MEMOTURN_SYNC=normal: COMMIT does not fsync)",
        "full": "kill -9 and power loss (MEMOTURN_SYNC=full: every COMMIT fsyncs)",
    }
    _log.info(
        "memoturnd is up",
        url=f"http://{Address(settings.listen.host, port)}",
        data_dir=str(settings.data_dir),
        object_store=settings.object_store,
        authentication=settings.auth,
        embeddings=settings.embed_provider,
        acknowledges=settings.durability,
        a_local_write_survives=survives[settings.sync],
        at_risk_when_the_disk_is_lost=f"up to {settings.unshipped_max_age_s:g} s, usually {settings.ship_interval_ms} ms",
    )


def set_up_logging(settings: Settings) -> None:
    """Send structured logs to stderr, as text for people or JSON for machines."""
    level = getattr(logging, settings.log_level.upper())
    renderer = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *([_names_worker(settings.worker)] if isinstance(settings, WorkerSettings) else []),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        stream=sys.stderr, level=max(level, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _names_worker(worker: int) -> structlog.typing.Processor:
    """Return what lets each line of the log say which worker wrote it."""

    def name(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["worker"] = worker
        return event

    return name


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the trace of each request that was cut off by a stop: uvicorn has said how many there were."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
