"""What every branch of a node shares: the seams, the bounds, and the few things it asks of its surroundings."""

import asyncio
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from memoturnd.core import layout, manifest, register
from memoturnd.core.durability import Durability
from memoturnd.core.manifest import Manifest
from memoturnd.core.register import Register
from memoturnd.engine.accounts import Accounts
from memoturnd.engine.agenda import Agenda
from memoturnd.engine.departures import Departures
from memoturnd.engine.draining import Draining
from memoturnd.engine.kept import Memory
from memoturnd.engine.readers import IdleReaders
from memoturnd.engine.replicas import Replicas
from memoturnd.engine.subscribers import Subscribers
from memoturnd.engine.tails import Tails
from memoturnd.engine.unreleased import Unreleased
from memoturnd.engine.writer import WriterSettings
from memoturnd.metrics import Metrics
from memoturnd.replication.archive import Archive
from memoturnd.replication.collector import Graces
from memoturnd.replication.compactor import Tasks
from memoturnd.replication.schedule import ShipScheduler
from memoturnd.replication.shipper import Limits
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import Catalog, Database
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.executor import Executor
from memoturnd.seams.leases import Leases
from memoturnd.seams.object_store import ObjectStore
from memoturnd.seams.peers import Peers

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch


@dataclass(frozen=True, slots=True)
class Services:
    """The node, as its branches see it."""

    node_id: str
    store: ObjectStore
    archive: Archive
    leases: Leases
    peers: Peers | None
    """How to ask other nodes; None where there are none."""
    catalog: Catalog
    clock: Clock
    randomness: Randomness
    executor: Executor
    user_executor: Executor
    """Where users' statements run that take long: they must not hold up the engine's own work."""
    metrics: Metrics
    scheduler: ShipScheduler
    compaction_slots: asyncio.Semaphore
    """Places for compactions: so many run at once on the node."""
    spawn: Tasks
    """Starts a task in the node's task group."""
    branches_folder: Path
    boot_id: str
    sync: Literal["normal", "full"]
    durability: Durability
    ship_limits: Limits
    writer_settings: WriterSettings
    agenda: Agenda
    """Where a branch notes that it changes, so that maintenance looks at it later."""
    accounts: Accounts
    """What tenants and namespaces may use."""
    graces: Graces
    tails: Tails
    """What other nodes hold of this node's branches, and this one of theirs, before object storage has it."""
    memory: Memory
    """What is kept in memory of the files that are open."""
    subscribers: Subscribers
    """Who follows the branches that this node owns."""
    replicas: Replicas
    """The branches of others that this node follows."""
    departures: Departures
    """What this node has deleted and others are to let go of."""
    draining: Draining
    """Whether the node stops, and who is to have its branches."""
    readers: IdleReaders = field(default_factory=IdleReaders)
    unreleased: Unreleased = field(default_factory=Unreleased)

    def manifest_file(self, uuid: str, branch_id: str) -> SwapFile[Manifest]:
        """Return the manifest of a branch as a compare-and-swap file."""
        return SwapFile(
            self.store,
            layout.manifest_key(uuid, branch_id),
            encode=manifest.encode,
            decode=partial(manifest.decode_of, db=uuid, branch_id=branch_id),
            randomness=self.randomness,
            clock=self.clock,
        )

    def register_file(self, uuid: str) -> SwapFile[Register]:
        """Return the `database.json` of a database as a compare-and-swap file."""
        return SwapFile(
            self.store,
            layout.register_key(uuid),
            encode=register.encode,
            decode=partial(register.decode_of, uuid=uuid),
            randomness=self.randomness,
            clock=self.clock,
        )


class Surroundings(Protocol):
    """What a branch asks of the node around it."""

    async def make_room(self, branch: "Branch") -> None:
        """Count `branch` among the open ones, closing idle others where the pool is full. Raises OverloadedError."""
        ...

    async def register_database(self, database: Database) -> None:
        """Make sure that `database.json` exists before a manifest does."""
        ...

    async def keep_diverged(self, path: str, source: Manifest, txid: int, at_ms: int, epoch: int) -> str:
        """Keep the closed database file at `path` as a branch of its own, and return its name."""
        ...
