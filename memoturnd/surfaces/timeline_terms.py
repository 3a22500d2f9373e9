"""What a query of a timeline asks for: its fields checked, and the SQL of where it looks.

A place is (`at`, `seq`); a window of places goes from `low` to below `high`.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from memoturnd.core import filters, paths
from memoturnd.core.filters import Filter
from memoturnd.engine.connection import Binding
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Work
from memoturnd.surfaces import fields
from memoturnd.surfaces.timeline_store import LAST_MS, MAX_SEQ, Timeline
from memoturnd.surfaces.timelines import parse_key

KEYS_LIMIT: Final = 100
LIMIT: Final = 1000
LIMIT_DEFAULT: Final = 100
_INLINE_LIMIT = 200
_INLINE_KEYS = 8
"""Queries for the newest rows of keys, up to this size, run on the event loop."""
_SEQ_DIGITS = 16

PARTS: Final = ("__memoturn_timeline_young", "__memoturn_timeline_index")
"""The tables in which a key's rows are found."""
WINDOW: Final = "({x}.at, {x}.seq) >= (?, ?) AND ({x}.at, {x}.seq) < (?, ?)"
"""The SQL of a window, of the table `x`."""

Place = tuple[int, int]
END: Final[Place] = (LAST_MS + 1, 0)


class Aggregate(NamedTuple):
    """What is computed: of the numbers at `path` (SQL of a JSON path, None for counts only), per window and key."""

    path: str | None
    window_ms: int | None
    by_key: bool


@dataclass(frozen=True, slots=True)
class Query:
    """A query, checked. `keys` is None for all; `since` is inclusive and `until` exclusive, both unix ms.

    Of rows, `cursor` is the place of the last one that was shown; of aggregates, `windows_cursor` is the start
    of the last window that was shown, and its key.
    """

    keys: tuple[str, ...] | None
    since: int
    until: int
    filter: Filter | None
    descending: bool
    limit: int
    cursor: Place | None
    windows_cursor: tuple[int, str] | None
    aggregate: Aggregate | None

    @property
    def work(self) -> Work:
        """Return what the query may cost: a handful of look-ups, or what its filter and window say."""
        if self.filter is not None and self.filter.slow:
            return Work.OPAQUE
        few_keys = self.keys is not None and len(self.keys) <= _INLINE_KEYS
        small = self.filter is None and self.aggregate is None and self.limit <= _INLINE_LIMIT and few_keys
        return Work.POINT if small else Work.USER

    @property
    def condition(self) -> tuple[str, tuple[Binding, ...]]:
        """Return the SQL of the filter, and its bindings."""
        return ("TRUE", ()) if self.filter is None else (self.filter.sql, self.filter.bindings)

    @property
    def order(self) -> str:
        """Return the order by time as SQL has it."""
        return "DESC" if self.descending else "ASC"


class Scope(NamedTuple):
    """Where a query looks: a timeline, and of some keys (None for all) the ids and the places they begin at."""

    timeline: Timeline
    keys: list[tuple[int, Place]] | None


# ---- what is sent


def parse_query(payload: Any) -> Query:
    """Return the query of `{key?, keys?, since?, until?, filter?, order?, limit?, cursor?, aggregate?}`.

    Raises InvalidRequestError.
    """
    body = fields.mapping(payload, "the body")
    order = fields.optional_text(body.get("order"), "order")
    if order not in (None, "asc", "desc"):
        raise InvalidRequestError(f"order is {order[:32]!a}: it takes `asc` or `desc`")
    aggregate = None if body.get("aggregate") is None else _parse_aggregate(body["aggregate"])
    cursor = fields.optional_text(body.get("cursor"), "cursor")
    found = body.get("filter")
    return Query(
        keys=_parse_keys(body),
        since=_time(body, "since", 0),
        until=_time(body, "until", LAST_MS + 1),
        filter=None if found is None else filters.compile_filter(found, doc="r.data", key="k.key"),
        descending=order != "asc",
        limit=max(1, fields.clamped(body.get("limit"), "limit", default=LIMIT_DEFAULT, limit=LIMIT)),
        cursor=_parse_place(cursor) if cursor is not None and aggregate is None else None,
        windows_cursor=None if cursor is None or aggregate is None else _parse_window(cursor, aggregate),
        aggregate=aggregate,
    )


def _time(body: dict[str, Any], name: str, default: int) -> int:
    value = body.get(name)
    return default if value is None else fields.count(value, name, limit=LAST_MS + 1)


def _parse_keys(body: dict[str, Any]) -> tuple[str, ...] | None:
    key, keys = body.get("key"), body.get("keys")
    if keys is None:
        return None if key is None else (parse_key(key, "key"),)
    if key is not None:
        raise InvalidRequestError("key and keys are both given: send one of them, or neither for all keys")
    listed = fields.array(keys, "keys")
    if not 1 <= len(listed) <= KEYS_LIMIT:
        raise InvalidRequestError(f"keys holds {len(listed)} keys: send 1 to {KEYS_LIMIT}, or none for all")
    return tuple(dict.fromkeys(parse_key(key, f"keys[{n}]") for n, key in enumerate(listed)))


def _parse_aggregate(value: Any) -> Aggregate:
    given = fields.mapping(value, "aggregate")
    path = fields.optional_text(given.get("path"), "aggregate.path")
    window_ms = given.get("window_ms")
    if window_ms is not None and fields.count(window_ms, "aggregate.window_ms", limit=LAST_MS) == 0:
        raise InvalidRequestError(
            f"aggregate.window_ms is 0: it takes 1 to {LAST_MS}, or null for one window"
        )
    if path is not None:
        path = paths.literal(paths.field_path(path, "aggregate")) if path else "'$'"
    return Aggregate(path, window_ms, fields.boolean(given, "by_key"))


def _parse_place(cursor: str) -> Place:
    at, _, seq = cursor.partition("-")
    return _digits(at, LAST_MS), _digits(seq, MAX_SEQ)


def _parse_window(cursor: str, aggregate: Aggregate) -> tuple[int, str]:
    start, colon, key = cursor.partition(":")
    if bool(colon) != aggregate.by_key:
        raise _bad_cursor()
    return _digits(start, LAST_MS), key


def _digits(text: str, limit: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _SEQ_DIGITS and int(text) <= limit:
        return int(text)
    raise _bad_cursor()


def _bad_cursor() -> InvalidRequestError:
    return InvalidRequestError(
        "cursor is none of this query: pass next_cursor on as it came, with the rest of the query as it was"
    )
