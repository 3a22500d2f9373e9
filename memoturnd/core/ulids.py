"""ULIDs: ids of 26 characters that sort by the time at which they were made. Pure.

48 bits of unix milliseconds and 80 random bits, in Crockford's base 32. Of several in one millisecond each is
the one before plus one, so that they sort in the order in which they were made.
"""

from typing import Final

RANDOM_BYTES: Final = 10
_RANDOM_BITS: Final = 8 * RANDOM_BYTES
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_PAIR_BITS: Final = 10
_SHIFTS: Final = tuple(range(12 * _PAIR_BITS, -1, -_PAIR_BITS))


def first(at_ms: int, random: int) -> int:
    """Return the first ULID of a millisecond as a number; of the 80 bits of `random` the topmost is dropped.

    So half of a millisecond's ULIDs, at least, come behind it.
    """
    return at_ms << _RANDOM_BITS | random & ((1 << _RANDOM_BITS - 1) - 1)


def text(number: int) -> str:
    """Return a ULID's 26 characters."""
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])
