"""Bodies and query values as they are written: what was left out is not sent, and times are unix milliseconds."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any, Final

from memoturn.errors import InvalidRequestError
from memoturn.types import Moment, Time

BASE64: Final = "$base64"


class Unset:
    """The type of UNSET."""


UNSET: Final = Unset()
"""Stands for an argument that was left out where None says something."""


def given(**values: Any) -> dict[str, Any]:
    """Return the values that are there: neither None nor UNSET."""
    return {name: value for name, value in values.items() if value is not None and value is not UNSET}


def said(**values: Any) -> dict[str, Any]:
    """Return the values that were not left out; None is one of them, and is sent as null."""
    return {name: value for name, value in values.items() if value is not UNSET}


def changed(item: Any, name: str, change: Callable[[Any], Any]) -> Any:
    """Return an item of a list with one of its values changed; the server says what is wrong with another one."""
    if isinstance(item, Mapping) and name in item:
        return {**item, name: change(item[name])}
    return item


def numbers(value: Any) -> Any:
    """Return numbers as a list, whatever holds them; the server says what is wrong with something else."""
    return list(value) if isinstance(value, Iterable) and not isinstance(value, (str, Mapping)) else value


def listed(values: Iterable[Any] | None) -> list[Any] | None:
    """Return values as a list, for JSON knows no other sequence."""
    return None if values is None else list(values)


def joined(values: Iterable[str] | None) -> str | None:
    """Return words with commas between, as queries take several; None where there are none."""
    return None if values is None else ",".join(values) or None


def moment(value: Moment | None) -> int | str | None:
    """Return a time as the API takes it. Raises InvalidRequestError for one without a zone."""
    return value if value is None or isinstance(value, str) else milliseconds(value)


def milliseconds(value: Time | None) -> int | None:
    """Return a time in unix milliseconds. Raises InvalidRequestError for one without a zone."""
    if not isinstance(value, datetime):
        return value
    if value.utcoffset() is None:
        raise InvalidRequestError(
            f"the time {value.isoformat()} has no zone; give it one, as in datetime.now(timezone.utc)",
            code="invalid_request",
        )
    return round(value.timestamp() * 1000)


def day(value: str | date | None) -> str | None:
    """Return a day as `2026-11-27`."""
    return value.isoformat() if isinstance(value, date) else value


# ---- key-values


def value_bytes(value: str | bytes) -> bytes:
    """Return a value as it is stored: text is UTF-8. Raises InvalidRequestError for what has no such form."""
    try:
        return value.encode() if isinstance(value, str) else bytes(memoryview(value))
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"a value is not valid Unicode: {error}", code="invalid_request") from error
    except TypeError as error:
        raise InvalidRequestError(
            f"a value is text or bytes, and {value!r:.40} is neither", code="invalid_request"
        ) from error


def value_to_json(value: str | bytes) -> "str | dict[str, str]":
    """Return a value as JSON has it, where text with NUL goes as bytes. Raises InvalidRequestError as `value_bytes` does."""
    if isinstance(value, str) and "\0" not in value:
        return value
    return {BASE64: base64.b64encode(value_bytes(value)).decode("ascii")}


def value_from_json(value: Any) -> bytes:
    """Return the bytes of a value in JSON. Raises InvalidRequestError for something else."""
    try:
        return value.encode() if isinstance(value, str) else base64.b64decode(value[BASE64], validate=True)
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidRequestError(f"unreadable value in the answer: {error}") from error


def metadata_header(metadata: Mapping[str, Any]) -> str:
    """Return metadata such that a header may hold it. Raises InvalidRequestError for what JSON has no form for."""
    try:
        return json.dumps(metadata, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"the metadata is not valid JSON: {error}", code="invalid_request"
        ) from error


def condition(etag: str) -> str:
    """Return an ETag, or `*`, as a header names it."""
    return etag if etag == "*" else f'"{etag}"'


def conditions(if_match: str | None, if_none_match: str | None) -> dict[str, str]:
    """Return the headers of the conditions that are there."""
    found = {"If-Match": if_match, "If-None-Match": if_none_match}
    return {name: condition(etag) for name, etag in found.items() if etag is not None}
