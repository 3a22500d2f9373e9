"""The composition: settings become a store, a catalog, leases, a node and an HTTP server, and come down in order."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

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
from memoturnd.serving import BACKLOG, Outlet, OwnProcess, Server, stop
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
_log = structlog.get_logger(__name__)


async def serve(settings: Settings, *, hosts_profiles: bool = True, outlet: Outlet | None = None) -> None:
    """Run a node until it is ended, by SIGTERM or SIGINT, then stop accepting, ship, close and return.

    Without `hosts_profiles` it is a control plane alone: it serves the directory, and no profile. `outlet` is
    where it serves and what ends it, unless it has the process for itself.

    Raises ConfigurationError for a data directory that another process holds or a store that is unusable,
    OSError when the address cannot be bound.
    """
    loop = asyncio.get_running_loop()
    outlet = outlet or OwnProcess(settings.listen)
    connections = connections_limit(settings.max_concurrency, outlet.descriptors())
    with lock_data_dir(settings.data_dir, listen=outlet.name):
        clock = SystemClock()
        embedder = open_embedder(settings, clock) if hosts_profiles else None
        store = open_store(
            settings.object_store, s3_client=settings.s3_client, connections=settings.s3_connections
        )
        executor = PoolExecutor(settings.sqlite_threads)
        metrics = Metrics(process="node" if hosts_profiles else "control")
        catalog = await open_catalog(settings, clock, metrics)
        load = Load()
        models = open_models(settings, clock, metrics.model_called)
        sockets: list[socket.socket] = []
        try:
            sockets = outlet.bind()  # before anything is opened: a taken port ends the start early
            instance = instance_id(settings.data_dir)
            settings = identified(settings, instance, port=outlet.port(sockets))
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
                server = Server.of(
                    create_app(
                        node,
                        settings,
                        clock=clock,
                        routes=routes,
                        auditor=Auditor(node.audit, node.audit_rules, clock),
                        forwarding=forwarding,
                    ),
                    bounded_protocol(ConnectionLimits(connections), node.metrics),
                    grace_s=GRACE_S,
                )
                _end_gently(server, node, forwarding)

                def end(number: int) -> None:
                    load.drain()
                    stop(server, number)

                for bound in sockets:
                    bound.listen(BACKLOG)  # who believes the announcement must be able to connect
                load.serve(node.tiers.load)
                outlet.serving(end)
                _announce(settings, port=outlet.port(sockets), hosts_profiles=hosts_profiles)
                if isinstance(settings, WorkerSettings):
                    when_orphaned(loop, lambda: end(signal.SIGHUP))
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


def _end_gently(server: Server, node: Node, forwarding: "Forwarding | None") -> None:
    """Let a server that stops end what would not end by itself, and a node among others give its branches to them first."""
    server.before_end = node.feeds.stop
    if forwarding is not None:
        server.hand_over = partial(_hand_over, node)


async def _hand_over(node: Node) -> None:
    """Ship and give back every branch while requests for them are still answered, so that others own them at once."""
    left = await node.hand_over()
    _log.info("handed over", not_handed_over=left)


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
