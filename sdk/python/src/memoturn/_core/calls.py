"""One call of the API as data: everything of a request but what the client adds to it."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from memoturn._core.positions import Place
from memoturn._core.retries import Repeatable
from memoturn.errors import InvalidRequestError
from memoturn.types import Consistency

JSON = "application/json"
BYTES = "application/octet-stream"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
LONGEST_S = 1e8
"""Three years: what is longer is as good as no end, and some platforms have no such time."""


@dataclass(frozen=True)
class Call:
    """A request. `place` is the branch whose txids the answer tells, None where it concerns none.

    `floor` is a read floor that the caller asked for; `floored` says that the client may set its own.
    `one` marks a read that addresses one thing, for which 404 `not_found` is an answer. `control` says whose
    credential goes first. `timeout_s` None is the client's. `opened` gives a body that is made as it goes,
    from its beginning each time that it is called; `key` is the idempotency key among the headers.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    place: Place | None = None
    floor: int | None = None
    floored: bool = False
    one: bool = False
    consistency: Consistency | None = None
    control: bool = False
    timeout_s: float | None = None
    is_write: bool = False
    repeatable: Repeatable = "always"
    key: str | None = None
    opened: Callable[[], Any] | None = None


def encode(body: object) -> bytes:
    """Return a value as JSON. Raises InvalidRequestError for what JSON has no form for."""
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"the request is not valid JSON: {error}", code="invalid_request"
        ) from error


def credential(text: str | None, what: str) -> str | None:
    """Return a credential, None for an empty one. Raises InvalidRequestError for one that no header can hold.

    The error does not repeat it. A line break at its end is what reading it from a file leaves there.
    """
    if text and not (text.isascii() and text.isprintable() and text == text.strip()):
        raise InvalidRequestError(
            f"the {what} has a line break, a blank at an end, or a character that is not ASCII: give it as it was made, "
            "with nothing around it",
            code="invalid_request",
        )
    return text or None


def seconds(timeout_s: float) -> float:
    """Return a timeout as sockets take it, which have a longest one. Raises InvalidRequestError for what is none."""
    if not timeout_s > 0:
        raise InvalidRequestError(
            f"a timeout of {timeout_s} s cannot be kept; give a number above 0", code="invalid_request"
        )
    return min(float(timeout_s), LONGEST_S)
