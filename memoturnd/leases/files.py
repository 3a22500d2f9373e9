"""Leases between the node processes of one machine: a table in SQLite, and file locks that tell who is alive.

The kernel lets go of a lock when its process ends, however it ends, and not while it is stopped. So what a dead process
owned can be taken at once, and what a stopped one owns cannot. Nothing expires, and no clock is compared.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self, TypeVar

import apsw
import msgspec

from memoturnd.errors import ConfigurationError, FencedError, NotOwnerError, RetryableError
from memoturnd.leases.file_table import (
    NodeLocks,
    Table,
    drop_node,
    drop_owner,
    nodes_in,
    owner_in,
    put_owner,
    set_load,
)
from memoturnd.leases.file_watch import FileWatch
from memoturnd.seams.clock import Randomness
from memoturnd.seams.executor import PoolExecutor
from memoturnd.seams.leases import Change, Lease, Lineage, LiveNode, Owner, SyncSet

T = TypeVar("T")
LOAD_S: Final = 3.0
LOAD_STEP: Final = 0.05
"""A node's load is told at most so often, and when it has changed by so much."""
_TAKE_TIMES: Final = 200
_TAKE_PAUSE_S: Final = 0.005
_MEMBERS = msgspec.json.Decoder(tuple[LiveNode, ...])


@dataclass(frozen=True, slots=True)
class Unshipped:
    """A branch of which a node has commits on its disk that may not be shipped."""

    branch_id: str
    database: str
    branch: str


