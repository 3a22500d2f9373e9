"""Rewriting the history of a branch, so that rows which are erased never were in it (docs/adr/0012).

    own the branch, hold its compaction, ship
    walk its chain and write what becomes of it            beside reads and writes
    hold writes: ship and walk the last rounds; restore and check the new head; swap the manifest; open the new file

Until the swap the old chain stands, behind it the new one; an end anywhere leaves objects that nobody names, and
the rewrite is done again from its beginning. The local file follows the manifest: should the process end in
between, whoever opens the branch next finds that the file does not prove the head's checksum, and restores it. A deleted branch
has no owner and no file, and only its manifest is changed.
"""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog

from memoturnd.core import layout
from memoturnd.core import manifest as transitions
from memoturnd.core.manifest import Erasure, HistoryPage, Manifest, ObjectRef, PageRef, Transition, replace
from memoturnd.core.pages import PageHashes
from memoturnd.engine.branch import Branch
from memoturnd.engine.connection import open_immutable
from memoturnd.engine.files import refused
from memoturnd.engine.ownership import Owned
from memoturnd.engine.releasing import obtain
from memoturnd.engine.services import Services
from memoturnd.errors import CorruptionError, FencedError, NotOwnerError, RetryableError
from memoturnd.replication.erased_state import Erase
from memoturnd.replication.join import Writer
from memoturnd.replication.restore import restore
from memoturnd.replication.rewrite import ChainRewrite, Replaced, Tools

_ATTEMPTS = 3
"""How often a rewrite is begun anew because retention has changed the chain meanwhile."""
_CATCH_UPS = 4
"""How often what was committed meanwhile is walked before writes are held for the rest."""
_CHECK_CACHE_KIB = 2048
_log = structlog.get_logger(__name__)


class Rewritten(NamedTuple):
    """What a pass over a branch's history found and changed; nothing was changed where the last two are 0."""

    rounds_checked: int
    pages_searched: int
    rounds_rewritten: int
    objects_replaced: int


@dataclass(slots=True)
class Shared:
    """What the branches of one database share that are rewritten one after the other, parents first."""

    objects: Replaced = field(default_factory=Replaced)
    looked_at: Replaced = field(default_factory=Replaced)
    """Objects in whose states nothing is left, for passes that only look."""
    pages: dict[str, tuple[tuple[ObjectRef, ...], PageRef]] = field(default_factory=dict)
    """By the key of a history page: what its entries became, and the page that has those."""


