"""Which leases a node uses, by its settings: in process for a node alone, in a table for workers, in etcd for a cluster."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from memoturnd.config import Settings
from memoturnd.engine.files import found
from memoturnd.leases.files import FileLeases, Unshipped
from memoturnd.leases.local import LocalLeases
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock, SystemRandomness
from memoturnd.seams.leases import Leases
from memoturnd.workers.settings import WorkerSettings


class Load:
    """How busy the node is, from 0 to 1, for leases to tell: 1 until it serves, and once it drains."""

    def __init__(self) -> None:
        self._measure: Callable[[], float] | None = None
        self.on_change: Callable[[], None] = lambda: None
        """Called when the node begins to serve, or ends to."""

    def __call__(self) -> float:
        """Return the part of the node's capacity in use."""
        return 1.0 if self._measure is None else self._measure()

    def serve(self, measure: Callable[[], float]) -> None:
        """Let the node be given branches, by what `measure` returns."""
        self._measure = measure
        self.on_change()

    def drain(self) -> None:
        """Let the node be given nothing more, at once."""
        self._measure = None
        self.on_change()


@asynccontextmanager
async def opened_leases(
    settings: Settings, clock: Clock, *, instance: str, load: Load, metrics: Metrics
) -> AsyncIterator[Leases]:
    """Give the leases that the settings ask for, kept until the end, which gives everything back.

    `instance` is the data directory's own id. Raises ConfigurationError where another node has this one's name,
    RetryableError where etcd does not answer.
    """
    if isinstance(settings, WorkerSettings):
        async with _of_worker(settings, load) as files:
            yield files
        return
    if settings.etcd is None:
        leases = LocalLeases(settings.node_id, settings.advertise)
        yield leases
        await leases.close()
        return
    from memoturnd.leases.etcd import CALL_SHARE, EtcdLeases, Identity  # it brings the HTTP client
    from memoturnd.leases.etcd_client import EtcdClient, endpoints

    shared = EtcdLeases(
        EtcdClient(
            endpoints(settings.etcd.reveal(), settings.etcd_ca_file),
            timeout_s=CALL_SHARE * settings.lease_ttl_s,
        ),
        Identity(settings.node_id, settings.advertise, instance),
        clock,
        ttl_s=settings.lease_ttl_s,
        prefix=settings.etcd_prefix,
        load=load,
        on_failed_renewal=metrics.lease_renewals_failed.inc,
        on_renewal=metrics.lease_renewal_seconds.observe,
    )
    load.on_change = shared.tell_load

    def measure() -> None:
        metrics.leases_held.set(shared.held)
        metrics.lease_age_seconds.set(shared.age_s)
        metrics.lease_left_seconds.set(shared.left_s)

    metrics.before_scrape(measure)
    failure: Exception | None = None
    try:
        await shared.start()
        async with asyncio.TaskGroup() as group:
            kept = group.create_task(shared.keep())
            try:
                yield shared
            except Exception as error:  # noqa: BLE001 - raised again below, as itself and not in a group
                failure = error
            finally:
                kept.cancel()
    finally:
        await shared.close()
    if failure is not None:
        raise failure


@asynccontextmanager
async def _of_worker(settings: WorkerSettings, load: Callable[[], float]) -> AsyncIterator[Leases]:
    unshipped = [
        Unshipped(branch_id, owner.db_name, owner.branch)
        for _, branch_id, owner, clean in found(settings.data_dir / "dbs")
        if owner is not None and not clean
    ]
    files = await FileLeases.open(
        settings.leases_dir,
        settings.node_id,
        settings.advertise,
        randomness=SystemRandomness(),
        unshipped=unshipped,
        load=load,
    )
    try:
        async with asyncio.TaskGroup() as group:
            kept = group.create_task(files.keep())
            try:
                yield files
            finally:
                kept.cancel()
    finally:
        await files.close()
