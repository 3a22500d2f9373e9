"""Timelines: append-only sequences of `{key, at, data}`, in the order of their times, with retention.

Rows lie in the order of (`at`, `seq`), where `seq` counts the arrivals in a timeline: rows that arrive late land
at their time, and equal times keep the order of arrival. A key's rows are found through an index in two parts.
A key's newest arrivals are entered in the small one, `young`; once they are YOUNG_LIMIT, they move to the
large one together. So a batch for many keys writes few pages. Measured over 200,000 rows of 95 bytes, for a batch of
1,000 rows, one of each of 1,000 keys: 210 pages (320 KB as a segment compresses them). Without the small part
it was 1,055 pages (1,418 KB), with the rows themselves stored by key 1,665 (2,025 KB). For one key it is 49.

What retention has taken away is never shown again, removed already or not. A row is past retention when it is
older than `retention_s`, or when its key has `retention_rows` newer ones. Appends remove more than they add, a
sweep the rest. Where a new bound takes many rows of a key away at once, the key has a floor: its `hidden` rows
below it are gone, and only wait to be removed. Removing takes the oldest rows of a key, always.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import apsw

from memoturnd.core import canonical, names
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.engine.families import TIMELINES
from memoturnd.errors import ConflictError, InvalidRequestError
from memoturnd.seams.profile import Profile, Work, Written
from memoturnd.surfaces import fields

BATCH_LIMIT: Final = 10_000
KEY_LENGTH_LIMIT: Final = 512
DATA_LIMIT_BYTES: Final = 64 * 1024
TIMELINES_LIMIT: Final = 10_000
LAST_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999: no row is later."""
MAX_SEQ: Final = 2**53 - 1
RETENTION_ROWS_LIMIT: Final = 1_000_000_000
YOUNG_LIMIT: Final = 32
"""Entries of a key in the small part of the index: about what a page of the large one takes well at once."""
REMOVED_AT_LEAST: Final = 64
"""Rows past retention that each append may remove, besides twice as many as it adds."""
REMOVED_BY_DELETE: Final = 1000
_INLINE_ROWS = 64
_INLINE_TEXT = 64 * 1024
"""Batches up to this size are written on the event loop."""

_COLUMNS = "id, name, created_at, next_seq, rows, keys, retention_s, retention_rows, gone_at"
_FIND = f"SELECT {_COLUMNS} FROM __memoturn_timelines WHERE name = ?"
_LIST = f"SELECT {_COLUMNS} FROM __memoturn_timelines WHERE name > ? ORDER BY name LIMIT ?"
_CREATE = """INSERT INTO __memoturn_timelines(name, created_at, next_seq, rows, keys, gone_at)
 VALUES (?, ?, 1, 0, 0, 0)"""
_COUNT_ARRIVED = "UPDATE __memoturn_timelines SET next_seq = next_seq + ? WHERE id = ?"
_COUNT = "UPDATE __memoturn_timelines SET rows = rows + ?, keys = keys + ? WHERE id = ?"
_KEY_COLUMNS = "id, rows, young, hidden, floor_at, floor_seq"
_FIND_KEY = f"SELECT {_KEY_COLUMNS} FROM __memoturn_timeline_keys WHERE timeline_id = ? AND key = ?"
_GET_KEY = f"SELECT {_KEY_COLUMNS} FROM __memoturn_timeline_keys WHERE id = ?"
_CREATE_KEY = (
    "INSERT INTO __memoturn_timeline_keys(timeline_id, key, rows, young, hidden) VALUES (?, ?, 0, 0, 0)"
)
_UPDATE_KEY = """UPDATE __memoturn_timeline_keys SET rows = ?, young = ?, hidden = ?, floor_at = ?, floor_seq = ?
 WHERE id = ?"""
