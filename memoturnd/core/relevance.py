"""How well memories answer a query: words, the conversation around them, direction, topic and age. Pure.

A memory scores the weighted sum of what each channel says of it, on scales that do not depend on what else was
found, so that scores of different queries can be compared and a weak channel cannot outvote a strong one:

    keyword   what share of the query's words it has, by rarity (BM25), with what stands around it
    vector    the cosine between its embedding and the query's, at least 0
    topic     1 where it is of the topic that was asked for
    recency   2^(-age / half-life), where decay is asked for

Ranks are not used: fusion by rank gives the best of a hopeless channel as much as the best of a good one. The
constants were chosen on three conversations of LoCoMo and checked on three others (bench/recall_quality.py;
docs/recall.md has the figures of everything that was tried). BM25 is that of Robertson and Zaragoza, "The
Probabilistic Relevance Framework" (2009), with the idf that Lucene uses, which is never negative: a name that
half of a conversation's turns have still counts a little.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

WEIGHTS: Final = {"topic": 2.0, "keyword": 1.0, "vector": 1.0, "recency": 0.0}
"""Channels in the order in which answers name them, with what each counts unless a request says otherwise."""
RECENCY_WEIGHT: Final = 0.3
"""What recency counts where decay is asked for."""
NEIGHBOURS: Final = (0.35, 0.175)
"""What the words of the memories beside one add to it: of the next in its session each way, and of the one after."""
SESSION: Final = 0.6
"""What the words of its whole session add to it."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """BM25's constants: how soon repeating a word stops to count (k1), how much length counts against it (b)."""

    k1: float
    b: float


OF_MEMORIES: Final = Saturation(k1=0.9, b=0.4)
OF_SESSIONS: Final = Saturation(k1=1.2, b=0.75)


@dataclass(frozen=True, slots=True)
class Postings:
    """Where a word stands: documents by index, ascending, and how often it stands in each."""

    documents: Integers
    frequencies: Floats


def idf(documents: int, documents_with: int) -> float:
    """Return how telling a word is that `documents_with` of `documents` have; above 0."""
    return math.log1p((documents - documents_with + 0.5) / (documents_with + 0.5))


def word_scores(
    words: Sequence[Postings], lengths: Floats, mean_length: float, saturation: Saturation, documents: int
) -> Floats:
    """Return the share of the query's words that each document has, 0 to 1, by rarity.

    `words` are the query's, also those that no document has; `lengths` how many words each document has, of
    which `documents` count (the others are gone, and stand in no postings).
    """
    k1, b = saturation.k1, saturation.b
    scores = np.zeros(len(lengths))
    ideal = 0.0
    for word in words:
        weight = idf(documents, len(word.documents))
        ideal += weight * (k1 + 1.0)
        if len(word.documents):
            damping = k1 * (1.0 - b + b * lengths[word.documents] / mean_length)
            scores[word.documents] += weight * (k1 + 1.0) * word.frequencies / (word.frequencies + damping)
    if ideal > 0.0:
        scores /= ideal
    return scores


def of_sessions(words: Sequence[Postings], sessions: Integers, count: int) -> list[Postings]:
    """Return the postings over `count` sessions as documents. `sessions` is that of each document, -1 for none."""
    gathered = []
    for word in words:
        within = sessions[word.documents]
        has_one = within >= 0
        sums = np.bincount(within[has_one], weights=word.frequencies[has_one], minlength=count)
        found = np.flatnonzero(sums)
        gathered.append(Postings(found, sums[found].astype(np.float64)))
    return gathered


@dataclass(frozen=True, slots=True)
class Conversation:
    """Which documents stand beside each other.

    `order` holds the documents that have a session, session by session, each in the order in which they came;
    `sessions` is the session of every document, -1 for none; `lengths` how many words each session has.
    """

    order: Integers
    sessions: Integers
    lengths: Floats


def conversation_of(
    sessions: Integers, lengths: Floats, alive: npt.NDArray[np.bool_], arrived: Integers | None = None
) -> Conversation:
    """Return which documents stand beside each other, of those that are alive.

    Documents come in the order of the numbers `arrived`, without those in the order of their indexes.
    """
    within = np.where(alive, sessions, -1)
    talking = np.flatnonzero(within >= 0)
    if arrived is not None:
        talking = talking[np.argsort(arrived[talking], kind="stable")]
    order = talking[np.argsort(within[talking], kind="stable")]
    count = int(within.max(initial=-1)) + 1
    summed = np.bincount(within[order], weights=lengths[order], minlength=count).astype(np.float64)
    return Conversation(order, within, summed)


def with_context(scores: Floats, words: Sequence[Postings], conversation: Conversation) -> Floats:
    """Return what the words beside each document and in its session add to its own `scores`."""
    added = np.zeros(len(scores))
    order = conversation.order
    if not len(order):
        return added
    own, session = scores[order], conversation.sessions[order]
    beside = np.zeros(len(order))
    for distance, weight in enumerate(NEIGHBOURS, 1):
        same = session[distance:] == session[:-distance]
        beside[distance:] += weight * np.where(same, own[:-distance], 0.0)
        beside[:-distance] += weight * np.where(same, own[distance:], 0.0)
    lengths = conversation.lengths
    count = int(np.count_nonzero(lengths)) or 1
    of_session = word_scores(
        of_sessions(words, conversation.sessions, len(lengths)),
        lengths,
        float(lengths.sum()) / count,
        OF_SESSIONS,
        count,
    )
    added[order] = beside + SESSION * of_session[session]
    return added


def recency(age_ms: Floats, half_life_s: float) -> Floats:
    """Return 1 for what is new, half of it for each half-life that has passed; never above 1."""
    with np.errstate(over="ignore"):  # so many half-lives that nothing is left
        return np.exp2(-np.maximum(age_ms, 0.0) / (1000.0 * half_life_s))
