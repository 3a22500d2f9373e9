"""How new a state a read shows: a pure decision."""

from enum import Enum


class Consistency(Enum):
    """What a read asks for."""

    PRIMARY = "primary"
    """All that was acknowledged before it, whoever took it."""
    CACHED = "cached"
    """A state of the branch's history, which may be a moment old."""


def asked(header: Consistency | None, *, min_txid: int) -> Consistency | None:
    """Return what a request asks for: by `Memoturn-Consistency`, else by its read floor, which holds anywhere.

    None where it says nothing, and the policies decide.
    """
    if header is None and min_txid > 0:
        return Consistency.CACHED
    return header
