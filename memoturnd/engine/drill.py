"""The drill: now and then one state of one branch is restored, and thrown away, to see that it could be.

Which one is left to chance, so that in time everything is looked at. It reads object storage like a wake
would; a state that cannot be restored is logged as an error that names the object, and counted.
"""

import shutil

import structlog

from memoturnd.core.manifest import Manifest, round_ref
from memoturnd.engine.services import Services
from memoturnd.engine.tiers import Tiers
from memoturnd.engine.verifying import make_folder
from memoturnd.errors import ConflictError, CorruptionError, MemoturnError
from memoturnd.replication.archive import Archive
from memoturnd.replication.points import Window, points
from memoturnd.replication.verify_states import States

_ATTEMPTS = 3
_CACHE_BYTES = 1024 * 1024
_log = structlog.get_logger(__name__)


class Drill:
    """Restores a state at random whenever `run` is called."""

    def __init__(self, services: Services, tiers: Tiers) -> None:
        self._services = services
        self._tiers = tiers

    async def run(self) -> str:
        """Restore one state and return the outcome: `ok`, `damaged`, `skipped` (nothing written), `failed`."""
        try:
            outcome = await self._run()
        except MemoturnError as error:
            _log.warning("restore drill could not be done", error=str(error))
            outcome = "failed"
        metrics = self._services.metrics
        metrics.drills[outcome].inc()
        if outcome == "ok":
            metrics.drill_last_success_seconds.set(self._services.clock.now_ms() / 1000)
        return outcome

    async def _run(self) -> str:
        services = self._services
        database = await services.catalog.written_after(services.randomness.hex(16))
        if database is None:
            return "skipped"
        rows = await services.catalog.list_branches(database.uuid)
        ids = [database.main_branch_id, *(row.branch_id for row in rows)]
        branch_id, dice = ids[self._random(len(ids))], services.randomness.hex(6)
        said = ""
        for _ in range(_ATTEMPTS):
            file = services.manifest_file(database.uuid, branch_id)
            try:
                current = await file.load()
                if current is None or current.head_txid == 0 or current.deleted_at is not None:
                    return "skipped"
                wrong = await self._restored(current, 1 + int(dice, 16) % current.head_txid)
            except ConflictError:
                continue  # it went past retention just now
            except CorruptionError as error:
                wrong = str(error)
            if wrong is None:
                return "ok"
            if wrong == said:
                break
            said = wrong  # an object may have been replaced meanwhile: damage says the same again
        _log.error(
            "a state cannot be restored; restore a copy of what is damaged, and see `memoturn verify`",
            database=database.qualified_name,
            branch=branch_id,
            damage=said,
        )
        return "damaged"

    async def _restored(self, current: Manifest, near_txid: int) -> str | None:
        """Restore the newest state at or below `near_txid`, or the oldest; return what is wrong with it."""
        services = self._services
        archive = Archive(
            services.store, executor=services.executor, cache_bytes=_CACHE_BYTES
        )  # what is cached may be gone from the store
        found = await points(archive, current, Window(below=near_txid + 1), 1)
        found = found or await points(archive, current, Window(), 1, newest_first=False)
        if not found:
            return None
        txid = found[0].txid
        chain = await archive.reaching(current, txid)
        rounds = await archive.rounds(current.db, round_ref(chain, txid))
        pages = next(entry.db_size_pages for entry in rounds if entry.txid == txid)
        folder = services.branches_folder.parent / "verify" / services.randomness.hex(8)
        make_folder(folder)
        try:
            states = States(
                services.store,
                services.executor,
                folder=folder,
                room=self._tiers.scratch,
                stopping=services.writer_settings.deadlines.stopping,
            )
            return await states.one(chain, txid, pages * current.page_size)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _random(self, below: int) -> int:
        return int(self._services.randomness.hex(4), 16) % below
