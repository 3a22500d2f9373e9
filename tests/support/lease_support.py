"""Leases on a real etcd, kept as a node keeps them."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

from memoturnd.leases.etcd import CALL_SHARE, EtcdLeases, Identity
from memoturnd.leases.etcd_client import Endpoints, EtcdClient
from memoturnd.seams.clock import SystemClock

TTL_S = 2
"""The least that etcd grants at the members' election time."""


def etcd_client(url, ttl_s=TTL_S):
    """Return a client of the members that a setting names."""
    hosts = url.removeprefix("http://").split(",")
    return EtcdClient(Endpoints(tuple(f"http://{host}" for host in hosts)), timeout_s=CALL_SHARE * ttl_s)


@asynccontextmanager
async def etcd_leases(
    url, node_id="a", address=None, *, prefix="/memoturn/", instance=None, ttl_s=TTL_S, clock=None, **options
):
    """Give a node's leases, started and kept; the end gives everything back."""
    leases = EtcdLeases(
        etcd_client(url, ttl_s),
        Identity(node_id, address or f"http://{node_id}:1", instance or f"disk of {node_id}"),
        clock or SystemClock(),
        ttl_s=ttl_s,
        prefix=prefix,
        **options,
    )
    kept = None
    try:
        await leases.start()
        kept = asyncio.create_task(leases.keep())
        yield leases
    finally:
        if kept is not None:
            kept.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await kept
        await leases.close()
