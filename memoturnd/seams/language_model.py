"""The seam to a language model: one prompt in, one JSON document out, whole or as it is written.

A model is asked before anything is written and never inside a commit, because it is slow, may fail, and may
answer anything: whoever asks holds the answer against what it wants.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked. `system` is ours alone; `user` carries the data, fenced.

    `schema` is the JSON schema of the answer, under a name; `repair` is an answer that did not fit with what
    was wrong about it, for a second try.
    """

    system: str
    user: str
    name: str
    schema: Mapping[str, Any]
    max_tokens: int
    repair: tuple[str, str] | None = None


class ModelStream(Protocol):
    """An answer as it is written. `close` may be called at any time, and twice; it ends the request."""

    def pieces(self) -> AsyncGenerator[str, None]:
        """Yield the text of the answer, piece by piece. Raises UpstreamError, also when it breaks off."""
        ...

    def close(self) -> None:
        """Give up the request."""
        ...


class LanguageModel(Protocol):
    """A model at some endpoint. Both calls raise UpstreamError, and OverloadedError when too many wait."""

    async def complete(self, prompt: Prompt) -> str:
        """Return the whole answer, which should be JSON of the prompt's schema."""
        ...

    async def stream(self, prompt: Prompt) -> ModelStream:
        """Begin an answer; return once the endpoint has accepted the request. The caller closes it."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class LanguageModels:
    """The models of a node, None where a feature is off. `timeout_s` is the longest wait of one request for them."""

    extractor: LanguageModel | None = None
    assistant: LanguageModel | None = None
    timeout_s: float = 120.0

    async def close(self) -> None:
        """Close both."""
        for model in {id(model): model for model in (self.extractor, self.assistant) if model}.values():
            await model.close()
