"""Lists of memories without ranking, a page at a time, and what one filter means wherever it is taken.

Pages are cut by key: a memory's time and row never change, so one that is there from the first page to the
last comes exactly once, whatever is written meanwhile. A page names the index that it walks along, because the
statistics that a user's ANALYZE leaves must not change how a listing runs.
"""

from dataclasses import asdict, dataclass
from typing import Any, Final

from memoturnd.core import cursors
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import fields, memories, records

LIST_LIMIT: Final = 1000
LIST_DEFAULT: Final = 100
PAGE_LIMIT_BYTES: Final = 8 * 1024 * 1024
"""A page ends behind the memory that brings it to this size."""
ORDERS: Final = ("newest", "oldest", "most_important", "least_important")

Key = list[float | cursors.Integer]

_TIME = ("created_at", "rid")
_IMPORTANCE = ("importance", *_TIME)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which memories are meant: those that meet every condition that is not None. Times are inclusive."""

    types: tuple[str, ...] | None = None
    topic_key: str | None = None
    topic_prefix: str | None = None
    session_id: str | None = None
    source: str | None = None
    pinned: bool | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    include_superseded: bool = False

    @property
    def is_empty(self) -> bool:
        """Return whether it leaves nothing out but history."""
        return all(value is None for name, value in asdict(self).items() if name != "include_superseded")

    @property
    def index(self) -> str:
        """Return the index that yields the memories in order of time."""
        if self.topic_key is not None:
            return "__memoturn_memories_topic"
        if self.session_id is not None:
            return "__memoturn_memories_session"
        if self.source is not None:
            return "__memoturn_memories_source"
        return "__memoturn_memories_pinned" if self.pinned else "__memoturn_memories_created"

    def where(self, now_ms: int) -> tuple[list[str], list[Binding]]:
        """Return the conditions on a row of memories, and what they bind."""
        conditions = ["(expires_at IS NULL OR expires_at > ?)"]
        bindings: list[Binding] = [now_ms]

        def add(condition: str, *bound: Binding) -> None:
            conditions.append(condition)
            bindings.extend(bound)

        if not self.include_superseded:
            add("superseded_at IS NULL")
        if self.types is not None:
            add(f"type IN ({', '.join('?' * len(self.types))})", *self.types)
        if self.topic_prefix is not None:
            add("substr(topic_key, 1, ?) = ?", len(self.topic_prefix), self.topic_prefix)
        if self.pinned is not None:
            add(f"pinned = {int(self.pinned)}")
        for column in ("topic_key", "session_id", "source"):
            if getattr(self, column) is not None:
                add(f"{column} = ?", getattr(self, column))
        if self.since_ms is not None:
            add("created_at >= ?", self.since_ms)
        if self.until_ms is not None:
            add("created_at <= ?", self.until_ms)
        return conditions, bindings


@dataclass(frozen=True, slots=True)
class Listing:
    """A page to read, checked."""

    filter: Filter
    order: str = "newest"
    limit: int = LIST_DEFAULT
    cursor: str | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Return what a cursor belongs to."""
        return {**asdict(self.filter), "order": self.order}


def parse_filter(body: dict[str, Any], *, include_superseded: bool = False) -> Filter:
    """Return the filter that the fields of a body ask for. Raises InvalidRequestError."""
    return Filter(
        types=parse_types(body.get("types")),
        topic_key=fields.optional_text(
            body.get("topic_key"), "topic_key", length_limit=memories.TOPIC_LENGTH_LIMIT
        ),
        topic_prefix=fields.optional_text(
            body.get("topic_prefix"), "topic_prefix", length_limit=memories.TOPIC_LENGTH_LIMIT
        ),
        session_id=fields.optional_text(body.get("session_id"), "session_id"),
        source=fields.optional_text(body.get("source"), "source"),
        pinned=fields.optional_boolean(body.get("pinned"), "pinned"),
        since_ms=fields.optional_time_ms(body.get("since"), "since"),
        until_ms=fields.optional_time_ms(body.get("until"), "until"),
        include_superseded=fields.boolean(body, "include_superseded", default=include_superseded),
    )


