"""Capture: committed rounds read from the write-ahead log, from a proven cursor on.

Runs only inside the branch's commit critical section, so that no commit and no checkpoint moves the log
underneath. It opens the `-wal` file and nothing else: opening and closing the database file or `-shm` in
this process would drop SQLite's POSIX locks. The cursor moves in `landed`, after the manifest that names
the rounds has landed; until then the same rounds are read, or sent, again. Whatever the log shows that was
not expected raises SurpriseError, and the branch ships a full snapshot instead of a guess.
"""

import os
from dataclasses import dataclass
from typing import NamedTuple

from memoturnd.core import wal
from memoturnd.core.pages import META_PAGE, PageHashes, RoundMeta, page_hash, parse_meta_page
from memoturnd.core.segment import Round
from memoturnd.errors import CorruptionError

_FIRST_READ_FRAMES = 64
MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Log bytes that one segment takes at most, unless a single round is larger."""


class SurpriseError(Exception):
    """The log is not what the cursor promised. The state is fine, its history in the log is not provable."""


class Cursor(NamedTuple):
    """What has landed: the txid, and the place in the log behind it (None: any log, from its start)."""

    txid: int
    position: wal.WalPosition | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive rounds right behind the cursor."""

    rounds: tuple[Round, ...]
    prev_txid: int
    checksum_before: int
    end: wal.WalPosition
    size_bytes: int

    @property
    def max_txid(self) -> int:
        """Return the txid of the last round."""
        return self.rounds[-1].txid


