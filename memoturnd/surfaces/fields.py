"""Checks of request fields, each of which names the field by its path: `memories[3].topic_key`."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from memoturnd.core import canonical, paths, revisions
from memoturnd.core.revisions import AtTime
from memoturnd.errors import InvalidRequestError

DIMENSIONS_LIMIT: Final = 8192
SECONDS_LIMIT: Final = 8_000_000_000_000
"""Longest lifetime: its end in unix ms still is an integer that every JSON client can hold."""
_FLOAT32_MAX = 3.4028234663852886e38
_KINDS: Final = {
    str: "a string",
    int: "an integer",
    bool: "true or false",
    list: "an array",
    dict: "an object",
}


def _wrong(where: str, rule: str, value: object) -> InvalidRequestError:
    kind = "null" if value is None else _KINDS.get(type(value), "a number")
    return InvalidRequestError(f"{where} must be {rule}, not {kind}")


def mapping(value: Any, where: str) -> dict[str, Any]:
    """Return an object."""
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    return value


def object_text(value: Any, where: str, *, limit_bytes: int) -> str:
    """Return an object, whose keys paths may lead to, as canonical JSON text of at most `limit_bytes` bytes."""
    text_bytes = canonical.canonical_json(mapping(value, where), where=where)
    paths.check_keys(value, text_bytes, where)
    if len(text_bytes) > limit_bytes:
        raise InvalidRequestError(
            f"{where} takes {len(text_bytes)} bytes as JSON: at most {limit_bytes} are taken"
        )
    return text_bytes.decode()


def array(value: Any, where: str) -> list[Any]:
    """Return an array."""
    if not isinstance(value, list):
        raise _wrong(where, "an array", value)
    return value


def text(value: Any, where: str, *, length_limit: int | None = None) -> str:
    """Return a string without NUL and without half surrogate pairs, of at most `length_limit` characters."""
    if not isinstance(value, str):
        raise _wrong(where, "a string", value)
    if "\0" in value:
        raise InvalidRequestError(f"{where} holds a NUL character: remove it")
    if length_limit is not None and len(value) > length_limit:
        raise InvalidRequestError(
            f"{where} is {len(value)} characters long: at most {length_limit} are taken"
        )
    return whole_text(value, where)


def name(value: Any, where: str, check: Callable[[str], str]) -> str:
    """Return a string that passes a check of memoturnd.core.names."""
    found = text(value, where)
    try:
        return check(found)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}: {error}") from error


def whole_text(value: str, where: str) -> str:
    """Return a string without half surrogate pairs."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"{where} holds half of a surrogate pair: remove it") from error
    return value


def optional_text(value: Any, where: str, *, length_limit: int | None = None) -> str | None:
    """Return a string as `text` does, or None."""
    return None if value is None else text(value, where, length_limit=length_limit)


def boolean(fields: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    """Return a field that is true or false; null counts as absent."""
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def optional_boolean(value: Any, where: str) -> bool | None:
    """Return true, false or None."""
    if value is not None and not isinstance(value, bool):
        raise _wrong(where, "true or false", value)
    return value


def optional_share(value: Any, where: str) -> float | None:
    """Return a number from 0 to 1, or None."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(where, "a number", value)
    if not 0 <= value <= 1:
        raise InvalidRequestError(f"{where} is {str(value)[:40]}: it takes 0 to 1")
    return float(value)


def optional_time_ms(value: Any, where: str) -> int | None:
    """Return a time in unix ms, from an integer or RFC 3339, or None."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            found = revisions.parse(value)
        except InvalidRequestError as error:
            raise _no_time(where, value) from error
        if not isinstance(found, AtTime):
            raise _no_time(where, value)
        return found.at_ms
    return count(value, where, limit=revisions.LAST_MS)


def _no_time(where: str, value: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{where} is {value[:40]!a}: it takes a time as unix milliseconds or RFC 3339 (2026-11-24T09:30:00Z)"
    )


def count(value: Any, where: str, *, limit: int) -> int:
    """Return an integer from 0 to `limit`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(where, "an integer", value)
    if not 0 <= value <= limit:
        raise InvalidRequestError(f"{where} is {value}: it takes 0 to {limit}")
    return value


def integer(value: Any, where: str, *, least: int, most: int) -> int:
    """Return an integer from `least` to `most`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(where, "an integer", value)
    if not least <= value <= most:
        raise InvalidRequestError(f"{where} is {value}: it takes {least} to {most}")
    return value


def clamped(value: Any, where: str, *, default: int, limit: int) -> int:
    """Return an integer from 0, cut to `limit`; null counts as absent."""
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(where, "an integer", value)
    if value < 0:
        raise InvalidRequestError(f"{where} is {value}: it takes 0 or more")
    return min(value, limit)


def components(value: Any, where: str) -> npt.NDArray[np.float64]:
    """Return an array of 1 to DIMENSIONS_LIMIT numbers, each within 32-bit floats."""
    numbers = array(value, where)
    if not numbers:
        raise InvalidRequestError(f"{where} is empty: leave it out or send 1 to {DIMENSIONS_LIMIT} numbers")
    if len(numbers) > DIMENSIONS_LIMIT:
        raise InvalidRequestError(f"{where} has {len(numbers)} numbers: at most {DIMENSIONS_LIMIT} are taken")
    for kind in set(map(type, numbers)):
        if kind not in (int, float):
            at = next(index for index, number in enumerate(numbers) if type(number) is kind)
            raise _wrong(f"{where}[{at}]", "a number", numbers[at])
    try:
        found = np.array(numbers, dtype=np.float64)
    except OverflowError as error:
        raise _beyond_float32(where) from error
    if not float(np.abs(found).max()) <= _FLOAT32_MAX:  # NaN too
        raise _beyond_float32(where)
    return found


def vector(value: Any, where: str) -> bytes:
    """Return an embedding as little-endian float32 of unit length; a null vector stays as it is.

    Only directions are compared, and at unit length no distance can overflow.
    """
    found = components(value, where)
    largest = float(np.abs(found).max())
    if largest:
        found /= largest  # squares of the smallest numbers would vanish otherwise
        found /= math.sqrt(found @ found)
    return found.astype("<f4").tobytes()


def optional_vector(value: Any, where: str) -> bytes | None:
    """Return an embedding as `vector` does, or None."""
    return None if value is None else vector(value, where)


def dimensions(embedding: bytes) -> int:
    """Return how many numbers a stored embedding has."""
    return len(embedding) // 4


def optional_number(value: Any, where: str, *, least: float, most: float) -> float | None:
    """Return a number from `least` to `most`, None for null."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise _wrong(where, "a number", value)
    if not least <= value <= most:
        raise InvalidRequestError(f"{where} is {value}: it takes {least:g} to {most:g}")
    return float(value)


def _beyond_float32(where: str) -> InvalidRequestError:
    return InvalidRequestError(f"{where} holds a number beyond 32-bit floats (about 3.4e38), or none at all")
