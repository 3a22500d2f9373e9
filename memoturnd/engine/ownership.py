"""Which branch, and what exists only while this node may write it."""

from dataclasses import dataclass

from memoturnd.core.durability import Durability, level_of
from memoturnd.engine.writer import Writer
from memoturnd.errors import NotDurableError
from memoturnd.replication.capture import Capture
from memoturnd.replication.shipper import Shipper
from memoturnd.replication.tail_stream import TailStream
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
    tail: TailStream

    async def reach(self, txid: int, level: Durability) -> Durability:
        """Wait until a commit has reached `level`, and return the one that it has. Raises what Shipper.wait_durable raises."""
        if level > self.reached(txid):
            try:
                if level is Durability.DURABLE:
                    await self.shipper.wait_durable(txid)
                else:
                    await self.tail.wait(txid)
            except NotDurableError as error:
                error.reached = self.reached(txid)
                raise
        return self.reached(txid)

    def reached(self, txid: int) -> Durability:
        """Return the level that a commit of this node has reached."""
        return level_of(
            txid, durable_txid=self.shipper.durable_txid, replicated_txid=self.tail.replicated_txid
        )
