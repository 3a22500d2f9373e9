"""Branch operations: fork, checkpoint, rewind and its undo, sync, delete. All are durable when they return.

A fork is three small swaps and no data: the register gets the name, the parent a pin, the child a manifest
that names the parent's objects. They land in that order, so that whoever walks the database from its
register finds every branch, and no fork exists whose parent does not know of it. A fork that takes too long is given
up (memoturnd.engine.new_branch).
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakValueDictionary

import apsw
import msgspec

from memoturnd.core import manifest as transitions
from memoturnd.core import names, revisions
from memoturnd.core.database_settings import rules_of
from memoturnd.core.manifest import Checkpoint, Manifest, Pin, Rewind
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.core.revisions import BeforeHead, Revision
from memoturnd.engine import changes, idempotency, schema
from memoturnd.engine.branch import Branch
from memoturnd.engine.connection import ProfileConnection, open_connection
from memoturnd.engine.deletion import DeletedBranch, Deletion
from memoturnd.engine.idempotency import Once
from memoturnd.engine.looking_back import RestorePoints, restore_points, standing
from memoturnd.engine.new_branch import create_manifest, enter
from memoturnd.engine.ownership import BranchRef, Owned
from memoturnd.engine.registers import Registers
from memoturnd.engine.releasing import shipped
from memoturnd.engine.rounds import translate
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    ConflictError,
    DatabaseNotFoundError,
    InvalidRequestError,
    NotDurableError,
    RetryableError,
)
from memoturnd.replication.archive import BRANCHES, CHECKPOINTS, PINS, update_names
from memoturnd.replication.points import Window
from memoturnd.replication.restore import restore, round_entry
from memoturnd.replication.revisions import resolve
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import ERASE, MAIN, BranchRow, Chore, Database

FORK_DEADLINE_S = 60.0
"""How long a fork may take from its entry in the register to its manifest: far less than the grace of garbage."""


@dataclass(frozen=True, slots=True)
class BranchCreated:
    """A new branch; `expires_at` is unix ms on a burner."""

    branch: str
    parent: str
    fork_txid: int
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class NamedCheckpoint:
    """A checkpoint; `created_at` is unix ms."""

    name: str
    txid: int
    created_at: int
    durable_txid: int


@dataclass(frozen=True, slots=True)
class Rewound:
    """A rewind: commit `txid` made the state that of `rewound_to`; `undo_txid` is the head before it."""

    rewound_to: int
    txid: int
    epoch: int
    undo_txid: int
    durable_txid: int


class Branching:
    """Operations on the branches of databases."""

    def __init__(self, services: Services, tiers: Tiers, files: Registers) -> None:
        self._services = services
        self._tiers = tiers
        self._registers = files
        self._deletion = Deletion(services, tiers, files)
        # One fork or deletion of a database at a time: a half-made fork is told from one that is being made.
        self._forking: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def find(self, db_name: str, branch: str = MAIN) -> Branch:
        """Return a branch by name. Raises DatabaseNotFoundError, BranchNotFoundError."""
        database = await self._services.catalog.get_database(db_name)
        branch_id = database.main_branch_id
        if branch != MAIN:
            branch_id = (
                await self._services.catalog.get_branch(database.uuid, names.branch(branch))
            ).branch_id
        found = self._tiers.get(BranchRef(database, branch_id, branch))
        found.rules = rules_of(database.settings)
        return found

    async def find_by_id(self, db_uuid: str, branch_id: str) -> Branch:
        """Return a branch by its ids. Raises DatabaseNotFoundError, BranchNotFoundError."""
        catalog = self._services.catalog
        database = await catalog.get_database_by_uuid(db_uuid)
        if (await catalog.get_database(database.qualified_name)).uuid != db_uuid:
            raise DatabaseNotFoundError(f"database {database.name} was deleted; another one has its name")
        if branch_id == database.main_branch_id:
            return self._tiers.get(BranchRef(database, branch_id, MAIN))
        for row in await catalog.list_branches(db_uuid):
            if row.branch_id == branch_id:
                return self._tiers.get(BranchRef(database, branch_id, row.name))
        raise BranchNotFoundError(f"database {database.name} has no branch of id {branch_id} (any more)")

    async def create(
        self,
        db_name: str,
        name: str,
        *,
        from_branch: str = MAIN,
        at: str | None = None,
        ttl_s: int | None = None,
        branch_id: str | None = None,
    ) -> BranchCreated:
        """Fork `from_branch` at its head, or at the revision `at` (memoturnd.core.revisions).

        `branch_id` (16 hex digits) is random unless given; a fork that was cut off half way keeps its own.

        Raises AlreadyExistsError, InvalidRequestError for bad grammar, BranchNotFoundError for an unknown
        checkpoint too, ConflictError for a state that cannot be restored.
        """
        names.branch(name)
        revision = None if at is None else revisions.parse(at)
        parent = await self.find(db_name, from_branch)
        if name == MAIN:
            raise AlreadyExistsError(f"every database has a branch {MAIN}; choose another name")
        parent.users += 1
        lock = self._forking.setdefault(parent.ref.database.uuid, asyncio.Lock())
        try:
            async with lock:
                return await self._fork(parent, name, revision, ttl_s, branch_id)
        finally:
            parent.leave()

    async def _fork(
        self, parent: Branch, name: str, at: Revision | None, ttl_s: int | None, wanted_id: str | None
    ) -> BranchCreated:
        services, database = self._services, parent.ref.database
        source = await self._shipped(parent)
        txid = source.head_txid if at is None else await resolve(services.archive, source, at)
        head_at, checksum = await round_entry(
            services.store, await services.archive.reaching(source, txid), txid
        )
        now_ms, started_s = services.clock.now_ms(), services.clock.monotonic_s()
        expires_at = None if ttl_s is None else now_ms + 1000 * ttl_s
        register = await self._registers.ensure(database)
        branch_id = await self._branch_id(database, name, wanted_id)
        entry = RegisteredBranch(branch_id, now_ms, parent.ref.name, txid, expires_at, is_new=True)
        await enter(services, register, database.uuid, name, entry)
        pinned = await update_names(
            services.archive,
            PINS,
            parent.manifests,
            lambda m: transitions.pin(m, branch_id, Pin(name, txid)),
        )
        child = transitions.fork(
            await services.archive.reaching(pinned, txid),
            branch_id=branch_id,
            branch=name,
            txid=txid,
            head_at=head_at,
            head_checksum=checksum,
            created_at=now_ms,
            expires_at=expires_at,
        )
        # The row before the manifest: a fork that was cut off half way can be seen, deleted and made again.
        await services.catalog.put_branch(
            BranchRow(database.uuid, branch_id, name, parent.ref.name, txid, now_ms, expires_at)
        )
        await create_manifest(services, child, started_s=started_s, deadline_s=FORK_DEADLINE_S)
        if (
            at is not None
        ):  # it may hold what an erasure that waits took out of the newest state of its parent
            await services.catalog.schedule(Chore(ERASE, database.uuid), now_ms)
        return BranchCreated(name, parent.ref.name, txid, expires_at)

    @asynccontextmanager
    async def adding(self, database: Database, name: str) -> AsyncIterator[tuple[SwapFile[Register], str]]:
        """Give the register and the id for a new branch, and let no other branch come or go meanwhile.

        Raises AlreadyExistsError.
        """
        async with self._forking.setdefault(database.uuid, asyncio.Lock()):
            register = await self._registers.ensure(database)
            yield register, await self._branch_id(database, name)

    async def _branch_id(self, database: Database, name: str, wanted: str | None = None) -> str:
        """Return the id for a new branch: that of a fork of this name that was cut off half way, else a new one."""
        services, file = self._services, self._registers.get(database.uuid)
        is_shared = services.leases.is_shared
        for fresh in (True,) if is_shared else (False, True):  # others may have given the name away
            register = await file.load(fresh=fresh)
            known = await services.archive.find(BRANCHES, register, name) if register is not None else None
            if known is None:
                return wanted or services.randomness.hex(8)
            current = await services.manifest_file(database.uuid, known.id).load()
            if current is None:
                age_ms = services.clock.now_ms() - known.created_at
                if is_shared and known.id != wanted and age_ms <= 1000 * FORK_DEADLINE_S:
                    raise RetryableError(
                        f"branch {name} of {database.name} is being made, or was cut off; try again in a minute"
                    )
                await services.catalog.delete_branch(database.uuid, name)
                return known.id
            if current.deleted_at is None:
                break
        raise _taken(name, database)  # or it was deleted, and the register says so in a moment

    async def _shipped(self, branch: Branch) -> Manifest:
        """Return the manifest with everything in it that was committed so far, here or at its owner."""
        await shipped(self._services, branch)
        await branch.take_up()
        owned = branch.owned
        if owned is None and await branch.manifests.load() is None:
            owned = await branch.own()
        if owned is not None and owned.shipper.dirty_since_s is not None:
            await owned.shipper.ship()
        current = await branch.manifests.load(fresh=not branch.is_ours)
        if current is None:
            raise BranchNotFoundError(f"{branch.ref} was deleted")
        return current

    async def state(self, db_name: str, branch: str, at: Revision | None) -> tuple[Branch, Manifest, int]:
        """Return a branch, a manifest of it and the txid of the state `at` (the head), with what is committed here shipped.

        The txid is 0 for a branch that was never written. Raises BranchNotFoundError, ConflictError for a state
        that cannot be restored, and what `standing` raises.
        """
        archive, target = self._services.archive, await self.find(db_name, branch)
        current = await standing(target, at or BeforeHead(0))
        if at is None:
            return target, current, current.head_txid
        txid = await target.manifests.with_newest(current, lambda m: resolve(archive, m, at))
        return target, current, txid

    async def list(self, db_name: str, *, after: str = "", limit: int | None = None) -> Sequence[BranchRow]:
        """Return up to `limit` (None: all) branches other than main, by name, above `after`. Raises DatabaseNotFoundError."""
        database = await self._services.catalog.get_database(db_name)
        rows = await self._services.catalog.list_branches(database.uuid)
        return [row for row in rows if row.name > after][:limit]

    async def list_deleted(
        self, db_name: str, *, after: tuple[str, str] = ("", ""), limit: int | None = None
    ) -> Sequence[DeletedBranch]:
        """Return up to `limit` (None: all) branches that can be undeleted, by (name, id) above `after`."""
        database = await self._services.catalog.get_database(db_name)
        rows = await self._deletion.waiting(database)
        return [row for row in rows if (row.name, row.branch_id) > after][:limit]

    async def snapshot(self, branch: Branch) -> None:
        """Put a snapshot of a branch's head, behind which older history can go. Raises RetryableError."""
        async with _Use(branch) as owned:
            await owned.shipper.snapshot()

    async def delete(self, db_name: str, name: str) -> None:
        """Delete a branch, which can be undone for a while; no error when there is none.

        Raises InvalidRequestError for main.
        """
        if name == MAIN:
            raise InvalidRequestError(f"branch {MAIN} cannot be deleted: delete the database instead")
        database = await self._services.catalog.get_database(db_name)
        try:
            row = await self._services.catalog.get_branch(database.uuid, names.branch(name))
        except BranchNotFoundError:
            return
        await self.drop(row)

    async def drop(self, row: BranchRow) -> None:
        """Delete a branch that the catalog has; see memoturnd.engine.deletion."""
        database = await self._services.catalog.get_database_by_uuid(row.db_uuid)
        async with self._forking.setdefault(row.db_uuid, asyncio.Lock()):
            await self._deletion.delete(database, row)

    async def undelete(self, db_name: str, name: str) -> BranchCreated:
        """Bring back the branch that was deleted last under `name`, with all that was committed on it.

        Raises BranchNotFoundError where none waits, AlreadyExistsError where the name is taken by now,
        ConflictError for a burner whose time has passed, InvalidRequestError for main.
        """
        if names.branch(name) == MAIN:
            raise InvalidRequestError(f"branch {MAIN} cannot be deleted, and so not be undeleted")
        database = await self._services.catalog.get_database(db_name)
        async with self._forking.setdefault(database.uuid, asyncio.Lock()):
            row = await self._deletion.undelete(database, name)
        return BranchCreated(row.name, row.parent, row.fork_txid, row.expires_at)

    # ---- checkpoints

    async def checkpoint(self, db_name: str, branch: str, name: str) -> NamedCheckpoint:
        """Ship, and name the head. A name that exists moves. Raises InvalidRequestError."""
        names.checkpoint(name)
        target = await self.find(db_name, branch)
        async with _Use(target) as owned:
            now_ms = self._services.clock.now_ms()
            made: list[Checkpoint] = []
            before = await target.manifests.load()
            flush = await self._services.archive.flush(CHECKPOINTS, before) if before is not None else None

            def mark(m: Manifest) -> Manifest:
                made.append(Checkpoint(m.head_txid, now_ms))
                return transitions.set_checkpoint(m if flush is None else flush(m), name, made[-1])

            durable_txid = await owned.shipper.ship(then=mark)
            return NamedCheckpoint(name, made[-1].txid, now_ms, durable_txid)

    async def checkpoints(
        self, db_name: str, branch: str, *, after: tuple[int, str] = (0, ""), limit: int | None = None
    ) -> Sequence[NamedCheckpoint]:
        """Return the branch's checkpoints by txid and name: up to `limit` of them behind the (txid, name) `after`."""
        current = await self._manifest(await self.find(db_name, branch))
        if current is None:
            return []
        archive, head_txid = self._services.archive, current.head_txid
        named = await archive.all(CHECKPOINTS, current)

        def page() -> list[NamedCheckpoint]:
            behind = sorted(key for key in ((c.txid, name) for name, c in named.items()) if key > after)
            return [NamedCheckpoint(n, txid, named[n].created_at, head_txid) for txid, n in behind[:limit]]

        return await archive.aside(sum(run.size_bytes for run in current.checkpoint_runs), page)

    async def find_checkpoint(self, db_name: str, branch: str, name: str) -> NamedCheckpoint | None:
        """Return a checkpoint by name, None where the branch has none of that name."""
        current = await self._manifest(await self.find(db_name, branch))
        found = None if current is None else await self._services.archive.find(CHECKPOINTS, current, name)
        if current is None or found is None:
            return None
        return NamedCheckpoint(name, found.txid, found.created_at, current.head_txid)

    async def delete_checkpoint(self, db_name: str, branch: str, name: str) -> None:
        """Drop a checkpoint. Raises BranchNotFoundError when the branch has none of that name."""
        target = await self.find(db_name, branch)
        current = await self._manifest(target)
        if current is None or await self._services.archive.find(CHECKPOINTS, current, name) is None:
            raise BranchNotFoundError(f"branch {branch} has no checkpoint {name!r}")
        await update_names(
            self._services.archive,
            CHECKPOINTS,
            target.manifests,
            lambda m: transitions.delete_checkpoint(m, name),
        )

    async def _manifest(self, branch: Branch) -> Manifest | None:
        current = await branch.manifests.load(fresh=branch.owned is None)
        if current is None and not branch.is_main:
            raise BranchNotFoundError(f"{branch.ref} has no manifest in object storage")
        return current

    async def restore_points(
        self, db_name: str, branch: str, window: Window, limit: int, *, newest_first: bool
    ) -> RestorePoints:
        """Return up to `limit` commits of the window that can be restored, by txid."""
        target = await self.find(db_name, branch)
        return await restore_points(target, window, limit, newest_first=newest_first)

    # ---- rewind

    async def rewind(self, db_name: str, branch: str, to: str, *, once: Once | None = None) -> Rewound:
        """Make the state that of the revision `to` (memoturnd.core.revisions) again, as a new commit.

        What comes after that point stays in history. With `once` the rewind keeps its answer in its own commit, and
        one that was applied before is not applied again. Raises InvalidRequestError for bad grammar,
        BranchNotFoundError for an unknown checkpoint, ConflictError for a state that cannot be restored.
        """
        revision = revisions.parse(to)
        target = await self.find(db_name, branch)
        async with _Use(target) as owned:
            await owned.shipper.ship()
            if (before := _applied_before(target, owned, once)) is not None:
                return before
            current = await self._manifest(target)
            if current is None:
                raise ConflictError(f"{target.ref} has no history to rewind to")
            txid = await resolve(self._services.archive, current, revision)
            return await self._rewind(target, owned, current, txid, once=once)

    async def undo_rewind(self, db_name: str, branch: str, *, once: Once | None = None) -> Rewound:
        """Bring back the state from before the last rewind, as a new commit; doing it twice redoes the rewind.

        Raises ConflictError when there was no rewind, or commits came after it.
        """
        target = await self.find(db_name, branch)
        async with _Use(target) as owned:
            await owned.shipper.ship()
            if (before := _applied_before(target, owned, once)) is not None:
                return before
            current = await self._manifest(target)
            last = current.rewinds[-1] if current is not None and current.rewinds else None
            if current is None or last is None:
                raise ConflictError(f"{target.ref} was never rewound: there is nothing to undo")
            if last.txid != current.head_txid:
                raise ConflictError(
                    f"{target.ref} has commits after its last rewind (txid {last.txid}), which an undo would drop; "
                    f'to go back all the same, rewind to "{last.from_txid}"'
                )
            return await self._rewind(target, owned, current, last.from_txid, only_at=last.txid, once=once)

    async def _rewind(
        self,
        branch: Branch,
        owned: Owned,
        current: Manifest,
        txid: int,
        *,
        only_at: int | None = None,
        once: Once | None = None,
    ) -> Rewound:
        services = self._services
        past = branch.files.folder / f"past-{services.randomness.hex(4)}.db"
        try:
            await restore(
                services.store,
                await services.archive.reaching(current, txid),
                txid,
                past,
                executor=services.executor,
                fsync=False,
            )
            async with branch.gate:
                if (before := _applied_before(branch, owned, once)) is not None:
                    return before  # by the same request, sent again while this one restored
                if branch.owned is not owned or not branch.may_commit():
                    raise RetryableError(
                        f"the ownership of {branch.ref} changed while the rewind began; nothing was applied: send it again"
                    )
                standing = await branch.manifests.load()
                if standing is None or standing.erasures != current.erasures:
                    raise RetryableError(
                        f"the history of {branch.ref} was rewritten while the rewind began; send it again"
                    )
                from_txid = branch.txid
                if only_at is not None and from_txid != only_at:
                    raise ConflictError(
                        f"{branch.ref} was written while the undo began (txid {from_txid}): look again, then decide"
                    )
                now_ms = owned.writer.round_time_ms()
                new_txid = owned.writer.next_txid
                if new_txid > branch.ceiling:
                    raise ConflictError(f"{branch.ref} has no room for another commit yet; try again")
                try:
                    keep = _keep(once, branch, Rewound(txid, new_txid, owned.epoch, from_txid, 0), now_ms)
                    await services.executor.run(
                        lambda: _replay(past, branch.conn, new_txid, now_ms, owned.epoch, keep)
                    )
                except apsw.Error as error:
                    raise translate(error) from error
                finally:  # the caller may have left meanwhile, and the commit may stand all the same
                    if schema.read_meta(branch.conn).txid == new_txid:
                        note = Rewind(new_txid, txid, from_txid, now_ms)
                        owned.shipper.attach(lambda m: transitions.record_rewind(m, note, epoch=owned.epoch))
                        branch.look_at_log()
                        owned.writer.note_commit(now_ms, 1)
        finally:
            for leftover in past.parent.glob(past.name + "*"):
                leftover.unlink(missing_ok=True)
        try:
            durable_txid = await owned.shipper.ship()
        except RetryableError as error:
            raise NotDurableError(
                f"{branch.ref} was rewound to txid {txid} by commit {new_txid}, which is not in object storage yet "
                f"({error}); do not repeat it: POST .../sync waits for it"
            ) from error
        return Rewound(txid, new_txid, owned.epoch, from_txid, durable_txid)

    async def sync(self, db_name: str, branch: str, txid: int | None = None) -> int:
        """Ship what is committed, up to `txid` at least, and return the durable txid.

        Raises PreconditionFailedError when the branch does not reach `txid` within 2 s, StoreUnavailableError.
        """
        target = await self.find(db_name, branch)
        target.users += 1
        try:
            head_txid = await self._durable_head(target)
            if txid is not None and txid > head_txid:
                await target.read(lambda _conn, _now_ms: None, min_txid=txid)
                head_txid = await self._durable_head(target)
            return head_txid
        finally:
            target.leave()

    async def _durable_head(self, branch: Branch) -> int:
        """Ship what this node has of the branch, and return the head that object storage then holds."""
        here = branch.owned is not None or branch.files.exists()
        current = await self._shipped(branch) if here else await self._manifest(branch)
        return current.head_txid if current is not None else 0


