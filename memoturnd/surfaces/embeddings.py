"""Embeddings that are given back: stored so that they come out as they went in, as 32-bit floats."""

import math
from typing import Any, Final, NamedTuple

import numpy as np

from memoturnd.surfaces import fields

_PLAIN: Final = (1e-12, 1e12)
"""Largest components between which the squares of a vector's components add up within 32-bit floats."""


class Embedding(NamedTuple):
    """A vector as it is stored: `e` (float32, little-endian) times two to the `exponent`."""

    e: bytes
    exponent: int

    @property
    def dimensions(self) -> int:
        """Return how many numbers it has."""
        return fields.dimensions(self.e)


def parse(value: Any, where: str) -> Embedding:
    """Return an embedding; one so large or small that its length would leave 32-bit floats is scaled.

    Raises InvalidRequestError.
    """
    components = fields.components(value, where)
    largest = float(np.abs(components).max())
    exponent = 0
    if largest and not _PLAIN[0] <= largest <= _PLAIN[1]:
        exponent = math.frexp(largest)[1]
        components = np.ldexp(components, -exponent)
    return Embedding(components.astype("<f4").tobytes(), exponent)


def numbers(e: bytes, exponent: int) -> list[float]:
    """Return the numbers of a stored vector, each with few digits that mean the same 32-bit float."""
    singles = np.frombuffer(e, "<f4")
    exact = np.ldexp(singles.astype(np.float64), exponent)
    shown = exact
    with np.errstate(all="ignore"):
        magnitudes = np.floor(np.log10(np.abs(exact)))
        for digits in (9, 8, 7):
            places = digits - 1 - magnitudes
            power = 10.0 ** np.abs(places)
            shorter = np.where(places >= 0, np.round(exact * power) / power, np.round(exact / power) * power)
            same = np.ldexp(shorter, -exponent).astype("<f4") == singles
            shown = np.where(same, shorter, shown)
    found: list[float] = shown.tolist()
    return found
