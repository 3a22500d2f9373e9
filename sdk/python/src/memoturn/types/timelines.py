"""Timelines: rows of keys in the order of their times (unix milliseconds)."""

from typing import Any, Literal, TypedDict

from memoturn.types.stamps import Written

TimelineOrder = Literal["desc", "asc"]
"""By time: the newest first, or the oldest."""


class _NewRow(TypedDict):
    key: str


class NewRow(_NewRow, total=False):
    """A row to append: at the time of the commit unless `at` says another; `data` is any JSON value."""

    at: int | None
    data: Any


class TimelineRow(TypedDict):
    """A row; `seq` counts in the order in which rows arrived."""

    key: str
    at: int
    seq: int
    data: Any


class TimelineAppended(Written):
    """Rows that were appended, from `first_seq` to `last_seq`; `expired` of them were past retention already."""

    appended: int
    expired: int
    first_seq: int
    last_seq: int


class _Window(TypedDict):
    at: int | None
    count: int


class TimelineWindow(_Window, total=False):
    """What the rows of a window of time come to.

    `at` is its start, None for a window that is all of them. `count` counts rows; `numbers` those that have a
    number at the path that was asked for, which the rest is about (None where there is none). `key` is there
    where each key has windows of its own.
    """

    key: str
    numbers: int
    sum: int | float | None
    min: int | float | None
    max: int | float | None
    average: float | None
    last: int | float | None


class TimelineInfo(TypedDict):
    """A timeline: how many rows and keys it shows, the times of its ends, and what it retains."""

    name: str
    created_at: int
    rows: int
    keys: int
    oldest: int | None
    newest: int | None
    retention_s: int | None
    retention_rows: int | None


class TimelineRetention(Written):
    """What a timeline retains: rows up to so many seconds old, so many rows of each key; None is no bound."""

    name: str
    created_at: int
    retention_s: int | None
    retention_rows: int | None
