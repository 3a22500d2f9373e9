"""What is stored and asked for: the texts and embeddings of the original harness, bit for bit. Pure."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

WORDS: Final = (
    "refund",
    "seat",
    "deploy",
    "invoice",
    "theme",
    "flight",
    "ticket",
    "billing",
    "release",
    "policy",
)
CREATE_TABLE: Final = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)"
INSERT: Final = "INSERT INTO t (v) VALUES (?)"
COUNT: Final = "SELECT count(*) FROM t"
_SEED_FACTOR: Final = np.uint64(2654435761)
_FACTOR: Final = np.uint64(6364136223846793005)
_STEP: Final = np.uint64(1442695040888963407)
_MODULUS: Final = np.float32(4294967296.0)


def embeddings(seeds: range, dimensions: int) -> npt.NDArray[np.float32]:
    """Return `emb(seed)` for each seed as float32 of shape (seeds, dimensions), every value in [-0.5, 0).

    A linear congruential generator modulo 2^64, of which the upper 31 bits become one 32-bit float, computed
    in 32-bit floats throughout.
    """
    state = np.arange(seeds.start, seeds.stop, seeds.step, dtype=np.uint64) * _SEED_FACTOR + np.uint64(1)
    out = np.empty((len(seeds), dimensions), dtype=np.float32)
    for component in range(dimensions):
        state = state * _FACTOR + _STEP
        out[:, component] = (state >> np.uint64(33)).astype(np.float32) / _MODULUS - np.float32(0.5)
    return out


def document(i: int) -> dict[str, Any]:
    """Return the `i`th document that is inserted."""
    return {"kind": "fact", "n": i, "text": "bench"}


def event(i: int, embedding: list[float] | None) -> dict[str, Any]:
    """Return the `i`th memory that a profile is seeded with."""
    item: dict[str, Any] = {
        "type": "event",
        "summary": f"{WORDS[i % 10]} update number {i}",
        "content": {"n": i},
        "keywords": f"{WORDS[i % 10]} {WORDS[i // 10 % 10]}",
    }
    return item if embedding is None else {**item, "embedding": embedding}


def fact(i: int, embedding: list[float]) -> dict[str, Any]:
    """Return the `i`th fact to ingest: the first 50 are new topics, the later ones supersede."""
    return {
        "type": "fact",
        "topic_key": f"user.topic-{i % 50}",
        "summary": f"{WORDS[i % 10]} preference v{i}",
        "content": {"v": i},
        "keywords": "preference",
        "embedding": embedding,
    }


def query(i: int, embedding: list[float]) -> dict[str, Any]:
    """Return the `i`th recall."""
    return {
        "query": f"{WORDS[i % 10]} policy update",
        "embedding": embedding,
        "topic_key": f"user.topic-{i % 50}",
        "k": 8,
    }


def event_batches(count: int, dimensions: int, *, size: int = 100) -> list[dict[str, Any]]:
    """Return ingest bodies of `size` seed events each, `count` in all."""
    vectors = embeddings(range(count), dimensions).tolist()
    return [
        {"memories": [event(i, vectors[i]) for i in range(start, min(start + size, count))]}
        for start in range(0, count, size)
    ]


def facts(count: int, dimensions: int) -> list[dict[str, Any]]:
    """Return one-item ingest bodies."""
    vectors = embeddings(range(10_000, 10_000 + count), dimensions).tolist()
    return [{"memories": [fact(i, vectors[i])]} for i in range(count)]


def queries(count: int, dimensions: int) -> list[dict[str, Any]]:
    """Return recall bodies."""
    vectors = embeddings(range(3, 3 + 7 * count, 7), dimensions).tolist()
    return [query(i, vectors[i]) for i in range(count)]
