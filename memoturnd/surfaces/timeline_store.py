"""A timeline's rows in a profile's file: what is stored of it, and how rows are removed.

Rows lie in the order of (`at`, `seq`), where `seq` counts the arrivals in a timeline. A key's rows are found through
an index in two parts. The newest arrivals are entered in the small one, `young`; once those of a key are
`YOUNG_LIMIT`, they move to the large one together. So a batch for many keys writes few pages. Measured over
200,000 rows of 95 bytes, for a batch of 1,000 rows, one of each of 1,000 keys: 210 pages (320 KB as a segment
compresses them). Without the small part it was 1,055 pages (1,418 KB), with the rows themselves stored by key 1,665
(2,025 KB). For one key it is 49.

Removing takes the oldest rows of a key, always. Where retention takes many away at once, the key has a floor: its
`hidden` rows below it are gone, and only wait to be removed, as are rows before a timeline's `gone_at` and those
of a timeline without a name.
"""

from typing import Any, Final, NamedTuple

import apsw

from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.engine.families import TIMELINES
from memoturnd.errors import ConflictError

TIMELINES_LIMIT: Final = 10_000
LAST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: no row is later."""
MAX_SEQ: Final = 2**53 - 1

_COLUMNS = "id, name, created_at, next_seq, rows, keys, retention_s, retention_rows, gone_at"
_FIND = f"SELECT {_COLUMNS} FROM __memoturn_timelines WHERE name = ?"
_LIST = f"SELECT {_COLUMNS} FROM __memoturn_timelines WHERE name > ? ORDER BY name LIMIT ?"
_CREATE = """INSERT INTO __memoturn_timelines(name, created_at, next_seq, rows, keys, gone_at)
 VALUES (?, ?, 1, 0, 0, 0)"""
COUNT = "UPDATE __memoturn_timelines SET rows = rows + ?, keys = keys + ? WHERE id = ?"
KEY_COLUMNS = "id, rows, young, hidden, floor_at, floor_seq"
_GET_KEY = f"SELECT {KEY_COLUMNS} FROM __memoturn_timeline_keys WHERE id = ?"
_UPDATE_KEY = """UPDATE __memoturn_timeline_keys SET rows = ?, young = ?, hidden = ?, floor_at = ?, floor_seq = ?
 WHERE id = ?"""
_DELETE_KEY = "DELETE FROM __memoturn_timeline_keys WHERE id = ?"
_DELETE_ROW = "DELETE FROM __memoturn_timeline_rows WHERE timeline_id = ? AND at = ? AND seq = ?"
_DELETE_YOUNG = "DELETE FROM __memoturn_timeline_young WHERE key_id = ? AND (at, seq) <= (?, ?)"
_DELETE_INDEX = "DELETE FROM __memoturn_timeline_index WHERE key_id = ? AND (at, seq) <= (?, ?)"
BOTH_PARTS = """SELECT at, seq FROM __memoturn_timeline_young WHERE key_id = ?1 {where}
 UNION ALL SELECT at, seq FROM __memoturn_timeline_index WHERE key_id = ?1 {where}
 ORDER BY at {order}, seq {order} LIMIT ?2 OFFSET ?3"""
_OLDEST_OF_KEY = BOTH_PARTS.format(where="", order="ASC")
OLDEST = """SELECT at, seq, key_id FROM __memoturn_timeline_rows
 WHERE timeline_id = ? AND at < ? ORDER BY at, seq LIMIT ?"""
_DELETE_OLDEST = "DELETE FROM __memoturn_timeline_rows WHERE timeline_id = ? AND (at, seq) <= (?, ?)"
_PIECE = 10_000
"""Rows that are removed together where there are many."""


class Timeline(NamedTuple):
    """A timeline's own row. `rows` and `keys` count what is stored; rows before `gone_at` are gone for good."""

    id: int
    name: str | None
    created_at: int
    next_seq: int
    rows: int
    keys: int
    retention_s: int | None
    retention_rows: int | None
    gone_at: int

    def retained_from(self, now_ms: int) -> int:
        """Return the unix ms before which rows are past their age."""
        return 0 if self.retention_s is None else max(0, now_ms - 1000 * self.retention_s)

    def shown_from(self, now_ms: int) -> int:
        """Return the unix ms before which no row is shown."""
        return max(self.gone_at, self.retained_from(now_ms))


class Key(NamedTuple):
    """A key's row: how many rows it has, how many of them are young and hidden, and its floor."""

    id: int
    rows: int
    young: int
    hidden: int
    floor_at: int | None
    floor_seq: int | None

    @property
    def floor(self) -> tuple[int, int]:
        """The place from which on the key's rows are shown."""
        return (0, 0) if self.floor_at is None else (self.floor_at, self.floor_seq or 0)


Place = tuple[int, int]


def fetch(conn: ProfileConnection, sql: str, bindings: tuple[Binding, ...]) -> list[Any]:
    """Return all rows of a statement."""
    return conn.execute(sql, bindings).fetchall()


