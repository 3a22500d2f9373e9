"""Where a request goes: paths, revisions and query values as they are written."""

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Final
from urllib.parse import quote

from memoturn.errors import InvalidRequestError
from memoturn.types import At

MAIN: Final = "main"
_DOTS: Final = {".": "%2E", "..": "%2E%2E"}

QueryValue = str | int | float | bool | None
"""A value of a query; None leaves it out, and so does False, which is what every switch of the API is without."""


def path(*parts: str) -> str:
    """Join `parts` into a URL path, each percent-encoded whole.

    Raises InvalidRequestError on what is no text, and on an empty part, which would address another route.
    """
    for part in parts:
        if not part:
            raise InvalidRequestError(
                "a name in the request is empty; give it a value", code="invalid_request"
            )
    try:
        # A bare dot segment would be removed on the way, and the request would reach another resource.
        return "/" + "/".join(_DOTS.get(part) or quote(part, safe="") for part in parts)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"a name is not valid Unicode: {error}", code="invalid_request") from error
    except TypeError as error:
        raise InvalidRequestError("a name in the request is not text", code="invalid_request") from error


def query_of(values: Mapping[str, QueryValue] | None) -> dict[str, str]:
    """Return the values of a query as they are sent."""
    return {
        name: "true" if value is True else str(value)
        for name, value in (values or {}).items()
        if value is not None and value is not False
    }


def revision(at: At) -> str:
    """Return a revision as it is sent. Raises InvalidRequestError for a time without a zone."""
    if not isinstance(at, datetime):
        return str(at)
    if at.utcoffset() is None:
        raise InvalidRequestError(
            f"the time {at.isoformat()} has no zone; give it one, as in datetime.now(timezone.utc)",
            code="invalid_request",
        )
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds")
