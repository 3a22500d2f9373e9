"""Scores of memories: against a plain model, and what they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from memoturnd.core import relevance
from memoturnd.core.relevance import OF_MEMORIES, OF_SESSIONS, Postings, conversation_of


def postings(texts, word):
    at = [(i, text.count(word)) for i, text in enumerate(texts) if word in text]
    return Postings(np.array([i for i, _ in at], np.int64), np.array([n for _, n in at], np.float64))


def plain(texts, query, saturation, count):
    """BM25 as it is written down, a document at a time."""
    mean = sum(map(len, texts)) / count
    telling = {
        w: math.log(1 + (count - n + 0.5) / (n + 0.5)) for w in query for n in [sum(w in t for t in texts)]
    }
    ideal = sum(telling[w] * (saturation.k1 + 1) for w in query)
    scores = []
    for text in texts:
        score = 0.0
        for w in query:
            tf = text.count(w)
            norm = saturation.k1 * (1 - saturation.b + saturation.b * len(text) / mean) if mean else 1
            score += telling[w] * tf * (saturation.k1 + 1) / (tf + norm) if tf else 0.0
        scores.append(score / ideal if ideal else 0.0)
    return scores


def plain_context(texts, sessions, query, scores):
    names = sorted({s for s in sessions if s >= 0})
    joined = {s: [w for t, of in zip(texts, sessions, strict=True) if of == s for w in t] for s in names}
    counting = [s for s in names if joined[s]]
    of_session = dict(
        zip(names, plain([joined[s] for s in names], query, OF_SESSIONS, len(counting) or 1), strict=True)
    )
    added = []
    for i, s in enumerate(sessions):
        if s < 0:
            added.append(0.0)
            continue
        mates = [j for j, of in enumerate(sessions) if of == s]
        at = mates.index(i)
        total = relevance.SESSION * of_session[s]
        for distance, weight in enumerate(relevance.NEIGHBOURS, 1):
            total += weight * sum(
                scores[mates[n]] for n in (at - distance, at + distance) if 0 <= n < len(mates)
            )
        added.append(total)
    return added


WORDS = st.sampled_from("abcdef")
TEXTS = st.lists(st.lists(WORDS, max_size=6), min_size=1, max_size=12)


@given(
    texts=TEXTS,
    query=st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=4, unique=True),
    data=st.data(),
)
def test_scores_and_context_are_those_of_the_formula(texts, query, data):
    sessions = data.draw(
        st.lists(st.integers(-1, 3), min_size=len(texts), max_size=len(texts)).map(
            lambda s: np.array(s, np.int64)
        )
    )
    lengths = np.array([len(t) for t in texts], np.float64)
    words = [postings(texts, w) for w in query]
    mean = float(lengths.mean()) or 1.0

    scores = relevance.word_scores(words, lengths, mean, OF_MEMORIES, len(texts))
    talk = conversation_of(sessions, lengths, np.ones(len(texts), np.bool_))
    added = relevance.with_context(scores, words, talk)

    expected = plain(texts, query, OF_MEMORIES, len(texts))
    assert scores == pytest.approx(expected)
    assert added == pytest.approx(plain_context(texts, sessions.tolist(), query, expected))
    assert (scores >= 0).all()
    assert (scores < 1).all()


def test_a_word_that_everybody_has_still_counts_and_a_rare_one_counts_more():
    assert relevance.idf(100, 100) > 0
    assert relevance.idf(100, 1) > relevance.idf(100, 50) > relevance.idf(100, 100)


def test_words_that_nobody_has_lower_the_score():
    texts = [["a", "b"], ["c"]]
    known = [postings(texts, "a")]
    unknown = [*known, postings(texts, "z")]
    lengths = np.array([2.0, 1.0])

    assert (
        0
        < relevance.word_scores(unknown, lengths, 1.5, OF_MEMORIES, 2)[0]
        < relevance.word_scores(known, lengths, 1.5, OF_MEMORIES, 2)[0]
    )


def test_what_is_gone_is_no_neighbour():
    sessions = np.array([0, 0, 0], np.int64)
    scores = np.array([0.8, 0.0, 0.0])
    alive = np.array([True, False, True])

    talk = conversation_of(sessions, np.ones(3), alive)

    assert relevance.with_context(scores, [], talk) == pytest.approx(
        [0.0, 0.0, 0.8 * relevance.NEIGHBOURS[0]]
    )


def test_recency_halves_with_each_half_life_and_never_exceeds_one():
    ages = np.array([-5.0, 0.0, 60_000.0, 120_000.0])

    assert relevance.recency(ages, 60.0) == pytest.approx([1.0, 1.0, 0.5, 0.25])
    with np.errstate(over="raise"):
        assert relevance.recency(ages, 1e-320).tolist() == [1.0, 1.0, 0.0, 0.0]
