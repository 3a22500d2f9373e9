"""Commits that are on other nodes before they are in object storage: who holds them, and how a takeover finds them again.

The owner's part is memoturnd.replication.tail_stream, the holder's memoturnd.replication.tail_store. A takeover asks the
recorded set once its own epoch stands in the manifest: whoever answers it answers the old owner no more, and whatever
the old owner was acknowledged is in the answer of every member.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import structlog

from memoturnd.core import layout, segment, tails
from memoturnd.core import manifest as transitions
from memoturnd.core.manifest import Manifest
from memoturnd.core.segment import Segment
from memoturnd.core.tails import FORGET_PATH, PUSH_PATH, READ_PATH, Push
from memoturnd.engine.replaying import replay
from memoturnd.errors import (
    ConflictError,
    CorruptionError,
    FencedError,
    MemoturnError,
    NotFoundError,
    PayloadTooLargeError,
    RetryableError,
    invariant,
)
from memoturnd.metrics import Metrics
from memoturnd.replication.apply import GapError, follow, rounds_behind
from memoturnd.replication.capture import Cursor
from memoturnd.replication.tail_store import HeldTail, TailStore
from memoturnd.seams.clock import Clock
from memoturnd.seams.leases import Lease, Leases, LiveNode, SyncSet
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore
from memoturnd.seams.peers import Peers

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch

PUSH_S: Final = 2.0
"""How long a node may take to keep a piece, before the set goes on without it."""
READ_S: Final = 5.0
"""How long a takeover asks the members of a sync set, before it goes on without those that do not answer."""
OTHERS_S: Final = 0.25
"""How long it waits for the other members once one has answered: each of them has all that was acknowledged."""
AGAIN_S: Final = 0.2
COOL_OFF_S: Final = 5.0
"""How long a node that failed is not chosen again."""
COOLING_LIMIT: Final = 256
LEFTOVER_S: Final = 600.0
"""How long a tail is held of which nobody speaks, before it is looked whether anybody needs it."""
STRANDED_S: Final = 7 * 86_400.0
"""How long one is kept that its branch went on without."""
TELL_S: Final = 1.0
SWEEP_S: Final = 60.0
_log = structlog.get_logger(__name__)


class Tails:
    """The sync sets of this node's branches, and the tails that it holds for others."""

    def __init__(
        self,
        leases: Leases,
        peers: Peers | None,
        store: TailStore,
        objects: ObjectStore,
        *,
        node_id: str,
        replicas: int,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.store = store
        self._leases = leases
        self._peers = peers
        self._objects = objects
        self._node_id = node_id
        self._replicas = replicas
        self._clock = clock
        self._metrics = metrics
        self._cooling: OrderedDict[str, float] = OrderedDict()
        self._recorded: dict[str, Sequence[LiveNode]] = {}
        """The recorded sets of branches that this node owns."""

    # ---- the owner's (memoturnd.replication.tail_stream.Links)

    async def choose(self, branch_id: str) -> Sequence[LiveNode]:
        """Return the nodes that are to hold a branch's tail. Raises RetryableError where there are not enough."""
        if self._peers is None or not self._leases.is_shared:
            raise RetryableError("no other node can hold commits")
        nodes = await self._leases.live_nodes()
        chosen = tails.choose(branch_id, nodes, self._replicas, avoiding={self._node_id, *self._cool()})
        if len(chosen) < self._replicas:
            raise RetryableError(
                f"{len(chosen)} other nodes can hold commits, {self._replicas} are asked for"
            )
        return chosen

    async def push(self, nodes: Sequence[LiveNode], push: Push, data: bytes) -> None:
        """Let every one of `nodes` keep a piece; one that fails is not chosen for a while. Raises MemoturnError."""
        failures = await asyncio.gather(*(self._push_to(node, push, data) for node in nodes))
        for failure in failures:
            if failure is not None:
                raise failure

    async def _push_to(self, node: LiveNode, push: Push, data: bytes) -> MemoturnError | None:
        try:
            await self._ask(node, PUSH_PATH, push.headers(), data, PUSH_S)
        except PayloadTooLargeError as error:
            return error
        except MemoturnError as error:
            _log.warning(
                "a node does not hold commits", node=node.node_id, branch=push.branch_id, error=str(error)
            )
            self._metrics.tail_push_failures.inc()
            if not isinstance(error, ConflictError):  # which asks for the whole tail
                self._let_cool(node)
            return error
        return None

    def _let_cool(self, node: LiveNode) -> None:
        self._cooling[node.node_id] = self._clock.monotonic_s() + COOL_OFF_S
        self._cooling.move_to_end(node.node_id)
        while len(self._cooling) > COOLING_LIMIT:
            self._cooling.popitem(last=False)

    def _cool(self) -> set[str]:
        now_s = self._clock.monotonic_s()
        return {node_id for node_id, until_s in self._cooling.items() if until_s > now_s}

    async def record(self, lease: Lease, nodes: Sequence[LiveNode]) -> None:
        """Record the set. Raises FencedError, RetryableError."""
        before = self._recorded.get(lease.branch_id, ())
        await self._leases.record_sync_set(lease, nodes)
        self._recorded[lease.branch_id] = nodes
        kept = {node.node_id for node in nodes}
        if any(node.node_id not in kept for node in before):
            self._metrics.sync_set_changes.inc()

    async def release(self, lease: Lease, epoch: int) -> None:
        """Note that nothing depends on a branch's set any more: all is shipped, and the branch is about to be given back.

        Raises RetryableError.
        """
        nodes = self._recorded.get(lease.branch_id)
        if nodes is None:
            return
        try:
            await self._leases.record_sync_set(lease, ())
        except FencedError:  # it is another owner's by now, who may need what they hold
            nodes = ()
        self._recorded.pop(lease.branch_id, None)
        headers, cool = Push("", lease.branch_id, epoch, 0).headers(), self._cool()

        async def tell(node: LiveNode) -> None:
            try:
                await self._ask(node, FORGET_PATH, headers, b"", PUSH_S)
            except MemoturnError as error:  # its own sweep sees to it
                self._let_cool(node)
                _log.info(
                    "a node still holds a tail", node=node.node_id, branch=lease.branch_id, error=str(error)
                )

        await asyncio.gather(*(tell(node) for node in nodes if node.node_id not in cool))

    async def abandon(self, lease: Lease | None) -> None:
        """Note that a branch was deleted: nothing depends on its set any more, and whoever holds a tail finds out."""
        if lease is None or self._recorded.pop(lease.branch_id, None) is None:
            return
        try:
            await self._leases.record_sync_set(lease, ())
        except MemoturnError as error:
            _log.info("a deleted branch still has a sync set", branch=lease.branch_id, error=str(error))

    async def _ask(
        self, node: LiveNode, path: str, headers: dict[str, str], body: bytes, timeout_s: float
    ) -> bytes:
        peers = self._peers
        if peers is None:
            raise RetryableError(f"node {node.node_id} cannot be asked: MEMOTURN_CLUSTER_KEY is not set")
        try:
            async with asyncio.timeout(timeout_s):
                return await peers.ask(node.address, path, body=body, headers=headers, timeout_s=timeout_s)
        except TimeoutError as error:
            raise RetryableError(f"node {node.node_id} does not answer within {timeout_s:g} s") from error

    def is_anothers(self, branch_id: str) -> None:
        """Forget the set of a branch that another node owns by now."""
        self._recorded.pop(branch_id, None)

    # ---- a takeover's

    async def suspect_all(self, lease: Lease) -> None:
        """Record every node that is there as a branch's set, of which the lease service has forgotten the members.

        As any set it stands until all is shipped, so that a takeover that is cut off is finished by the next one. Raises RetryableError.
        """
        if self._peers is None or await self._leases.sync_set(lease.branch_id) is not None:
            return
        try:
            await self._leases.record_sync_set(lease, await self._leases.live_nodes())
        except FencedError as error:
            raise RetryableError(f"branch {lease.branch_id} is taken by somebody else; try again") from error

    async def find(self, branch: "Branch", current: Manifest, *, is_forgotten: bool = False) -> list[Segment]:
        """Return what leads furthest from the head of `current`, which has this node's epoch, of what the set holds.

        `is_forgotten` tells that the set is of those who may be in it (`suspect_all`). Raises RetryableError where it is not known.
        """
        if not self._leases.is_shared:
            return []
        branch_id = branch.branch_id
        recorded = await self._leases.sync_set(branch_id)
        if recorded is None:
            self._recorded.pop(branch_id, None)
            return []
        self._recorded[branch_id] = recorded.members
        answers = await self._read_all(branch, recorded, current.epoch, all_of_them=is_forgotten)
        if not answers and is_forgotten:
            _log.warning(
                "the lease service has lost its memory, and no node holds replicated commits of this branch",
                branch=str(branch.ref),
                asked=[node.node_id for node in recorded.members],
            )
            return []
        if not answers:
            self._metrics.tail_takeovers["lost"].inc()
            _log.error(
                "no node that holds replicated commits answers: what is not in object storage is missing",
                branch=str(branch.ref),
                asked=[node.node_id for node in recorded.members],
                head_txid=current.head_txid,
            )
            return []
        pieces = [piece for answer in answers for piece in answer]
        found = tails.longest(current.head_txid, int(current.head_checksum, 16), pieces)
        self._metrics.tail_takeovers["found" if found else "nothing"].inc()
        if not found and tails.is_beyond(pieces, current.head_txid):
            self._metrics.tails_contradicted.inc()
            _log.error(
                "replicated commits do not follow on the head", branch=str(branch.ref), txid=current.head_txid
            )
        return found

    async def _read_all(
        self, branch: "Branch", recorded: SyncSet, epoch: int, *, all_of_them: bool
    ) -> list[list[Segment]]:
        """Return what each member that answers holds; unless `all_of_them` may hold something, one answer is enough."""
        asked = [asyncio.create_task(self._read_of(node, branch, epoch)) for node in recorded.members]
        try:
            if all_of_them:
                await asyncio.wait(asked, timeout=2 * READ_S)
            else:
                await self._one_and_who_is_as_fast(asked)
            return [answer for task in asked if task.done() and (answer := task.result()) is not None]
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _one_and_who_is_as_fast(self, asked: Sequence["asyncio.Task[list[Segment] | None]"]) -> None:
        """Wait for the first that holds something, and a moment for the others."""
        done, waiting = await asyncio.wait(asked, timeout=READ_S, return_when=asyncio.FIRST_COMPLETED)
        while waiting and not any(task.result() is not None for task in done):
            done, waiting = await asyncio.wait(waiting, timeout=READ_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                break
        if waiting:
            await asyncio.wait(waiting, timeout=OTHERS_S)

    async def _read_of(self, node: LiveNode, branch: "Branch", epoch: int) -> list[Segment] | None:
        """Return what a member holds; None where it does not answer in time, or has lost its disk."""
        end_s = self._clock.monotonic_s() + READ_S
        while True:
            try:
                pieces = await self._pieces_of(await self._where(node), branch, epoch)
                return [piece for piece in map(self._decoded, pieces) if piece is not None]
            except (NotFoundError, FencedError) as error:
                _log.error(
                    "a member of a sync set has no tail",
                    node=node.node_id,
                    branch=str(branch.ref),
                    error=str(error),
                )
                return None
            except MemoturnError as error:
                if self._clock.monotonic_s() >= end_s:
                    _log.error(
                        "a member of a sync set does not answer",
                        node=node.node_id,
                        branch=str(branch.ref),
                        error=str(error),
                    )
                    return None
                await self._clock.sleep(AGAIN_S)

    async def _where(self, member: LiveNode) -> LiveNode:
        """Return a member as it is reached now: it may have come back at another address than it was recorded with."""
        try:
            nodes = await self._leases.live_nodes()
        except RetryableError:
            return member
        return next((node for node in nodes if node.node_id == member.node_id), member)

    async def _pieces_of(self, node: LiveNode, branch: "Branch", epoch: int) -> list[bytes]:
        if node.node_id == self._node_id:
            return await self.store.read(branch.branch_id, epoch)
        headers = Push(branch.ref.database.uuid, branch.branch_id, epoch, 0).headers()
        return tails.unpacked(await self._ask(node, READ_PATH, headers, b"", READ_S))

    def _decoded(self, data: bytes) -> Segment | None:
        try:
            return segment.decode(data)
        except CorruptionError as error:  # of a machine that lost power: others may have it
            self._metrics.tails_contradicted.inc()
            _log.error("a piece of a tail is damaged", error=str(error))
            return None

    # ---- looking after what is held

    async def sweep(self) -> None:
        """Let go of tails that nobody needs any more, of which nobody said so: their owner died, or could not be heard."""
        now_s = self._clock.monotonic_s()
        await self.store.drop_stranded(self._clock.now_ms() - round(1000 * STRANDED_S))
        for held in self.store.held():
            if held.heard_s > now_s - LEFTOVER_S:
                continue
            try:
                if await self._is_needed(held.branch_id):
                    if held.last_txid and await self._has_landed(held):  # its owner could not say so
                        await self.store.drop_pieces(held.branch_id, heard_s=held.heard_s)
                    continue
                is_lost = held.is_stranded or not await self._has_landed(held)
            except MemoturnError as error:
                _log.info("a held tail is looked at later", branch=held.branch_id, error=str(error))
                continue
            if is_lost and held.heard_s > now_s - STRANDED_S:
                continue
            if is_lost:
                _log.error("commits that their branch went on without are dropped", branch=held.branch_id)
            await self.store.drop(held.branch_id, heard_s=held.heard_s)

    async def let_go(self, uuid: str) -> None:
        """Let go at once of what is held of a database and has landed: its history was rewritten. Raises StoreUnavailableError."""
        for held in self.store.held():
            if held.uuid == uuid and held.last_txid and await self._has_landed(held):
                await self.store.drop_pieces(held.branch_id, heard_s=held.heard_s)

    async def _is_needed(self, branch_id: str) -> bool:
        recorded = await self._leases.sync_set(branch_id)
        return recorded is not None and any(node.node_id == self._node_id for node in recorded.members)

    async def _has_landed(self, held: HeldTail) -> bool:
        txid = held.last_txid
        if not txid:
            return True
        try:
            found = await self._objects.get(layout.manifest_key(held.uuid, held.branch_id))
        except ObjectMissingError:
            return True  # the branch is gone, and so nothing of it is needed
        current = transitions.decode_of(found.data, db=held.uuid, branch_id=held.branch_id)
        if held.epoch == current.epoch and txid <= current.head_txid:
            return True  # also where history was rewritten since
        return transitions.contains(current, txid) or txid == current.head_txid


async def apply(branch: "Branch", current: Manifest, found: Sequence[Segment]) -> None:
    """Bring the restored head, which `branch.known` says is open, to what `found` proves, as commits not shipped yet.

    Raises what memoturnd.engine.replaying.replay raises; the takeover is tried again then.
    """
    known = branch.known
    invariant(known is not None, "a tail is put on a proven head", branch=branch.ref)
    if known is None:
        return
    hashes = known[1]
    txid, pieces = current.head_txid, list[Segment]()
    reached = hashes
    for piece in found:
        try:
            proven = follow(txid, reached, [piece])
        except GapError as error:
            branch.services.metrics.tails_contradicted.inc()
            _log.error("a tail ends where it does not follow", branch=str(branch.ref), error=str(error))
            break
        txid, reached = proven.at.txid, proven.hashes
        pieces.append(piece)
    if not pieces:
        return
    size_bytes = current.page_size * sum(piece.page_count for piece in pieces)
    await replay(branch, lambda: rounds_behind(current.head_txid, pieces), txid=txid, size_bytes=size_bytes)
    branch.known = Cursor(current.head_txid, None), hashes
    branch.services.metrics.tail_rounds_found.inc(txid - current.head_txid)
    _log.warning(
        "replicated commits were found at other nodes",
        branch=str(branch.ref),
        head_txid=current.head_txid,
        txid=txid,
    )
