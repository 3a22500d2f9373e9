"""What a data directory holds from when it was used with another number of workers: shipped before anybody serves.

    {data dir}/dbs, audit                 of a single node
    {data dir}/workers/{number}/dbs, ...  of each worker

Whoever starts on the directory knows that no process of an earlier start is left. It runs a node on each folder that is not used
any more, without serving anything, until all that was committed there is in object storage; then the files are only a
cache that nobody reads, and go. What could not be shipped stays.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from memoturnd.config import Settings
from memoturnd.datadir import boot_id
from memoturnd.engine.files import BranchFiles, found
from memoturnd.leases.local import LocalLeases
from memoturnd.node import running
from memoturnd.seams.catalog import Catalog
from memoturnd.seams.clock import Clock, SystemRandomness
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore
from memoturnd.workers.settings import WORKERS_FOLDER, WorkerSettings, worker_settings

_log = structlog.get_logger(__name__)


def folders_of_workers(root: Path, *, first: int = 0) -> list[int]:
    """Return the numbers of the workers, from `first` on, whose folders hold files of branches or audit events."""
    numbers = [int(path.name) for path in (root / WORKERS_FOLDER).glob("*") if path.name.isdecimal()]
    return [n for n in sorted(numbers) if n >= first and _holds_anything(root / WORKERS_FOLDER / str(n))]


async def ship_left(
    left: Sequence[Settings], *, store: ObjectStore, catalog: Catalog, clock: Clock, executor: Executor
) -> None:
    """Ship what is in the data directories of these settings, one after the other, and empty them.

    Raises what keeps a node from starting there, such as StoreUnavailableError.
    """
    for settings in left:
        _log.info("shipping what an earlier start left", folder=str(settings.data_dir))
        leases = LocalLeases(settings.node_id, settings.advertise)
        async with running(
            settings,
            store=store,
            leases=leases,
            catalog=catalog,
            clock=clock,
            randomness=SystemRandomness(),
            executor=executor,
            boot_id=boot_id(),
        ) as node:
            if node.recovery is not None:
                await asyncio.wait([node.recovery])
        await executor.run(lambda folder=settings.data_dir: _empty(folder))  # type: ignore[misc]


def left_by_workers(settings: Settings, first: int = 0) -> list[WorkerSettings]:
    """Return the settings with which to run a node on each folder that workers from `first` on have left; none for a worker."""
    if isinstance(settings, WorkerSettings):
        return []
    return [
        replace(worker_settings(settings, number, 1, {}), node_id=f"left-{number}")
        for number in folders_of_workers(settings.data_dir, first=first)
    ]


def _holds_anything(folder: Path) -> bool:
    if any((folder / "dbs").glob("*/*/*")):
        return True
    return any(path.stat().st_size for path in (folder / "audit").glob("*.spool"))


def _empty(folder: Path) -> None:
    """Remove the files of branches that are shipped: nobody opens them here again."""
    kept = 0
    for uuid, branch_id, owner, clean in found(folder / "dbs"):
        if clean or owner is None:
            BranchFiles(folder / "dbs", uuid, branch_id).remove()
        else:
            kept += 1
    if kept:
        _log.error(
            "commits that could not be shipped are kept; look at the log above, then start again",
            folder=str(folder / "dbs"),
            branches=kept,
        )
