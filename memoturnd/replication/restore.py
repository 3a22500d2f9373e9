"""Restore: the state of a branch at a txid, from its objects, to a file.

Every byte is proven on the way: the object against its name, each block and page against its checksum, and
the rolling database checksum after every round that is applied. The file appears under its name only when
it is whole: it is written beside it and renamed.
"""

import asyncio
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memoturnd.core import layout, segment
from memoturnd.core.manifest import Manifest, ObjectRef, restore_plan, round_ref, unrestorable
from memoturnd.core.pages import PageHashes
from memoturnd.core.segment import RoundEntry, Segment
from memoturnd.disk import sync_folder
from memoturnd.errors import CorruptionError, DiskFullError, StoreUnavailableError
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

_PARALLEL_GETS = 8
_RUN_PAGES = 256
"""Pages written at once: below the system's limit of buffers in one call."""
_INLINE_BYTES = 256 * 1024
"""Compressed bytes up to which a restore runs where it is called: the work takes less than a thread hop."""


@dataclass(frozen=True, slots=True)
class Restored:
    """A restored file: the round it stands at, its page hashes, and its size."""

    at: RoundEntry
    hashes: PageHashes
    size_bytes: int


async def restore(
    store: ObjectStore,
    manifest: Manifest,
    txid: int,
    path: Path,
    *,
    executor: Executor,
    fsync: bool,
) -> Restored:
    """Write the state of the branch at `txid` to `path`, which must not be open in any connection.

    Raises ConflictError when the txid cannot be restored, CorruptionError, StoreUnavailableError,
    DiskFullError.
    """
    plan = restore_plan(manifest, txid)
    blobs = await fetch(store, manifest.db, plan)

    def work() -> Restored:
        parts = [_decoded(manifest.db, ref, blob) for ref, blob in zip(plan, blobs, strict=True)]
        return _write(parts, [ref.end for ref in plan], txid, manifest.page_size, path, fsync=fsync)

    if sum(map(len, blobs)) <= _INLINE_BYTES:
        return work()
    return await executor.run(work)


async def fetch(store: ObjectStore, uuid: str, refs: Sequence[ObjectRef]) -> list[bytes]:
    """Return the bytes of objects, fetched a few at a time.

    Raises CorruptionError naming an object that a manifest names and the store does not have.
    """
    gate = asyncio.Semaphore(_PARALLEL_GETS)

    async def one(ref: ObjectRef) -> bytes:
        key = layout.object_key(uuid, ref)
        try:
            async with gate:
                return (await store.get(key)).data
        except ObjectMissingError as error:
            raise CorruptionError(
                f"object {key} is named by a manifest, but the store has lost it"
            ) from error

    if len(refs) == 1:
        return [await one(refs[0])]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(ref)) for ref in refs]
    except* (CorruptionError, StoreUnavailableError) as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def round_entry(store: ObjectStore, manifest: Manifest, txid: int) -> tuple[int, str]:
    """Return (wall time in unix ms, database checksum in hex) of the round `txid`, which is restorable."""
    if txid == 0:
        return 0, "0" * 16
    ref = round_ref(manifest, txid)
    if ref.max == txid:
        return ref.last_at, ref.after
    (blob,) = await fetch(store, manifest.db, [ref])
    for entry in _decoded(manifest.db, ref, blob).rounds:
        if entry.txid == txid:
            return entry.at_ms, f"{entry.checksum:016x}"
    if ref.is_thinned:
        raise unrestorable(manifest, txid)
    raise CorruptionError(f"{layout.object_key(manifest.db, ref)} does not hold txid {txid}")


def _decoded(uuid: str, ref: ObjectRef, blob: bytes) -> Segment:
    try:
        return segment.decode(blob, name_hash=ref.hash)
    except CorruptionError as error:
        raise CorruptionError(f"object {layout.object_key(uuid, ref)} is damaged: {error}") from error


def assemble(
    parts: Sequence[Segment], ends: Sequence[int], txid: int
) -> tuple[RoundEntry, PageHashes, dict[int, tuple[int, int]]]:
    """Apply rounds up to `txid` and return (last round, page hashes, page number -> (part, image index)).

    `ends` says how far each part belongs to the branch: a fork may own only the beginning of its last one.
    Raises CorruptionError where the rolling checksum of the parts does not continue from one to the next.
    """
    hashes = PageHashes()
    where: dict[int, tuple[int, int]] = {}
    last: RoundEntry | None = None
    for number, part in enumerate(parts):
        first = 0
        for entry in part.rounds:
            if entry.txid > min(txid, ends[number]):
                break
            pages = part.pages[first : first + entry.pages]
            if last is None or entry.txid > last.txid:
                hashes.apply(dict(pages), entry.db_size_pages)
                where.update((pgno, (number, first + at)) for at, (pgno, _) in enumerate(pages))
                if last is not None and entry.db_size_pages < last.db_size_pages:
                    where = {p: w for p, w in where.items() if p <= entry.db_size_pages}
                if hashes.checksum != entry.checksum:
                    raise CorruptionError(
                        f"the chain breaks at txid {entry.txid}: the database checksum is "
                        f"{hashes.checksum:016x} instead of {entry.checksum:016x}"
                    )
                last = entry
            first += entry.pages
    if last is None or last.txid != txid:
        raise CorruptionError(f"the objects of the chain do not hold txid {txid}")
    return last, hashes, where


def _write(
    parts: Sequence[Segment], ends: Sequence[int], txid: int, page_size: int, path: Path, *, fsync: bool
) -> Restored:
    last, hashes, where = assemble(parts, ends, txid)
    wanted: list[list[int]] = [[] for _ in parts]
    for pgno, (number, index) in where.items():
        if pgno <= last.db_size_pages:
            wanted[number].append(index)
    size_bytes = last.db_size_pages * page_size
    temporary = path.with_name(path.name + ".restoring")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, size_bytes)
            for part, indexes in zip(parts, wanted, strict=True):
                for first, images in _runs(part, sorted(indexes)):
                    if os.pwritev(fd, images, (first - 1) * page_size) != len(images) * page_size:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a short write says no more
            if fsync:
                os.fsync(fd)
        finally:
            os.close(fd)
        temporary.rename(path)
        if fsync:
            sync_folder(path.parent)
    except OSError as error:
        raise DiskFullError(
            f"restoring to {path} failed: {error.strerror}; make room or mend the folder, then try again"
        ) from error
    return Restored(last, hashes, size_bytes)


def _runs(part: Segment, indexes: Sequence[int]) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first page number, images) for runs of pages that lie side by side in the file."""
    first, images = 0, list[bytes]()
    for index, image in part.images(indexes):
        pgno = part.pages[index][0]
        if images and (pgno != first + len(images) or len(images) >= _RUN_PAGES):
            yield first, images
            images = []
        if not images:
            first = pgno
        images.append(image)
    if images:
        yield first, images
