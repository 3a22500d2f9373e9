"""The collector: what was deleted goes for good after a while, and what nothing names is deleted.

One pass over one database, in this order: settle what the register says (half-made forks, deletions whose
time has come), list, then mark: read the register and every branch's manifest, pages and runs. What was
listed and is named by none of them is remembered in `garbage.json`; what was remembered a grace time ago
and is still unnamed is deleted, after one more look at every manifest.

Whatever is uploaded is named by a swap soon after, or never (docs/adr/0010-garbage.md). Before it deletes,
a pass writes the manifest in whose folder the garbage lies anew, so that a swap which was held up on its
way since then is lost: its owner decides again, and finds its upload too old to be named. A pass that
cannot read one registered manifest, page or run deletes nothing. Any node may collect any database, two
may do it at once, and a pass may end between any two of its steps.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import structlog

from memoturnd.core import garbage as rules
from memoturnd.core import keyed, layout
from memoturnd.core import manifest as transitions
from memoturnd.core import register as registers
from memoturnd.core.garbage import Garbage, Listed, Mark, Survey
from memoturnd.core.manifest import Manifest, Parent
from memoturnd.core.register import Register, RegisteredBranch
from memoturnd.errors import CorruptionError, DatabaseNotFoundError, RetryableError
from memoturnd.metrics import Metrics
from memoturnd.replication import few_at_once
from memoturnd.replication.archive import BRANCHES, CHECKPOINTS, PINS, Archive, update_names
from memoturnd.replication.swap import SwapFile
from memoturnd.seams.catalog import MAIN, Catalog
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

_NEW_LOOKS = 3
_NEW_LOOK_S = 1.0
"""How often, and how far apart, a pass looks for the manifest of a fork that is being made."""
_INLINE_KEYS = 5_000
"""Listed keys up to which they are judged on the event loop: a few milliseconds."""
_SLACK_MS = 5_000
"""Added to the grace before the next pass: a mark is stored a moment after it was made, in whole seconds at some stores."""
_AGAIN_MS = 30_000
"""Least time between two passes over one database, where clocks disagree on what is ripe."""
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Graces:
    """How long something stays: unreachable objects and aborted forks, deleted branches and databases."""

    unreachable_ms: int
    deleted_ms: int

    def of(self, branch: RegisteredBranch) -> int:
        """Return how long a deleted branch can come back: a burner, or a fork that never was, not for long."""
        short = branch.is_new or branch.expires_at is not None
        return self.unreachable_ms if short else self.of_database

    @property
    def of_database(self) -> int:
        """Return how long a deleted database stays whole."""
        return max(self.unreachable_ms, self.deleted_ms)


@dataclass(slots=True)
class _Marked:
    """What one look at a database found; branches by id."""

    branches: dict[str, RegisteredBranch] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    reachable: set[str] = field(default_factory=set)
    forming: set[str] = field(default_factory=set)
    """Forks that are registered and have no manifest yet."""
    main_id: str = ""


class Sizes(Protocol):
    """Is told what databases store."""

    def listing(self, uuid: str) -> None:
        """Note that a listing of a database begins."""
        ...

    def listed(self, uuid: str, size_bytes: int | None) -> None:
        """Note what it has found and left; None for nothing that counts."""
        ...


class Collector:
    """Collects databases, one call each; holds nothing between two calls."""

    def __init__(
        self,
        store: ObjectStore,
        archive: Archive,
        catalog: Catalog,
        *,
        register_file: Callable[[str], SwapFile[Register]],
        manifest_file: Callable[[str, str], SwapFile[Manifest]],
        graces: Graces,
        clock: Clock,
        randomness: Randomness,
        executor: Executor,
        metrics: Metrics,
        sizes: Sizes,
        is_busy: Callable[[], bool],
    ) -> None:
        self._store = store
        self._archive = archive
        self._catalog = catalog
        self._register_file = register_file
        self._manifest_file = manifest_file
        self._graces = graces
        self._clock = clock
        self._randomness = randomness
        self._executor = executor
        self._metrics = metrics
        self._sizes = sizes
        self._each = partial(few_at_once.each, clock=clock, is_busy=is_busy)

    async def collect(self, uuid: str) -> int | None:
        """Make one pass over a database, and return when the next one is due (unix ms), None where nothing is left.

        Raises CorruptionError where something that is registered cannot be read: nothing was deleted then.
        Raises StoreUnavailableError; the pass is to be made again.
        """
        file = self._register_file(uuid)
        register = await file.load(fresh=True)
        if register is None:
            return None
        if register.state == "importing":
            register = await self._settle_import(file, register)
        if register.state == "importing":
            return register.created_at + self._graces.of_database
        if register.state != "live":
            return await self._collect_deleted(file, register)
        await self._settle(file, register)
        size_bytes = None
        self._sizes.listing(uuid)
        try:
            size_bytes, due_ms = await self._collect_live(file)
        finally:
            self._sizes.listed(uuid, size_bytes)
        return due_ms

    async def survey(self, uuid: str) -> Survey:
        """Look at all of a database and change nothing; one that was purged has nothing.

        Raises CorruptionError where something that is registered cannot be read, StoreUnavailableError.
        """
        file = self._register_file(uuid)
        listed = await self._list(layout.database_prefix(uuid))
        if await file.load(fresh=True) is None:
            return Survey((), tuple(listed), tuple(listed))
        marked = await self._mark(file)
        unnamed = (row for row in listed if row.key not in marked.reachable)
        return Survey(tuple(marked.manifests.values()), tuple(listed), tuple(unnamed))

    # ---- what the register says

    async def _settle_import(self, file: SwapFile[Register], register: Register) -> Register:
        """Finish an import that was cut off behind its row in the catalog, and give up one without a row after the grace."""
        try:
            await self._catalog.get_database_by_uuid(register.uuid)
        except DatabaseNotFoundError:
            if self._clock.now_ms() - register.created_at < self._graces.of_database:
                return register
            return await file.update(registers.give_up_import)
        register = await file.update(registers.finish_import)
        await self._catalog.mark_written(register.uuid)
        return register

    async def _settle(self, file: SwapFile[Register], register: Register) -> None:
        """Let manifests follow the register, abort forks that were cut off, and let go of what is long deleted."""
        branches = await self._archive.all(BRANCHES, register)
        made: list[tuple[str, RegisteredBranch]] = []
        due: list[tuple[str, RegisteredBranch]] = []

        async def one(item: tuple[str, RegisteredBranch]) -> None:
            name, branch = item
            if branch.deleted_at is None:
                if await self._is_made(file, branches, name):
                    made.append(item)
            elif self._is_due(branch, branch.deleted_at):
                due.append(item)
            else:
                await self._settle_deleted(file, name, branch)

        await self._each([i for i in branches.items() if i[1].is_new or i[1].deleted_at is not None], one)
        for name, branch in due:  # one by one: most of them change the same parent
            await self._settle_deleted(file, name, branch)
        for first in range(0, len(made), keyed.RECENT_LIMIT):
            await self._note_made(file, made[first : first + keyed.RECENT_LIMIT])

    async def _settle_deleted(self, file: SwapFile[Register], name: str, branch: RegisteredBranch) -> None:
        """Let nobody write a deleted branch, and once its grace has passed let it go."""
        uuid, at_ms = _uuid(file), branch.deleted_at or 0
        manifest = self._manifest_file(uuid, branch.id)
        current = await manifest.load()
        is_due = self._is_due(branch, at_ms)
        if current is not None and current.deleted_at is None:
            current = await manifest.update(lambda m: transitions.delete(m, at_ms=at_ms))
        elif not is_due:
            return
        if await self._is_back(file, name, branch):
            if current is not None:
                await manifest.update(transitions.undelete)
            return
        if not is_due:
            return
        if current is not None and current.parent is not None:
            await self._unpin(uuid, current.parent.branch_id, branch.id)
        plain = registers.plain_name(name)
        await file.update(lambda r: registers.purge_branch(r, plain, branch.id))
        self._metrics.branches_purged.inc()
        _log.info("deleted branch let go", database=uuid, branch=name)

    def _is_due(self, branch: RegisteredBranch, deleted_at: int) -> bool:
        return self._clock.now_ms() - deleted_at >= self._graces.of(branch)

    async def _is_back(self, file: SwapFile[Register], name: str, branch: RegisteredBranch) -> bool:
        """Return whether a branch was undeleted since the register was read. It changes before the manifest does."""
        register = await file.load(fresh=True)
        if register is None:
            return False
        found = await self._archive.find(BRANCHES, register, registers.plain_name(name))
        return found is not None and found.id == branch.id

    async def _unpin(self, uuid: str, parent_id: str, branch_id: str) -> None:
        parent = self._manifest_file(uuid, parent_id)
        current = await parent.load()
        if current is not None and await self._archive.find(PINS, current, branch_id) is not None:
            await parent.update(lambda m: transitions.unpin(m, branch_id))

    async def _is_made(
        self, file: SwapFile[Register], branches: Mapping[str, RegisteredBranch], name: str
    ) -> bool:
        """Return whether a new branch has its manifest; one that has none after the grace never gets one.

        That is decided by who creates the object first: the fork its manifest, or we a tombstone.
        """
        uuid, branch, now_ms = _uuid(file), branches[name], self._clock.now_ms()
        manifest = self._manifest_file(uuid, branch.id)
        current = await manifest.load()
        if current is not None and current.deleted_at is not None and not transitions.is_tombstone(current):
            # It was made, and then deleted with its database, which is there again; or by itself since we looked.
            if not await self._is_back(file, name, branch):
                return False
            await manifest.update(transitions.undelete)
            return True
        if current is None and now_ms - branch.created_at >= self._graces.unreachable_ms:
            await self._refuse_lost(uuid, branch.id, manifest)
            parent = branches.get(branch.parent)
            grave = transitions.tombstone(
                db=uuid,
                branch_id=branch.id,
                branch=name,
                parent=Parent(parent.id, branch.parent, branch.fork_txid) if parent is not None else None,
                at_ms=now_ms,
            )
            await manifest.create(grave)
            current = await manifest.load()
        if current is None or current.deleted_at is None:
            return current is not None
        await file.update(lambda r: registers.abort_branch(r, name, branch, at_ms=now_ms))
        await self._catalog.delete_branch(uuid, name, branch_id=branch.id)
        _log.info("fork that was cut off half way is given up", database=uuid, branch=name)
        return False

    async def _refuse_lost(self, uuid: str, branch_id: str, manifest: SwapFile[Manifest]) -> None:
        """Raise CorruptionError where a branch has objects and still no manifest, so that it had one once."""
        async for info in self._store.list(layout.branch_prefix(uuid, branch_id)):
            if info.key != manifest.key and await manifest.load() is None:
                raise _lost(manifest.key, f"{info.key} is there")

    async def _note_made(self, file: SwapFile[Register], made: list[tuple[str, RegisteredBranch]]) -> None:
        """Note in the register that these have their manifests, so that a lost one is told from a new one."""
        seen = await update_names(self._archive, BRANCHES, file, lambda r: r)

        def settle(current: Register) -> Register:
            if current.branch_runs != seen.branch_runs:
                return current  # the names may stand for others by now: the next pass looks again
            for name, branch in made:
                current = registers.settle_branch(current, name, branch)
            return current

        await file.update(settle)

    async def _bring_back(self, uuid: str, marked: _Marked) -> None:
        """Let the manifest of a branch follow that was undeleted in the register, and no further.

        The register was read after the manifest, and a deletion changes the register first.
        """
        for branch_id, current in marked.manifests.items():
            branch = marked.branches[branch_id]
            if current.deleted_at is not None and branch.deleted_at is None and not branch.is_new:
                await self._manifest_file(uuid, branch_id).update(transitions.undelete)

    # ---- marking

    async def _collect_live(self, file: SwapFile[Register]) -> tuple[int, int | None]:
        """Make a pass; return how many bytes are left, and when the next pass is due."""
        uuid = _uuid(file)
        prefix = layout.database_prefix(uuid)
        known_file = self._garbage_file(uuid)
        known = await known_file.load(fresh=True)
        stored_now_ms = 0
        if known is not None and known.marks:
            known, stored_now_ms = await self._begin(known_file, known)
        listed = await self._list(prefix)
        marked = await self._mark(file)
        self._refuse_lost_main(uuid, marked, listed)
        await self._bring_back(uuid, marked)
        now_ms = self._clock.now_ms()

        def judge() -> rules.Verdict:
            return rules.judge(
                known.marks if known is not None else (),
                listed,
                marked.reachable,
                prefix=prefix,
                now_ms=now_ms,
                stored_now_ms=stored_now_ms,
                grace_ms=self._graces.unreachable_ms,
            )

        verdict = judge() if len(listed) <= _INLINE_KEYS else await self._executor.run(judge)
        put_off = verdict.delete
        size_bytes = sum(row.size_bytes for row in listed)
        if put_off and (deleted := await self._delete(file, marked, put_off)) is not None:
            size_bytes -= deleted
            put_off = ()
        marks = rules.put_back(known.marks if known is not None else (), put_off, prefix) + verdict.marks
        await self._remember(known_file, known, marks)
        return size_bytes, self._next_due(marked, marks, is_full=verdict.is_full)

    async def _begin(self, known_file: SwapFile[Garbage], known: Garbage) -> tuple[Garbage, int]:
        """Learn by the store's clock when the last marks were made, and what time it is now.

        Writing `garbage.json` and listing it tells the time; marks get the time of the version before.
        """
        before_ms = await self._stored_at(known_file.key)
        if not before_ms:
            return known, 0
        began = await known_file.update(
            lambda g: transitions.replace(g, marks=rules.stored(g.marks, before_ms))
        )
        return began, await self._stored_at(known_file.key)

    async def _stored_at(self, key: str) -> int:
        """Return when the store got the object, in unix ms by its own clock; 0 where the listing lacks it."""
        async for info in self._store.list(key):
            if info.key == key:
                return info.modified_ms
        return 0

    async def _list(self, prefix: str) -> list[Listed]:
        rows = self._store.list(prefix)
        listed = [Listed(info.key, info.size_bytes, info.modified_ms) async for info in rows]
        self._metrics.garbage_listed.inc(len(listed))
        return listed

    async def _mark(self, file: SwapFile[Register]) -> _Marked:
        """Read the register and all that it names, until it names no branch that was not looked at.

        So no object can pass, by a fork and what its parent then lets go, from a branch that was not looked
        at yet to one that is not registered yet. Raises CorruptionError where anything cannot be read.
        """
        marked = _Marked()
        pages: set[str] = set()

        async def one(item: tuple[str, RegisteredBranch]) -> None:
            name, branch = item
            current = await self._manifest(_uuid(file), name, branch)
            if current is not None:
                marked.manifests[branch.id] = current
                await self._mark_manifest(current, marked.reachable, pages)
            elif branch.is_new and branch.deleted_at is None:
                marked.forming.add(branch.id)

        while True:
            register = await file.load(fresh=True)
            if register is None or register.state != "live":
                raise RetryableError(f"database {_uuid(file)} was deleted while it was looked at")
            branches = await self._archive.all(BRANCHES, register)
            new = [(n, b) for n, b in branches.items() if b.id not in marked.branches]
            marked.branches.update({branch.id: branch for branch in branches.values()})
            marked.reachable.update(rules.named_by_register(register, branches.values()))
            if not new:
                marked.main_id = branches[MAIN].id if MAIN in branches else ""
                return marked
            await self._each(new, one)

    async def _manifest(self, uuid: str, name: str, branch: RegisteredBranch) -> Manifest | None:
        """Return the manifest as it stands, None where a branch may be without one. Raises CorruptionError."""
        file = self._manifest_file(uuid, branch.id)
        current = await file.load()
        for _ in range(_NEW_LOOKS):
            if current is not None or not branch.is_new or branch.deleted_at is not None:
                break  # only a fork may be about to have one
            await self._clock.sleep(_NEW_LOOK_S)
            current = await file.load()
        if current is None and not branch.is_new and name != MAIN:
            raise _lost(file.key, f"branch {name} is registered")
        return current

    async def _mark_manifest(self, current: Manifest, reachable: set[str], pages: set[str]) -> None:
        reachable.update(rules.named_by_manifest(current))
        for page in (*current.pages, *current.drafts):
            key = layout.page_key(current.db, page)
            if key not in pages:  # forks share most of their pages
                pages.add(key)
                reachable.update(rules.named_by_page(current.db, await self._archive.page(current.db, page)))
        if current.checkpoint_runs:
            await self._archive.all(CHECKPOINTS, current)
        if current.pin_runs:
            await self._archive.all(PINS, current)

    def _refuse_lost_main(self, uuid: str, marked: _Marked, listed: list[Listed]) -> None:
        """Raise CorruptionError where main has objects and no manifest; before its first write it has neither."""
        if not marked.main_id:
            raise CorruptionError(f"the register {layout.register_key(uuid)} has no branch {MAIN}")
        prefix = layout.branch_prefix(uuid, marked.main_id)
        if marked.main_id not in marked.manifests:
            for row in listed:
                if row.key.startswith(prefix):
                    raise _lost(layout.manifest_key(uuid, marked.main_id), f"{row.key} is there")

    # ---- deleting

    async def _delete(
        self, file: SwapFile[Register], marked: _Marked, rows: tuple[Listed, ...]
    ) -> int | None:
        """Delete what nobody names, after nothing that is under way can name it; return how many bytes.

        None, and nothing is deleted, where a fork is being made.
        """
        if marked.forming:
            return None
        await self._fence(file, marked, {rules.writer_of(row.key) for row in rows})
        again = await self._mark(file)
        if again.forming:
            return None
        unnamed = [row for row in rows if row.key not in again.reachable]
        await self._delete_objects(unnamed)
        return sum(row.size_bytes for row in unnamed)

    async def _delete_objects(self, rows: list[Listed]) -> None:
        async def one(row: Listed) -> None:
            await self._store.delete(row.key)
            self._metrics.garbage_objects.inc()
            self._metrics.garbage_bytes.inc(row.size_bytes)

        await self._each(rows, one)

    async def _fence(self, file: SwapFile[Register], marked: _Marked, writers: set[str]) -> None:
        """Make swaps fail that were prepared before now, where they could name an object that goes."""
        if "" in writers:
            await file.update(registers.touch)

        async def one(branch_id: str) -> None:
            if branch_id in marked.manifests:  # nobody writes what is not registered, or never was made
                await self._manifest_file(_uuid(file), branch_id).update(transitions.touch)

        await self._each(sorted(writers - {""}), one)

    async def _remember(
        self, file: SwapFile[Garbage], known: Garbage | None, marks: tuple[Mark, ...]
    ) -> None:
        """Write down what is left, unless somebody else has made a pass meanwhile: theirs is the newer knowledge."""
        if known is None:
            if marks:
                await file.create(Garbage(db=_uuid(file), marks=marks))
        elif marks != known.marks:
            await file.update(
                lambda g: transitions.replace(g, marks=marks) if g.commit_id == known.commit_id else g
            )

    def _next_due(self, marked: _Marked, marks: tuple[Mark, ...], *, is_full: bool) -> int | None:
        """Return when there is something to do again: garbage is ripe, a deletion's time comes, a fork is overdue."""
        now_ms, grace_ms = self._clock.now_ms(), self._graces.unreachable_ms
        due = [mark.at + grace_ms + _SLACK_MS for mark in marks]
        for branch in marked.branches.values():
            if branch.deleted_at is not None:
                due.append(branch.deleted_at + self._graces.of(branch))
            elif branch.is_new:
                due.append(max(branch.created_at, now_ms) + grace_ms)
        if is_full:
            due.append(now_ms + grace_ms)
        return max(min(due), now_ms + _AGAIN_MS) if due else None

    # ---- deleted databases

    async def _collect_deleted(self, file: SwapFile[Register], register: Register) -> int | None:
        """Let nobody write a deleted database; once its grace has passed delete its objects, the register last."""
        grace_ms = self._graces.of_database
        deleted_by_ms = self._clock.now_ms() - grace_ms
        if register.state == "deleted" and (register.deleted_at or 0) > deleted_by_ms:
            await self._fence_deleted(register)
            return await self._followed(file, register)
        register = await file.update(lambda r: registers.begin_purge(r, deleted_by_ms=deleted_by_ms))
        if register.state != "purging":
            return await self._followed(file, register)
        await self._catalog.forget_database(
            register.uuid
        )  # first: without its register nobody knows that it is final
        register_key = layout.register_key(register.uuid)
        listed = await self._list(layout.database_prefix(register.uuid))
        await self._delete_objects([row for row in listed if row.key != register_key])
        await self._store.delete(register_key)
        self._metrics.databases_purged.inc()
        _log.info("deleted database let go", database=register.uuid, name=register.name)
        return None

    async def _followed(self, file: SwapFile[Register], register: Register) -> int:
        """Return when a deleted database is due: at once where it is there again, and needs its branches back."""
        standing = await file.load(fresh=True)
        if standing is not None and standing.state == "live":
            return self._clock.now_ms()
        deleted_at = (standing or register).deleted_at or 0
        return deleted_at + self._graces.of_database

    async def _fence_deleted(self, register: Register) -> None:
        at_ms = register.deleted_at or 0

        async def one(branch: RegisteredBranch) -> None:
            with suppress(ObjectMissingError):  # it was never written, or is lost, which does not matter now
                await self._manifest_file(register.uuid, branch.id).update(
                    lambda m: transitions.delete(m, at_ms=at_ms)
                )

        await self._each((await self._archive.all(BRANCHES, register)).values(), one)

    # ---- odds and ends

    def _garbage_file(self, uuid: str) -> SwapFile[Garbage]:
        return SwapFile(
            self._store,
            layout.garbage_key(uuid),
            encode=rules.encode,
            decode=rules.decode,
            randomness=self._randomness,
            clock=self._clock,
        )


def _uuid(file: SwapFile[Register] | SwapFile[Garbage]) -> str:
    return file.key.split("/")[1]


def _lost(key: str, sign: str) -> CorruptionError:
    return CorruptionError(
        f"object {key} is gone, although {sign}: nothing of this database is deleted until a copy of it is restored"
    )
