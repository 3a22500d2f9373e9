"""A collection's vectors as one matrix in memory, so that a search need not read the file.

The matrix is kept with the commit that last changed the collection, and used only by reads that find the same one
in the file. It is built when a collection is searched the second time, and brought up to date by reading what was
added since: a vector's row has a number that no other ever has. The file stays the truth: whatever is ranked
best here is looked at there.
"""

import math
from itertools import islice
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from memoturnd.engine import schema
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.kept import Kept
from memoturnd.errors import invariant
from memoturnd.surfaces.vectors import Collection

LEAST_VECTORS: Final = 128
"""Vectors below which the file answers as fast."""
ROUNDING: Final = 1e-5
"""More than a product of two float32 vectors of unit length can be wrong by."""
_TIES_LIMIT: Final = 4096
"""Vectors that may be as near as the last one wanted, before the file is asked instead."""
_WAIT_S: Final = 0.01
"""How long a read waits for another that brings the matrix up to date, before it does without."""
_CHUNK: Final = 4096
_FEW: Final = 64
"""Vectors that are read on the event loop."""
_SLACK: Final = 64
_OVERHEAD_BYTES: Final = 512

_DEAD_SHARE: Final = 4
"""One in so many rows may be dead before the living are copied together."""

_NEW: Final = "SELECT rid, coalesce(replaces, 0), e FROM {table} WHERE rid >= ? ORDER BY rid"
_ALL_RIDS: Final = "SELECT group_concat(rid) FROM {table}"

Rids = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]


class Snapshot(NamedTuple):
    """A collection at the commit `changed_txid`: the numbers of its rows, ascending, and their vectors at unit length.

    Rows at the places `dead` are in the collection no more.
    """

    changed_txid: int
    """0 before the collection was read."""
    rids: Rids
    matrix: Matrix
    dead: Places

    @property
    def total(self) -> int:
        """Return how many vectors are in the collection."""
        return len(self.rids) - len(self.dead)

    def nearest(self, embedding: bytes, count: int) -> tuple[Rids, float] | None:
        """Return (rows that are near by cosine, at least `count` of them, the distance up to which none is missing).

        The distance is right whatever float32 rounds away. None where too many are equally near.
        """
        if count >= self.total:
            return np.delete(self.rids, self.dead), math.inf
        scores = np.vecdot(self.matrix, np.frombuffer(embedding, "<f4"))
        scores[self.dead] = -math.inf
        least = float(np.partition(scores, len(scores) - count)[len(scores) - count])
        at = np.flatnonzero(scores >= least - 2 * ROUNDING)
        if len(at) > count + _TIES_LIMIT:
            return None
        return self.rids[at], 1.0 - least + ROUNDING


