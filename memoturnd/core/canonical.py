"""Canonical JSON and the content-addressed ids of memories.

Two clients that store the same thing must arrive at the same id, in any language: keys sorted by their UTF-8
bytes, no whitespace, one spelling per number. `docs/formats.md` has the hash input with test vectors. Pure.
"""

import hashlib
import math
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from memoturnd.errors import InvalidRequestError

DEPTH_LIMIT: Final = 128
INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**64 - 1

# `deterministic` sorts keys by their UTF-8 bytes, and msgspec writes floats the way this format wants them:
# shortest digits, plain between 1e-5 and 1e16, else a bare exponent. The tests hold it to a spelled-out writer.
_encode = msgspec.json.Encoder(order="deterministic").encode
_encode_in_order = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_SCALARS = (str, bool, type(None))


def canonical_json(value: Any, *, where: str = "content") -> bytes:
    """Return `value` (of JSON's types) as canonical JSON in UTF-8.

    Raises InvalidRequestError, naming `where`, when it is nested over 128 deep, or holds an integer outside
    [-2^63, 2^64-1], a number that is not finite, or a lone surrogate.
    """
    if value is None:
        return b"null"
    check(value, where)
    try:
        return _encode(value)
    except UnicodeEncodeError as error:
        raise _half_of_a_pair(where) from error


def _half_of_a_pair(where: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{where} holds half of a surrogate pair (\\ud800 to \\udfff), which is no character: remove it"
    )


def json_text(value: Any, *, where: str) -> bytes:
    """Return `value` as JSON in UTF-8 with its keys in their order, else as `canonical_json` does, errors included."""
    check(value, where)
    try:
        return _encode_in_order(value)
    except UnicodeEncodeError as error:
        raise _half_of_a_pair(where) from error


def check(value: Any, where: str) -> None:
    """Raise InvalidRequestError for what `canonical_json` refuses, but for lone surrogates."""
    # Level by level, so that no nesting can exhaust the stack.
    level: list[Any] = [value]
    for _ in range(DEPTH_LIMIT + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, _SCALARS):
                continue
            if isinstance(item, dict):
                _check_keys(item, where)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            else:
                _check_number(item, where)
        if not below:
            return
        level = below
    raise InvalidRequestError(f"{where} is nested over {DEPTH_LIMIT} deep: flatten it")


def _check_keys(keys: Iterable[Any], where: str) -> None:
    for key in keys:
        if not isinstance(key, str):
            raise InvalidRequestError(f"{where} has the key {key!a}: keys are strings")


def _check_number(item: Any, where: str) -> None:
    if isinstance(item, int):
        if not INTEGER_MIN <= item <= INTEGER_MAX:
            raise InvalidRequestError(
                f"{where} holds an integer outside [-2^63, 2^64-1]: send it as a string or a float"
            )
    elif isinstance(item, float):
        if not math.isfinite(item):
            raise InvalidRequestError(f"{where} holds {item}, which is not a JSON number")
    else:
        raise InvalidRequestError(f"{where} holds a {type(item).__name__}, which is not a JSON value")


NULL: Final = b"null"
"""Canonical content of a memory that has none."""


def memory_id(type_: str, topic_key: str | None, canonical: bytes) -> str:
    """Return the id of a memory from its type, topic key and canonical content."""
    return _hashed(f"{type_}\0{topic_key or ''}\0".encode() + canonical)


def memory_id_with_summary(type_: str, topic_key: str | None, canonical: bytes, summary: str) -> str:
    """Return the id of a memory that meets its plain id taken by one with another summary."""
    return _hashed(f"{type_}\0{topic_key or ''}\0".encode() + canonical + b"\0" + summary.encode())


def _hashed(data: bytes) -> str:
    return f"mem_{hashlib.sha256(data).hexdigest()[:32]}"


def decode_json(body: bytes, *, where: str = "the body") -> Any:
    """Return the JSON value in `body`; of duplicate keys the last wins.

    Raises InvalidRequestError for anything that is not JSON in UTF-8: NaN and Infinity, numbers beyond a
    double, half surrogate pairs, nesting too deep to decode, trailing text.
    """
    try:
        return _decode(body)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{where} is not valid UTF-8: {error.reason} at byte {error.start}"
        ) from error
    except msgspec.DecodeError as error:
        raise InvalidRequestError(f"{where} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise InvalidRequestError(f"{where} is nested too deep: flatten it") from error