class Rewriter:
    """Rewrites branches, one call each."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._folder = services.branches_folder.parent / "rewriting"

    def sweep(self) -> None:
        """Remove what an earlier process left."""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def rewrite(
        self, branch: Branch, erase: Erase, ids: Sequence[str], *, shared: Shared | None = None
    ) -> Rewritten:
        """Rewrite the history of a branch so that `erase` has been applied to each of its retained states.

        `ids` are the erasures that it stands for, which are recorded in the manifest. A branch in which they are
        recorded already is only looked through, and rewritten where a state still holds rows. Raises RetryableError where
        another node owns the branch and does not give it back, or the chain does not stand still, CorruptionError,
        StoreUnavailableError, DiskFullError, and what `erase` raises: nothing was changed then.
        """
        branch.users += 1
        try:
            async with self._own_folder() as folder:
                work = _Pass(self._services, branch, folder, erase, ids, shared or Shared())
                return await work.run()
        finally:
            branch.leave()

    @asynccontextmanager
    async def _own_folder(self) -> AsyncIterator[Path]:
        folder = self._folder / self._services.randomness.hex(8)
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            raise refused(folder, error) from error
        try:
            yield folder
        finally:
            await self._services.executor.run(lambda: shutil.rmtree(folder, ignore_errors=True))


class _Pass:
    """One pass over one branch."""

    def __init__(
        self,
        services: Services,
        branch: Branch,
        folder: Path,
        erase: Erase,
        ids: Sequence[str],
        shared: Shared,
    ) -> None:
        self._services = services
        self._branch = branch
        self._tools = Tools(
            services.store, services.executor, services.clock, folder, erase, note=self._note_drafts
        )
        self._ids = ids
        self._shared = shared
        self._looked = Rewritten(0, 0, 0, 0)
        self._owner = ""
        # Not the branch's own, which may be undeleted meanwhile.
        self._file = services.manifest_file(branch.ref.database.uuid, branch.branch_id)
        self._replaced: set[str] = set()
        """Keys that the manifest names no more once the change has landed."""

    async def run(self) -> Rewritten:
        """Make the pass."""
        before = await self._file.load()
        if before is None:
            return self._looked
        if before.deleted_at is not None:
            return await self._again(partial(self._deleted, before))
        self._file = self._branch.manifests
        try:
            owned = await self._branch.own()
        except NotOwnerError:
            # Where its owner has rewritten it, what is committed there since goes on from that.
            if transitions.has_erased(before, self._ids) and await self._is_clean(
                await self._services.archive.whole(before)
            ):
                return self._looked
            owned = await obtain(self._services, self._branch)
        try:
            return await self._again(partial(self._live, owned))
        finally:
            owned.shipper.compactor.rewriting_up_to = None

    async def _again(self, attempt: Callable[[], Awaitable[Rewritten | None]]) -> Rewritten:
        for _ in range(_ATTEMPTS):
            done = await attempt()
            if done is not None:
                return done
        raise RetryableError(
            f"the history of {self._branch.ref} was changed while it was rewritten; try again"
        )

    # ---- a branch that is written to

    async def _live(self, owned: Owned) -> Rewritten | None:
        """Rewrite the branch; None where the chain has changed meanwhile other than at its end."""
        branch, shipper = self._branch, owned.shipper
        await self._drop_drafts()
        seen = await self._held_still(owned)
        if await self._is_clean(seen):
            return self._looked
        walk = self._walk(seen)
        try:
            await walk.share(seen)
            for _ in range(_CATCH_UPS):
                if not await walk.take(seen):
                    return None
                latest = await self._held_still(owned)
                if latest.head_txid == seen.head_txid:
                    break
                seen = latest
            async with shipper.compactor.held():
                await shipper.ship()
                async with branch.changing():
                    landed = await self._land(owned, walk)
            return self._done(walk) if landed else None
        finally:
            await walk.close()

    async def _land(self, owned: Owned, walk: ChainRewrite) -> bool:
        """Hold writes, and let manifest and file become what the walk has made."""
        branch = self._branch
        prepared = branch.files.folder / f"past-{self._services.randomness.hex(4)}.db"
        made: Manifest | None = None
        hashes = PageHashes()

        async def finish() -> Transition | None:
            nonlocal made, hashes
            current = await self._file.load()
            if current is None or not await walk.take(await self._services.archive.whole(current)):
                return None
            made = await self._made(current, walk)
            hashes = await self._restore_head(made, prepared)
            return self._change(current, made)

        async def reopen(landed: Manifest) -> PageHashes | None:
            if made is None or (landed.snapshots, landed.segments) != (made.snapshots, made.segments):
                return None
            await branch.replace_file(prepared)
            return hashes

        try:
            return await owned.shipper.replace_history(finish, reopen)
        finally:
            prepared.unlink(missing_ok=True)

    async def _held_still(self, owned: Owned) -> Manifest:
        """Ship, and return the manifest with the entries of its pages in it, which compaction leaves alone from now on."""
        shipper = owned.shipper
        async with shipper.compactor.held():
            await shipper.ship()
            current = await self._file.load()
            if current is None:
                raise FencedError(f"{self._branch.ref} was deleted")
            shipper.compactor.rewriting_up_to = current.head_txid
        return await self._services.archive.whole(current)

    async def _restore_head(self, made: Manifest, path: Path) -> PageHashes:
        """Restore the new head from the new objects, let SQLite look through it, and return its page hashes."""
        services, txid = self._services, made.head_txid
        restored = await restore(
            services.store,
            await services.archive.reaching(made, txid),
            txid,
            path,
            executor=services.executor,
            fsync=services.sync == "full",
        )
        await services.executor.run(partial(_check, path))
        return restored.hashes

    # ---- a branch that was deleted, and may be undeleted

    async def _deleted(self, before: Manifest) -> Rewritten | None:
        await self._drop_drafts()
        chain = await self._services.archive.whole(before)
        if await self._is_clean(chain):
            return self._looked
        walk = self._walk(chain)
        try:
            await walk.share(chain)
            await walk.take(chain)
            made = await self._made(before, walk)
            landed = await self._file.update(self._change(before, made))
            if not transitions.has_erased(landed, self._ids):
                return None
            return self._done(walk)
        finally:
            await walk.close()

    # ---- what both have in common

    async def _is_clean(self, chain: Manifest) -> bool:
        """Return whether the erasures are recorded, and no state holds rows that came back since."""
        if not transitions.has_erased(chain, self._ids):
            return False
        walk = self._walk(chain, only_look=True)
        try:
            await walk.share(chain)
            await walk.take(chain)
        finally:
            await walk.close()
        self._looked = Rewritten(walk.rounds_checked, walk.pages_searched, 0, 0)
        return walk.rows == 0

    def _walk(self, chain: Manifest, *, only_look: bool = False) -> ChainRewrite:
        self._owner = chain.owner
        writer = Writer(chain.branch_id, chain.epoch, self._services.randomness)
        known = self._shared.looked_at if only_look else self._shared.objects
        return ChainRewrite(self._tools, chain, writer, known, only_look=only_look)

    async def _note_drafts(self, refs: Sequence[ObjectRef]) -> None:
        """Name what was written so far in the manifest, so that the collector leaves it alone however long this takes."""
        branch, segments = self._branch, tuple(ref for ref in refs if ref.kind == "segment")
        snapshots = tuple(ref for ref in refs if ref.kind != "segment")
        page = await self._services.archive.write_page(
            branch.ref.database.uuid, branch.branch_id, snapshots, segments
        )
        await self._file.update(partial(transitions.draft, page=page, owner=self._owner))

    async def _drop_drafts(self) -> None:
        """Let go of what an earlier walk has noted that did not come to its end: each would add its own."""
        current = await self._file.load()
        if current is not None and current.drafts:
            await self._file.update(transitions.drop_drafts)

    async def _made(self, current: Manifest, walk: ChainRewrite) -> Manifest:
        """Return the manifest with what the walk has made of its entries. Raises CorruptionError."""
        uuid, archive = current.db, self._services.archive
        old_keys, new_keys, pages = set[str](), set[str](), list[PageRef]()
        for ref in current.pages:
            old = await archive.page(uuid, ref)
            old_keys |= {layout.page_key(uuid, ref), *_keys(uuid, old)}
            page = await self._page(current, ref, old, walk)
            if page is not None:
                new_keys |= {layout.page_key(uuid, page), *_keys(uuid, await archive.page(uuid, page))}
                pages.append(page)
        checksum = current.head_checksum
        if current.head_txid:
            head = walk.head
            if head is None or head[0] != current.head_txid:
                raise CorruptionError(
                    f"the objects of branch {current.branch_id} do not lead to its head, txid {current.head_txid}"
                )
            checksum = f"{head[1]:016x}"
        made = replace(
            current,
            pages=tuple(pages),
            snapshots=walk.became(current.snapshots),
            segments=walk.became(current.segments),
            head_checksum=checksum,
        )
        self._replaced = (old_keys | _keys(uuid, current)) - (new_keys | _keys(uuid, made))
        return made

    async def _page(
        self, current: Manifest, ref: PageRef, old: HistoryPage, walk: ChainRewrite
    ) -> PageRef | None:
        """Return what becomes of a history page; forks share what has become of it in their parent."""
        snapshots, segments = walk.became(old.snapshots), walk.became(old.segments)
        if (snapshots, segments) == (old.snapshots, old.segments):
            return ref
        if not snapshots and not segments:
            return None
        key, entries = layout.page_key(current.db, ref), (*snapshots, *segments)
        known = self._shared.pages.get(key)
        if known is not None and known[0] == entries:
            return known[1]
        page = await self._services.archive.write_page(current.db, current.branch_id, snapshots, segments)
        self._shared.pages[key] = entries, page
        return page

    def _change(self, seen: Manifest, made: Manifest) -> Transition:
        """Return the change that names what was made."""
        at_ms, objects = self._services.clock.now_ms(), len(self._replaced)
        noted = tuple(Erasure(id_, seen.head_txid, at_ms, objects) for id_ in self._ids)
        return partial(transitions.rewritten, seen=seen, made=made, erasures=noted)

    def _done(self, walk: ChainRewrite) -> Rewritten:
        """Let go of what nobody names any more, and return what was done."""
        services, ref, replaced = self._services, self._branch.ref, self._replaced
        services.archive.recent.drop(list(replaced))
        services.agenda.let_go(ref.database.uuid)
        _log.info("history rewritten", branch=str(ref), objects=len(replaced), rounds=walk.rounds_rewritten)
        return Rewritten(walk.rounds_checked, walk.pages_searched, walk.rounds_rewritten, len(replaced))


def _keys(uuid: str, part: Manifest | HistoryPage) -> set[str]:
    return {layout.object_key(uuid, ref) for ref in (*part.snapshots, *part.segments)}


def _check(path: Path) -> None:
    """Raise CorruptionError where SQLite finds something wrong with the file."""
    conn = open_immutable(path, cache_kib=_CHECK_CACHE_KIB)
    try:
        said = conn.execute("PRAGMA quick_check(1)", can_cache=False).get
    finally:
        conn.close()
    if said != "ok":
        raise CorruptionError(
            f"the rewritten state is damaged ({said}): nothing was changed; report it, and see `memoturn verify`"
        )
