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