class FileLeases:
    """Leases of one node process in the table of `folder`, which the node processes of one machine share."""

    is_shared = True
    lineage = Lineage()

    def __init__(
        self,
        folder: Path,
        node_id: str,
        address: str,
        *,
        lock: int,
        session: str,
        load: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._load = load
        self._node_id = node_id
        self._address = address
        self._session = session
        self._locks = NodeLocks(folder)
        self._lock: int | None = lock
        self._reads = Table(folder, to_read=True)
        self._writes = Table(folder)
        self._executor = PoolExecutor(1, "leases")
        self._watch = FileWatch(folder)
        self._held: dict[str, int] = {}

    @classmethod
    async def open(
        cls,
        folder: Path,
        node_id: str,
        address: str,
        *,
        randomness: Randomness,
        unshipped: Iterable[Unshipped] = (),
        load: Callable[[], float] = lambda: 0.0,
    ) -> Self:
        """Let the node `node_id` be there, reached at `address`; `load` tells the part of its capacity in use, for `keep`.

        It gets the branches of which it has unshipped commits, but for those that another node owns by now, in the same
        moment: nobody takes one over without them. Raises ConfigurationError where a node of this identity runs,
        or the table cannot be used.
        """
        lock = await _hold(NodeLocks(folder), folder, node_id)
        try:
            leases = cls(folder, node_id, address, lock=lock, session=randomness.hex(8), load=load)
        except BaseException:
            os.close(lock)
            raise
        try:
            await leases._executor.run(lambda: leases._enter(list(unshipped)))
        except BaseException:
            leases._let_go()
            raise
        return leases

    async def acquire(self, branch_id: str, *, database: str = "", branch: str = "") -> Lease:
        """Take the branch for this node, always with a new epoch, so that an older lease of it is stale.

        Raises NotOwnerError naming the owner when another node that is alive has it, RetryableError.
        """

        def take(connection: apsw.Connection) -> int:
            owner = owner_in(connection, branch_id)
            if owner is not None and owner.node_id != self._node_id and self._locks.is_alive(owner.node_id):
                raise NotOwnerError(
                    f"branch {branch_id} belongs to node {owner.node_id} at {owner.address}: send the request there",
                    owner,
                )
            return put_owner(connection, branch_id, database, branch, self._node_id)

        epoch = await self._write(take)
        self._held[branch_id] = epoch
        return Lease(branch_id, self._node_id, epoch, self._session)

    async def owner_of(self, branch_id: str) -> Owner | None:
        """Return the current owner, None when nobody who is alive has the branch. Raises RetryableError."""
        with self._reads.transaction() as connection:
            owner = owner_in(connection, branch_id)
        if owner is None or not (owner.node_id == self._node_id or self._locks.is_alive(owner.node_id)):
            return None
        return owner

    async def release(self, lease: Lease) -> None:
        """Give the branch back, only if `lease` is still the current one. Raises RetryableError."""
        if self._held.get(lease.branch_id) == lease.epoch:
            del self._held[lease.branch_id]
        await self._write(lambda c: drop_owner(c, lease.branch_id, lease.node_id, lease.epoch))

    def holds(self, lease: Lease) -> bool:
        """Return whether the lease is the current one: nobody else can take it while this process lives."""
        return lease.session == self._session and self._held.get(lease.branch_id) == lease.epoch

    def deadline(self) -> float | None:
        """Return None: these leases never expire."""
        return None

    async def live_nodes(self) -> Sequence[LiveNode]:
        """Return the nodes whose processes live, this one included. Raises RetryableError."""
        with self._reads.transaction() as connection:
            nodes = nodes_in(connection)
        return tuple(n for n in nodes if n.node_id == self._node_id or self._locks.is_alive(n.node_id))

    async def sync_set(self, branch_id: str) -> SyncSet | None:
        """Return the set that was recorded last, None where nothing depends on any. Raises RetryableError."""
        with self._reads.transaction() as connection:
            row = connection.execute(
                "SELECT epoch, members FROM sync_sets WHERE branch_id = ?", (branch_id,)
            ).fetchone()
        return None if row is None else SyncSet(row[0], _MEMBERS.decode(row[1]))

    async def record_sync_set(self, lease: Lease, members: Sequence[LiveNode]) -> None:
        """Record the set under the lease's epoch, or that there is none. Raises FencedError for a stale lease, RetryableError."""
        text = msgspec.json.encode(tuple(members)).decode()

        def record(connection: apsw.Connection) -> None:
            owner = owner_in(connection, lease.branch_id)
            if owner is None or (owner.node_id, owner.epoch) != (lease.node_id, lease.epoch):
                raise FencedError(f"the lease of branch {lease.branch_id} is not this node's any more")
            connection.execute("DELETE FROM sync_sets WHERE branch_id = ?", (lease.branch_id,))
            if members:
                connection.execute(
                    "INSERT INTO sync_sets VALUES (?, ?, ?)", (lease.branch_id, lease.epoch, text)
                )

        await self._write(record)

    def watch(self) -> AsyncIterator[Change]:
        """Yield everything, then each change, at most 0.2 s late."""
        return self._watch.watch()

    async def keep(self) -> None:
        """Tell the node's load where it has changed, for ever."""
        told = 0.0
        while True:
            await asyncio.sleep(LOAD_S)
            load = min(1.0, self._load())
            if abs(load - told) >= LOAD_STEP:
                with suppress(RetryableError):
                    await self._write(lambda c, load=load: set_load(c, self._node_id, load))  # type: ignore[misc]
                    told = load

    async def close(self) -> None:
        """Give everything back, and be there no more."""
        if self._lock is None:
            return
        self._held.clear()
        try:
            await self._write(lambda c: drop_node(c, self._node_id))
        finally:
            self._let_go()

    async def _write(self, work: Callable[[apsw.Connection], T]) -> T:
        """Run a transaction on the pool: a commit may have to wait for another process, or for the disk."""
        if self._lock is None:
            raise RetryableError(f"node {self._node_id} has given its leases back; ask another node")

        def run() -> T:
            with self._writes.transaction() as connection:
                return work(connection)

        return await self._executor.run(run)

    def _enter(self, unshipped: list[Unshipped]) -> None:
        """Note this node, and forget those that are dead: what they own is anybody's."""
        with self._writes.transaction() as connection:
            for node in nodes_in(connection):
                if node.node_id == self._node_id or not self._locks.is_alive(node.node_id):
                    drop_node(connection, node.node_id)
            connection.execute("INSERT INTO nodes VALUES (?, ?, 0)", (self._node_id, self._address))
            for one in unshipped:
                if owner_in(connection, one.branch_id) is None:
                    put_owner(connection, one.branch_id, one.database, one.branch, self._node_id)

    def _let_go(self) -> None:
        self._executor.close()
        self._reads.close()
        self._writes.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


async def _hold(locks: NodeLocks, folder: Path, node_id: str) -> int:
    """Return the lock of a node, which somebody may just be looking at. Raises ConfigurationError."""
    try:
        for _ in range(_TAKE_TIMES):
            if (lock := locks.take(node_id)) is not None:
                return lock
            await asyncio.sleep(_TAKE_PAUSE_S)
    except OSError as error:
        raise ConfigurationError(
            f"cannot use {folder} for leases: {error.strerror or error}; check that it can be written"
        ) from error
    raise ConfigurationError(
        f"a node {node_id} runs already, and two of one name would take each other's branches: stop it, or set "
        "another MEMOTURN_NODE_ID"
    )
