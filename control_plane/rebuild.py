"""`memoturn-control rebuild`: the catalog made anew from the object store, and told what came back and what cannot."""

import sys
from collections.abc import Iterator

from control_plane.catalogs.open import open_catalog
from memoturnd.config import Settings
from memoturnd.datadir import lock_data_dir
from memoturnd.engine.rebuild import LOST, Rebuild, Report
from memoturnd.errors import ConfigurationError
from memoturnd.metrics import Metrics
from memoturnd.replication.archive import Archive
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.stores.open import open_store
from memoturnd.stores.timed import TimedStore

_STORE_TIMEOUT_S = 30.0


async def rebuild(settings: Settings, *, is_dry: bool) -> bool:
    """Rebuild the catalog, print the report, and return whether all of it is well.

    Raises ConfigurationError, also where a node holds the embedded catalog, RetryableError, StoreUnavailableError.
    """
    if settings.object_store == "mem://":
        raise ConfigurationError("MEMOTURN_OBJECT_STORE is mem://, of which nothing outlives its process")
    if settings.catalog is None:
        with lock_data_dir(settings.data_dir):  # the file is its node's while that runs
            return await _rebuild(settings, is_dry=is_dry)
    return await _rebuild(settings, is_dry=is_dry)


async def _rebuild(settings: Settings, *, is_dry: bool) -> bool:
    clock, randomness = SystemClock(), SystemRandomness()
    store = open_store(
        settings.object_store, s3_client=settings.s3_client, connections=settings.s3_connections
    )
    try:
        timed = TimedStore(store, _STORE_TIMEOUT_S)
        catalog = await open_catalog(settings, clock, Metrics())
        try:
            report = await Rebuild(
                timed,
                Archive(timed, clock=clock, randomness=randomness),
                catalog,
                clock=clock,
                randomness=randomness,
                due_in_ms=round(1000 * settings.maintenance_interval_s),
                is_dry=is_dry,
            ).run()
        finally:
            await catalog.close()
    finally:
        await store.close()
    sys.stdout.writelines(f"{line}\n" for line in told(report, is_dry=is_dry))
    return report.problems == 0


def told(report: Report, *, is_dry: bool) -> Iterator[str]:
    """Return the lines that tell an operator what a rebuild has found."""
    came = "would come back" if is_dry else "came back"
    for kind in sorted({*report.came_back, *report.there}):
        yield f"{kind}: {report.came_back[kind]} {came}, {report.there[kind]} were there"
    if not report.came_back and not report.there:
        yield "the object store has no database: check that MEMOTURN_OBJECT_STORE is the store they were written to"
    for key, why in report.damaged:
        yield f"DAMAGED, left out: {key}: {why}"
    for said in report.conflicts:
        yield f"LEFT: {said}"
    more = report.problems - len(report.damaged) - len(report.conflicts)
    if more:
        yield f"and {more} more that were left out"
    yield "what cannot come back:"
    for lost in LOST:
        yield f"  - {lost}"
