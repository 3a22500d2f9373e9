"""The channels of a recall by SQL alone: exact, on any connection, in time that grows with the profile.

Filters are part of each statement, in the channel's own order, so that a channel never runs dry because its
best candidates were filtered away afterwards. Among equals the newest row comes first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from memoturnd.core import text
from memoturnd.core.fusion import Candidate
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.surfaces.models import Model

_TOPIC: Final = """SELECT m.rid, m.id, m.created_at, NULL FROM __memoturn_memories AS m
 WHERE m.topic_key = ? {filters} ORDER BY m.created_at DESC, m.rid DESC LIMIT ?"""
# The cross join keeps the index outermost: what it finds is what has to be looked at.
_KEYWORD: Final = """SELECT m.rid, m.id, m.created_at, f.rank
 FROM __memoturn_memories_fts AS f CROSS JOIN __memoturn_memories AS m ON m.rid = f.rowid
 WHERE f.__memoturn_memories_fts MATCH ? {filters} ORDER BY f.rank, f.rowid DESC LIMIT ?"""
# A null vector has no direction: it is taken to be at right angles to everything.
_VECTOR: Final = """SELECT m.rid, m.id, m.created_at, coalesce(vec_distance_cosine(v.e, ?), 1.0) AS distance
 FROM {table} AS v CROSS JOIN __memoturn_memories AS m ON m.rid = v.rid
 WHERE 1 {filters} ORDER BY distance, m.rid DESC LIMIT ?"""
_COUNT: Final = "SELECT count(*) FROM __memoturn_memories_fts WHERE __memoturn_memories_fts MATCH ?"
_MANY_MEMORIES: Final = 500
_RARE: Final = 3
"""A word is rare where at most one memory of so many has it."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which memories a recall may find. `types` of None means every type, an empty tuple none."""

    types: tuple[str, ...] | None
    session_id: str | None
    source: str | None
    include_superseded: bool

    def conditions(self, now_ms: int) -> tuple[str, tuple[Binding, ...]]:
        """Return the conditions on a memory `m`, from few enough spellings for the statement cache."""
        conditions = ["AND (m.expires_at IS NULL OR m.expires_at > ?)"]
        bindings: list[Binding] = [now_ms]
        if not self.include_superseded:
            conditions.append("AND m.superseded_at IS NULL")
        if self.types is not None:
            conditions.append(f"AND m.type IN ({', '.join('?' * len(self.types))})")
            bindings.extend(self.types)
        if self.session_id is not None:
            conditions.append("AND m.session_id = ?")
            bindings.append(self.session_id)
        if self.source is not None:
            conditions.append("AND m.source = ?")
            bindings.append(self.source)
        return " ".join(conditions), tuple(bindings)


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
        telling = _telling_words(self._conn, words)
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


def _telling_words(conn: ProfileConnection, words: list[str]) -> list[str]:
    """Return the words without those that more than half of the memories have, where the others are rare.

    bm25 gives frequent words the weight 1e-6 whatever they are: beside a rare one they change a score by less
    than 1e-4 of it, so they only matter where rare words do not fill the window. Scoring every memory that has
    one is what a query over many memories would cost.
    """
    if len(words) == 1:
        return words
    total: int = conn.execute("SELECT count(*) FROM __memoturn_memories").get
    if total < _MANY_MEMORIES:
        return words
    counts = {word: conn.execute(_COUNT, (text.match_expression([word]),)).get for word in words}
    telling = [word for word in words if counts[word] <= total // 2]
    return telling if telling and all(_RARE * counts[word] <= total for word in telling) else words
