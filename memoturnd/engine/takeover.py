"""How a branch's local file comes to be right: restored, recovered, proven, or kept aside.

Called by the branch's state machine inside its transition lock. Nothing here serves requests.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

import apsw
import structlog

from memoturnd.core import layout, lineage, tails
from memoturnd.core import manifest as transitions
from memoturnd.core.manifest import Manifest
from memoturnd.core.pages import PageHashes
from memoturnd.core.recovery import Decision, Local, Verdict, decide
from memoturnd.core.segment import Segment
from memoturnd.core.wal import WalPosition
from memoturnd.engine import replica, schema
from memoturnd.engine import tails as tailing
from memoturnd.engine.connection import ProfileConnection, open_connection
from memoturnd.engine.files import Clean, Owner
from memoturnd.engine.ownership import Owned
from memoturnd.engine.writer import Writer
from memoturnd.errors import (
    BranchNotFoundError,
    CorruptionError,
    FencedError,
    InvariantError,
    NotOwnerError,
    RetryableError,
    StoreUnavailableError,
)
from memoturnd.replication.capture import Capture, Cursor
from memoturnd.replication.prove import prove
from memoturnd.replication.restore import Restored, restore
from memoturnd.replication.shipper import Shipper
from memoturnd.replication.tail_stream import TailStream
from memoturnd.seams.leases import Lease

if TYPE_CHECKING:
    from memoturnd.engine.branch import Branch

_ATTEMPTS = 5
_NO_LOG = WalPosition(0, 0, 0, 0, 0)
"""A place in no log: capture is surprised by whatever it finds, and a snapshot is shipped."""
_log = structlog.get_logger(__name__)


@cache
def empty_profile() -> ProfileConnection:
    """Return the shared profile without any data that branches never written are read as."""
    return make_empty_profile()


def make_empty_profile() -> ProfileConnection:
    """Return a profile without any data, in memory; it cannot be written."""
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=64)
    schema.create_as_commit(conn, txid=0, at_ms=0, epoch=0)
    conn.execute("PRAGMA query_only=1")
    return conn


def restore_reads(current: Manifest) -> int:
    """Return how many objects a restore of the head reads."""
    return len(transitions.restore_plan(current, current.head_txid)) if current.head_txid else 0


async def open_for_reading(branch: "Branch") -> str | None:
    """Open the branch's file, restored if need be; return the tier that it was in, None where it may hold commits that are not shipped.

    Raises BranchNotFoundError where a branch other than main has no manifest, and what restoring raises.
    """
    services = branch.services
    if branch.files.exists():
        clean = branch.files.clean(services.boot_id)
        if clean is not None and await _is_of_another_history(branch, clean[0]):
            branch.files.remove()
        elif clean is not None and _try_open(branch):
            mark, hashes = clean
            if branch.txid == mark.txid:
                branch.known = Cursor(mark.txid, mark.position), hashes
                branch.is_durable_at(mark.txid)
                return "warm"
            branch.close_connections()
        if branch.files.owner() is not None:
            return None
        branch.files.remove()
    current = await branch.manifests.load()
    if current is None and not branch.is_main:
        raise BranchNotFoundError(f"{branch.ref} has no manifest in object storage: create the branch again")
    if current is None:
        await refuse_a_lost_manifest(branch)
    refuse_deleted(branch, current)
    if current is None or current.head_txid == 0:
        branch.stands_empty()
        return "empty"
    await restore_head(branch, current)
    return "cold"


async def _is_of_another_history(branch: "Branch", clean: Clean) -> bool:
    """Return whether a file that an earlier process closed may hold rows that history was rewritten without since.

    Such a file is another form of its state. All of it was shipped, so that it may go. One that this process closed
    was replaced, or let go of, when history was rewritten.
    """
    if branch.was_open:
        return False
    current = await branch.manifests.load()
    branch.manifests.forget()
    if current is None or not current.erasures:
        return False
    return (clean.txid, clean.checksum) != (current.head_txid, current.head_checksum)


async def restore_head(branch: "Branch", current: Manifest) -> None:
    """Restore the head to the branch's path, and open it.

    Objects that were let go since the manifest was read, longer ago than their grace, are not missed: the
    restore starts again with the manifest that stands now.
    """
    services = branch.services
    if branch.files.folder.exists():  # a log left beside a file that is gone would be played onto the new one
        await services.executor.run(branch.files.remove)
    branch.files.make_folder()

    async def restore_from(planned: Manifest) -> tuple[Manifest, Restored]:
        return planned, await restore(
            services.store,
            planned,
            planned.head_txid,
            branch.files.main,
            executor=services.executor,
            fsync=services.sync == "full",
        )

    current, restored = await branch.manifests.with_newest(current, restore_from)
    branch.open_file()
    if branch.txid != current.head_txid:
        raise InvariantError(
            f"{branch.ref} was restored to txid {branch.txid} instead of {current.head_txid}"
        )
    branch.known = Cursor(current.head_txid, None), restored.hashes
    branch.is_durable_at(current.head_txid)
    branch.seen_s = float("-inf")  # the manifest may be older than the file that was here before


async def take_newest(branch: "Branch") -> bool:
    """Let the file of a branch that is not owned be the head of the manifest as it stands now; False where it was.

    Called inside the transition lock. Raises BranchNotFoundError for a deleted branch, StoreUnavailableError.
    """
    current = await branch.manifests.load(fresh=True)
    if current is None:
        if branch.txid or not branch.is_main:
            raise StoreUnavailableError(f"the object store has lost {branch.manifests.key}; bring it back")
        return False
    refuse_deleted(branch, current)
    if current.head_txid == branch.txid and (branch.known is None or stands_at(branch.known, current)):
        return False
    if current.head_txid < branch.txid:
        return False  # what was just put here by its owner
    if not await replica.catch_up(branch, current):
        await _replace_by_head(branch, current)
        branch.services.metrics.replica_steps["restored"].inc()
    return True


async def _replace_by_head(branch: "Branch", current: Manifest) -> None:
    """Put the head in the place of the file that is only read; reads of that go on while the head is fetched."""
    if not branch.hot:
        branch.files.remove()
        await restore_head(branch, current)
        return
    services, prepared = branch.services, branch.files.main.with_name("next.db")

    async def restore_from(planned: Manifest) -> tuple[Manifest, Restored]:
        prepared.unlink(missing_ok=True)
        return planned, await restore(
            services.store,
            planned,
            planned.head_txid,
            prepared,
            executor=services.executor,
            fsync=services.sync == "full",
        )

    current, restored = await branch.manifests.with_newest(current, restore_from)
    await branch.replace_by(prepared)
    branch.known = Cursor(current.head_txid, None), restored.hashes
    branch.is_durable_at(current.head_txid)


async def take_over(branch: "Branch") -> Owned:
    """Make this node the owner: the epoch is in the manifest before anything is served.

    Raises NotOwnerError naming another owner, StoreUnavailableError, BranchNotFoundError, CorruptionError.
    """
    services = branch.services
    ref = branch.ref
    try:
        lease = branch.lease = await services.leases.acquire(
            ref.branch_id, database=ref.database.qualified_name, branch=ref.name
        )
    except NotOwnerError:
        services.tails.is_anothers(ref.branch_id)
        await _leave_to_owner(branch)
        raise
    for _ in range(_ATTEMPTS):
        before = await _manifest(branch)
        refuse_deleted(branch, before)
        local = _inspect(branch)
        decision = decide(await _reaching(branch, before, local), local)
        is_forgotten = lineage.is_forgotten(before, lease.lineage.id) and not (
            local is not None and local.same_boot and before.owner in local.tokens
        )
        if is_forgotten:
            await _let_others_end(branch, lease)
            await services.tails.suspect_all(lease)
        epoch = max(lease.epoch, before.epoch + 1)
        token = lineage.owner_token(services.randomness.hex(8), lease.lineage.id)
        if local is not None and before.owner in local.tokens:
            # Should this process die behind the swap, the next one must know that it was us who made it. That
            # is so only of a file that was the chain's until now: claiming a diverged one would make it main's.
            branch.files.write_claim(token)

        def own(
            m: Manifest,
            expected: Manifest = before,
            epoch: int = epoch,
            token: str = token,
            start: int = decision.start_txid,
        ) -> Manifest:
            if m.commit_id != expected.commit_id and m.owner != token:
                raise FencedError("the manifest moved while it was taken over")
            return transitions.own(m, epoch=epoch, owner=token, start_txid=start)

        try:
            current = await branch.manifests.update(own)
        except FencedError:
            continue  # decide again on what stands now
        found = await services.tails.find(branch, current, is_forgotten=is_forgotten)
        if tails.is_beyond(found, max(current.head_txid, 0 if local is None else local.txid)):
            decision = _with_tail(decision, before, local, found)
        await _settle(branch, current, decision, local)
        if branch.txid == current.head_txid and found:
            await tailing.apply(branch, current, found)
        owned = await _start(branch, lease, decision, current)
        branch.taken = lease
        return owned
    raise RetryableError(f"{branch.ref} is being taken over by somebody else; try again")


async def _let_others_end(branch: "Branch", lease: Lease) -> None:
    """Return once nobody can act on a lease that the service has forgotten.

    Until then the branch is left to its last owner, who has all of it. Raises RetryableError.
    """
    services = branch.services
    left_s = lease.lineage.settled_s - services.clock.monotonic_s()
    if left_s <= 0:
        return
    branch.lease = None
    try:
        await services.leases.release(lease)
    except RetryableError:
        services.unreleased.note(lease)
    raise RetryableError(
        f"the lease service has lost its memory, and the last owner of {branch.ref} may still act: another node takes it "
        f"in {left_s:.1f} s; nothing was applied, send it again",
        retry_after_s=math.ceil(left_s),
    )


def _with_tail(
    decision: Decision, before: Manifest, local: Local | None, found: Sequence[Segment]
) -> Decision:
    """Return the decision where other nodes hold more than the local file: theirs is taken, on the restored head.

    A local tail is a part of it, or is kept as another branch. The last owner may have committed more than they hold.
    """
    start_txid, verdict = max(decision.start_txid, before.txid_ceiling), decision.verdict
    if verdict is Verdict.TAIL and local is not None:
        verdict = Verdict.STALE if tails.holds(found, local.txid) else Verdict.DIVERGED
    return Decision(verdict, start_txid)


async def _reaching(branch: "Branch", before: Manifest, local: Local | None) -> Manifest:
    """Return the manifest with the history pages in it that may hold the local file's txid."""
    if local is None or not local.txid:
        return before
    return await branch.services.archive.reaching(before, local.txid)


