"""What is done once, before workers start: the catalog is made right, and folders that none of them will use are emptied."""

from control_plane.catalogs.open import open_catalog
from memoturnd.config import Settings
from memoturnd.metrics import Metrics
from memoturnd.node import STORE_TIMEOUT_S
from memoturnd.seams.clock import SystemClock
from memoturnd.seams.executor import PoolExecutor
from memoturnd.stores.open import open_store, probe
from memoturnd.stores.timed import TimedStore
from memoturnd.workers.left_folders import left_by_workers, ship_left


async def prepare(settings: Settings, workers: int) -> None:
    """Run a node on the data directory, of which nobody else is at work, until all that it left is shipped.

    A lost catalog is rebuilt by it, and claims of processes that are gone are released. Raises ConfigurationError,
    StoreUnavailableError, CorruptionError.
    """
    clock = SystemClock()
    store = open_store(
        settings.object_store, s3_client=settings.s3_client, connections=settings.s3_connections
    )
    executor = PoolExecutor(settings.sqlite_threads)
    catalog = await open_catalog(settings, clock, Metrics())
    try:
        await probe(TimedStore(store, STORE_TIMEOUT_S))
        await ship_left(
            [settings, *left_by_workers(settings, first=workers)],
            store=store,
            catalog=catalog,
            clock=clock,
            executor=executor,
        )
    finally:
        await catalog.close()
        await store.close()
        executor.close()
