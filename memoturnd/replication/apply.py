"""Applying commit rounds to a file that no connection has open: a write-ahead log that holds them is put beside it.

SQLite finds the log when the file is opened next, and recovers it as it would after a crash. What this costs is in
proportion to what changed, whatever the size of the file. The log appears under its name by a rename, so that a crash
leaves either none of the rounds or all. The log that was there before must be in the database file already.

Here is also how rounds are proven to follow on a state: by the txid and checksum before them, and by the checksum that
the pages come to behind each.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from memoturnd.core.pages import PageHashes
from memoturnd.core.segment import ARRAY_PAGES, RoundEntry, Segment
from memoturnd.core.wal import LogRound, encode_log
from memoturnd.disk import sync_folder
from memoturnd.errors import DiskFullError


class GapError(Exception):
    """What came does not follow on the state that is here."""


class Proven(NamedTuple):
    """A state that was come to by proven rounds: the last of them, and the page hashes behind it."""

    at: RoundEntry
    hashes: PageHashes


def follow(txid: int, hashes: PageHashes, segments: Sequence[Segment]) -> Proven:
    """Return the state that `segments`, one behind the other, lead to from the one at `txid`.

    Their tables alone are looked at: the images prove themselves when they are taken. Rounds that the state has
    already are passed over. Changes nothing that it is given. Raises GapError.
    """
    at, reached = None, hashes.duplicate()
    for segment in segments:
        if segment.prev_txid > txid or segment.rounds[-1].txid <= txid:
            raise GapError(
                f"rounds {segment.prev_txid}..{segment.rounds[-1].txid} do not follow on txid {txid}"
            )
        if segment.prev_txid == txid and segment.checksum_before != reached.checksum:
            raise GapError(f"they follow on another state of txid {txid}")
        for first, entry in _behind(segment, txid):
            if entry.pages < ARRAY_PAGES:
                reached.apply(dict(segment.page_entries(first, entry.pages)), entry.db_size_pages)
            else:
                reached.apply_table(segment.page_array(first, entry.pages), entry.db_size_pages)
            if reached.checksum != entry.checksum:
                raise GapError(
                    f"behind txid {entry.txid} the pages come to {reached.checksum:016x}, not {entry.checksum:016x}"
                )
            at, txid = entry, entry.txid
    if at is None:
        raise GapError("there is no round to apply")
    return Proven(at, reached)


def rounds_behind(txid: int, segments: Iterable[Segment]) -> Iterator[LogRound]:
    """Yield the rounds above `txid`, unpacked as they are taken. Raises CorruptionError then."""
    for segment in segments:
        for first, entry in _behind(segment, txid):
            yield LogRound(entry.db_size_pages, segment.numbered_images(range(first, first + entry.pages)))


def _behind(segment: Segment, txid: int) -> Iterator[tuple[int, RoundEntry]]:
    """Yield (index of its first image, round) for the rounds above `txid`."""
    first = 0
    for entry in segment.rounds:
        if entry.txid > txid:
            yield first, entry
        first += entry.pages


def write_log(
    wal_path: Path, rounds: Iterable[LogRound], *, page_size: int, salts: tuple[int, int], fsync: bool
) -> int:
    """Put a log that holds `rounds` in the place of the one beside a closed database; return its size in bytes.

    No connection of this process may have the database open: SQLite would go on with its own index of the old log.
    The old log must be in the database file, all of it. Raises DiskFullError, and what taking the images raises;
    then nothing has changed.
    """
    temporary = wal_path.with_name(wal_path.name + ".new")
    try:
        with temporary.open("wb") as file:
            for data in encode_log(rounds, page_size=page_size, salt1=salts[0], salt2=salts[1]):
                file.write(data)
            size_bytes = file.tell()
            if fsync:
                file.flush()
                os.fsync(file.fileno())
        # The index of the old log: it is made anew from the log by whoever opens the file first.
        wal_path.with_name(wal_path.name.removesuffix("-wal") + "-shm").unlink(missing_ok=True)
        temporary.rename(wal_path)
        if fsync:
            sync_folder(wal_path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DiskFullError(
            f"the data directory refused {wal_path}: {error.strerror}; make room or mend it, then try again"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return size_bytes