class Capture:
    """The cursor of one branch, the hashes of its pages there, and the one `-wal` descriptor."""

    def __init__(self, wal_path: str, *, page_size: int, cursor: Cursor, hashes: PageHashes) -> None:
        self.cursor = cursor
        self.hashes = hashes
        self.page_size = page_size
        self._path = wal_path
        self.database_path = wal_path.removesuffix("-wal")
        self._fd = -1
        self._header_bytes = b""
        self._known_header: wal.WalHeader | None = None
        self._may_restart = cursor.position is None
        self._beside: Capture | None = None

    def beside_it(self) -> "Capture":
        """Return another reader of the same log, which begins where this one stands and goes on by itself.

        It is told of checkpoints as well, while it is the last one that was made.
        """
        made = Capture(
            self._path, page_size=self.page_size, cursor=self.cursor, hashes=self.hashes.duplicate()
        )
        made._may_restart = self._may_restart
        self._beside = made
        return made

    def pending_bytes(self, log_frames: int) -> int:
        """Return the log bytes behind the cursor, given the frames in the log as SQLite counts them."""
        position = self.cursor.position
        done = position.frame if position is not None and not self._may_restart else 0
        return max(0, log_frames - done) * wal.frame_size_bytes(self.page_size)

    def read(self, *, head_txid: int, log_frames: int) -> Batch | None:
        """Return the next rounds up to `head_txid`, at most MAX_BATCH_BYTES of log; None when there are none.

        `log_frames` is a hint of how much to read at first. Raises SurpriseError.
        """
        if head_txid == self.cursor.txid:
            return None
        header = self._header()
        start = self._start(header)
        size_bytes = wal.frame_size_bytes(self.page_size)
        want = max(log_frames - start.frame, 1) if log_frames > start.frame else _FIRST_READ_FRAMES
        limit = MAX_BATCH_BYTES // size_bytes
        want = min(want, limit)
        while True:
            data = os.pread(self._fd, want * size_bytes, wal.offset_of(start, self.page_size))
            found = wal.committed_rounds(data, start, header)
            short = len(data) < want * size_bytes
            if found and (want >= limit or short or self._reaches(found[-1], head_txid, log_frames)):
                break
            if short:
                raise SurpriseError(f"the log ends before txid {head_txid}")
            want *= 2
        return self._batch(found, head_txid, limit * size_bytes)

    def landed(self, batch: Batch) -> None:
        """Move the cursor behind rounds whose manifest has landed."""
        for round_ in batch.rounds:
            self.hashes.apply(round_.hashes, round_.db_size_pages)
        self.cursor = Cursor(batch.max_txid, batch.end)
        self._may_restart = False

    def checkpointed(self, txid: int) -> None:
        """Note that the log up to `txid` is in the database file, so that it may restart with new salts.

        That is expected only where all of it has landed. Else rounds that have not landed are in the file
        alone, and whatever log comes next is a surprise, until a snapshot has landed.
        """
        self._may_restart = txid == self.cursor.txid
        if self._beside is not None:
            self._beside.checkpointed(txid)

    def restart_at(self, txid: int, hashes: PageHashes) -> None:
        """Start anew behind a snapshot of `txid` that landed: whatever log comes next belongs behind it."""
        self.cursor = Cursor(txid, None)
        self.hashes = hashes
        self._may_restart = True

    def hashes_at(self, txid: int) -> PageHashes | None:
        """Return a copy of the page hashes of the state at `txid`, None where they are not known."""
        return self.hashes.duplicate() if self.cursor.txid == txid and len(self.hashes) else None

    def close(self) -> None:
        """Close the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _header(self) -> wal.WalHeader:
        if self._fd < 0:
            try:
                self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError as error:
                raise SurpriseError("there is no log") from error
        if os.fstat(self._fd).st_nlink == 0:
            self.close()
            raise SurpriseError("the log was deleted")
        data = os.pread(self._fd, wal.HEADER_SIZE_BYTES, 0)
        if data == self._header_bytes and self._known_header is not None:
            return self._known_header
        header = wal.parse_header(data)
        if header is None or header.page_size != self.page_size:
            raise SurpriseError("the log has no valid header")
        self._header_bytes, self._known_header = data, header
        return header

    def _start(self, header: wal.WalHeader) -> wal.WalPosition:
        position = self.cursor.position
        if position is not None and position[:2] == header.start[:2]:
            return position
        if self._may_restart:
            return header.start
        raise SurpriseError("the log was restarted behind the cursor")

    def _reaches(self, last: wal.WalRound, head_txid: int, log_frames: int) -> bool:
        return last.end.frame == log_frames or self._meta(last).txid == head_txid

    @staticmethod
    def _meta(round_: wal.WalRound) -> RoundMeta:
        image = round_.pages.get(META_PAGE)
        if image is None:
            raise SurpriseError("a commit did not touch __memoturn_meta")
        try:
            return parse_meta_page(image)
        except CorruptionError as error:
            raise SurpriseError(str(error)) from error

    def _batch(self, found: list[wal.WalRound], head_txid: int, max_bytes: int) -> Batch:
        frame_bytes = wal.frame_size_bytes(self.page_size)
        previous, size_bytes, epoch = self.cursor.txid, 0, 0
        taken: list[tuple[int, int, wal.WalRound, dict[int, int]]] = []
        for round_ in found:
            size_bytes += len(round_.pages) * frame_bytes
            if taken and size_bytes > max_bytes:
                break
            meta = self._meta(round_)
            txid = meta.txid
            if self.cursor.position is None and txid <= self.cursor.txid:
                continue  # the log did not restart behind the snapshot: these rounds are in it
            if taken and txid > previous + 1 and meta.epoch > epoch:
                break  # another owner went on from here, above all txids that the one before may have used
            epoch = meta.epoch
            if txid <= previous or (taken and txid != previous + 1) or txid > head_txid:
                raise SurpriseError(f"the log goes from txid {previous} to {txid}, the head is {head_txid}")
            if previous == 0 and len(round_.pages) != round_.db_size_pages:
                raise SurpriseError("the first round does not hold every page")
            hashes = {pgno: page_hash(pgno, image) for pgno, image in round_.pages.items()}
            taken.append((txid, meta.at_ms, round_, hashes))
            previous = txid
        if not taken:
            raise SurpriseError(f"the log holds no round up to txid {head_txid} behind the cursor")
        checksums = self.hashes.preview((hashes, r.db_size_pages) for _, _, r, hashes in taken)
        rounds = tuple(
            Round(txid, at_ms, checksum, r.db_size_pages, r.pages, hashes)
            for (txid, at_ms, r, hashes), checksum in zip(taken, checksums, strict=True)
        )
        return Batch(rounds, self.cursor.txid, self.hashes.checksum, taken[-1][2].end, size_bytes)
