"""The default way to rank memories: on absolute scales (memoturnd.core.relevance), over the arrays of a state.

What a channel found may be answered, and scores in every channel: a memory that has a word of the query counts with its
embedding too, however far down it stands in the vector channel. What stands around a hit raises it, and is never
answered for that alone.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from memoturnd.core import relevance
from memoturnd.engine.connection import ProfileConnection
from memoturnd.surfaces import memory_index, similar
from memoturnd.surfaces.memory_arrays import Floats, Mask, Slots, State
from memoturnd.surfaces.models import Model

Timed = Callable[[str], AbstractContextManager[object]]
"""Returns what measures the time of a channel while it is entered."""
_NOWHERE: Final = np.empty(0, np.int64)
_UNTIMED: Final = nullcontext()


def untimed(_channel: str) -> AbstractContextManager[object]:
    """Measure nothing."""
    return _UNTIMED


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for. None of `words`, `embedding` and `topic` (rows, best first) leaves a channel out.

    `weights` names every channel; `window` is how many memories the vector channel finds. `first` are rows that
    come before all others.
    """

    words: Sequence[str] | None
    embedding: bytes | None
    model: Model | None
    topic: Sequence[int] | None
    weights: dict[str, float]
    half_life_s: float | None
    min_score: float | None
    first: Sequence[int]
    window: int
    limit: int
    explain: bool
    timed: Timed = untimed


@dataclass(frozen=True, slots=True)
class Hit:
    """A memory in the final order: its row and score, the channels that found it, and how it came to its score."""

    rid: int
    score: float
    channels: list[str]
    explain: dict[str, dict[str, Any]]


class _Keyword:
    """What the words of the query say of each slot."""

    def __init__(self, conn: ProfileConnection, state: State, words: Sequence[str], mask: Mask) -> None:
        terms = dict.fromkeys(
            term for word in words for term in memory_index.words_of(conn, word, query=True)
        )
        postings = [state.postings(conn, term) for term in terms]
        lengths = state.columns.lengths.data[: state.count]
        self.words = relevance.word_scores(
            postings, lengths, state.mean_length, relevance.OF_MEMORIES, state.rows
        )
        self.context = relevance.with_context(self.words, postings, state.conversation())
        self.scores = self.words + self.context
        self.slots = np.flatnonzero((self.words > 0.0) & mask)

    def rank(self, state: State, slot: int) -> int:
        """Return the place of a slot that was found among all that were."""
        rids, own = state.columns.rids.data, self.scores[slot]
        scores = self.scores[self.slots]
        before = (scores > own) | ((scores == own) & (rids[self.slots] > rids[slot]))
        return 1 + int(np.count_nonzero(before))


class _Vector:
    """What the embedding of the query says of each slot, and which are the nearest in scope."""

    def __init__(
        self, conn: ProfileConnection, state: State, model: Model, embedding: bytes, mask: Mask, window: int
    ) -> None:
        found = similar.find(conn, state, model, embedding)
        self._found = found
        self.cosines = np.zeros(state.count)
        self.cosines[found.slots] = found.cosines
        self._places = np.full(state.count, -1, np.int64)
        self._places[found.slots] = np.arange(len(found.slots))
        in_scope = np.flatnonzero(mask[found.slots])
        near = in_scope[similar.best(found.cosines[in_scope], window)]
        self.make_exact(found.slots[near])
        slots = found.slots[near]
        order = np.lexsort((-state.columns.rids.data[slots], -self.cosines[slots]))[:window]
        self.slots = slots[order]
        self.ranks = {slot: rank for rank, slot in enumerate(self.slots.tolist(), 1)}

    def make_exact(self, slots: Slots) -> None:
        """Compute the cosines of slots in float64."""
        places = self._places[slots]
        has_one = places >= 0
        self.cosines[slots[has_one]] = self._found.exact(places[has_one])

    def has(self, slot: int) -> bool:
        """Return whether a slot has a vector."""
        return bool(self._places[slot] >= 0)


