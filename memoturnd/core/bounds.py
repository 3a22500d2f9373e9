"""What the values of every stored document keep to. Whatever a node reads is held against them first.

Txids, epochs and unix milliseconds stay below 2^53, so that every JSON reader has them exactly.
"""

from typing import Annotated, Final

from msgspec import Meta

INTEGER_MAX: Final = (1 << 53) - 1
PAGE_SIZES: Final = frozenset(512 << n for n in range(8))
"""The page sizes that SQLite has, in bytes."""

Count = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
"""A txid, an epoch, a time in unix ms, a size in bytes."""
Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\Z")]
"""A random id or a hash: one part of an object key."""
