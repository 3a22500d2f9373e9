"""Proof that a local file continues the chain, for a node that comes back without a clean close.

The database file holds the state at the log's first round; applying the log's rounds up to the manifest's
head must give the head's checksum. Then the rounds behind it are the unshipped tail, and the page hashes at
the head are known again.
"""

from collections.abc import Iterator
from pathlib import Path

from memoturnd.core import wal
from memoturnd.core.pages import META_PAGE, PageHashes, lock_page, page_hash, parse_meta_page
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import CorruptionError
from memoturnd.replication.capture import Cursor

_CHUNK_PAGES = 256


def prove(
    conn: ProfileConnection, wal_path: Path, *, page_size: int, txid: int, checksum: str
) -> tuple[Cursor, PageHashes] | None:
    """Return the cursor behind `txid` and the page hashes there; None when the file does not prove it.

    Reads the database through `conn`, which must have no transaction open, and the log by its own path.
    """
    try:
        log = wal_path.read_bytes()
    except FileNotFoundError:
        log = b""
    header = wal.parse_header(log)
    rounds = wal.committed_rounds(log[wal.HEADER_SIZE_BYTES :], header.start, header) if header else []
    position = header.start if header else None
    # Before its first round a database has nothing but the page that switched it to WAL mode.
    hashes = hash_file(conn, page_size) if txid else PageHashes()
    at = None
    try:
        for round_ in rounds:
            meta = parse_meta_page(round_.pages[META_PAGE])
            if meta.txid > txid:
                break
            hashes.apply(
                {pgno: page_hash(pgno, image) for pgno, image in round_.pages.items()}, round_.db_size_pages
            )
            at, position = meta.txid, round_.end
    except (KeyError, CorruptionError):
        return None
    if f"{hashes.checksum:016x}" != checksum or (at is not None and at != txid):
        return None
    return Cursor(txid, position), hashes


def hash_file(conn: ProfileConnection, page_size: int) -> PageHashes:
    """Return the page hashes of the database file itself, without what is only in the log."""
    hashes = PageHashes()
    skipped = lock_page(page_size)
    for first, images in read_file(conn, page_size):
        changes = {first + i: page_hash(first + i, image) for i, image in enumerate(images)}
        changes.pop(skipped, None)
        hashes.apply(changes, first + len(images) - 1)
    return hashes


def read_file(
    conn: ProfileConnection, page_size: int, first: int = 1, last: int | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """Yield (first page number, page images) of the database file in order, through SQLite's own handle.

    From page `first` to page `last`, without one to the end.
    """
    if last is None:
        last = Path(conn.filename).stat().st_size // page_size
    for at in range(first, last + 1, _CHUNK_PAGES):
        count = min(_CHUNK_PAGES, last - at + 1)
        _, data = conn.read("main", 0, (at - 1) * page_size, count * page_size)
        yield at, [data[i * page_size : (i + 1) * page_size] for i in range(count)]
