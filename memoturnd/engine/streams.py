"""What the nodes of a cluster ask one another about replicas, answered from both sides of this node's."""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from math import ceil
from typing import TYPE_CHECKING, Protocol

from memoturnd.core import replica_wire as wire
from memoturnd.engine.replicas import Replicas
from memoturnd.engine.subscribers import Subscribers
from memoturnd.errors import ConflictError, NotOwnerError, OverloadedError

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch


class OpenBranches(Protocol):
    """The branches that are open here."""

    def find(self, branch_id: str) -> "Branch | None":
        """Return a branch that somebody holds."""
        ...

    def hot(self) -> "Iterator[Branch]":
        """Yield the branches that are open."""
        ...


class Streams:
    """The subscribers of this node, and its replicas of others' branches. `departed` lets go of what was deleted elsewhere."""

    def __init__(
        self,
        subscribers: Subscribers,
        replicas: Replicas,
        branches: OpenBranches,
        departed: Callable[[Iterable[str]], Awaitable[None]],
    ) -> None:
        self._departed = departed
        self._subscribers = subscribers
        self._replicas = replicas
        self._branches = branches

    def subscribe(self, asked: wire.Subscribe) -> None:
        """Send what is shipped of a branch to a node from now on. Raises NotOwnerError, OverloadedError."""
        branch = self._named(asked.uuid, asked.branch, asked.branch_id)
        if branch is None or branch.owned is None or not branch.is_ours:
            raise NotOwnerError(f"this node does not own branch {asked.branch} of database {asked.uuid}")
        self._subscribers.note(branch.ref, asked.addr)

    def confirm(self, asked: wire.Confirm) -> wire.Confirmed:
        """Say where the branches stand that this node owns, and keep the asking node subscribed to them."""
        return wire.Confirmed(list(self._standing(asked)))

    def _standing(self, asked: wire.Confirm) -> Iterator[wire.Standing]:
        for followed in asked.branches:
            branch = self._branches.find(followed.branch_id)
            if branch is None or branch.owned is None or not branch.is_ours:
                continue
            with suppress(OverloadedError):  # it learns that it is behind, and fetches
                self._subscribers.note(branch.ref, asked.addr)
            capture, shipper = branch.owned.capture, branch.owned.shipper
            yield wire.Standing(
                branch_id=branch.branch_id,
                txid=capture.cursor.txid,
                checksum=f"{capture.hashes.checksum:016x}",
                epoch=branch.owned.epoch,
                unshipped_ms=ceil(1000 * shipper.unshipped_age_s),
            )

    async def ingest(self, uuid: str, name: str, branch_id: str | None, kind: str, data: bytes) -> int:
        """Apply what an owner has pushed; see Replicas.ingest. Raises ConflictError where this node owns the branch."""
        branch = self._named(uuid, name, branch_id)
        if branch is not None and branch.owned is not None:
            raise ConflictError(f"{branch.ref} is owned by this node: nobody else has anything newer")
        return await self._replicas.ingest(uuid, name, branch_id, kind, data)

    async def changed(self, branch_ids: list[str], *, gone: bool) -> None:
        """Look at once what became of branches of others; see Replicas.changed."""
        await self._replicas.changed(branch_ids, gone=gone)
        if gone:
            await self._departed(branch_ids)

    def close(self) -> None:
        """Send and follow nothing any more."""
        self._subscribers.close()
        self._replicas.close()

    async def tend(self) -> None:
        """Ask owners where they stand, and drop subscribers that are silent."""
        self._subscribers.sweep()
        await self._replicas.confirm()

    def _named(self, uuid: str, name: str, branch_id: str | None) -> "Branch | None":
        if branch_id is not None:
            found = self._branches.find(branch_id)
            return found if found is not None and found.ref.database.uuid == uuid else None
        for branch in self._branches.hot():
            if (branch.ref.database.uuid, branch.ref.name) == (uuid, name):
                return branch
        return None
