"""Copies of states that are kept aside, made without what was erased since they were written.

An erasure waits for every node that is there. One that was silent for longer comes back with files that no pass has seen: what
their branch went on without is kept as another branch, and must not bring erased rows back.
"""

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import apsw
import structlog

from memoturnd.core.erasures import Coupon
from memoturnd.core.manifest import Manifest
from memoturnd.engine.connection import open_connection
from memoturnd.engine.coupons import Coupons
from memoturnd.engine.services import Services
from memoturnd.surfaces import erasing

CLOCKS_MS: Final = 3_600_000
"""By how much clocks of nodes may differ: erasing once more what is not there changes nothing."""
_PAGE: Final = 1_000
_CACHE_KIB: Final = 2048
_log = structlog.get_logger(__name__)


@asynccontextmanager
async def without_erased(
    services: Services, coupons: Coupons, path: str, source: Manifest, at_ms: int
) -> AsyncIterator[str]:
    """Give the path of the state at `path`, written last at `at_ms` on the branch `source`, without what was erased meanwhile.

    That is `path` itself where nothing was. Raises StoreUnavailableError, CorruptionError, DiskFullError, apsw.Error.
    """
    missed = await _missed(coupons, source, at_ms)
    if not missed:
        yield path
        return
    folder = (
        services.branches_folder.parent / "rewriting" / services.randomness.hex(8)
    )  # emptied at each start
    try:
        made, rows = await services.executor.run(lambda: _erased(path, folder, source, missed))
        _log.warning(
            "what was erased meanwhile is left out of a state that is kept",
            branch=source.branch,
            database=source.db,
            rows=rows,
            erasures=[coupon.id for coupon in missed],
        )
        yield str(made)
    finally:
        await services.executor.run(lambda: shutil.rmtree(folder, ignore_errors=True))


async def _missed(coupons: Coupons, source: Manifest, at_ms: int) -> list[Coupon]:
    """Return the erasures that were not over when a state was written."""
    found: list[Coupon] = []
    before: str | None = None
    while page := await coupons.page(source.db, before=before, limit=_PAGE):
        found += (c for c in page if c.completed_at is None or c.completed_at >= at_ms - CLOCKS_MS)
        before = page[-1].id
    return found


def _erased(path: str, folder: Path, source: Manifest, missed: Sequence[Coupon]) -> tuple[Path, int]:
    """Make the state anew, with nothing of what is erased left in any page, and return where, and how many rows went."""
    folder.mkdir(parents=True, exist_ok=True)
    copy, made = folder / "copy.db", folder / "kept.db"
    _vacuum(path, copy)
    cuts = [coupon.cuts.get(source.branch_id) for coupon in missed]
    erasers = [
        erasing.Eraser(c.targets, memory_ids=c.memory_ids, document_ids=c.document_ids) for c in missed
    ]
    conn = open_connection(str(copy), read_only=False, sync="normal", cache_kib=_CACHE_KIB)
    try:
        with conn:
            named = [(one, None if cut is None else cut.txid) for one, cut in zip(erasers, cuts, strict=True)]
            rows = erasing.erase_all(named, conn)
    finally:
        conn.close()
    _vacuum(str(copy), made)
    # Opened once, so that the file says that it has a log, as each profile does.
    open_connection(str(made), read_only=False, sync="normal", cache_kib=_CACHE_KIB).close()
    return made, rows


def _vacuum(path: str, into: Path) -> None:
    conn = open_connection(path, read_only=True, sync="normal", cache_kib=_CACHE_KIB)
    try:
        conn.execute("PRAGMA query_only=0")
        conn.limit(apsw.SQLITE_LIMIT_ATTACHED, 1)
        conn.execute("VACUUM INTO ?", (str(into),))
    finally:
        conn.close()