async def give_back(branch: "Branch") -> None:
    """Release the branch after a clean close: the manifest says that no txid above the head was used.

    The lease goes too, where this node took it: what stands in the lease service by now may be another's.
    """
    services = branch.services
    owner = branch.files.owner()
    if owner is not None:
        with suppress(FencedError):  # where somebody else owns it already there is nothing to give back
            await branch.manifests.update(
                lambda m: transitions.release(m, epoch=owner.epoch, start_txid=owner.start_txid)
            )
        branch.manifests.forget()
    lease, branch.lease = branch.lease, None
    if lease is not None:
        try:
            if branch.taken is lease:
                await services.tails.release(lease, lease.epoch if owner is None else owner.epoch)
            else:  # a takeover that was cut off: the next one needs what the set holds
                services.tails.is_anothers(lease.branch_id)
            await services.leases.release(lease)
        except RetryableError as error:  # the files may go all the same
            _log.warning("lease not given back yet", branch=str(branch.ref), error=str(error))
            services.unreleased.note(lease)


async def _leave_to_owner(branch: "Branch") -> None:
    """Let go of the closed file of a branch that another node owns; what the chain went on without is kept aside first.

    Where the owner does not stand in the manifest yet it is not known what it will find, and the file stays.
    """
    if branch.hot or not branch.may_hold_more:
        return
    try:
        before = await branch.manifests.load(fresh=True)
        if before is None or before.deleted_at is not None:
            return
        local = _inspect(branch)
        if local is not None:
            decision = decide(await _reaching(branch, before, local), local)
            if decision.verdict is Verdict.TAIL or before.owner in local.tokens:
                return
            if decision.verdict is Verdict.DIVERGED:
                await _keep_aside(branch, before, local)
    finally:
        branch.close_connections()
        branch.manifests.forget()
    branch.files.remove()
    branch.known = None
    branch.disk_bytes = 0