_DELETE_KEY = "DELETE FROM __memoturn_timeline_keys WHERE id = ?"
_INSERT = "INSERT INTO __memoturn_timeline_rows(timeline_id, at, seq, key_id, data) VALUES (?, ?, ?, ?, ?)"
_INSERT_YOUNG = "INSERT INTO __memoturn_timeline_young(key_id, at, seq) VALUES (?, ?, ?)"
_INSERT_INDEX = "INSERT INTO __memoturn_timeline_index(key_id, at, seq) VALUES (?, ?, ?)"
_AGE = """INSERT INTO __memoturn_timeline_index(key_id, at, seq)
 SELECT key_id, at, seq FROM __memoturn_timeline_young WHERE key_id = ?"""
_AGED = "DELETE FROM __memoturn_timeline_young WHERE key_id = ?"
_DELETE_ROW = "DELETE FROM __memoturn_timeline_rows WHERE timeline_id = ? AND at = ? AND seq = ?"
_DELETE_YOUNG = "DELETE FROM __memoturn_timeline_young WHERE key_id = ? AND (at, seq) <= (?, ?)"
_DELETE_INDEX = "DELETE FROM __memoturn_timeline_index WHERE key_id = ? AND (at, seq) <= (?, ?)"
_BOTH_PARTS = """SELECT at, seq FROM __memoturn_timeline_young WHERE key_id = ?1 {where}
 UNION ALL SELECT at, seq FROM __memoturn_timeline_index WHERE key_id = ?1 {where}
 ORDER BY at {order}, seq {order} LIMIT ?2 OFFSET ?3"""
_OLDEST_OF_KEY = _BOTH_PARTS.format(where="", order="ASC")
_NEWEST_OF_KEY = _BOTH_PARTS.format(where="", order="DESC")
_FROM_FLOOR = _BOTH_PARTS.format(where="AND (at, seq) >= (?4, ?5)", order="ASC")
_OLDEST = """SELECT at, seq, key_id FROM __memoturn_timeline_rows
 WHERE timeline_id = ? AND at < ? ORDER BY at, seq LIMIT ?"""
_DELETE_OLDEST = "DELETE FROM __memoturn_timeline_rows WHERE timeline_id = ? AND (at, seq) <= (?, ?)"

_FIND_HIDDEN = f"""SELECT timeline_id, {_KEY_COLUMNS} FROM __memoturn_timeline_keys
 WHERE hidden > 0 ORDER BY timeline_id LIMIT 1"""
_FIND_LONG = (
    f"SELECT {_KEY_COLUMNS} FROM __memoturn_timeline_keys WHERE timeline_id = ? AND rows - hidden > ?"
)

_EVERY_ROW = LAST_MS + 1
_PIECE = 10_000
"""Rows that are removed together where there are many."""


class Row(NamedTuple):
    """A row to append, checked. `at` is unix ms, None for the time of the commit; `data` is canonical JSON."""

    key: str
    at: int | None
    data: str


class Retention(NamedTuple):
    """How long rows are kept: seconds by their time, and rows of a key; None for without bound."""

    seconds: int | None
    rows: int | None


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


class _Key(NamedTuple):
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


_Place = tuple[int, int]
_Entry = tuple[int, int, str]
"""(at, seq, data) of a row that is appended."""


# ---- what is sent