def _taken(name: str, database: Database) -> AlreadyExistsError:
    return AlreadyExistsError(f"branch {name} of {database.name} already exists; choose another name")


Keep = Callable[[ProfileConnection], None]


def _keep(once: Once | None, branch: Branch, rewound: Rewound, now_ms: int) -> Keep:
    """Return what keeps the answer of a rewind in its commit, which may be nothing."""

    def keep(conn: ProfileConnection) -> None:
        if once is not None:
            conn.round_txid = rewound.txid
            idempotency.record(conn, now_ms, once.request(branch.branch_id), msgspec.json.encode(rewound))

    return keep


def _applied_before(branch: Branch, owned: Owned, once: Once | None) -> Rewound | None:
    """Return the rewind that the same request has had. Raises IdempotencyKeyReusedError."""
    if once is None:
        return None
    kept = idempotency.find(branch.conn, owned.writer.round_time_ms(), once.request(branch.branch_id))
    if kept is None:
        return None
    once.replayed = True
    rewound = msgspec.json.decode(kept.answer, type=Rewound)
    return replace(rewound, durable_txid=owned.shipper.durable_txid)


def _replay(past: Path, live: ProfileConnection, txid: int, at_ms: int, epoch: int, keep: Keep) -> None:
    """Commit the state in the file `past` into the live database as round `txid`: one atomic commit."""
    source = open_connection(str(past), read_only=False, sync="normal", cache_kib=256)
    try:
        source.execute("BEGIN IMMEDIATE")
        meta = schema.read_meta(source)
        schema.migrate(source, meta)
        idempotency.carry_forward(live, source)
        keep(source)
        schema.note_replaced(source, txid)
        source.noted.why = "rewound"
        changes.record(source, txid, at_ms, epoch)
        source.execute("COMMIT")
        with live.backup("main", source, "main") as backup:
            backup.step(-1)
    finally:
        source.close()
    live.guard.virtual = None
    live.recent_bytes = None


class _Use:
    """Counts as a user of a branch that this node owns, so that it stays open."""

    def __init__(self, branch: Branch) -> None:
        self._branch = branch

    async def __aenter__(self) -> Owned:
        self._branch.users += 1
        try:
            return await self._branch.own()
        except BaseException:
            self._branch.leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._branch.leave()
