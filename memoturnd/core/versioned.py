"""JSON that the node keeps and that carries the version of its format: how any of it is read."""

from collections.abc import Callable
from typing import Protocol, TypeVar

import msgspec

from memoturnd.errors import CorruptionError


class Versioned(Protocol):
    """What has a format version."""

    @property
    def format(self) -> int:
        """The version that it was written in."""
        ...


V = TypeVar("V", bound=Versioned)


def read(decode: Callable[[bytes], V], data: bytes, *, what: str, newest: int) -> V:
    """Return what `decode` makes of `data`; `what` names it, `newest` is the latest format that this release reads.

    Raises CorruptionError when it is damaged or newer.
    """
    try:
        found = decode(data)
    except (CorruptionError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptionError(f"{what} cannot be read: {error}") from error
    if found.format > newest:
        raise CorruptionError(
            f"{what} has format {found.format}; this version of Memoturn reads up to {newest}: use a newer one"
        )
    return found
