"""BM25 over arrays, by the very formula of SQLite's FTS5. Pure."""

import math
from typing import Final

import numpy as np
import numpy.typing as npt

_K1: Final = 1.2
_B: Final = 0.75
_LEAST_IDF: Final = 1e-6
"""What FTS5 gives a phrase that more than half of the rows have: it still finds them, and barely ranks them."""

Floats = npt.NDArray[np.float64]


def idf(rows: int, rows_with: int) -> float:
    """Return the weight of a phrase that `rows_with` of `rows` have."""
    weight = math.log((rows - rows_with + 0.5) / (rows_with + 0.5))
    return weight if weight > 0.0 else _LEAST_IDF


def saturated(
    frequencies: npt.NDArray[np.float64], lengths: npt.NDArray[np.float64], mean_length: float
) -> Floats:
    """Return what a phrase adds to the score of each row that has it, for an idf of 1.

    `frequencies` is how often the row has the phrase, `lengths` how many tokens the row has.
    """
    # In FTS5's own order of operations, so that equal rows get equal scores there and here.
    result: Floats = (frequencies * (_K1 + 1.0)) / (frequencies + _K1 * (1 - _B + _B * lengths / mean_length))
    return result
