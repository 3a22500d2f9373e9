"""A node without HTTP on a temporary folder, for tests that look inside."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.config import Settings
from memoturnd.embedders.open import open_embedder
from memoturnd.leases.local import LocalLeases
from memoturnd.node import Node, running
from memoturnd.seams.catalog import Catalog
from memoturnd.seams.clock import Clock, SystemClock, SystemRandomness
from memoturnd.seams.executor import PoolExecutor
from memoturnd.seams.leases import Leases
from memoturnd.seams.object_store import ObjectStore
from memoturnd.seams.peers import Peers


class HandClock:
    """A clock that only a test moves."""

    def __init__(self, at_s: float = 100.0) -> None:
        self.at_s = at_s

    def now_ms(self) -> int:
        """Return unix milliseconds."""
        return int(self.at_s * 1000)

    def monotonic_s(self) -> float:
        """Return monotonic seconds."""
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        """Let the time pass at once."""
        self.at_s += seconds


class ShiftedClock(SystemClock):
    """The machine's clocks, ahead by what a test says."""

    ahead_s = 0.0

    def now_ms(self) -> int:
        """Return unix milliseconds, shifted."""
        return super().now_ms() + round(1000 * self.ahead_s)

    def monotonic_s(self) -> float:
        """Return monotonic seconds, shifted."""
        return super().monotonic_s() + self.ahead_s


@asynccontextmanager
async def node_on(
    data_dir: Path,
    store: ObjectStore,
    *,
    boot_id: str = "boot",
    leases: Leases | None = None,
    clock: Clock | None = None,
    catalog: Catalog | None = None,
    peers: Peers | None = None,
    **env: str,
) -> AsyncIterator[Node]:
    """Run a node with its files in `data_dir`, on `store`; `env` are settings without their prefix.

    Without `leases` no other node stands in its way.
    """
    variables = {f"MEMOTURN_{name}": value for name, value in env.items()}
    settings = Settings.from_env(
        {"MEMOTURN_DATA_DIR": str(data_dir), "MEMOTURN_OBJECT_STORE": "mem://", **variables}
    )
    data_dir.mkdir(parents=True, exist_ok=True)
    catalog = catalog or SqliteCatalog(data_dir / "registry.db")
    executor = PoolExecutor(4)
    embedder = open_embedder(settings, SystemClock())
    try:
        if embedder is not None:
            await embedder.start()
        async with running(
            settings,
            store=store,
            leases=leases or LocalLeases("node-a", "http://127.0.0.1:1"),
            catalog=catalog,
            clock=clock or SystemClock(),
            randomness=SystemRandomness(),
            executor=executor,
            boot_id=boot_id,
            embedder=embedder,
            peers=peers,
        ) as node:
            yield node
    finally:
        if embedder is not None:
            await embedder.close()
        await catalog.close()
        executor.close()
