"""How near the vectors of memories are to a query's: all at once in float32, and those that matter in float64.

From the arrays where they are in memory, else from the file by sqlite-vec. A null vector has no direction: it is
at right angles to everything.
"""

import math
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, NamedTuple

import apsw
import numpy as np
import numpy.typing as npt

from memoturnd.engine.connection import ProfileConnection
from memoturnd.surfaces import memory_index
from memoturnd.surfaces.memory_arrays import Floats, Slots, State
from memoturnd.surfaces.models import Model

ROUNDING: Final = 1e-5
"""More than a cosine in float32 can be wrong by."""
_AT_ONCE: Final = 4096
_ROWS_AT_ONCE: Final = 16_384
_ALL: Final = "SELECT rid, 1.0 - coalesce(vec_distance_cosine(e, ?), 1.0) FROM {table} WHERE length(e) = ?"
_SOME: Final = "SELECT rid, e FROM {table} WHERE rid IN carray(?)"

Floats32 = npt.NDArray[np.float32]


class Similar(NamedTuple):
    """The cosines of those slots that have a vector, and what tells them exactly for some of the places here."""

    slots: Slots
    cosines: Floats
    exact: Callable[[Slots], Floats]


def best(scores: Floats, count: int, margin: float = ROUNDING) -> Slots:
    """Return where the greatest `count` scores are, and whatever is within `margin` of the last of them."""
    if count >= len(scores):
        return np.arange(len(scores))
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    return np.flatnonzero(scores >= least - 2 * margin)


def find(conn: ProfileConnection, state: State, model: Model, embedding: bytes) -> Similar:
    """Return how near the memories of a state are; see memory_index.open_vectors for what it raises."""
    wanted = np.frombuffer(embedding, "<f4")
    opened = memory_index.open_vectors(conn, state, model)
    if opened is None:
        return _from_file(conn, state, model, embedding)
    slots, matrix = opened
    # One thread, and row by row alike: BLAS would spread it over threads that wait for each other.
    cosines = np.vecdot(matrix, wanted).astype(np.float64)
    return Similar(slots, cosines, lambda at: _cosines(matrix[at], wanted))


def _from_file(conn: ProfileConnection, state: State, model: Model, embedding: bytes) -> Similar:
    wanted = np.frombuffer(embedding, "<f4")
    rows: Any = conn.execute(_ALL.format(table=model.table), (embedding, len(embedding)))
    parts = [np.empty((0, 2))]
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        parts.append(np.array(part, np.float64))  # a rid is far below 2^53
    found = np.concatenate(parts)
    slots, has_slot = state.slots_of(found[:, 0].astype(np.int64))
    cosines = found[:, 1]

    def exact(at: Slots) -> Floats:
        of_slots = slots[has_slot][at]
        bound = apsw.carray(state.columns.rids.data[of_slots])
        vectors: dict[Any, Any] = dict(conn.execute(_SOME.format(table=model.table), (bound,)).fetchall())  # type: ignore[arg-type]
        rows = [vectors[rid] for rid in state.columns.rids.data[of_slots].tolist()]
        return _cosines(np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), len(wanted)), wanted)

    return Similar(slots[has_slot], cosines[has_slot], lambda at: exact(at) if len(at) else np.empty(0))


def _cosines(rows: Floats32, wanted: Floats32) -> Floats:
    """Return the cosines of rows, each computed alike, so that equal vectors are equally near."""
    wide = wanted.astype(np.float64)
    length = math.sqrt(float((wide * wide).sum()))
    found = np.zeros(len(rows))
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE].astype(np.float64)
        with np.errstate(all="ignore"):
            lengths = np.sqrt((part * part).sum(axis=1)) * length
            cosines = (part * wide).sum(axis=1) / lengths
        found[start : start + _AT_ONCE] = np.where(np.isfinite(cosines), cosines, 0.0)
    return found
