"""Bodies of timelines."""

from typing import Annotated, Any, Literal

from msgspec import Meta

from memoturnd.http.shapes import UNSET, Count, Maybe, Object, Struct, Time, Txid

Number = int | float


class NewRow(Struct):
    """A row to append; `at` is the time of the commit unless given, `data` any JSON, null unless given."""

    key: str
    at: Time | None = None
    data: Any = None


class Append(Struct):
    """A row, or in `rows` up to 10,000 as one commit."""

    key: Maybe[str] = UNSET
    at: Time | None = None
    data: Any = None
    rows: Maybe[list[NewRow]] = UNSET


class Appended(Struct):
    """How many rows are kept, how many were past retention already, and the numbers that the batch got."""

    appended: Count
    expired: Count
    first_seq: Count
    last_seq: Count
    txid: Txid


class Aggregate(Struct):
    """What to compute of the numbers at `path`, per window and per key; counts alone without a path."""

    path: (
        Annotated[str, Meta(description="A dotted path into `data`, or empty for `data` itself.")] | None
    ) = None
    window_ms: Count | None = None
    by_key: bool | None = None


class Query(Struct):
    """Which rows: of one `key`, of some `keys`, or of all, from `since` on and before `until`, that a filter lets through."""

    key: str | None = None
    keys: list[str] | None = None
    since: Time | None = None
    until: Time | None = None
    filter: Object | None = None
    order: Literal["asc", "desc"] | None = None
    limit: Count | None = None
    cursor: str | None = None
    aggregate: Aggregate | None = None


class Row(Struct):
    """A row of a timeline; `seq` is its number among the arrivals."""

    key: str
    at: Time
    seq: Count
    data: Any


class RowPage(Struct):
    """Rows in the order that was asked for."""

    rows: list[Row]
    next_cursor: str | None


class Window(Struct):
    """Aggregates of the rows in a window, which begins `at` (null: there is one window); numbers where a path was given."""

    at: Time | None
    count: Count
    key: Maybe[str] = UNSET
    numbers: Maybe[Count] = UNSET
    sum: Maybe[Number | None] = UNSET
    min: Maybe[Number | None] = UNSET
    max: Maybe[Number | None] = UNSET
    average: Maybe[float | None] = UNSET
    last: Maybe[Number | None] = UNSET


class WindowPage(Struct):
    """Windows in which there are rows, in the order that was asked for."""

    windows: list[Window]
    next_cursor: str | None


class Retention(Struct):
    """How long rows are kept: seconds by their time, and rows of each key; null for without bound."""

    retention_s: Count | None = None
    retention_rows: Count | None = None


class Retained(Struct):
    """The retention of a timeline."""

    name: str
    created_at: Time
    retention_s: Count | None
    retention_rows: Count | None
    txid: Txid


class Timeline(Struct):
    """What is shown of a timeline, the times of its first and last row, and what is kept."""

    name: str
    created_at: Time
    rows: Count
    keys: Count
    oldest: Time | None
    newest: Time | None
    retention_s: Count | None
    retention_rows: Count | None


class TimelinePage(Struct):
    """Timelines by name."""

    timelines: list[Timeline]
    next_cursor: str | None
