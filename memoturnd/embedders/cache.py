"""Vectors of texts that were embedded lately, at most so many bytes of them."""

import hashlib
from collections import OrderedDict
from typing import Final

from memoturnd.seams.embedder import Kind

CACHE_BYTES: Final = 32 * 1024 * 1024
ENTRY_BYTES: Final = 200
"""About what an entry costs besides its vector."""


class VectorCache:
    """The least recently used vectors go first. A text is known by its digest, and not kept."""

    def __init__(self, limit_bytes: int = CACHE_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.size_bytes = 0
        self._vectors: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, key: bytes) -> bytes | None:
        """Return a vector, None where it is not here (any more)."""
        vector = self._vectors.get(key)
        if vector is not None:
            self._vectors.move_to_end(key)
        return vector

    def put(self, key: bytes, vector: bytes) -> None:
        """Keep a vector."""
        old = self._vectors.pop(key, None)
        if old is not None:
            self.size_bytes -= len(old) + ENTRY_BYTES
        self._vectors[key] = vector
        self.size_bytes += len(vector) + ENTRY_BYTES
        while self.size_bytes > self.limit_bytes:
            _, gone = self._vectors.popitem(last=False)
            self.size_bytes -= len(gone) + ENTRY_BYTES


def key_of(text: str, kind: Kind) -> bytes:
    """Return under what a text is kept."""
    return hashlib.blake2b(text.encode(), digest_size=16, person=kind.value.encode()).digest()
