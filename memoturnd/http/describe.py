"""What a handler takes and gives, said once, beside it: the API's description is made from this, and tests hold to it.

    @described(takes=Ingest, gives={201: Ingested})
    async def ingest(call: Call) -> Answer: ...

The summary is the first line of the handler's docstring. Errors follow from the kind of its route.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from memoturnd.http.shapes import Count

F = TypeVar("F", bound=Callable[..., Awaitable[Any]])


@dataclass(frozen=True, slots=True)
class Media:
    """A body that is not JSON, by its content type."""

    type: str


BYTES: Final = Media("application/octet-stream")
LINES: Final = Media("application/x-ndjson")
SQLITE: Final = Media("application/vnd.sqlite3")
TEXT: Final = Media("text/plain")
EVENTS: Final = Media("text/event-stream")
NOTHING: Final = None
"""An answer without a body."""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the query string, or with `is_header` a header, that a handler reads. It can always be left out."""

    name: str
    type: Any
    says: str
    is_header: bool = False


ONCE: Final = Value(
    "Idempotency-Key", str, "A write that is sent again under it takes effect once.", is_header=True
)
"""What every route that changes a branch takes, and those of the directory that say so."""

SINCE: Final = Value(
    "since", Count, "The txid after which changes are wanted; without it, those from now on."
)
"""What a route takes that tells changes, and answers 410 where it cannot go back so far."""

IF_MATCH: Final = Value("If-Match", str, "ETags one of which what stands must have, or `*`.", is_header=True)
IF_NONE_MATCH: Final = Value(
    "If-None-Match", str, "ETags that what stands must not have, or `*` for anything.", is_header=True
)
"""What routes of the directory take that change a thing with an ETag."""


CURSOR: Final = Value("cursor", str, "`next_cursor` of the page before.")
PAGE: Final = (Value("limit", Count, "Most rows of the page, up to 1000."), CURSOR)


@dataclass(frozen=True, slots=True)
class Description:
    """What a handler takes and gives.

    `takes` is a type that describes the JSON body (None: there is none, or it is raw), `optional_body` whether it
    may be left out; `gives` the type of the JSON body of each status, Media, or NOTHING; with several for one status
    a sequence.
    """

    takes: Any = None
    gives: Mapping[int, Any] = field(default_factory=dict)
    values: Sequence[Value] = ()
    optional_body: bool = False


_descriptions: dict[Callable[..., Any], Description] = {}


def described(
    *, gives: Mapping[int, Any], takes: Any = None, values: Sequence[Value] = (), optional_body: bool = False
) -> Callable[[F], F]:
    """Return a decorator that describes a handler; see Description."""

    def describe(handler: F) -> F:
        _descriptions[handler] = Description(takes, gives, values, optional_body)
        return handler

    return describe


def description_of(handler: Callable[..., Any]) -> Description | None:
    """Return what a handler takes and gives, None where nobody said."""
    return _descriptions.get(handler)
