"""A whole database file as a snapshot object."""

from collections.abc import Sequence

from memoturnd.core import segment
from memoturnd.core.manifest import ObjectRef
from memoturnd.core.pages import PageHashes, lock_page, page_hash
from memoturnd.core.segment import Kind, Round
from memoturnd.engine.connection import open_connection
from memoturnd.replication.prove import read_file

CACHE_KIB = 64


def make_snapshot(
    path: str, *, page_size: int, txid: int, at_ms: int, epoch: int, branch_id: str
) -> tuple[bytes, ObjectRef, PageHashes]:
    """Return (object bytes, ref, page hashes) of the database file at `path`, which stands at `txid`.

    The log must be wholly checkpointed into it, and nobody may checkpoint meanwhile; writers may append to
    the log. Runs in the pool: it reads and compresses the whole file.
    """
    conn = open_connection(path, read_only=True, sync="normal", cache_kib=CACHE_KIB)
    try:
        conn.execute("SELECT 1 FROM __memoturn_meta").fetchone()  # opens the file
        images = {
            first + i: image for first, chunk in read_file(conn, page_size) for i, image in enumerate(chunk)
        }
    finally:
        conn.close()
    pages = len(images)
    images.pop(lock_page(page_size), None)
    hashes = {pgno: page_hash(pgno, image) for pgno, image in images.items()}
    known = PageHashes()
    round_ = Round(txid, at_ms, known.apply(hashes, pages), pages, images, hashes)
    data, name_hash = segment.encode(
        Kind.SNAPSHOT, [round_], page_size=page_size, prev_txid=0, epoch=epoch, checksum_before=0
    )
    return data, object_ref("snapshot", [round_], 0, epoch, branch_id, len(data), name_hash), known


def object_ref(
    kind: str,
    rounds: Sequence[Round],
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