def parse_rows(payload: Any) -> list[Row]:
    """Return the rows of `{"rows": [...]}` or of one row `{key, at?, data?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    if "rows" not in body:
        return [_parse_row(body, "")]
    batch = fields.array(body["rows"], "rows")
    if not 1 <= len(batch) <= BATCH_LIMIT:
        raise InvalidRequestError(f"rows holds {len(batch)} rows: send 1 to {BATCH_LIMIT} at once")
    return [_parse_row(fields.mapping(row, f"rows[{n}]"), f"rows[{n}].") for n, row in enumerate(batch)]


def _parse_row(row: dict[str, Any], where: str) -> Row:
    at = row.get("at")
    if at is not None:
        at = fields.count(at, f"{where}at", limit=LAST_MS)
    data = canonical.canonical_json(row.get("data"), where=f"{where}data")
    if len(data) > DATA_LIMIT_BYTES:
        raise InvalidRequestError(
            f"{where}data is {len(data)} bytes of JSON: at most {DATA_LIMIT_BYTES} are taken"
        )
    return Row(parse_key(row.get("key"), f"{where}key"), at, data.decode())


def parse_key(value: Any, where: str) -> str:
    """Return a key: 1 to 512 characters. Raises InvalidRequestError."""
    key = fields.text(value, where, length_limit=KEY_LENGTH_LIMIT)
    if not key:
        raise InvalidRequestError(f"{where} is empty: it takes 1 to {KEY_LENGTH_LIMIT} characters")
    return key


def parse_retention(payload: Any) -> Retention:
    """Return the retention of `{retention_s?, retention_rows?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    return Retention(
        _bound(body.get("retention_s"), "retention_s", fields.SECONDS_LIMIT),
        _bound(body.get("retention_rows"), "retention_rows", RETENTION_ROWS_LIMIT),
    )


def _bound(value: Any, where: str, limit: int) -> int | None:
    if value is None:
        return None
    bound = fields.count(value, where, limit=limit)
    if bound == 0:
        raise InvalidRequestError(f"{where} is 0, which keeps nothing: it takes 1 to {limit}, or null")
    return bound


def _rows(conn: ProfileConnection, sql: str, bindings: tuple[Binding, ...]) -> list[Any]:
    return conn.execute(sql, bindings).fetchall()


# ---- append


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


def _find_or_create(conn: ProfileConnection, now_ms: int, name: str) -> Timeline:
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


def apply_append(
    conn: ProfileConnection, now_ms: int, name: str, rows: Sequence[Row]
) -> tuple[dict[str, int], bool]:
    """Append a batch, making the timeline if need be; return `{appended, expired, first_seq, last_seq}`.

    `seq` counts up in the order of the batch. Rows that are past retention by the end of it count as expired.
    """
    timeline = _find_or_create(conn, now_ms, name)
    retained_from = timeline.retained_from(now_ms)
    first_seq = timeline.next_seq
    batch: dict[str, list[_Entry]] = {}
    for seq, row in enumerate(rows, first_seq):
        at = now_ms if row.at is None else row.at
        if at >= retained_from:
            batch.setdefault(row.key, []).append((at, seq, row.data))
    if any(at < timeline.gone_at for entries in batch.values() for at, _, _ in entries):
        # Rows that are to be told from those that are gone and only wait to be removed.
        _remove_older(conn, timeline, timeline.gone_at, None)
        conn.execute("UPDATE __memoturn_timelines SET gone_at = 0 WHERE id = ?", (timeline.id,))
        timeline = timeline._replace(gone_at=0)
    kept = _Append(conn, timeline).run(batch)
    conn.execute(_COUNT_ARRIVED, (len(rows), timeline.id))
    _remove_older(conn, timeline, timeline.shown_from(now_ms), 2 * len(rows) + REMOVED_AT_LEAST)
    return {
        "appended": kept,
        "expired": len(rows) - kept,
        "first_seq": first_seq,
        "last_seq": first_seq + len(rows) - 1,
    }, True


class _Append:
    """One batch on its way into a timeline: what is to be inserted is collected over the keys, then written in order."""

    def __init__(self, conn: ProfileConnection, timeline: Timeline) -> None:
        self._conn = conn
        self._timeline = timeline
        self._rows: list[tuple[int, int, int, int, str]] = []
        self._young: list[tuple[int, int, int]] = []
        self._index: list[tuple[int, int, int]] = []
        self._new_keys = 0

    def run(self, batch: dict[str, list[_Entry]]) -> int:
        """Insert the rows by key and return how many are kept."""
        conn, timeline = self._conn, self._timeline
        keys = [self._add(key, sorted(entries)) for key, entries in batch.items()]
        conn.executemany(_INSERT, sorted(self._rows))
        conn.executemany(_INSERT_YOUNG, sorted(self._young))
        conn.executemany(_INSERT_INDEX, sorted(self._index))
        conn.execute(_COUNT, (len(self._rows), self._new_keys, timeline.id))
        kept = len(self._rows)
        if timeline.retention_rows is not None:
            for key_id, added in keys:
                kept -= _trim(conn, timeline, key_id, added)
        return kept

    def _add(self, key: str, entries: list[_Entry]) -> tuple[int, int]:
        """Take the rows of one key, sorted; return (the key's id, how many are to be inserted)."""
        conn, timeline = self._conn, self._timeline
        state = self._key(key)
        most = timeline.retention_rows
        if most is not None:
            entries = entries[-most:]
        if state.hidden:
            entries, state = _settle(conn, timeline, state, entries)
        young = state.young + len(entries)
        places = [(state.id, at, seq) for at, seq, _ in entries]
        if young < YOUNG_LIMIT:
            self._young += places
        else:
            if state.young:
                conn.execute(_AGE, (state.id,))
                conn.execute(_AGED, (state.id,))
            self._index += places
            young = 0
        self._rows += [(timeline.id, at, seq, state.id, data) for at, seq, data in entries]
        _update_key(conn, state._replace(rows=state.rows + len(entries), young=young))
        return state.id, len(entries)

    def _key(self, key: str) -> _Key:
        conn = self._conn
        row = conn.execute(_FIND_KEY, (self._timeline.id, key)).fetchone()
        if row is not None:
            return _Key(*row)
        conn.execute(_CREATE_KEY, (self._timeline.id, key))
        self._new_keys += 1
        return _Key(conn.last_insert_rowid(), 0, 0, 0, None, None)


def _update_key(conn: ProfileConnection, key: _Key) -> None:
    floor = (key.floor_at, key.floor_seq) if key.hidden else (None, None)
    conn.execute(_UPDATE_KEY, (key.rows, key.young, key.hidden, *floor, key.id))


def _get_key(conn: ProfileConnection, key_id: int) -> _Key:
    return _Key(*_rows(conn, _GET_KEY, (key_id,))[0])


def _settle(
    conn: ProfileConnection, timeline: Timeline, key: _Key, entries: list[_Entry]
) -> tuple[list[_Entry], _Key]:
    """Return those rows of a key with a floor that may be inserted, and the key as it is then.

    A late row below the floor is past retention too, unless the bound was raised since: then the rows that
    are gone are removed first, so that the floor is not needed any more.
    """
    above = [entry for entry in entries if entry[:2] > key.floor]
    if len(above) == len(entries):
        return entries, key
    if timeline.retention_rows is not None and key.rows - key.hidden + len(above) >= timeline.retention_rows:
        return above, key
    _remove_oldest(conn, timeline, key, key.hidden)
    return entries, _get_key(conn, key.id)


def _trim(conn: ProfileConnection, timeline: Timeline, key_id: int, added: int) -> int:
    """Hold a key to the newest rows that it may have; return how many of the `added` ones went again."""
    key = _get_key(conn, key_id)
    excess = key.rows - key.hidden - (timeline.retention_rows or 0)
    new_below = 0
    if excess > 0:
        places = _oldest_shown(conn, key, excess + 1)
        new_below = sum(seq >= timeline.next_seq for _, seq in places[:excess])
        key = _with_floor(key, excess, places[excess])
        _update_key(conn, key)
    if key.hidden:
        _remove_oldest(conn, timeline, key, min(key.hidden, 2 * added + REMOVED_AT_LEAST))
    return new_below


def _oldest_shown(conn: ProfileConnection, key: _Key, count: int) -> list[_Place]:
    return _rows(conn, _FROM_FLOOR, (key.id, count, 0, *key.floor))


def _with_floor(key: _Key, more: int, floor: _Place) -> _Key:
    return key._replace(hidden=key.hidden + more, floor_at=floor[0], floor_seq=floor[1])


# ---- removing, always the oldest rows of a key


def _remove_oldest(conn: ProfileConnection, timeline: Timeline, key: _Key, count: int) -> None:
    """Remove the `count` oldest rows of a key."""
    for start in range(0, count, _PIECE):
        places = _rows(conn, _OLDEST_OF_KEY, (key.id, min(_PIECE, count - start), 0))
        conn.executemany(_DELETE_ROW, [(timeline.id, *place) for place in places])
        gone = _forget_places(conn, key.id, places)
        conn.execute(_COUNT, (-len(places), -gone, timeline.id))


def _remove_older(conn: ProfileConnection, timeline: Timeline, before_ms: int, limit: int | None) -> int:
    """Remove up to `limit` rows from before a time, the oldest first, and return how many."""
    removed = 0
    while limit is None or removed < limit:
        piece = _PIECE if limit is None else min(_PIECE, limit - removed)
        oldest = _rows(conn, _OLDEST, (timeline.id, before_ms, piece))
        if not oldest:
            break
        conn.execute(_DELETE_OLDEST, (timeline.id, *oldest[-1][:2]))
        by_key: dict[int, list[_Place]] = {}
        for at, seq, key_id in oldest:
            by_key.setdefault(key_id, []).append((at, seq))
        gone = sum(_forget_places(conn, key_id, by_key[key_id]) for key_id in sorted(by_key))
        conn.execute(_COUNT, (-len(oldest), -gone, timeline.id))
        removed += len(oldest)
        if len(oldest) < piece:
            break
    return removed


def _forget_places(conn: ProfileConnection, key_id: int, places: list[_Place]) -> bool:
    """Take a key's oldest `places` out of its index; return whether the key went with them."""
    key = _get_key(conn, key_id)
    conn.execute(_DELETE_INDEX, (key_id, *places[-1]))
    young = key.young
    if young:
        conn.execute(_DELETE_YOUNG, (key_id, *places[-1]))
        young -= conn.changes()
    if key.rows == len(places):
        conn.execute(_DELETE_KEY, (key_id,))
        return True
    hidden = max(0, key.hidden - len(places))
    _update_key(conn, key._replace(rows=key.rows - len(places), young=young, hidden=hidden))
    return False


def apply_delete(conn: ProfileConnection, now_ms: int, name: str) -> tuple[None, bool]:
    """Delete a timeline: its name is free at once, its rows go in part now and the rest by sweeps."""
    del now_ms
    timeline = find(conn, name)
    if timeline is None:
        return None, False
    conn.execute("UPDATE __memoturn_timelines SET name = NULL WHERE id = ?", (timeline.id,))
    _remove_deleted(conn, timeline, REMOVED_BY_DELETE)
    return None, True


def _remove_deleted(conn: ProfileConnection, timeline: Timeline, limit: int) -> int:
    removed = _remove_older(conn, timeline, _EVERY_ROW, limit)
    if removed == timeline.rows:
        conn.execute("DELETE FROM __memoturn_timelines WHERE id = ?", (timeline.id,))
    return removed


def sweep(conn: ProfileConnection, now_ms: int, limit: int) -> tuple[int, bool]:
    """Remove up to `limit` rows that are not shown any more; return how many went, and whether anything changed."""
    if not has_tables(conn):
        return 0, False
    before, left = conn.total_changes(), limit
    for timeline in _those(conn, "name IS NULL"):
        left -= _remove_deleted(conn, timeline, left)
    for timeline in _those(conn, "name IS NOT NULL AND (retention_s IS NOT NULL OR gone_at > 0)"):
        if left <= 0:
            break
        left -= _remove_older(conn, timeline, timeline.shown_from(now_ms), left)
        if timeline.gone_at and left > 0:
            conn.execute("UPDATE __memoturn_timelines SET gone_at = 0 WHERE id = ?", (timeline.id,))
    while left > 0:
        row = conn.execute(_FIND_HIDDEN).fetchone()
        if row is None:
            break
        key, timeline_id = _Key(*row[1:]), row[0]
        [timeline] = _those(conn, f"id = {timeline_id:d}")
        count = min(key.hidden, left)
        _remove_oldest(conn, timeline, key, count)
        left -= count
    return limit - left, conn.total_changes() > before


def listed(conn: ProfileConnection, after: str, limit: int) -> list[Timeline]:
    """Return up to `limit` timelines behind the name `after`, by name."""
    rows = conn.execute(_LIST, (after, limit))
    return [Timeline(*row) for row in rows]


def _those(conn: ProfileConnection, condition: str) -> list[Timeline]:
    rows = conn.execute(f"SELECT {_COLUMNS} FROM __memoturn_timelines WHERE {condition} ORDER BY id")
    return [Timeline(*row) for row in rows]


# ---- retention


def apply_retention(
    conn: ProfileConnection, now_ms: int, name: str, retention: Retention
) -> tuple[dict[str, Any], bool]:
    """Set a timeline's retention, making the timeline if need be; return `{name, created_at, retention_s, retention_rows}`.

    What is past it is not shown from then on, nor ever again when the retention is raised later.
    """
    before = conn.total_changes()
    timeline = _find_or_create(conn, now_ms, name)
    if retention != (timeline.retention_s, timeline.retention_rows):
        shown_from = timeline.shown_from(now_ms)
        gone_at = shown_from if _rows(conn, _OLDEST, (timeline.id, shown_from, 1)) else 0
        conn.execute(
            "UPDATE __memoturn_timelines SET retention_s = ?, retention_rows = ?, gone_at = ? WHERE id = ?",
            (*retention, gone_at, timeline.id),
        )
    if retention.rows is not None:
        for row in _rows(conn, _FIND_LONG, (timeline.id, retention.rows)):
            key = _Key(*row)
            [floor] = _rows(conn, _NEWEST_OF_KEY, (key.id, 1, retention.rows - 1))
            _update_key(conn, _with_floor(key, key.rows - key.hidden - retention.rows, floor))
    value = {
        "name": name,
        "created_at": timeline.created_at,
        "retention_s": retention.seconds,
        "retention_rows": retention.rows,
    }
    return value, conn.total_changes() > before


# ---- what routes call


async def append(
    profile: Profile, name: str, rows: Sequence[Row], *, durable: bool = False
) -> Written[dict[str, int]]:
    """Append rows; see `apply_append`. Raises InvalidRequestError for a bad name."""
    names.timeline(name)
    small = len(rows) <= _INLINE_ROWS and sum(len(row.data) for row in rows) <= _INLINE_TEXT
    return await profile.write(
        lambda conn, now_ms: apply_append(conn, now_ms, name, rows),
        durable=durable,
        work=Work.POINT if small else Work.HEAVY,
    )


async def set_retention(
    profile: Profile, name: str, retention: Retention, *, durable: bool = False
) -> Written[dict[str, Any]]:
    """Set a timeline's retention; see `apply_retention`. Raises InvalidRequestError for a bad name."""
    names.timeline(name)
    return await profile.write(
        lambda conn, now_ms: apply_retention(conn, now_ms, name, retention), durable=durable, work=Work.HEAVY
    )


async def delete(profile: Profile, name: str, *, durable: bool = False) -> Written[None]:
    """Delete a timeline; see `apply_delete`. Raises InvalidRequestError for a bad name."""
    names.timeline(name)
    return await profile.write(
        lambda conn, now_ms: apply_delete(conn, now_ms, name), durable=durable, work=Work.HEAVY
    )