def rank(conn: ProfileConnection, state: State, mask: Mask, now_ms: int, wanted: Wanted) -> list[Hit]:
    """Return the best memories of those in the mask, best first; equals by cosine, then the newest first.

    Raises what memory_index.open_vectors does.
    """
    weights, rids = wanted.weights, state.columns.rids.data
    keyword = vector = None
    if wanted.words and weights["keyword"]:
        with wanted.timed("keyword"):
            keyword = _Keyword(conn, state, wanted.words, mask)
    if wanted.embedding is not None and wanted.model is not None and weights["vector"]:
        with wanted.timed("vector"):
            vector = _Vector(conn, state, wanted.model, wanted.embedding, mask, wanted.window)
    topic = _slots(state, wanted.topic or ()) if weights["topic"] else _NOWHERE
    topic = topic[mask[topic]]
    is_found = np.zeros(state.count, np.bool_)
    for slots in (topic, *(channel.slots for channel in (keyword, vector) if channel is not None)):
        is_found[slots] = True
    candidates = np.flatnonzero(is_found)
    fixed = np.zeros(state.count)
    fixed[topic] += weights["topic"]
    if wanted.half_life_s is not None:
        fixed += weights["recency"] * _recency(state, now_ms, wanted.half_life_s)
    if keyword is not None:
        fixed += weights["keyword"] * keyword.scores

    def totals(slots: Slots) -> Floats:
        cosines = 0.0 if vector is None else weights["vector"] * np.maximum(vector.cosines[slots], 0.0)
        return fixed[slots] + cosines

    first = np.zeros(state.count, np.bool_)
    first[_slots(state, wanted.first)] = True
    best = similar.best(totals(candidates), wanted.limit, weights["vector"] * similar.ROUNDING)
    near = candidates[best]
    if wanted.first:
        near = np.union1d(near, candidates[first[candidates]])
    if vector is not None:
        vector.make_exact(near)
    scores = totals(near)
    if wanted.min_score is not None:
        near, scores = near[scores >= wanted.min_score], scores[scores >= wanted.min_score]
    cosines = np.zeros(len(near)) if vector is None else vector.cosines[near]
    created_at = state.columns.created_at.data[near]
    order = np.lexsort((-rids[near], -created_at, -cosines, -scores, ~first[near]))[: wanted.limit]
    ranks = {slot: at for at, slot in enumerate(topic.tolist(), 1)}
    parts = _Parts(state, weights, keyword, vector, ranks, now_ms, wanted.half_life_s)
    return [parts.hit(int(near[at]), float(scores[at]), explain=wanted.explain) for at in order]


def _slots(state: State, rids: Sequence[int]) -> Slots:
    if not rids:
        return _NOWHERE
    slots, known = state.slots_of(np.array(rids, np.int64))
    return slots[known]


def _recency(state: State, now_ms: int, half_life_s: float) -> Floats:
    ages = (now_ms - state.columns.created_at.data[: state.count]).astype(np.float64)
    return relevance.recency(ages, half_life_s)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What the scores were added up from."""

    state: State
    weights: dict[str, float]
    keyword: _Keyword | None
    vector: _Vector | None
    topic: dict[int, int]
    now_ms: int
    half_life_s: float | None

    def hit(self, slot: int, score: float, *, explain: bool) -> Hit:
        """Return a slot as a hit."""
        channels = []
        if slot in self.topic:
            channels.append("topic")
        if self.keyword is not None and self.keyword.words[slot] > 0.0:
            channels.append("keyword")
        if self.vector is not None and slot in self.vector.ranks:
            channels.append("vector")
        parts = self._explained(slot) if explain else {}
        return Hit(int(self.state.columns.rids.data[slot]), score, channels, parts)

    def _explained(self, slot: int) -> dict[str, dict[str, Any]]:
        """Return what each channel adds to a score; `rank` is None where the channel did not find the memory."""
        parts: dict[str, dict[str, Any]] = {}
        if slot in self.topic:
            parts["topic"] = self._part("topic", 1.0, rank=self.topic[slot])
        if self.keyword is not None and self.keyword.scores[slot] > 0.0:
            words, context = float(self.keyword.words[slot]), float(self.keyword.context[slot])
            rank = self.keyword.rank(self.state, slot) if words else None
            parts["keyword"] = self._part("keyword", words + context, rank=rank, words=words, context=context)
        if self.vector is not None and self.vector.has(slot):
            cosine, place = float(self.vector.cosines[slot]), self.vector.ranks.get(slot)
            parts["vector"] = self._part(
                "vector", max(cosine, 0.0), rank=place, distance=1.0 - cosine, cosine=cosine
            )
        if self.half_life_s is not None:
            age_ms = self.now_ms - int(self.state.columns.created_at.data[slot])
            fresh = float(relevance.recency(np.array([age_ms], np.float64), self.half_life_s)[0])
            parts["recency"] = self._part("recency", fresh, age_s=age_ms / 1000)
        return parts

    def _part(self, channel: str, measure: float, **details: float | None) -> dict[str, Any]:
        weight = self.weights[channel]
        return {**details, "weight": weight, "contribution": weight * measure}
