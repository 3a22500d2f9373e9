"""Erasures: requested with a commit that takes something out of a branch's newest state, finished by a chore.

The coupon is in the object store before that commit is made, so whoever dies in between, the erasure goes on. The chore
takes the target out of the newest state of every other branch, waits for the grace time, rewrites the history of every
branch (memoturnd.replication.rewrite), lets go of this node's copies, waits for the former objects to be collected, looks
at everything once more, and signs. Each step can be done again.
"""

import base64
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog

from memoturnd.core import erasures
from memoturnd.core import register as registers
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.durability import Durability
from memoturnd.core.erasures import BlockedBy, Coupon, Cut, Evidence, Receipt, Target
from memoturnd.core.garbage import Survey
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.engine.branch import Branch
from memoturnd.engine.branching import Branching
from memoturnd.engine.coupons import Coupons
from memoturnd.engine.ownership import BranchRef
from memoturnd.engine.registers import Registers
from memoturnd.engine.releasing import obtain
from memoturnd.engine.rewriting import Rewriter, Rewritten, Shared
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import DatabaseNotFoundError, MemoturnError, NotFoundError
from memoturnd.policies import Policies
from memoturnd.replication import few_at_once
from memoturnd.replication.archive import BRANCHES
from memoturnd.replication.collector import Collector
from memoturnd.replication.search_history import holds
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import COLLECT, ERASE, MAIN, Chore, Database
from memoturnd.seams.profile import Work
from memoturnd.surfaces import erasing
from memoturnd.surfaces.erasing import Asked, Eraser

BLOCKED_AGAIN_S = 60.0
"""How often it is looked whether what stood in the way is gone."""
NODE_SILENT_S = 60.0
"""A node that did not say for so long that it is there is gone, and its disk with it."""
RELEASE_S = 5.0
"""How often a node looks whether it has to let go of copies."""
SOON_S = 1.0
"""When the chore begins behind a request, which has seen to its own branch by then."""
SOON_TOGETHER_S = 60.0
"""The same where there is time, so that one look sees to many that are requested one after the other."""
LOOK_S = 10.0
"""How often it is looked whether the former objects are gone, once they may be."""
TOGETHER_MS = 600_000
TOGETHER_FROM_MS = 3_600_000
"""Erasures with at least so long a grace are carried out together with others, at most so much later."""
DELETED_LOOK_S = 600.0
"""How often it is looked whether a deleted database is gone, or back."""
COMMIT_LIMIT = 100
"""Erasures that one commit takes out of the newest state of another branch."""
PASSES_LIMIT = 4
"""Passes over a history, each of which may find more names of what is to be erased."""
_log = structlog.get_logger(__name__)


Sign = Callable[[bytes], tuple[str, bytes]]
"""Returns the id of the key that signs now, and its signature."""


@dataclass(frozen=True, slots=True)
class Requested:
    """An erasure as it was accepted: its coupon, and the commit that took the target out of the newest state."""

    coupon: Coupon
    txid: int
    durable_txid: int


