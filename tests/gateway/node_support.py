"""Nodes of one process that share leases, catalog and object store, each behind a real server, with a gateway in front."""

import contextlib

from gateway_support import Parts, served

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.config import Settings
from memoturnd.http.app import create_app
from memoturnd.http.auditing import Auditor
from memoturnd.http.forwarding import Forwarding
from memoturnd.leases.local import LeaseTable, LocalLeases
from memoturnd.node import running
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.executor import InlineExecutor
from memoturnd.stores.memory import MemoryStore


class Late:
    """The application of a server that has to listen before its node knows its address."""

    app = None

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


class ClusterNode:
    def __init__(self, node, leases, url):
        self.node, self.leases, self.url = node, leases, url


class Cluster:
    def __init__(self, folder):
        self.table, self.store, self.catalog = LeaseTable(), MemoryStore(), SqliteCatalog(":memory:")
        self.folder = folder
        self.nodes = {}

    @contextlib.asynccontextmanager
    async def node(self, name, *, with_key=True, **env):
        late, clock = Late(), SystemClock()
        (self.folder / name).mkdir()
        if with_key:
            env.setdefault("CLUSTER_KEY", "cluster-key-of-the-tests")
        async with served(late) as url:
            settings = Settings.from_env(
                {
                    "MEMOTURN_DATA_DIR": str(self.folder / name),
                    "MEMOTURN_NODE_ID": name,
                    "MEMOTURN_ADVERTISE": url,
                    **{f"MEMOTURN_{key}": value for key, value in env.items()},
                }
            )
            leases = LocalLeases(name, url, self.table)
            async with running(
                settings,
                store=self.store,
                leases=leases,
                catalog=self.catalog,
                clock=clock,
                randomness=SystemRandomness(),
                executor=InlineExecutor(),
                boot_id="boot",
            ) as node:
                forwarding = Forwarding(node, settings, clock)
                late.app = create_app(
                    node,
                    settings,
                    forwarding=forwarding,
                    auditor=Auditor(node.audit, node.audit_rules, clock),
                )
                self.nodes[name] = ClusterNode(node, leases, url)
                yield self.nodes[name]
                await forwarding.close()
            await leases.close()


@contextlib.asynccontextmanager
async def cluster(folder, *names, **env):
    """A cluster of running nodes by these names."""
    made = Cluster(folder)
    async with contextlib.AsyncExitStack() as stack:
        for name in names:
            await stack.enter_async_context(made.node(name, **env))
        yield made
    await made.catalog.close()


@contextlib.asynccontextmanager
async def gateway_of(made, **changes):
    """A gateway that follows the cluster's leases."""
    import asyncio

    parts = Parts(**changes)
    feeding = asyncio.create_task(parts.placements.feed(next(iter(made.nodes.values())).leases))
    try:
        async with served(parts.app, parts.metrics) as parts.url:
            while not parts.placements.is_fed:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            yield parts
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)
        await parts.forwarder.close()
