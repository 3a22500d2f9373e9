"""The embedder seam: turns texts into vectors of one model.

An implementation says what went wrong and does not try again; when to try again, what to keep and when to give up
is memoturnd.embedders.guard's part, which stands in front of each.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from memoturnd.errors import MemoturnError

Matrix = npt.NDArray[np.float32]
Vectors = list[bytes | None]
"""Little-endian float32 of unit length per text, None for a text without a vector."""


class Kind(Enum):
    """What a text is for: some models embed what is searched and what is searched for differently."""

    DOCUMENT = "document"
    QUERY = "query"


class EmbedderError(MemoturnError):
    """Texts could not be embedded just now; the same call may succeed after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class EmbedderRefusedError(EmbedderError):
    """The embedder does not take these texts; others it may take."""


class EmbedderMisconfiguredError(EmbedderError):
    """The embedder answers, but not as it is set up: trying again cannot help until its settings are right."""


class Embedder(Protocol):
    """Embeds texts with one model."""

    @property
    def model(self) -> str:
        """Name of the model, as profiles record it: the same name always means comparable vectors."""
        ...

    @property
    def dimensions(self) -> int | None:
        """Numbers per vector, None where only an answer tells."""
        ...

    async def start(self) -> None:
        """Get ready. Raises ConfigurationError for what can never work."""
        ...

    async def embed(self, texts: Sequence[str], *, kind: Kind) -> Matrix:
        """Return one row per text. May be cancelled at any time. Raises EmbedderError."""
        ...

    async def close(self) -> None:
        """Release connections and processes."""
        ...


class Embeddings(Protocol):
    """The node's embedder as surfaces use it: it never fails, but may have no vector for a text."""

    @property
    def model(self) -> str:
        """Name of the model, as profiles record it."""
        ...

    async def query(self, text: str) -> bytes | None:
        """Return the vector of what is searched for, None where it cannot be had in time."""
        ...

    async def documents(self, texts: Sequence[str]) -> Vectors:
        """Return a vector per text that is stored, None for those that cannot be had in time."""
        ...