async def _manifest(branch: "Branch") -> Manifest:
    """Return the manifest as it stands, creating main's where the database was never written."""
    current = await branch.manifests.load(fresh=True)
    if current is not None and not branch.ref.database.written:
        await branch.surroundings.register_database(branch.ref.database)  # an import may have been cut off
    if current is None:
        if not branch.is_main:
            raise BranchNotFoundError(
                f"{branch.ref} has no manifest in object storage: create the branch again"
            )
        await refuse_a_lost_manifest(branch)
        database = branch.ref.database
        await branch.surroundings.register_database(database)
        new = Manifest(
            db=database.uuid,
            branch_id=branch.ref.branch_id,
            branch=branch.ref.name,
            created_at=database.created_at,
        )
        await branch.manifests.create(new)
        current = await branch.manifests.load()
    if current is None:
        raise RetryableError(f"the manifest of {branch.ref} vanished while it was created; try again")
    return current


def refuse_deleted(branch: "Branch", current: Manifest | None) -> None:
    """Raise BranchNotFoundError where the manifest says that the branch was deleted."""
    if current is not None and current.deleted_at is not None:
        branch.manifests.forget()  # it may come back
        raise BranchNotFoundError(f"{branch.ref} was deleted; undelete it while its grace lasts")


async def refuse_a_lost_manifest(branch: "Branch") -> None:
    """Let nothing pass for an empty profile but one: a manifest is made before the branch's first object.

    Raises CorruptionError where the manifest was lost, or this is not the store that the database is in.
    """
    services = branch.services
    database = await services.catalog.get_database_by_uuid(branch.ref.database.uuid)
    if not database.written:
        return
    await branch.surroundings.register_database(database)
    async for info in services.store.list(layout.branch_prefix(database.uuid, branch.ref.branch_id)):
        raise CorruptionError(
            f"object {branch.manifests.key} is gone, although others of its branch are there ({info.key}); "
            "restore a copy of it"
        )


