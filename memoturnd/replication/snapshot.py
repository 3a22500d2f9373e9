"""A whole database file as snapshot objects: one for a small file, several parts for a large one.

The file is read chunk by chunk, and each part is put while the next one is compressed. So a snapshot takes
as much memory as two parts compressed, however large the file is, and writers go on all the while.
"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np

from memoturnd.core import layout, segment
from memoturnd.core.manifest import ObjectRef, replace
from memoturnd.core.pages import PageHashes, lock_page, page_hash
from memoturnd.core.segment import PAGES_PER_BLOCK, Kind, Round, RoundEntry
from memoturnd.engine.connection import ProfileConnection, open_connection
from memoturnd.errors import CorruptionError
from memoturnd.replication.prove import hash_file, read_file
from memoturnd.replication.ranged import one_error
from memoturnd.seams.executor import Executor
from memoturnd.seams.object_store import ObjectStore

PART_PAGES = 16384
"""Pages up to which a file is one snapshot object; a part of a larger one covers so many: 64 MiB of 4 KiB pages."""
_CACHE_KIB = 64


class State(NamedTuple):
    """What a database file holds, and under which epoch it was written; `at_ms` is unix ms."""

    txid: int
    at_ms: int
    epoch: int
    page_size: int


async def write_snapshot(
    store: ObjectStore,
    executor: Executor,
    path: str,
    state: State,
    *,
    uuid: str,
    branch_id: str,
    nonce: bytes,
    known: PageHashes | None = None,
) -> tuple[tuple[ObjectRef, ...], PageHashes]:
    """Put the database file at `path`, which holds `state`, and return the entries of its parts and its page hashes.

    The log must be wholly checkpointed into it, and nobody may checkpoint before this returns; writers may
    append to the log. `nonce`, 16 random bytes, makes names of its own. `known` are the page hashes of the
    state, not changed meanwhile; without them the file is read twice. Raises CorruptionError where the file does not hold those pages, StoreUnavailableError.
    """
    if known is None:
        known = await hash_whole_file(executor, path, state.page_size)
    conn = await executor.run(lambda: _opened(path))
    refs: list[ObjectRef] = []
    putting: asyncio.Task[None] | None = None
    try:
        with one_error():
            async with asyncio.TaskGroup() as group:
                for first in range(1, len(known) + 1, PART_PAGES):
                    data, ref = await executor.run(
                        partial(_part, conn, state, known, first, branch_id, nonce)
                    )
                    if putting is not None:
                        await putting
                    putting = group.create_task(store.put(layout.object_key(uuid, ref), data))
                    del data
                    refs.append(ref)
    finally:
        await executor.run(conn.close)
    return tuple(refs), known


async def hash_whole_file(executor: Executor, path: str, page_size: int) -> PageHashes:
    """Return the page hashes of the database file at `path`, without what is only in its log."""

    def work() -> PageHashes:
        conn = _opened(path)
        try:
            return hash_file(conn, page_size)
        finally:
            conn.close()

    return await executor.run(work)


def _opened(path: str) -> ProfileConnection:
    conn = open_connection(path, read_only=True, sync="normal", cache_kib=_CACHE_KIB)
    try:
        conn.execute("SELECT 1 FROM __memoturn_meta").fetchone()  # opens the file
    except BaseException:
        conn.close()
        raise
    return conn


def _part(
    conn: ProfileConnection, state: State, known: PageHashes, first: int, branch_id: str, nonce: bytes
) -> tuple[bytes, ObjectRef]:
    """Return (object bytes, ref) of the part that starts at page `first`."""
    last = min(first + PART_PAGES - 1, len(known))
    pgnos = np.arange(first, last + 1, dtype=np.uint64)
    pgnos = pgnos[pgnos != lock_page(state.page_size)]
    entry = RoundEntry(state.txid, state.at_ms, known.checksum, len(known), len(pgnos))
    data, name_hash = segment.encode_stream(
        Kind.SNAPSHOT,
        [entry],
        known.table(pgnos),
        raw_blocks(_images(conn, state.page_size, known, first, last)),
        page_size=state.page_size,
        prev_txid=0,
        epoch=state.epoch,
        checksum_before=0,
        nonce=nonce,
    )
    ref = object_ref("snapshot", [entry], 0, state.epoch, branch_id, len(data), name_hash)
    return data, replace(ref, first_page=first, last_page=last) if len(known) > PART_PAGES else ref


def _images(
    conn: ProfileConnection, page_size: int, known: PageHashes, first: int, last: int
) -> Iterator[bytes]:
    """Yield the pages `first` to `last` of the file without the lock page, each held against its hash."""
    skipped = lock_page(page_size)
    for at, images in read_file(conn, page_size, first, last):
        for pgno, image in enumerate(images, at):
            if pgno == skipped:
                continue
            if page_hash(pgno, image) == known[pgno]:
                yield image
            elif known[pgno] == 0:
                yield bytes(page_size)  # never written, so whatever stands there in the file is nothing
            else:
                raise CorruptionError(
                    f"page {pgno} of {conn.filename} is not the one that was committed: the file is damaged, or "
                    "somebody else wrote to it; stop the node, move the file away, and it is restored"
                )


def raw_blocks(images: Iterator[bytes]) -> Iterator[bytes]:
    """Yield page images joined to blocks, as a segment stores them."""
    while block := b"".join(islice(images, PAGES_PER_BLOCK)):
        yield block


def object_ref(
    kind: str,
    rounds: Sequence[Round | RoundEntry],
    prev_txid: int,
    epoch: int,
    branch_id: str,
    size_bytes: int,
    name_hash: str,
) -> ObjectRef:
    """Return the manifest's entry for an encoded object."""
    return ObjectRef(
        kind=kind,
        branch=branch_id,
        prev=prev_txid,
        min=rounds[0].txid,
        max=rounds[-1].txid,
        epoch=epoch,
        hash=name_hash,
        size_bytes=size_bytes,
        first_at=rounds[0].at_ms,
        last_at=rounds[-1].at_ms,
        after=f"{rounds[-1].checksum:016x}",
    )