def parse_listing(
    body: dict[str, Any], *, order: str | None = None, limit: int = LIST_DEFAULT, cursor: str | None = None
) -> Listing:
    """Return the page that is asked for. Raises InvalidRequestError."""
    order = "newest" if order is None else order
    if order not in ORDERS:
        raise InvalidRequestError(f"order is {order[:32]!a}: it takes {', '.join(ORDERS)}")
    return Listing(parse_filter(body), order, max(1, min(limit, LIST_LIMIT)), cursor)


def parse_types(value: Any) -> tuple[str, ...] | None:
    """Return types of memories, sorted; an empty array means none. Raises InvalidRequestError."""
    if value is None:
        return None
    found = {fields.text(name, f"types[{at}]") for at, name in enumerate(fields.array(value, "types"))}
    unknown = found.difference(memories.TYPES)
    if unknown:
        raise InvalidRequestError(f"types holds {min(unknown)[:32]!a}: it takes {', '.join(memories.TYPES)}")
    return tuple(sorted(found))


# ---- pages


def statement(listing: Listing, now_ms: int, part: str) -> tuple[str, list[Binding]]:
    """Return the statement of one part of a listing, in order, without its end: `time` means all memories,
    `rated` those with an importance by that, `unrated` the others by time.
    """
    conditions, bindings = listing.filter.where(now_ms)
    if part != "time":
        conditions.append(f"importance IS {'NOT ' if part == 'rated' else ''}NULL")
    keys, index = (
        (_IMPORTANCE, "__memoturn_memories_importance") if part == "rated" else (_TIME, listing.filter.index)
    )
    return (
        f"SELECT {', '.join(keys)}, {records.COLUMNS} FROM __memoturn_memories INDEXED BY {index}"
        f" WHERE {' AND '.join(conditions)}"
    ), bindings


def end_of(listing: Listing, part: str, *, behind: bool) -> str:
    """Return the end of a statement: its order, and with `behind` what comes after a position."""
    keys = _IMPORTANCE if part == "rated" else _TIME
    down = listing.order in {"newest", "most_important"}
    order = ", ".join(f"{key} {'DESC' if down else 'ASC'}" for key in keys)
    after = (
        f" AND ({', '.join(keys)}) {'<' if down else '>'} ({', '.join('?' * len(keys))})" if behind else ""
    )
    return f"{after} ORDER BY {order}"


def read_page(conn: ProfileConnection, now_ms: int, listing: Listing) -> dict[str, Any]:
    """Return `{memories, next_cursor}`; those without an importance come behind all that have one.

    Raises InvalidRequestError for a cursor of another listing.
    """
    if listing.filter.types == ():
        return {"memories": [], "next_cursor": None}
    parts = ["time"] if listing.order in {"newest", "oldest"} else ["rated", "unrated"]
    position: tuple[str, Key] | None = None
    if listing.cursor is not None:
        position = cursors.read(listing.cursor, listing.identity, tuple[str, Key])
        _check_position(position, parts)
        parts = parts[parts.index(position[0]) :]
    found: list[dict[str, Any]] = []
    size_bytes = 0
    end: tuple[str, Key] | None = None
    for part in parts:
        behind = position[1] if position is not None and position[0] == part else []
        sql, bindings = statement(listing, now_ms, part)
        width = len(_IMPORTANCE if part == "rated" else _TIME)
        for row in conn.execute(sql + end_of(listing, part, behind=bool(behind)), (*bindings, *behind)):
            if end is not None and (len(found) == listing.limit or size_bytes >= PAGE_LIMIT_BYTES):
                return {"memories": found, "next_cursor": cursors.make(listing.identity, end)}
            memory = records.shown(conn, row[width:])
            found.append(memory)
            size_bytes += records.size_bytes(memory)
            end = part, list(row[:width])
    return {"memories": found, "next_cursor": None}


def _check_position(position: tuple[str, Key], parts: list[str]) -> None:
    part, key = position
    if part not in parts or len(key) != len(_IMPORTANCE if part == "rated" else _TIME):
        raise InvalidRequestError("cursor is not one that this listing gave; start again without it")


async def page(profile: Profile, listing: Listing, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return a page of memories; see `read_page`."""
    return await profile.read(
        lambda conn, now_ms: read_page(conn, now_ms, listing), min_txid=min_txid, work=Work.SCAN
    )
