"""Who is believed, and how other nodes are made to believe: put together from the settings, for the node."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from memoturnd.auth.authority import Authority
from memoturnd.auth.secrets import Secrets
from memoturnd.config import Settings
from memoturnd.http.admission import Admission, OpenAdmission
from memoturnd.metrics import Metrics
from memoturnd.seams.catalog import Catalog
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.leases import Leases
from memoturnd.seams.object_store import ObjectStore
from memoturnd.seams.peers import Peers


@asynccontextmanager
async def peers_of(
    settings: Settings, leases: Leases, authority: Authority | None, given: Peers | None
) -> AsyncIterator[Peers | None]:
    """Return how other nodes are asked: by what is given, else over HTTP where there are others and a key to show them."""
    has_key = (
        authority is not None or settings.cluster_key is not None or settings.cluster_key_file is not None
    )
    if given is not None or not leases.is_shared or not has_key:
        yield given
        return
    from memoturnd.peers import HttpPeers  # it brings the HTTP client, which a node alone does without

    http = HttpPeers(await cluster_key(authority, settings))
    try:
        yield http
    finally:
        await http.close()


async def cluster_key(authority: Authority | None, settings: Settings) -> Callable[[], str]:
    """Return what gives the key that nodes show one another. Raises ConfigurationError where there is none."""
    if authority is not None:
        return lambda: authority.cluster.first
    secrets = Secrets("MEMOTURN_CLUSTER_KEY", settings.cluster_key, settings.cluster_key_file)
    await secrets.refresh()
    return lambda: secrets.first


async def credentials(
    settings: Settings,
    store: ObjectStore,
    catalog: Catalog,
    *,
    clock: Clock,
    randomness: Randomness,
    metrics: Metrics,
) -> tuple[Authority | None, Admission]:
    """Return what knows of credentials, None while authentication is off, and who may send a request.

    Raises ConfigurationError, StoreUnavailableError.
    """
    if settings.auth == "on":
        authority = Authority(
            settings, store=store, records=catalog, clock=clock, randomness=randomness, metrics=metrics
        )
        await authority.start()
        return authority, authority.admission
    if settings.cluster_key is None and settings.cluster_key_file is None:
        return None, OpenAdmission()
    cluster = Secrets("MEMOTURN_CLUSTER_KEY", settings.cluster_key, settings.cluster_key_file)
    await cluster.refresh()
    return None, OpenAdmission(cluster.matches)
