"""SQL values as they are sent: bytes travel as base64."""

import base64
from collections.abc import Sequence
from typing import Any, cast

from memoturn.errors import InvalidRequestError
from memoturn.types import SqlValue

Statement = tuple[str, Sequence[SqlValue]]
"""SQL text and its parameters."""


def to_wire(value: SqlValue) -> Any:
    """Return a parameter as it is sent."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$base64": base64.b64encode(value).decode("ascii")}
    return value


def from_wire(value: Any) -> SqlValue:
    """Return a value of a row. Raises InvalidRequestError for one that no node sends."""
    if isinstance(value, dict):
        try:
            return base64.b64decode(value["$base64"], validate=True)
        except (KeyError, ValueError) as error:
            raise InvalidRequestError(f"unreadable SQL value in the answer: {error}") from error
    return cast("SqlValue", value)