def _inspect(branch: "Branch") -> Local | None:
    """Say what file is here, opening it; None without one that could hold anything."""
    if not branch.hot and (not branch.files.exists() or not _try_open(branch)):
        return None
    owner = branch.files.owner()
    if owner is None:
        return Local(branch.txid, (), 0)
    # A file that was closed clean holds all that was acknowledged, wherever the machine went since.
    clean = branch.files.was_closed_at() == branch.txid
    same_boot = clean or owner.boot_id == branch.services.boot_id
    tokens = tuple(filter(None, (owner.token, owner.claim)))
    return Local(branch.txid, tokens, owner.start_txid, same_boot, all_shipped=clean)


def _try_open(branch: "Branch") -> bool:
    """Open the file; one that SQLite cannot read is set aside and counts as absent. Raises what the disk refuses."""
    try:
        branch.open_file()
    except (apsw.NotADBError, apsw.CorruptError) as error:
        aside = branch.files.set_aside(branch.services.randomness.hex(4))
        _log.error(
            "local file is damaged and was set aside",
            branch=str(branch.ref),
            error=str(error),
            kept=str(aside),
        )
        return False
    return True


async def _settle(branch: "Branch", current: Manifest, decision: Decision, local: Local | None) -> None:
    """Make the local file the state that the decision starts from, keeping what the chain does not hold."""
    verdict = decision.verdict
    if branch.known is not None and not stands_at(branch.known, current):
        branch.known = None  # history was rewritten by another owner
    if verdict in {Verdict.CURRENT, Verdict.TAIL} and branch.known is None and branch.txid:
        branch.known = await branch.services.executor.run(
            lambda: prove(
                branch.conn,
                branch.files.wal,
                page_size=current.page_size,
                txid=current.head_txid,
                checksum=current.head_checksum,
            )
        )
    owner = branch.files.owner()
    same_boot = owner is not None and owner.boot_id == branch.services.boot_id
    unproven = branch.known is None
    if verdict is Verdict.TAIL and unproven and not same_boot:
        verdict = (
            Verdict.DIVERGED
        )  # the machine restarted underneath: only a proof makes this file the branch's
    if verdict is Verdict.DIVERGED and local is not None:
        await _keep_aside(branch, current, local)
    if verdict in {Verdict.STALE, Verdict.DIVERGED} or (verdict is Verdict.CURRENT and unproven):
        branch.close_connections()
        branch.files.remove()
    if branch.hot:
        return
    if current.head_txid:
        await restore_head(branch, current)
    else:
        branch.files.remove()
        branch.files.make_folder()
        branch.open_file()
        branch.known = Cursor(0, None), PageHashes()