@dataclass(slots=True)
class _Work:
    """An erasure that the chore is at: its coupon as it stands, and by branch what stands in the way."""

    file: SwapFile[Coupon]
    coupon: Coupon
    blocked: dict[str, str] = field(default_factory=dict)

    @property
    def due_ms(self) -> int:
        """Return when history is rewritten: a while after the grace where that is long, with others at once."""
        coupon = self.coupon
        if coupon.grace_until - coupon.requested_at < TOGETHER_FROM_MS:
            return coupon.grace_until
        return -(-coupon.grace_until // TOGETHER_MS) * TOGETHER_MS

    def is_due(self, now_ms: int) -> bool:
        """Return whether history is to be rewritten now."""
        return not self.blocked and self.coupon.rewritten_at is None and now_ms >= self.due_ms


class Erasing:
    """The erasures of one node."""

    def __init__(
        self,
        services: Services,
        tiers: Tiers,
        files: Registers,
        branching: Branching,
        policies: Policies,
        collector: Collector,
        rewriter: Rewriter,
        *,
        node_id: str,
        on_completed: Callable[[Coupon], Awaitable[None]],
    ) -> None:
        """`on_completed` is told of each erasure that is completed, at least once."""
        self.coupons = Coupons(services.store, services.clock, services.randomness)
        self._services = services
        self._tiers = tiers
        self._registers = files
        self._branching = branching
        self._policies = policies
        self._collector = collector
        self._rewriter = rewriter
        self._node_id = node_id
        self.sign: Sign | None = None
        """Signs receipts; None on a node without keys, whose receipts have the algorithm `none`."""
        self._on_completed = on_completed

    def new_id(self) -> str:
        """Return an id for an erasure that is about to be requested."""
        return erasures.new_id(self._services.clock.now_ms(), self._services.randomness.hex(4))

    async def purges(self, db_name: str) -> bool:
        """Return whether what is forgotten in a profile is to be erased. Raises PolicyUnreadableError."""
        return (await self._policies.effective(db_name)).purge_on_forget

    async def schedule_waiting(self) -> None:
        """Let every erasure that is not completed go on, whatever the catalog has lost of it."""
        for uuid in await self.coupons.databases_waiting():
            await self._services.catalog.schedule(Chore(ERASE, uuid), self._services.clock.now_ms())

    # ---- requests

    async def request(
        self, db_name: str, branch_name: str, ask: Callable[[], Awaitable[Asked]], erasure_id: str
    ) -> Requested:
        """Take what `ask` says out of a branch's newest state, durably, and promise the rest.

        An id that was requested before goes on where that was cut off, unasked. Raises NotFoundError where a memory or topic
        was never there, DatabaseNotFoundError, BranchNotFoundError, PolicyUnreadableError, and what a durable write
        raises: the erasure then goes on all the same.
        """
        branch = await self._branching.find(db_name, branch_name)
        services, uuid = self._services, branch.ref.database.uuid
        file = self.coupons.file(uuid, erasure_id)
        coupon = await file.load()
        if coupon is None:
            asked = await ask()
            await self._refuse_unknown(branch, asked.targets)
            grace_s = (await self._policies.effective(db_name, fresh=True)).grace_s
            if asked.grace_s is not None:
                grace_s = min(grace_s, asked.grace_s)
            now_ms = services.clock.now_ms()
            coupon = Coupon(
                id=erasure_id,
                db=branch.ref.database.name,
                uuid=uuid,
                tenant=branch.ref.database.tenant,
                branch=branch.ref.name,
                targets=asked.targets,
                requested_at=now_ms,
                grace_until=now_ms + 1000 * grace_s,
            )
            await self.coupons.create(file, coupon)
            services.metrics.erasures["requested"].inc()
        is_long = coupon.grace_until - coupon.requested_at >= TOGETHER_FROM_MS
        await services.catalog.schedule(
            Chore(ERASE, uuid), self._in_ms(SOON_TOGETHER_S if is_long else SOON_S)
        )
        cut = coupon.cuts.get(branch.branch_id)
        if cut is None:
            (coupon,) = await self._take_out(branch, [(file, coupon)])
            cut = coupon.cuts[branch.branch_id]
        return Requested(coupon, cut.txid, branch.durable_txid)

    async def _refuse_unknown(self, branch: Branch, targets: Sequence[Target]) -> None:
        """Raise NotFoundError for a memory or topic that is in no retained page of the database."""
        unknown = [t for t in targets if erasing.is_of_memory(t)]
        if unknown:
            seen = await branch.read(lambda conn, _: [t for t in unknown if not erasing.is_there(conn, t)])
            unknown = seen.value
        for target in unknown:
            traces = erasing.traces(target)
            if traces is None or not await self._was_ever(branch, traces):
                raise NotFoundError(
                    f"nothing to erase: {(target.memory_id or target.topic_key or '')[:64]!a} is in no retained state"
                )

    async def _was_ever(self, branch: Branch, traces: re.Pattern[bytes]) -> bool:
        services, uuid = self._services, branch.ref.database.uuid
        register = await self._registers.borrow(uuid).load(fresh=True)
        if register is None:
            return False
        for one in (await services.archive.all(BRANCHES, register)).values():
            current = await services.manifest_file(uuid, one.id).load()
            if current is not None and await holds(
                services.store, services.archive, services.executor, current, traces
            ):
                return True
        return False

    async def _take_out(
        self, branch: Branch, coupons: Sequence[tuple[SwapFile[Coupon], Coupon]]
    ) -> list[Coupon]:
        """Take the targets of coupons out of a branch's newest state, and note the commit in each as the branch's cut."""
        erasers = [_eraser(coupon) for _, coupon in coupons]
        written = await branch.write(
            partial(erasing.apply_all, erasers), durability=Durability.DURABLE, work=Work.HEAVY
        )
        cut = Cut(branch.ref.name, written.txid)
        return [
            await file.update(partial(_noted, branch_id=branch.branch_id, cut=cut, eraser=eraser))
            for (file, _), eraser in zip(coupons, erasers, strict=True)
        ]

    # ---- the chore

    async def look(self, chore: Chore) -> int | None:
        """See to the erasures of a database; return when to look again (unix ms), None once all are completed."""
        uuid = chore.db_uuid
        works = [
            _Work(self.coupons.file(uuid, coupon.id), coupon) for coupon in await self.coupons.waiting(uuid)
        ]
        for work in [work for work in works if work.coupon.status == "completed"]:
            await self._tell(work.coupon)  # a node was cut off behind the coupon's last change
            works.remove(work)
        if not works:
            return None
        register = await self._registers.borrow(uuid).load(fresh=True)
        if register is None or register.state != "live":
            return await self._see_to_deleted(uuid, register, works)
        try:
            database = await self._services.catalog.get_database_by_uuid(uuid)
        except DatabaseNotFoundError:
            return self._in_ms(BLOCKED_AGAIN_S)
        branches = await self._registered(uuid)
        await self._take_out_everywhere(
            database, branches, [w for w in works if w.coupon.rewritten_at is None]
        )
        now_ms = self._services.clock.now_ms()
        if due := [w for w in works if w.is_due(now_ms)]:
            await self._rewrite_due(database, due[: erasures.fitting([work.coupon for work in due])])
        if rewritten := [w for w in works if w.coupon.rewritten_at is not None and not w.blocked]:
            await self._finish(database, rewritten)
        return min((self._next_ms(work) for work in works if work.coupon.status != "completed"), default=None)

    def _next_ms(self, work: "_Work") -> int:
        if work.blocked:
            return self._in_ms(BLOCKED_AGAIN_S)
        if work.coupon.rewritten_at is None:
            return work.due_ms
        return max(self._in_ms(LOOK_S), self._collected_ms(work.coupon))

    def _collected_ms(self, coupon: Coupon) -> int:
        """Return before when the former objects cannot be gone."""
        since_ms = coupon.rewritten_at or 0
        return since_ms + self._services.graces.unreachable_ms if coupon.objects_replaced else since_ms

    async def _take_out_everywhere(
        self, database: Database, branches: Mapping[str, RegisteredBranch], works: Sequence["_Work"]
    ) -> None:
        """Take the targets out of the newest state of each branch that may still have them."""
        for name, entry in branches.items():
            if registers.is_deleted_name(name):
                continue
            left = []
            for work in works:
                if entry.id in work.coupon.cuts:
                    continue
                inherited = _inherited(work.coupon, branches, entry)
                if inherited is None:
                    left.append(work)
                    continue
                change = partial(_cut, branch_id=entry.id, cut=Cut(name, inherited.txid))
                work.coupon = await work.file.update(change)
            for at in range(0, len(left), COMMIT_LIMIT):
                await self._take_all_out(database, (name, entry), left[at : at + COMMIT_LIMIT])
        await self._note_blocked(works)

    async def _take_all_out(
        self, database: Database, place: tuple[str, RegisteredBranch], works: Sequence["_Work"]
    ) -> None:
        """Take the targets of several erasures out of the newest state of one branch, in one commit."""
        name, entry = place
        try:
            if await self._services.manifest_file(database.uuid, entry.id).load() is None:
                return
            branch = self._branch(database, name, entry)
            await obtain(self._services, branch)  # whoever owns it gives it back: it is written here
            coupons = await self._take_out(branch, [(work.file, work.coupon) for work in works])
        except (MemoturnError, TimeoutError) as error:
            for work in works:
                work.blocked[name] = str(error) or "it took too long"
        else:
            for work, coupon in zip(works, coupons, strict=True):
                work.coupon = coupon

    async def _rewrite_due(self, database: Database, works: Sequence["_Work"]) -> None:
        """Rewrite history without what is due, and have the former objects collected."""
        for work in works:
            work.coupon = await work.file.update(erasures.rewriting)
        await self.coupons.note_rewritten(database.uuid)
        done = await self._rewrite(database, works)
        await self._note_blocked(works)
        if not works[0].blocked:
            await self._settle(database.uuid, works, done)

    async def _rewrite(self, database: Database, works: Sequence["_Work"]) -> Rewritten:
        """Pass over every branch until no further names of what is to go are found; what stands in the way is noted."""
        total = Rewritten(0, 0, 0, 0)
        ids = [work.coupon.id for work in works]
        for _ in range(PASSES_LIMIT):
            before = [(work.coupon.memory_ids, work.coupon.document_ids) for work in works]
            erasers = [_eraser(work.coupon) for work in works]
            shared = Shared()
            for name, entry in (await self._registered(database.uuid)).items():
                cuts = [_cut_txid(work.coupon, entry.id) for work in works]
                erase = partial(erasing.erase_all, list(zip(erasers, cuts, strict=True)))
                try:
                    if await self._services.manifest_file(database.uuid, entry.id).load() is None:
                        continue  # main before its first write, or a fork that is being made
                    branch = self._branch(database, name, entry)
                    one = await self._rewriter.rewrite(branch, erase, ids, shared=shared)
                except (MemoturnError, TimeoutError) as error:
                    for work in works:
                        work.blocked[name] = str(error) or "it took too long"
                else:
                    total = Rewritten(*(a + b for a, b in zip(total, one, strict=True)))
            for work, eraser in zip(works, erasers, strict=True):
                change = partial(
                    erasures.found, memory_ids=eraser.memory_ids, document_ids=eraser.document_ids
                )
                work.coupon = await work.file.update(change)
            if before == [(work.coupon.memory_ids, work.coupon.document_ids) for work in works]:
                break
        return total

    async def _note_blocked(self, works: Sequence["_Work"]) -> None:
        for work in works:
            if work.blocked:
                by = _reasons(work.blocked)
                work.coupon = await work.file.update(partial(erasures.blocked, by=by))
                self._services.metrics.erasures["blocked"].inc()
                _log.warning("erasure is held up", erasure=work.coupon.id, reasons=by.reasons)

    async def _settle(self, uuid: str, works: Sequence["_Work"], done: Rewritten) -> None:
        """Note that history is rewritten, let go of what is kept here, and have the former objects collected."""
        services = self._services
        now_ms = services.clock.now_ms()
        nodes = await self._live_nodes()
        await self._tiers.let_go(uuid)
        heads = [manifest.head_txid for manifest in (await self._collector.survey(uuid)).manifests]
        stored_ms = await self.coupons.note_rewritten(uuid)
        for work in works:
            await self.coupons.note_releasing(work.coupon)
            change = partial(
                erasures.rewritten,
                at_ms=now_ms,
                stored_ms=stored_ms,
                last_txid=max(heads, default=0),
                rounds=done.rounds_rewritten,
                objects=done.objects_replaced,
                nodes=nodes,
            )
            await work.file.update(change)
            services.metrics.erasures["rewritten"].inc()
            work.coupon = await work.file.update(partial(erasures.cleared, node=self._node_id, at_ms=now_ms))
        await services.catalog.schedule(Chore(COLLECT, uuid), now_ms)

    async def _finish(self, database: Database, works: Sequence["_Work"]) -> None:
        """Complete erasures whose former objects are gone, after one more look at every state."""
        uuid = database.uuid
        ready = await self._let_go_everywhere(works)
        ready = [w for w in ready if self._collected_ms(w.coupon) <= self._in_ms(0)]
        if not ready:
            return
        survey = await self._collector.survey(uuid)
        ready = [work for work in ready if not self._has_former(survey, work.coupon)]
        ready = ready[: erasures.fitting([work.coupon for work in ready])]
        if not ready:
            return
        await self._tiers.let_go(uuid)  # what a read that was under way has made since
        checked = await self._rewrite(database, ready)
        await self._note_blocked(ready)
        if checked.rounds_rewritten:  # a fork that was being made meanwhile, or an upload that was under way
            await self._settle(uuid, ready, checked)
        elif not ready[0].blocked:
            for work in ready:
                await self._complete(work, await self._evidence(work.coupon, survey, checked))

    async def _let_go_everywhere(self, works: Sequence["_Work"]) -> list["_Work"]:
        """Return those for which every node that is there has let go of its copies."""
        live = set(await self._live_nodes())
        return [w for w in works if all(at or node not in live for node, at in w.coupon.nodes.items())]

    def _has_former(self, survey: Survey, coupon: Coupon) -> bool:
        """Return whether an object may still hold a former state; what was on its way then was stored within a grace."""
        stored_ms = coupon.rewritten_stored_at + self._services.graces.unreachable_ms
        if not coupon.rewritten_stored_at:  # the store's listing did not say
            stored_ms = INTEGER_MAX
        return bool(survey.former(coupon.rewritten_txid, stored_ms))

    async def _complete(self, work: "_Work", evidence: Evidence) -> None:
        now_ms = self._services.clock.now_ms()
        receipt = self._receipt(work.coupon, evidence, now_ms)
        work.coupon = await work.file.update(partial(erasures.completed, receipt=receipt, at_ms=now_ms))
        await self._tell(work.coupon)

    async def _tell(self, coupon: Coupon) -> None:
        await self._on_completed(coupon)
        await self.coupons.forget_waiting(coupon)
        self._services.metrics.erasures["completed"].inc()
        _log.info("erasure completed", erasure=coupon.id, database=coupon.uuid)

    def _receipt(self, coupon: Coupon, evidence: Evidence, now_ms: int) -> Receipt:
        payload = erasures.payload(coupon, evidence, now_ms)
        if self.sign is None:
            return Receipt(payload, "none")
        key_id, signature = self.sign(erasures.signed_bytes(payload))
        return Receipt(payload, "Ed25519", key_id, base64.b64encode(signature).decode())

    async def _evidence(self, coupon: Coupon, survey: Survey, checked: Rewritten) -> Evidence:
        snapshots: list[int] = []
        segments: list[int] = []
        for manifest in survey.manifests:
            whole = await self._services.archive.whole(manifest)
            snapshots += [ref.max for ref in whole.snapshots]
            segments += [ref.min for ref in whole.segments]
        return Evidence(
            manifests_checked=len(survey.manifests),
            objects_listed=len(survey.listed),
            oldest_snapshot_txid=min(snapshots, default=None),
            oldest_segment_min_txid=min(segments, default=None),
            clean=True,
            rounds_checked=checked.rounds_checked,
            pages_searched=checked.pages_searched,
            rounds_rewritten=coupon.rounds_rewritten,
            objects_replaced=coupon.objects_replaced,
            nodes_cleared=sum(bool(at_ms) for at_ms in coupon.nodes.values()),
        )

    # ---- deleted databases

    async def _see_to_deleted(
        self, uuid: str, register: Register | None, works: Sequence["_Work"]
    ) -> int | None:
        """Complete the erasures of a deleted database once all of it is gone; until then wait for that."""
        if register is not None:
            due_ms = (register.deleted_at or 0) + self._services.graces.of_database
            # It may be brought back before that.
            return min(max(due_ms, self._in_ms(LOOK_S)), self._in_ms(DELETED_LOOK_S))
        survey = await self._collector.survey(uuid)
        if survey.listed:
            return self._in_ms(BLOCKED_AGAIN_S)
        nothing = Rewritten(0, 0, 0, 0)
        if left := [work for work in works if work.coupon.rewritten_at is None]:
            await self._settle(uuid, left, nothing)
        for work in (ready := await self._let_go_everywhere(works)):
            await self._complete(work, await self._evidence(work.coupon, survey, nothing))
        return None if len(ready) == len(works) else self._in_ms(LOOK_S)

    # ---- odds and ends

    async def _registered(self, uuid: str) -> Mapping[str, RegisteredBranch]:
        """Return every registered branch, deleted ones too, main first."""
        register = await self._registers.borrow(uuid).load(fresh=True)
        if register is None:
            return {}
        found = await self._services.archive.all(BRANCHES, register)
        return dict(sorted(found.items(), key=lambda item: (item[0] != MAIN, item[1].created_at, item[0])))

    def _branch(self, database: Database, name: str, entry: RegisteredBranch) -> Branch:
        return self._tiers.get(BranchRef(database, entry.id, registers.plain_name(name)))

    async def _live_nodes(self) -> tuple[str, ...]:
        """Return the ids of this node, and of those that said lately that they are there."""
        since_ms = self._in_ms(-NODE_SILENT_S)
        rows = await self._services.catalog.list_nodes(since_ms)
        return tuple(sorted({self._node_id, *(row.id for row in rows)}))

    # ---- what other nodes' erasures ask of this one

    async def release(self) -> None:
        """Let go of this node's copies of databases whose history another node has rewritten, and say so."""
        if await self._live_nodes() == (self._node_id,):
            return  # whatever is rewritten is rewritten here
        kept: dict[str, list[SwapFile[Coupon]]] = {}

        async def look(file: SwapFile[Coupon]) -> None:
            coupon = await file.load()
            if coupon is not None and coupon.nodes.get(self._node_id) == 0:
                kept.setdefault(coupon.uuid, []).append(file)

        await few_at_once.together(await self.coupons.releasing(), look)
        for uuid, files in kept.items():
            if not await self._tiers.let_go(uuid):
                continue  # a branch that is kept of it later would bring back what is erased
            at_ms = self._services.clock.now_ms()
            for file in files:
                await file.update(partial(erasures.cleared, node=self._node_id, at_ms=at_ms))

    def _in_ms(self, pause_s: float) -> int:
        return self._services.clock.now_ms() + round(1000 * pause_s)


def _eraser(coupon: Coupon) -> Eraser:
    return Eraser(coupon.targets, memory_ids=coupon.memory_ids, document_ids=coupon.document_ids)


def _cut_txid(coupon: Coupon, branch_id: str) -> int | None:
    cut = coupon.cuts.get(branch_id)
    return None if cut is None else cut.txid


def _noted(coupon: Coupon, *, branch_id: str, cut: Cut, eraser: Eraser) -> Coupon:
    return erasures.deleted(coupon, branch_id, cut, eraser.memory_ids, eraser.document_ids)


def _cut(coupon: Coupon, *, branch_id: str, cut: Cut) -> Coupon:
    return erasures.deleted(coupon, branch_id, cut, set(), set())


def _inherited(
    coupon: Coupon, branches: Mapping[str, RegisteredBranch], entry: RegisteredBranch
) -> Cut | None:
    """Return the cut of the branch that one was forked from behind it: what the fork has since is new as well."""
    parent = branches.get(entry.parent)
    cut = None if parent is None else coupon.cuts.get(parent.id)
    return cut if cut is not None and entry.fork_txid >= cut.txid else None


def _reasons(blocked: Mapping[str, str]) -> BlockedBy:
    return BlockedBy(
        branches=tuple(sorted(blocked)), reasons=tuple(f"{name}: {blocked[name]}" for name in sorted(blocked))
    )