def find(conn: ProfileConnection, name: str) -> Timeline | None:
    """Return a timeline, None where there is none of that name."""
    try:
        row = conn.execute(_FIND, (name,)).fetchone()
    except apsw.SQLError:
        if has_tables(conn):
            raise
        return None
    return None if row is None else Timeline(*row)


def has_tables(conn: ProfileConnection) -> bool:
    """Return whether the profile has ever had a timeline, so that its tables are there."""
    return conn.table_exists("main", "__memoturn_timelines")


def find_or_create(conn: ProfileConnection, now_ms: int, name: str) -> Timeline:
    """Return a timeline, making it and the tables where absent. Raises ConflictError where there are too many."""
    timeline = find(conn, name)
    if timeline is not None:
        return timeline
    if not has_tables(conn):
        for family in TIMELINES:
            conn.execute(family.create(""), can_cache=False)
    count: int = conn.execute("SELECT count(*) FROM __memoturn_timelines WHERE name IS NOT NULL").get
    if count >= TIMELINES_LIMIT:
        raise ConflictError(
            f"the profile has {count} timelines, which is the bound: delete one, or tell rows apart by their keys"
        )
    conn.execute(_CREATE, (name, now_ms))
    return Timeline(conn.last_insert_rowid(), name, now_ms, 1, 0, 0, None, None, 0)


def listed(conn: ProfileConnection, after: str, limit: int) -> list[Timeline]:
    """Return up to `limit` timelines behind the name `after`, by name."""
    rows = conn.execute(_LIST, (after, limit))
    return [Timeline(*row) for row in rows]


def those(conn: ProfileConnection, condition: str) -> list[Timeline]:
    """Return the timelines that the SQL `condition` holds for."""
    rows = conn.execute(f"SELECT {_COLUMNS} FROM __memoturn_timelines WHERE {condition} ORDER BY id")
    return [Timeline(*row) for row in rows]


def update_key(conn: ProfileConnection, key: Key) -> None:
    """Store a key's counts, and its floor while it hides rows."""
    floor = (key.floor_at, key.floor_seq) if key.hidden else (None, None)
    conn.execute(_UPDATE_KEY, (key.rows, key.young, key.hidden, *floor, key.id))


def get_key(conn: ProfileConnection, key_id: int) -> Key:
    """Return a key that is there."""
    return Key(*fetch(conn, _GET_KEY, (key_id,))[0])


def with_floor(key: Key, more: int, floor: Place) -> Key:
    """Return a key with `more` of its rows hidden, those below a floor."""
    return key._replace(hidden=key.hidden + more, floor_at=floor[0], floor_seq=floor[1])


# ---- removing, always the oldest rows of a key


def remove_oldest(conn: ProfileConnection, timeline: Timeline, key: Key, count: int) -> None:
    """Remove the `count` oldest rows of a key."""
    for start in range(0, count, _PIECE):
        places = fetch(conn, _OLDEST_OF_KEY, (key.id, min(_PIECE, count - start), 0))
        conn.executemany(_DELETE_ROW, [(timeline.id, *place) for place in places])
        gone = _forget_places(conn, key.id, places)
        conn.execute(COUNT, (-len(places), -gone, timeline.id))


def remove_older(conn: ProfileConnection, timeline: Timeline, before_ms: int, limit: int | None) -> int:
    """Remove up to `limit` rows from before a time, the oldest first, and return how many."""
    removed = 0
    while limit is None or removed < limit:
        piece = _PIECE if limit is None else min(_PIECE, limit - removed)
        oldest = fetch(conn, OLDEST, (timeline.id, before_ms, piece))
        if not oldest:
            break
        conn.execute(_DELETE_OLDEST, (timeline.id, *oldest[-1][:2]))
        by_key: dict[int, list[Place]] = {}
        for at, seq, key_id in oldest:
            by_key.setdefault(key_id, []).append((at, seq))
        gone = sum(_forget_places(conn, key_id, by_key[key_id]) for key_id in sorted(by_key))
        conn.execute(COUNT, (-len(oldest), -gone, timeline.id))
        removed += len(oldest)
        if len(oldest) < piece:
            break
    return removed


def _forget_places(conn: ProfileConnection, key_id: int, places: list[Place]) -> bool:
    """Take a key's oldest `places` out of its index; return whether the key went with them."""
    key = get_key(conn, key_id)
    conn.execute(_DELETE_INDEX, (key_id, *places[-1]))
    young = key.young
    if young:
        conn.execute(_DELETE_YOUNG, (key_id, *places[-1]))
        young -= conn.changes()
    if key.rows == len(places):
        conn.execute(_DELETE_KEY, (key_id,))
        return True
    hidden = max(0, key.hidden - len(places))
    update_key(conn, key._replace(rows=key.rows - len(places), young=young, hidden=hidden))
    return False
