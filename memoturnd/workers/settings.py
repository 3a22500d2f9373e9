"""What a worker's settings are: those of the command that started it, with its own folder, port and part of the machine."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from memoturnd.config import Settings
from memoturnd.errors import ConfigurationError
from memoturnd.settings_table import Address

MOST_WORKERS: Final = 64
WORKERS_FOLDER: Final = "workers"
LEASES_FOLDER: Final = "leases"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings(Settings):
    """The settings of worker `worker` (from 0) of `workers`. `root` is the data directory that all of them share."""

    worker: int
    workers: int
    root: Path

    @property
    def shared_dir(self) -> Path:
        """The data directory of all workers: there are the catalog and the keys."""
        return self.root

    @property
    def shares_catalog(self) -> bool:
        """Whether other nodes use the catalog."""
        return True

    @property
    def leases_dir(self) -> Path:
        """Where the workers' leases are."""
        return self.root / LEASES_FOLDER


def worker_folder(root: Path, worker: int) -> Path:
    """Return the data directory of a worker, in that of all."""
    return root / WORKERS_FOLDER / str(worker)


def worker_settings(
    settings: Settings, worker: int, workers: int, environ: Mapping[str, str]
) -> WorkerSettings:
    """Return the settings of one worker of the machine that `settings` are about.

    It listens on loopback at a port that the system chooses. What of the machine is shared by all (memory, disk) is
    divided; limits of requests are each worker's own.
    """
    name = environ.get("MEMOTURN_NODE_ID") or "worker"
    own: dict[str, object] = {field.name: getattr(settings, field.name) for field in fields(Settings)}
    own |= {
        "data_dir": worker_folder(settings.data_dir, worker),
        "listen": Address("127.0.0.1", 0),
        "advertise": "",
        "node_id": f"{name}-{worker}",
        "hot_cap": max(1, settings.hot_cap // workers),
        "memory_budget_bytes": settings.memory_budget_bytes // workers,
        "recall_cache_bytes": settings.recall_cache_bytes // workers,
        "disk_budget_bytes": settings.disk_budget_bytes // workers,
        "audit_spool_bytes": settings.audit_spool_bytes // workers,
    }
    return WorkerSettings(**own, worker=worker, workers=workers, root=settings.data_dir)  # type: ignore[arg-type]


def check_workers(settings: Settings) -> None:
    """Refuse settings that processes of one machine cannot share. Raises ConfigurationError."""
    if settings.object_store.startswith("mem://"):
        raise ConfigurationError(
            f"MEMOTURN_OBJECT_STORE={settings.object_store!r} is inside one process, and --workers starts several: "
            "name a folder or a bucket"
        )
    if settings.etcd is not None:
        raise ConfigurationError(
            "MEMOTURN_ETCD is for nodes that find one another there, and --workers for one machine without it: start "
            "each node with a data directory of its own, or leave one of the two out"
        )