class Arrays:
    """What is kept of one collection. Changed by who holds the lock; what snapshots see of it never changes."""

    def __init__(self, created_txid: int, dimensions: int) -> None:
        self.created_txid = created_txid
        nothing = np.empty(0, np.int64)
        self.snapshot = Snapshot(0, nothing, np.empty((0, dimensions), np.float32), nothing)
        self._next_rid = 1
        _, self._rids, self._matrix, _ = self.snapshot

    @property
    def size_bytes(self) -> int:
        """Return about how much memory it takes."""
        return self._rids.nbytes + self._matrix.nbytes + self.snapshot.dead.nbytes + _OVERHEAD_BYTES

    def shown(self, collection: Collection) -> Snapshot | None:
        """Return the collection as it is now, None where it is another one or as it was at another commit."""
        snapshot = self.snapshot  # looked at once: another thread may be bringing it up to date
        wanted = (collection.created_txid, collection.changed_txid)
        return snapshot if (self.created_txid, snapshot.changed_txid) == wanted else None

    def follow(self, conn: ProfileConnection, collection: Collection, *, at_once: bool) -> bool:
        """Bring it from an earlier commit to the one that the connection's transaction sees.

        False where that is to be done `at_once` and takes long, because much was added or something removed.
        """
        if at_once and collection.next_rid - self._next_rid > _FEW:
            return False
        count, replaced = len(self.snapshot.rids), list[int]()
        cursor = conn.execute(_NEW.format(table=collection.table), (self._next_rid,))
        while rows := list(islice(cursor, _CHUNK)):
            count = self._append(count, rows)
            replaced += [old for _, old, _ in rows if old]
        rids = self._rids[:count]
        at = np.searchsorted(rids, replaced)
        dead = np.union1d(self.snapshot.dead, at[rids[at] == replaced] if count else at)
        if count - len(dead) != collection.count:
            if at_once:
                return False
            listed: str = conn.execute(_ALL_RIDS.format(table=collection.table)).get or ""
            dead = np.flatnonzero(~np.isin(rids, np.fromstring(listed, np.int64, sep=",")))
        invariant(count - len(dead) == collection.count, "a collection counts its vectors", of=collection)
        self._next_rid = collection.next_rid
        self._publish(collection.changed_txid, count, dead)
        return True

    def _publish(self, changed_txid: int, count: int, dead: Places) -> None:
        if len(dead) > count // _DEAD_SHARE + _SLACK:
            self._rids = np.delete(self._rids[:count], dead)
            self._matrix = np.delete(self._matrix[:count], dead, axis=0)
            count, dead = len(self._rids), dead[:0]
        self.snapshot = Snapshot(changed_txid, self._rids[:count], self._matrix[:count], dead)

    def _append(self, count: int, rows: list[Any]) -> int:
        end = count + len(rows)
        if end > len(self._rids):
            capacity = end + end // 4 + _SLACK
            self._rids = _grown(self._rids, count, capacity)
            self._matrix = _grown(self._matrix, count, capacity)
        self._rids[count:end] = [rid for rid, _, _ in rows]
        read = np.frombuffer(b"".join(e for _, _, e in rows), "<f4").reshape(len(rows), -1)
        lengths = np.sqrt(np.vecdot(read, read))[:, np.newaxis]
        self._matrix[count:end] = np.divide(read, lengths, out=np.zeros_like(read), where=lengths > 0)
        return end


def _grown(array: npt.NDArray[Any], count: int, capacity: int) -> npt.NDArray[Any]:
    grown = np.empty((capacity, *array.shape[1:]), array.dtype)
    grown[:count] = array[:count]
    return grown


def opened(conn: ProfileConnection, collection: Collection, *, at_once: bool) -> Snapshot | None:
    """Return a collection's vectors as the connection's transaction sees them, None where they are not to be had.

    That is so, too, where they are to be had `at_once` and much of the file would have to be read.
    """
    kept = conn.kept
    if kept is None or collection.count < LEAST_VECTORS:
        return None
    part = kept.part(collection.table)
    known = part.item
    shown = known.shown(collection) if isinstance(known, Arrays) else None
    part.looked(hit=shown is not None)
    if known is not None and shown is not None:
        part.keep(known)
        return shown
    if 5 * collection.count * collection.dimensions > part.room_bytes:
        return None
    if not part.lock.acquire(timeout=0 if at_once else _WAIT_S):
        return None
    try:
        return _brought_up(conn, part, collection, at_once=at_once)
    finally:
        part.lock.release()


def _brought_up(
    conn: ProfileConnection, part: Kept, collection: Collection, *, at_once: bool
) -> Snapshot | None:
    known = part.item
    if (
        not isinstance(known, Arrays)
        or known.created_txid != collection.created_txid
        or schema.replaced_txid(conn) > known.snapshot.changed_txid > 0
    ):
        if not at_once:
            part.keep(Arrays(collection.created_txid, collection.dimensions))  # for the next search
        return None
    if known.snapshot.changed_txid > collection.changed_txid:
        return None
    if known.shown(collection) is None and not known.follow(conn, collection, at_once=at_once):
        return None
    return known.snapshot if part.keep(known) else None