def stands_at(known: tuple[Cursor, PageHashes], current: Manifest) -> bool:
    """Return whether a file whose pages are known is not another form of the head's state."""
    cursor, hashes = known
    return cursor.txid != current.head_txid or f"{hashes.checksum:016x}" == current.head_checksum


async def _keep_aside(branch: "Branch", current: Manifest, local: Local) -> None:
    """Keep a local state that the chain went on without as branch `recovered-{epoch}`, before it is dropped."""
    conn, at_ms, owner = branch.conn, branch.at_ms, branch.files.owner()
    frames, done = await branch.services.executor.run(
        lambda: conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
    )
    if frames != done:
        raise RetryableError(f"the local commits of {branch.ref} cannot be kept yet: a reader holds the log")
    name = await branch.surroundings.keep_diverged(
        str(branch.files.main), current, local.txid, at_ms, owner.epoch if owner is not None else 0
    )
    branch.services.metrics.recovered_branches.inc()
    _log.warning("local commits kept as another branch", branch=str(branch.ref), kept=name, txid=local.txid)


async def _start(branch: "Branch", lease: Lease, decision: Decision, current: Manifest) -> Owned:
    """Build what writes and ships the branch, whose file is open and settled."""
    services, ref, epoch = branch.services, branch.ref, current.epoch
    services.agenda.changed(ref.database.uuid, ref.branch_id)  # the last owner may have left uploads behind
    start_txid = max(decision.start_txid, branch.txid)
    branch.files.write_owner(
        Owner(
            db_uuid=ref.database.uuid,
            db_name=ref.database.qualified_name,
            branch_id=ref.branch_id,
            branch=ref.name,
            epoch=current.epoch,
            token=current.owner,
            claim="",
            start_txid=start_txid,
            boot_id=services.boot_id,
        )
    )
    # A tail that the log does not prove is shipped as a whole state.
    cursor, hashes = branch.known or (Cursor(current.head_txid, _NO_LOG), PageHashes())
    branch.known = None
    capture = Capture(str(branch.files.wal), page_size=current.page_size, cursor=cursor, hashes=hashes)
    shipper = Shipper(
        branch,
        capture,
        branch.manifests,
        services.store,
        services.archive,
        uuid=ref.database.uuid,
        branch_id=ref.branch_id,
        epoch=epoch,
        limits=services.ship_limits,
        clock=services.clock,
        executor=services.executor,
        metrics=services.metrics,
        wake=lambda urgent: services.scheduler.note(shipper, urgent),
        uploads=lambda: services.agenda.changed(ref.database.uuid, ref.branch_id),
        lets_go=lambda: services.agenda.let_go(ref.database.uuid),
        shipped=lambda data: services.subscribers.shipped(ref.branch_id, data),
        fenced=branch.fenced,
        landed=branch.moves.note,
        randomness=services.randomness,
        compaction_slots=services.compaction_slots,
        spawn=services.spawn,
    )

    async def raise_ceiling() -> None:
        try:
            raised = await branch.manifests.update(
                lambda m: transitions.raise_ceiling(m, epoch=epoch, txid=writer.next_txid)
            )
        except FencedError as error:
            branch.fenced(error)
            raise
        branch.ceiling = raised.txid_ceiling

    def committed() -> None:
        shipper.committed()
        branch.moves.note()

    branch.ceiling = current.txid_ceiling
    writer = Writer(
        branch,
        epoch=epoch,
        start_txid=start_txid,
        raise_ceiling=raise_ceiling,
        committed=committed,
        settings=services.writer_settings,
        clock=services.clock,
        executor=services.executor,
        user_executor=services.user_executor,
        metrics=services.metrics,
        spawn=services.spawn,
        may_commit=branch.may_commit if services.leases.is_shared else None,
    )
    tail = TailStream(
        branch,
        shipper,
        services.tails,
        uuid=ref.database.uuid,
        lease=lease,
        epoch=epoch,
        clock=services.clock,
        executor=services.executor,
        metrics=services.metrics,
        spawn=services.spawn,
    )
    if branch.txid > cursor.txid:
        shipper.committed()
    if branch.txid == 0:
        await writer.create()
        branch.look_at_log()
    elif (meta := schema.read_meta(branch.conn)).schema_version < schema.SCHEMA_VERSION:
        await writer.commit(lambda conn, _: (None, schema.migrate(conn, meta)))
    return Owned(lease, epoch, writer, shipper, capture, tail)
