"""The node's embedder as surfaces use it: an answer in bounded time, whatever the embedder behind it does.

A text without a vector is None, never an exception: recall and ingest go on without it, and say so. In front of
the embedder stand a cache, batches of bounded size, few calls at a time, tries again with jitter, and a circuit
breaker, so that a dead endpoint does not add its timeout to every request. Vectors leave here as little-endian
float32 of unit length, all of one dimension.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import numpy as np
import structlog

from memoturnd.embedders.breaker import Breaker
from memoturnd.embedders.cache import CACHE_BYTES, VectorCache, key_of
from memoturnd.metrics import Metrics
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.embedder import (
    Embedder,
    EmbedderError,
    EmbedderMisconfiguredError,
    EmbedderRefusedError,
    Kind,
    Matrix,
    Vectors,
)

TEXT_LENGTH_LIMIT: Final = 16_000
"""Characters of a text that are embedded; the rest is left away. Models take less or little more."""
BATCH_CHARACTERS: Final = 128_000
"""Characters of one call, as long as a text alone has fewer."""
QUERY_TIMEOUT_S: Final = 3.0
"""Longest that a recall waits for the vector of its query."""
TRIES: Final = 3
PAUSE_S: Final = 0.2
"""Pause before the first further try; it doubles, and chance takes up to half of it away."""
WAITING_LIMIT: Final = 256
"""Calls of a kind that wait for their turn; more go without vectors."""
SPLITS_LIMIT: Final = 12
"""Calls that look for the texts of a batch which the embedder refuses."""
_log = structlog.get_logger(__name__)


class EmbedderRestingError(EmbedderError):
    """The embedder is left alone just now, or its time is up: no call was made."""


class NodeEmbedder:
    """Implements memoturnd.seams.embedder.Embeddings.

    `timeout_s` is for one call, `write_budget_s` for all texts of a request that stores them, `batch` the texts of
    one call and `concurrency` the calls of a kind at once. The embedder stays the caller's to start and to close.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        clock: Clock,
        randomness: Randomness,
        metrics: Metrics,
        timeout_s: float,
        write_budget_s: float,
        batch: int,
        concurrency: int,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._embedder = embedder
        self._clock = clock
        self._randomness = randomness
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._write_budget_s = write_budget_s
        self._batch = batch
        self._dimensions = embedder.dimensions
        self._breaker = Breaker()
        self._cache = VectorCache(cache_bytes)
        self._gates = {kind: asyncio.Semaphore(concurrency) for kind in Kind}
        self._waiting = dict.fromkeys(Kind, 0)
        metrics.embed_cache_limit_bytes.set(cache_bytes)
        metrics.before_scrape(self._measure)

    @property
    def model(self) -> str:
        """Name of the model, as profiles record it."""
        return self._embedder.model

    @property
    def batch(self) -> int:
        """How many texts go into one call."""
        return self._batch

    @property
    def resting_s(self) -> float:
        """Seconds until the embedder may be tried again, 0 where it may now."""
        return max(0.0, self._breaker.closed_again_s - self._clock.monotonic_s())

    async def query(self, text: str) -> bytes | None:
        """Return the vector of what is searched for, None where it cannot be had within QUERY_TIMEOUT_S."""
        budget_s = min(QUERY_TIMEOUT_S, self._timeout_s)
        return (await self.embed([text], kind=Kind.QUERY, budget_s=budget_s))[0]

    async def documents(self, texts: Sequence[str]) -> Vectors:
        """Return a vector per text that is stored, None for those that cannot be had in time."""
        return await self.embed(texts, kind=Kind.DOCUMENT, budget_s=self._write_budget_s)

    async def embed(self, texts: Sequence[str], *, kind: Kind, budget_s: float) -> Vectors:
        """Return a vector per text, None for those that could not be embedded within `budget_s` seconds.

        A blank text has none.
        """
        texts = [text[:TEXT_LENGTH_LIMIT] for text in texts]
        keys = [key_of(text, kind) for text in texts]
        found: dict[bytes, bytes | None] = {}
        missing: dict[bytes, str] = {}
        for key, text in zip(keys, texts, strict=True):
            if text.strip() and key not in found and key not in missing:
                vector = self._cache.get(key)
                if vector is None:
                    missing[key] = text
                else:
                    found[key] = vector
        self._metrics.embed_texts["cached"].inc(len(found))
        if missing:
            vectors = await self._embed_all(list(missing.values()), kind, budget_s)
            found.update(zip(missing, vectors, strict=True))
        for key in missing:
            vector = found.get(key)
            if vector is not None:
                self._cache.put(key, vector)
        return [found.get(key) for key in keys]

    async def attempt(self, texts: Sequence[str]) -> Vectors:
        """Return a vector per stored text, None for those that are blank or refused; nothing is kept.

        For work in the background, which would rather wait than go without. Raises EmbedderError.
        """
        texts = [text[:TEXT_LENGTH_LIMIT] for text in texts]
        vectors: Vectors = [None] * len(texts)
        asked = [at for at, text in enumerate(texts) if text.strip()]
        done = 0
        for batch in self._batches([texts[at] for at in asked]):
            async with self._gates[Kind.DOCUMENT]:
                deadline_s = self._clock.monotonic_s() + SPLITS_LIMIT * self._timeout_s
                made = await self._split(batch, Kind.DOCUMENT, deadline_s)
            for vector in made:
                vectors[asked[done]] = vector
                done += 1
        refused = sum(vectors[at] is None for at in asked)
        self._metrics.embed_texts["embedded"].inc(len(asked) - refused)
        self._metrics.embed_texts["failed"].inc(refused)
        return vectors

    async def _embed_all(self, texts: list[str], kind: Kind, budget_s: float) -> Vectors:
        batches = self._batches(texts)
        deadline_s = self._clock.monotonic_s() + budget_s
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._in_turn(batch, kind, deadline_s)) for batch in batches]
        vectors = [vector for task in tasks for vector in task.result()]
        missed = vectors.count(None)
        self._metrics.embed_texts["embedded"].inc(len(vectors) - missed)
        self._metrics.embed_texts["failed"].inc(missed)
        return vectors

    def _batches(self, texts: list[str]) -> list[list[str]]:
        batches: list[list[str]] = []
        length = 0
        for text in texts:
            if not batches or len(batches[-1]) == self._batch or length + len(text) > BATCH_CHARACTERS:
                batches.append([])
                length = 0
            batches[-1].append(text)
            length += len(text)
        return batches

    async def _in_turn(self, texts: list[str], kind: Kind, deadline_s: float) -> Vectors:
        """Embed one batch when it is its turn."""
        gate = self._gates[kind]
        if gate.locked() and self._waiting[kind] >= WAITING_LIMIT:
            self._metrics.embed_calls["shed"].inc()
            return [None] * len(texts)
        self._waiting[kind] += 1
        waits = True
        try:
            async with asyncio.timeout(self._left_s(deadline_s)):
                await gate.acquire()
        except TimeoutError:
            self._metrics.embed_calls["shed"].inc()
            return [None] * len(texts)
        else:
            self._waiting[kind] -= 1
            waits = False
            try:
                return await self._persist(texts, kind, deadline_s)
            finally:
                gate.release()
        finally:
            if waits:
                self._waiting[kind] -= 1

    async def _persist(self, texts: list[str], kind: Kind, deadline_s: float) -> Vectors:
        """Try a few times, as long as there is time and the embedder is not left alone."""
        pause_s = PAUSE_S
        for attempt in range(TRIES):
            try:
                return await self._split(texts, kind, deadline_s)
            except (EmbedderMisconfiguredError, EmbedderRestingError):
                break
            except EmbedderError as error:
                pause_s = max(pause_s, error.retry_after_s)
            pause_s *= 1 - int(self._randomness.hex(2), 16) / 2**17
            if attempt + 1 == TRIES or self._left_s(deadline_s) <= pause_s or self._breaker.is_open:
                break
            await self._clock.sleep(pause_s)
            pause_s *= 2
        return [None] * len(texts)

    async def _split(self, texts: list[str], kind: Kind, deadline_s: float) -> Vectors:
        """Embed a batch; one that is refused is halved, until the texts that the embedder does not take stand alone."""
        vectors: Vectors = [None] * len(texts)
        parts = [(0, len(texts))]
        for _ in range(SPLITS_LIMIT):
            if not parts:
                break
            start, end = parts.pop()
            try:
                vectors[start:end] = await self._call(texts[start:end], kind, deadline_s)
            except EmbedderRefusedError:
                if end - start > 1:
                    middle = (start + end) // 2
                    parts += [(middle, end), (start, middle)]
        return vectors

    async def _call(self, texts: list[str], kind: Kind, deadline_s: float) -> list[bytes]:
        """Make one call. Raises EmbedderError; what that means for later calls is noted."""
        breaker = self._breaker
        left_s = min(self._timeout_s, self._left_s(deadline_s))
        if left_s <= 0 or not breaker.take(self._clock.monotonic_s()):
            self._metrics.embed_calls["shed"].inc()
            raise EmbedderRestingError("the embedder is left alone for a while, or the time is up")
        started_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(left_s):
                matrix = await self._embedder.embed(texts, kind=kind)
            vectors = self._checked(matrix, len(texts))
        except EmbedderRefusedError as error:
            self._answered()
            self._metrics.embed_calls["refused"].inc()
            _log.warning("the embedder refuses texts", model=self.model, texts=len(texts), error=str(error))
            raise
        except EmbedderError as error:
            self._failed(error)
            raise
        except TimeoutError as error:
            failure = EmbedderError(f"the embedder did not answer within {left_s:.1f} s")
            self._failed(failure)
            raise failure from error
        except BaseException:
            breaker.cancelled()
            raise
        self._metrics.embed_seconds.observe(self._clock.monotonic_s() - started_s)
        self._metrics.embed_calls["ok"].inc()
        self._answered()
        return vectors

    def _checked(self, matrix: Matrix, count: int) -> list[bytes]:
        """Return the rows at unit length. Raises EmbedderError when they are no vectors of this model."""
        wanted = self._dimensions
        if matrix.ndim != 2 or matrix.shape[0] != count or matrix.shape[1] == 0:  # noqa: PLR2004 - rows, columns
            raise EmbedderError(f"the embedder made an array {matrix.shape} of {count} texts")
        if wanted is not None and matrix.shape[1] != wanted:
            raise EmbedderMisconfiguredError(
                f"the embedder made {matrix.shape[1]} dimensions, not {wanted}: check MEMOTURN_EMBED_MODEL and "
                "MEMOTURN_EMBED_DIMENSIONS, and that all of its servers run the same model"
            )
        with np.errstate(invalid="ignore"):
            exact = matrix.astype(np.float64)
        largest = np.abs(exact).max(axis=1, keepdims=True)
        if not np.isfinite(largest).all() or not largest.all():
            raise EmbedderError("the embedder made vectors without a direction, or of what is no number")
        exact /= largest
        exact /= np.sqrt(np.einsum("ij,ij->i", exact, exact))[:, None]
        self._dimensions = matrix.shape[1]
        return [row.tobytes() for row in exact.astype("<f4")]

    def _answered(self) -> None:
        if self._breaker.succeeded():
            _log.info("the embedder answers again", model=self.model)

    def _failed(self, error: EmbedderError) -> None:
        """Note a failure; only the beginning of an outage is logged as a warning, once."""
        self._metrics.embed_calls["failed"].inc()
        first = self._breaker.failures == 0
        began = self._breaker.failed(self._clock.monotonic_s(), retry_after_s=error.retry_after_s)
        if first:
            _log.warning(
                "the embedder failed; memories stay without vectors, and recall is by keyword and topic meanwhile",
                model=self.model,
                error=str(error),
            )
        elif began:
            _log.warning("the embedder is left alone for a while", model=self.model, error=str(error))

    def _left_s(self, deadline_s: float) -> float:
        return deadline_s - self._clock.monotonic_s()

    def _measure(self) -> None:
        self._metrics.embed_cache_bytes.set(self._cache.size_bytes)
        self._metrics.embed_outage.set(int(self._breaker.is_open))
        self._metrics.embed_waiting.set(sum(self._waiting.values()))
