"""Which branch, and what exists only while this node may write it."""

from dataclasses import dataclass

from memoturnd.engine.writer import Writer
from memoturnd.replication.capture import Capture
from memoturnd.replication.shipper import Shipper
from memoturnd.seams.catalog import Database
from memoturnd.seams.leases import Lease


@dataclass(frozen=True, slots=True)
class BranchRef:
    """A branch of a database, by ids and names."""

    database: Database
    branch_id: str
    name: str

    def __str__(self) -> str:
        return f"{self.database.qualified_name}@{self.name}"


@dataclass(slots=True)
class Owned:
    """Ownership under `epoch`: who commits, who captures, who ships."""

    lease: Lease
    epoch: int
    writer: Writer
    shipper: Shipper
    capture: Capture
