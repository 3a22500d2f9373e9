"""The channels of a recall whose ranks are fused, as the reference has them: topic, keyword by bm25, vector by cosine.

From the arrays where they are kept, else by SQL alone, in time that grows with the profile: filters are then part of
each statement, in the channel's own order, so that a channel never runs dry because its best candidates were
filtered away afterwards. Among equals the newest row comes first.
"""

from collections.abc import Sequence
from typing import Any, Final

import apsw
import numpy as np

from memoturnd.core import bm25, text
from memoturnd.core.fusion import Candidate
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.surfaces import memory_index, similar
from memoturnd.surfaces.memory_arrays import Floats, Mask, Slots, State
from memoturnd.surfaces.models import Model
from memoturnd.surfaces.scope import Scope
from memoturnd.surfaces.telling import telling_words

_TOPIC: Final = """SELECT m.rid, m.id, m.created_at, NULL FROM __memoturn_memories AS m
 WHERE m.topic_key = ? {filters} ORDER BY m.created_at DESC, m.rid DESC LIMIT ?"""
# The cross join keeps the index outermost: what it finds is what has to be looked at.
_KEYWORD: Final = """SELECT m.rid, m.id, m.created_at, f.rank
 FROM __memoturn_memories_fts AS f CROSS JOIN __memoturn_memories AS m ON m.rid = f.rowid
 WHERE f.__memoturn_memories_fts MATCH ? {filters} ORDER BY f.rank, f.rowid DESC LIMIT ?"""
_VECTOR: Final = """SELECT m.rid, m.id, m.created_at, coalesce(vec_distance_cosine(v.e, ?), 1.0) AS distance
 FROM {table} AS v CROSS JOIN __memoturn_memories AS m ON m.rid = v.rid
 WHERE 1 {filters} ORDER BY distance, m.rid DESC LIMIT ?"""
_IDS: Final = (
    """SELECT m.rid, m.id FROM carray(?) AS c CROSS JOIN __memoturn_memories AS m ON m.rid = c.value"""
)


class SqlChannels:
    """The channels of one recall: each finds up to `window` candidates of the scope, best first."""

    def __init__(self, conn: ProfileConnection, scope: Scope, now_ms: int, window: int) -> None:
        self._conn = conn
        self._filters, self._bindings = scope.conditions(now_ms)
        self._window = window

    def topic(self, topic_key: str) -> list[Candidate]:
        """Return the memories of a topic, the newest first."""
        return self._rows(_TOPIC, topic_key)

    def keyword(self, words: Sequence[str]) -> list[Candidate]:
        """Return memories that have any of the words, by bm25."""
        words = list(words)
        telling = telling_words(self._conn, "__memoturn_memories", words)
        found = self._rows(_KEYWORD, text.match_expression(telling))
        if len(telling) < len(words) and len(found) < self._window:
            found = self._rows(_KEYWORD, text.match_expression(words))
        return found

    def vector(self, model: Model, embedding: bytes) -> list[Candidate]:
        """Return the memories whose vectors are nearest by cosine."""
        return self._rows(_VECTOR.replace("{table}", model.table), embedding)

    def _rows(self, statement: str, wanted: Binding) -> list[Candidate]:
        rows = self._conn.execute(
            statement.format(filters=self._filters), (wanted, *self._bindings, self._window)
        )
        return [Candidate(*row) for row in rows]


class ArrayChannels(SqlChannels):
    """The same over arrays. What they cannot tell, which is where the words of a phrase stand, SQL does."""

    def __init__(
        self, conn: ProfileConnection, scope: Scope, now_ms: int, window: int, *, state: State
    ) -> None:
        super().__init__(conn, scope, now_ms, window)
        self._state = state
        self._mask: Mask = scope.mask(state, now_ms)

    def keyword(self, words: Sequence[str]) -> list[Candidate]:
        """Return memories that have any of the words, by bm25."""
        conn, state = self._conn, self._state
        phrases = [memory_index.words_of(conn, word, query=True) for word in words]
        if any(len(phrase) > 1 for phrase in phrases):
            return super().keyword(words)
        scores = np.zeros(state.count)
        for word in (word for phrase in phrases for word in phrase):
            found = state.postings(conn, word)
            lengths = state.columns.lengths.data[found.documents]
            gains = bm25.saturated(found.frequencies, lengths, state.mean_length)
            scores[found.documents] += bm25.idf(state.rows, len(found.documents)) * gains
        slots = np.flatnonzero((scores > 0.0) & self._mask)
        return self._candidates(slots, -scores[slots])

    def vector(self, model: Model, embedding: bytes) -> list[Candidate]:
        """Return the memories whose vectors are nearest by cosine."""
        found = similar.find(self._conn, self._state, model, embedding)
        at = np.flatnonzero(self._mask[found.slots])
        at = at[similar.best(found.cosines[at], self._window)]
        return self._candidates(found.slots[at], 1.0 - found.exact(at))

    def _candidates(self, slots: Slots, measures: Floats) -> list[Candidate]:
        columns = self._state.columns
        order = np.lexsort((-columns.rids.data[slots], measures))[: self._window]
        rids = columns.rids.data[slots[order]]
        if not len(rids):
            return []
        ids: Any = self._conn.execute(_IDS, (apsw.carray(rids),)).fetchall()
        created_at, distances = columns.created_at.data[slots[order]].tolist(), measures[order].tolist()
        return [
            Candidate(rid, id_, created, measure)
            for (rid, id_), created, measure in zip(ids, created_at, distances, strict=True)
        ]
