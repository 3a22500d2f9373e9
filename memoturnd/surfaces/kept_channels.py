"""The channels of a recall over arrays kept in memory: what SqlChannels finds, found faster.

The arrays rank, and rule out what they know to be out of scope. What they rank best is looked at in the file,
under the whole scope, a few at a time until the window is full, so that an answer holds nothing that the file
does not.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

import apsw
import numpy as np
import numpy.typing as npt

from memoturnd.core import bm25
from memoturnd.core.fusion import Candidate
from memoturnd.engine.connection import ProfileConnection
from memoturnd.surfaces import memories, memory_index
from memoturnd.surfaces.channels import Scope
from memoturnd.surfaces.memory_arrays import Mask, Slots, State
from memoturnd.surfaces.memory_index import MemoryIndex
from memoturnd.surfaces.models import Model

_CHECK: Final = """SELECT m.rid, m.id, m.created_at, m.superseded_at IS NOT NULL
 FROM carray(?) AS c CROSS JOIN __memoturn_memories AS m ON m.rid = c.value WHERE 1 {filters}"""
_SPARE: Final = 8
"""Candidates that are looked at beyond the window at first."""
_FACTOR: Final = 4
_ROUNDING: Final = 1e-5
"""More than a product of float32 vectors of unit length can be wrong by."""
_AT_ONCE: Final = 4096

Floats = npt.NDArray[np.floating[Any]]


class _Ranking:
    """The slots that a channel found, with scores of which the greatest is best."""

    def __init__(self, state: State, slots: Slots, scores: Floats) -> None:
        self._state = state
        self._slots = slots
        self._scores = scores

    def __len__(self) -> int:
        return len(self._slots)

    def best(self, count: int) -> tuple[Slots, Floats]:
        """Return the best `count` slots, best first, of equals the one of the newest row, and their measures."""
        at = self._near(count, 0.0)
        return self._ordered(self._slots[at], -self._scores[at], count)

    def _near(self, count: int, margin: float) -> Slots:
        """Return where the best `count` are, and whatever is within `margin` of the last of them."""
        scores = self._scores
        if count >= len(scores):
            return np.arange(len(scores))
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        return np.flatnonzero(scores >= least - margin)

    def _ordered(self, slots: Slots, measures: Floats, count: int) -> tuple[Slots, Floats]:
        order = np.lexsort((-self._state.columns.rids.data[slots], measures))[:count]
        return slots[order], measures[order]


class _Nearest(_Ranking):
    """A ranking by vectors: exact in float64 where the scores, which are float32, could be wrong."""

    def __init__(
        self, state: State, slots: Slots, scores: Floats, rows: Slots, matrix: Any, wanted: Any
    ) -> None:
        super().__init__(state, slots, scores)
        self._rows, self._matrix, self._wanted = rows, matrix, wanted

    def best(self, count: int) -> tuple[Slots, Floats]:
        at = self._near(count, _ROUNDING)
        return self._ordered(self._slots[at], self._distances(self._rows[at]), count)

    def _distances(self, rows: Slots) -> Floats:
        wanted = self._wanted.astype(np.float64)
        length = math.sqrt(float(wanted @ wanted))
        found = []
        for start in range(0, len(rows), _AT_ONCE):
            part = self._matrix[rows[start : start + _AT_ONCE]].astype(np.float64)
            lengths = np.sqrt((part * part).sum(axis=1)) * length
            products = (part * wanted).sum(axis=1)  # row by row alike, so that equal vectors stay equal
            found.append(1.0 - np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0))
        return np.concatenate(found) if found else np.empty(0)


class KeptChannels:
    """The channels of one recall. A channel that cannot be had from memory is None, and left to SQL."""

    def __init__(
        self,
        conn: ProfileConnection,
        opened: tuple[MemoryIndex, State],
        scope: Scope,
        now_ms: int,
        window: int,
    ) -> None:
        self._conn = conn
        self._index, self._state = opened
        self._scope = scope
        self._window = window
        # Superseded ones are looked at, so that the arrays learn of them.
        filters, self._bindings = Scope(
            scope.types, scope.session_id, scope.source, include_superseded=True
        ).conditions(now_ms)
        self._check = _CHECK.format(filters=filters)
        self._mask = _mask(self._state, scope)
        self._seen: dict[int, tuple[str, int] | None] = {}
        self._superseded: list[int] = []

    def keyword(self, words: Sequence[str]) -> _Ranking | None:
        """Return memories that have any of the words, by bm25 as FTS5 computes it."""
        conn, state = self._conn, self._state
        phrases = [memory_index.words_of(conn, word, query=True) for word in words]
        if any(len(phrase) > 1 for phrase in phrases):
            return None  # a phrase of several words: where they stand matters
        scores = np.zeros(state.count)
        mean = state.tokens / state.rows if state.rows else 0.0
        for phrase in phrases:
            for word in phrase:
                posting = state.words.posting(conn, state, word)
                slots = posting.slots
                all_live = state.rows == state.count
                rows_with = len(slots) if all_live else int(np.count_nonzero(state.alive[slots]))
                if not rows_with:
                    continue
                lengths = state.columns.lengths.data
                gain = bm25.saturated(posting.counts, lengths[slots], mean)
                gain *= bm25.idf(state.rows, rows_with)
                if len(slots) == state.count:
                    scores += gain
                else:
                    scores[slots] += gain
        if self._mask is not None:
            scores[~self._mask] = 0.0
        slots = np.flatnonzero(scores)
        return _Ranking(state, slots, scores[slots])

    def vector(self, model: Model, embedding: bytes) -> _Ranking | None:
        """Return the memories whose vectors are nearest by cosine."""
        found = memory_index.vectors(self._conn, self._index, self._state, model)
        if found is None:
            return None
        slots, matrix = found
        wanted = np.frombuffer(embedding, "<f4")
        scores = np.vecdot(matrix, wanted)  # one thread, row by row alike; BLAS threads wait for each other
        if self._mask is None:
            rows = np.arange(len(slots))
        else:
            rows = np.flatnonzero(self._mask[slots])
            slots, scores = slots[rows], scores[rows]
        return _Nearest(self._state, slots, scores, rows, matrix, wanted)

    def candidates(self, rankings: dict[str, _Ranking]) -> dict[str, list[Candidate]]:
        """Return the best candidates of each ranking that are in scope, up to the window."""
        first = self._window + _SPARE
        best = {name: ranking.best(first) for name, ranking in rankings.items()}
        self._look_at([slots for slots, _ in best.values()])
        found = {}
        for name, ranking in rankings.items():
            take, (slots, measures) = first, best[name]
            in_scope = list(self._in_scope(slots, measures))
            while len(in_scope) < self._window and take < len(ranking):
                take *= _FACTOR
                slots, measures = ranking.best(take)
                self._look_at([slots])
                in_scope = list(self._in_scope(slots, measures))
            found[name] = in_scope[: self._window]
        self._learn()
        return found

    def _look_at(self, parts: Sequence[Slots]) -> None:
        """Look at the memories of slots in the file, where that was not done yet."""
        rids = self._state.columns.rids.data
        wanted = [rid for rid in rids[np.concatenate(parts)].tolist() if rid not in self._seen]
        wanted = list(dict.fromkeys(wanted))
        if not wanted:
            return
        self._seen.update(dict.fromkeys(wanted))
        bound = apsw.carray(np.array(wanted, np.int64))
        for rid, id_, created_at, superseded in self._conn.execute(self._check, (bound, *self._bindings)):
            if superseded and not self._scope.include_superseded:
                self._superseded.append(rid)
            else:
                self._seen[rid] = id_, created_at

    def _in_scope(self, slots: Slots, measures: Floats) -> Iterator[Candidate]:
        rids = self._state.columns.rids.data[slots].tolist()
        for rid, measure in zip(rids, measures.tolist(), strict=True):
            seen = self._seen[rid]
            if seen is not None:
                yield Candidate(rid, *seen, measure)

    def _learn(self) -> None:
        if self._superseded:
            slots, known = self._state.slots_of(np.array(self._superseded, np.int64))
            self._index.learn(self._state, slots[known])
        memory_index.note_use(self._conn, self._index, self._state)


def _mask(state: State, scope: Scope) -> Mask | None:
    """Return which slots may be in scope, None for all of them."""
    columns, count = state.columns, state.count
    mask = state.alive if scope.include_superseded else state.current
    if scope.types is not None:
        wanted = np.zeros(len(memories.TYPES), np.bool_)
        wanted[[memories.TYPES.index(name) for name in scope.types]] = True
        mask = mask & wanted[columns.types.data[:count]]
    if scope.session_id is not None:
        mask = mask & (columns.sessions.data[:count] == columns.session_codes.find(scope.session_id))
    if scope.source is not None:
        mask = mask & (columns.sources.data[:count] == columns.source_codes.find(scope.source))
    return None if mask.all() else mask
