"""From the setting MEMOTURN_CATALOG to a catalog."""

from control_plane.catalogs.remembering import KNOWN_ROWS
from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.config import Settings
from memoturnd.metrics import Metrics
from memoturnd.seams.catalog import Catalog
from memoturnd.seams.clock import Clock


async def open_catalog(settings: Settings, clock: Clock, metrics: Metrics) -> Catalog:
    """Return the catalog of these settings: the file `registry.db` of the data directory, or Postgres.

    Raises ConfigurationError for a schema that is not this release's (an older file is migrated), CorruptionError,
    RetryableError when Postgres does not answer.
    """
    if settings.catalog is None:
        return SqliteCatalog(settings.shared_dir / "registry.db", sync=settings.sync)
    from control_plane.catalogs.postgres import PostgresBackend, open_postgres

    catalog = await open_postgres(
        settings.catalog.reveal(),
        clock=clock,
        remembered=metrics.catalog_remembered.inc,
        answered=metrics.catalog_seconds.observe,
        failed=metrics.catalog_failures.inc,
    )
    backend = catalog.backend

    def measure() -> None:
        metrics.catalog_known_rows.set(catalog.known_rows)
        metrics.catalog_up.set(not (isinstance(backend, PostgresBackend) and backend.is_down))

    metrics.catalog_known_limit_rows.set(2 * KNOWN_ROWS)
    metrics.before_scrape(measure)
    return catalog
