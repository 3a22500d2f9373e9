"""What leaves the node for a provider of models, noted at the place where it does.

Whoever lets something leave is found by a context variable: the pipeline puts its request there, a background job itself. So
no surface has to hand it on, and no call of a model can be forgotten.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final
from urllib.parse import urlsplit

import msgspec

from memoturnd.core.audit import Egress, Outcome
from memoturnd.errors import OverloadedError
from memoturnd.seams.clock import Clock
from memoturnd.seams.embedder import Embedder, Kind, Matrix
from memoturnd.seams.language_model import LanguageModel, ModelStream, Prompt

Note = Callable[[str, Egress, Outcome], None]
"""Takes the action (`ai.embed` and so on), what left, and how it ended."""

_noting: Final[ContextVar[Note | None]] = ContextVar("egress", default=None)


@contextmanager
def noted_by(note: Note | None) -> Iterator[None]:
    """Let `note` be told of what leaves within."""
    token = _noting.set(note)
    try:
        yield
    finally:
        _noting.reset(token)


def host_of(base_url: str | None) -> str | None:
    """Return the host of an endpoint, None for a provider's own."""
    return None if base_url is None else urlsplit(base_url).hostname


class AuditedEmbedder:
    """An embedder outside of this machine. Implements memoturnd.seams.embedder.Embedder."""

    def __init__(
        self, embedder: Embedder, clock: Clock, *, provider: str, host: str | None, self_hosted: bool
    ) -> None:
        self._embedder = embedder
        self._clock = clock
        self._provider = provider
        self._host = host
        self._self_hosted = self_hosted

    @property
    def model(self) -> str:
        """Name of the model, as profiles record it."""
        return self._embedder.model

    @property
    def dimensions(self) -> int | None:
        """Numbers per vector, None where only an answer tells."""
        return self._embedder.dimensions

    async def start(self) -> None:
        """Get ready."""
        await self._embedder.start()

    async def close(self) -> None:
        """Release connections."""
        await self._embedder.close()

    async def embed(self, texts: Sequence[str], *, kind: Kind) -> Matrix:
        """Return one row per text. Raises EmbedderError."""
        note = _noting.get()
        if note is None:
            return await self._embedder.embed(texts, kind=kind)
        started_s = self._clock.monotonic_s()
        rows: int | None = None
        try:
            matrix = await self._embedder.embed(texts, kind=kind)
            rows = len(matrix)
            return matrix
        finally:
            left = Egress(
                provider=self._provider,
                model=self._embedder.model,
                endpoint_host=self._host,
                self_hosted=self._self_hosted,
                input_items=len(texts),
                input_bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
                output_items=rows,
                duration_ms=round(1000 * (self._clock.monotonic_s() - started_s)),
            )
            note("ai.embed", left, "error" if rows is None else "ok")


class AuditedModel:
    """A language model. Implements memoturnd.seams.language_model.LanguageModel."""

    def __init__(
        self,
        model: LanguageModel,
        clock: Clock,
        *,
        action: str,
        provider: str,
        name: str,
        host: str | None,
        self_hosted: bool,
    ) -> None:
        self._model = model
        self._clock = clock
        self._action = action
        self._left = Egress(
            provider=provider,
            model=name,
            endpoint_host=host,
            self_hosted=self_hosted,
            input_items=1,
            input_bytes=0,
        )

    async def complete(self, prompt: Prompt) -> str:
        """Return the whole answer. Raises UpstreamError, OverloadedError."""
        started_s = self._clock.monotonic_s()
        try:
            answer = await self._model.complete(prompt)
        except OverloadedError:
            raise  # nothing has left
        except BaseException:
            self._tell(prompt, started_s, None)  # it failed, or was given up by its deadline or its client
            raise
        self._tell(prompt, started_s, 1)
        return answer

    async def stream(self, prompt: Prompt) -> ModelStream:
        """Begin an answer. Raises UpstreamError, OverloadedError."""
        started_s = self._clock.monotonic_s()
        try:
            answer = await self._model.stream(prompt)
        except OverloadedError:
            raise
        except BaseException:
            self._tell(prompt, started_s, None)
            raise
        self._tell(prompt, started_s, 1)
        return answer

    async def close(self) -> None:
        """Close the connections."""
        await self._model.close()

    def _tell(self, prompt: Prompt, started_s: float, items: int | None) -> None:
        note = _noting.get()
        if note is None:
            return
        texts = (prompt.system, prompt.user, *(prompt.repair or ()))
        left = msgspec.structs.replace(
            self._left,
            input_bytes=sum(len(text.encode("utf-8", "surrogatepass")) for text in texts),
            output_items=items,
            duration_ms=round(1000 * (self._clock.monotonic_s() - started_s)),
        )
        note(self._action, left, "error" if items is None else "ok")
