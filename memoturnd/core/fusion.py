"""Weighted reciprocal-rank fusion of the channels of a recall. Pure.

A candidate scores the sum over the channels that found it of `weight / (60 + rank)`, ranks from 1. Equal
scores are ordered newest first, then by id, so that an answer depends on nothing but the state.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

RANK_OFFSET: Final = 60
WEIGHTS: Final = {"topic": 2.0, "keyword": 1.0, "vector": 1.0}
"""Channels in the order in which they are named in answers, with their weights."""


class Candidate(NamedTuple):
    """A memory that a channel found: its row, id, time of creation in unix ms, and the channel's own
    measure (bm25 or distance; None in the topic channel).
    """

    rid: int
    id: str
    created_at: int
    measure: float | None


@dataclass(frozen=True, slots=True)
class Fused:
    """A memory in the final order. `found` maps each channel that found it, in channel order, to its rank
    there and the channel's measure.
    """

    rid: int
    id: str
    created_at: int
    score: float
    found: dict[str, tuple[int, float | None]]


def fuse(channels: Mapping[str, Sequence[Candidate]], *, limit: int) -> list[Fused]:
    """Return the best `limit` candidates; every list in `channels` is best first and without repeats."""
    ids: dict[int, Candidate] = {}
    found: dict[int, dict[str, tuple[int, float | None]]] = {}
    scores: dict[int, float] = {}
    for name, weight in WEIGHTS.items():
        for rank, candidate in enumerate(channels.get(name, ()), 1):
            rid = candidate[0]
            ids.setdefault(rid, candidate)
            found.setdefault(rid, {})[name] = (rank, candidate[3])
            scores[rid] = scores.get(rid, 0.0) + weight / (RANK_OFFSET + rank)
    order = sorted(ids.values(), key=lambda candidate: (-scores[candidate[0]], -candidate[2], candidate[1]))
    return [Fused(rid, id_, created_at, scores[rid], found[rid]) for rid, id_, created_at, _ in order[:limit]]
