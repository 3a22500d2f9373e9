"""Timelines: append-only sequences of `{key, at, data}`, in the order of their times, with retention.

Rows that arrive late land at their time, and equal times keep the order of arrival. How they are stored is
memoturnd.surfaces.timeline_store's part.

What retention has taken away is never shown again, removed already or not. A row is past retention when it is
older than `retention_s`, or when its key has `retention_rows` newer ones. Appends remove more than they add, a
sweep the rest.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from memoturnd.core import canonical, names, paths
from memoturnd.core.durability import Durability
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import ElsewhereError, Profile, Work, Written
from memoturnd.surfaces import fields
from memoturnd.surfaces.timeline_store import (
    BOTH_PARTS,
    COUNT,
    KEY_COLUMNS,
    LAST_MS,
    OLDEST,
    Key,
    Place,
    Timeline,
    fetch,
    find,
    find_or_create,
    get_key,
    has_tables,
    remove_older,
    remove_oldest,
    those,
    update_key,
    with_floor,
)

BATCH_LIMIT: Final = 10_000
KEY_LENGTH_LIMIT: Final = 512
DATA_LIMIT_BYTES: Final = 64 * 1024
RETENTION_ROWS_LIMIT: Final = 1_000_000_000
YOUNG_LIMIT: Final = 32
"""Entries of a key in the small part of the index: about what a page of the large one takes well at once."""
REMOVED_AT_LEAST: Final = 64
"""Rows past retention that each append may remove, besides twice as many as it adds."""
REMOVED_BY_DELETE: Final = 1000
_INLINE_ROWS = 64
_INLINE_TEXT = 64 * 1024
"""Batches up to this size are written on the event loop."""
_INLINE_REMOVED = 1000
"""Rows that an append on the event loop may have to remove before it can insert its own."""

_COUNT_ARRIVED = "UPDATE __memoturn_timelines SET next_seq = next_seq + ? WHERE id = ?"
_FIND_KEY = f"SELECT {KEY_COLUMNS} FROM __memoturn_timeline_keys WHERE timeline_id = ? AND key = ?"
_CREATE_KEY = (
    "INSERT INTO __memoturn_timeline_keys(timeline_id, key, rows, young, hidden) VALUES (?, ?, 0, 0, 0)"
)
_INSERT = "INSERT INTO __memoturn_timeline_rows(timeline_id, at, seq, key_id, data) VALUES (?, ?, ?, ?, ?)"
_INSERT_YOUNG = "INSERT INTO __memoturn_timeline_young(key_id, at, seq) VALUES (?, ?, ?)"
_INSERT_INDEX = "INSERT INTO __memoturn_timeline_index(key_id, at, seq) VALUES (?, ?, ?)"
_AGE = """INSERT INTO __memoturn_timeline_index(key_id, at, seq)
 SELECT key_id, at, seq FROM __memoturn_timeline_young WHERE key_id = ?"""
_AGED = "DELETE FROM __memoturn_timeline_young WHERE key_id = ?"
_NEWEST_OF_KEY = BOTH_PARTS.format(where="", order="DESC")
_FROM_FLOOR = BOTH_PARTS.format(where="AND (at, seq) >= (?4, ?5)", order="ASC")
_FIND_HIDDEN = f"""SELECT timeline_id, {KEY_COLUMNS} FROM __memoturn_timeline_keys
 WHERE hidden > 0 ORDER BY timeline_id LIMIT 1"""
_FIND_LONG = f"SELECT {KEY_COLUMNS} FROM __memoturn_timeline_keys WHERE timeline_id = ? AND rows - hidden > ?"
_EVERY_ROW = LAST_MS + 1


class Row(NamedTuple):
    """A row to append, checked. `at` is unix ms, None for the time of the commit; `data` is canonical JSON."""

    key: str
    at: int | None
    data: str


class Retention(NamedTuple):
    """How long rows are kept: seconds by their time, and rows of a key; None for without bound."""

    seconds: int | None
    rows: int | None


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
    paths.check_keys(row.get("data"), data, f"{where}data")
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
    if body.keys().isdisjoint({"retention_s", "retention_rows"}):
        raise InvalidRequestError("send retention_s, retention_rows or both; null keeps everything")
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


# ---- append


def apply_append(
    conn: ProfileConnection, now_ms: int, name: str, rows: Sequence[Row], *, at_once: bool = False
) -> tuple[dict[str, int], bool]:
    """Append a batch, making the timeline if need be; return `{appended, expired, first_seq, last_seq}`.

    `seq` counts up in the order of the batch. Rows that are past retention by the end of it count as expired. Raises
    ElsewhereError where it is to be done `at_once` and many rows have to be removed first.
    """
    timeline = find_or_create(conn, now_ms, name)
    retained_from = timeline.retained_from(now_ms)
    first_seq = timeline.next_seq
    batch: dict[str, list[_Entry]] = {}
    for seq, row in enumerate(rows, first_seq):
        at = now_ms if row.at is None else row.at
        if at >= retained_from:
            batch.setdefault(row.key, []).append((at, seq, row.data))
    if any(at < timeline.gone_at for entries in batch.values() for at, _, _ in entries):
        # Rows that are to be told from those that are gone and only wait to be removed.
        most = _INLINE_REMOVED + 1
        if at_once and len(fetch(conn, OLDEST, (timeline.id, timeline.gone_at, most))) == most:
            raise ElsewhereError
        remove_older(conn, timeline, timeline.gone_at, None)
        conn.execute("UPDATE __memoturn_timelines SET gone_at = 0 WHERE id = ?", (timeline.id,))
        timeline = timeline._replace(gone_at=0)
    kept = _Append(conn, timeline, at_once=at_once).run(batch)
    conn.execute(_COUNT_ARRIVED, (len(rows), timeline.id))
    conn.noted.put_all("timelines", name, batch)
    remove_older(conn, timeline, timeline.shown_from(now_ms), 2 * len(rows) + REMOVED_AT_LEAST)
    return {
        "appended": kept,
        "expired": len(rows) - kept,
        "first_seq": first_seq,
        "last_seq": first_seq + len(rows) - 1,
    }, True


class _Append:
    """One batch on its way into a timeline: what is to be inserted is collected over the keys, then written in order."""

    def __init__(self, conn: ProfileConnection, timeline: Timeline, *, at_once: bool) -> None:
        self._conn = conn
        self._at_once = at_once
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
        conn.execute(COUNT, (len(self._rows), self._new_keys, timeline.id))
        kept = len(self._rows)
        if timeline.retention_rows is not None:
            spare = REMOVED_AT_LEAST
            for key_id, added in keys:
                new_below, removed = _trim(conn, timeline, key_id, 2 * added + spare)
                kept -= new_below
                spare -= max(0, removed - 2 * added)
        return kept

    def _add(self, key: str, entries: list[_Entry]) -> tuple[int, int]:
        """Take the rows of one key, sorted; return (the key's id, how many are to be inserted)."""
        conn, timeline = self._conn, self._timeline
        state = self._key(key)
        most = timeline.retention_rows
        if most is not None:
            entries = entries[-most:]
        if state.hidden:
            entries, state = _settle(conn, timeline, state, entries, at_once=self._at_once)
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
        update_key(conn, state._replace(rows=state.rows + len(entries), young=young))
        return state.id, len(entries)

    def _key(self, key: str) -> Key:
        conn = self._conn
        row = conn.execute(_FIND_KEY, (self._timeline.id, key)).fetchone()
        if row is not None:
            return Key(*row)
        conn.execute(_CREATE_KEY, (self._timeline.id, key))
        self._new_keys += 1
        return Key(conn.last_insert_rowid(), 0, 0, 0, None, None)


def _settle(
    conn: ProfileConnection, timeline: Timeline, key: Key, entries: list[_Entry], *, at_once: bool
) -> tuple[list[_Entry], Key]:
    """Return those rows of a key with a floor that may be inserted, and the key as it is then.

    A late row below the floor is past retention too, unless the bound was raised since: then the rows that
    are gone are removed first, so that the floor is not needed any more.
    """
    above = [entry for entry in entries if entry[:2] > key.floor]
    if len(above) == len(entries):
        return entries, key
    if timeline.retention_rows is not None and key.rows - key.hidden + len(above) >= timeline.retention_rows:
        return above, key
    if at_once and key.hidden > _INLINE_REMOVED:
        raise ElsewhereError
    remove_oldest(conn, timeline, key, key.hidden)
    return entries, get_key(conn, key.id)


def _trim(conn: ProfileConnection, timeline: Timeline, key_id: int, limit: int) -> tuple[int, int]:
    """Hold a key to the newest rows that it may have, and remove up to `limit` of the others.

    Return how many of the new ones went again, and how many rows were removed.
    """
    key = get_key(conn, key_id)
    excess = key.rows - key.hidden - (timeline.retention_rows or 0)
    new_below = 0
    if excess > 0:
        places = _oldest_shown(conn, key, excess + 1)
        new_below = sum(seq >= timeline.next_seq for _, seq in places[:excess])
        key = with_floor(key, excess, places[excess])
        update_key(conn, key)
    removed = min(key.hidden, limit)
    if removed:
        remove_oldest(conn, timeline, key, removed)
    return new_below, removed


def _oldest_shown(conn: ProfileConnection, key: Key, count: int) -> list[Place]:
    return fetch(conn, _FROM_FLOOR, (key.id, count, 0, *key.floor))


# ---- removing, always the oldest rows of a key


def apply_delete(conn: ProfileConnection, now_ms: int, name: str) -> tuple[None, bool]:
    """Delete a timeline: its name is free at once, its rows go in part now and the rest by sweeps."""
    del now_ms
    timeline = find(conn, name)
    if timeline is None:
        return None, False
    conn.execute("UPDATE __memoturn_timelines SET name = NULL WHERE id = ?", (timeline.id,))
    _remove_deleted(conn, timeline, REMOVED_BY_DELETE)
    conn.noted.dropped("timelines", name)
    return None, True


def _remove_deleted(conn: ProfileConnection, timeline: Timeline, limit: int) -> int:
    removed = remove_older(conn, timeline, _EVERY_ROW, limit)
    if removed == timeline.rows:
        conn.execute("DELETE FROM __memoturn_timelines WHERE id = ?", (timeline.id,))
    return removed


def sweep(conn: ProfileConnection, now_ms: int, limit: int) -> tuple[int, bool]:
    """Remove up to `limit` rows that are not shown any more; return how many went, and whether anything changed."""
    if not has_tables(conn):
        return 0, False
    before, left = conn.total_changes(), limit
    for timeline in those(conn, "name IS NULL"):
        left -= _remove_deleted(conn, timeline, left)
    for timeline in those(conn, "name IS NOT NULL AND (retention_s IS NOT NULL OR gone_at > 0)"):
        if left <= 0:
            break
        left -= remove_older(conn, timeline, timeline.shown_from(now_ms), left)
        if timeline.gone_at and left > 0:
            conn.execute("UPDATE __memoturn_timelines SET gone_at = 0 WHERE id = ?", (timeline.id,))
    while left > 0:
        row = conn.execute(_FIND_HIDDEN).fetchone()
        if row is None:
            break
        key, timeline_id = Key(*row[1:]), row[0]
        [timeline] = those(conn, f"id = {timeline_id:d}")
        count = min(key.hidden, left)
        remove_oldest(conn, timeline, key, count)
        left -= count
    return limit - left, conn.total_changes() > before


# ---- retention


def apply_retention(
    conn: ProfileConnection, now_ms: int, name: str, retention: Retention
) -> tuple[dict[str, Any], bool]:
    """Set a timeline's retention, making the timeline if need be; return `{name, created_at, retention_s, retention_rows}`.

    What is past it is not shown from then on, nor ever again when the retention is raised later.
    """
    before = conn.total_changes()
    timeline = find_or_create(conn, now_ms, name)
    if retention != (timeline.retention_s, timeline.retention_rows):
        shown_from = timeline.shown_from(now_ms)
        gone_at = shown_from if fetch(conn, OLDEST, (timeline.id, shown_from, 1)) else 0
        conn.execute(
            "UPDATE __memoturn_timelines SET retention_s = ?, retention_rows = ?, gone_at = ? WHERE id = ?",
            (*retention, gone_at, timeline.id),
        )
    if retention.rows is not None:
        for row in fetch(conn, _FIND_LONG, (timeline.id, retention.rows)):
            key = Key(*row)
            [floor] = fetch(conn, _NEWEST_OF_KEY, (key.id, 1, retention.rows - 1))
            update_key(conn, with_floor(key, key.rows - key.hidden - retention.rows, floor))
    value = {
        "name": name,
        "created_at": timeline.created_at,
        "retention_s": retention.seconds,
        "retention_rows": retention.rows,
    }
    changed = conn.total_changes() > before
    if changed:
        conn.noted.more("timelines", name)
    return value, changed


# ---- what routes call


async def append(
    profile: Profile, name: str, rows: Sequence[Row], *, durability: Durability = Durability.LOCAL
) -> Written[dict[str, int]]:
    """Append rows; see `apply_append`. Raises InvalidRequestError for a bad name."""
    names.timeline(name)
    if len(rows) <= _INLINE_ROWS and sum(len(row.data) for row in rows) <= _INLINE_TEXT:
        try:
            return await profile.write(
                lambda conn, now_ms: apply_append(conn, now_ms, name, rows, at_once=True),
                durability=durability,
            )
        except ElsewhereError:
            pass
    return await profile.write(
        lambda conn, now_ms: apply_append(conn, now_ms, name, rows), durability=durability, work=Work.HEAVY
    )


async def set_retention(
    profile: Profile, name: str, retention: Retention, *, durability: Durability = Durability.LOCAL
) -> Written[dict[str, Any]]:
    """Set a timeline's retention; see `apply_retention`. Raises InvalidRequestError for a bad name."""
    names.timeline(name)
    return await profile.write(
        lambda conn, now_ms: apply_retention(conn, now_ms, name, retention),
        durability=durability,
        work=Work.HEAVY,
    )


async def delete(profile: Profile, name: str, *, durability: Durability = Durability.LOCAL) -> Written[None]:
    """Delete a timeline; see `apply_delete`. Raises InvalidRequestError for a bad name."""
    names.timeline(name)
    return await profile.write(
        lambda conn, now_ms: apply_delete(conn, now_ms, name), durability=durability, work=Work.HEAVY
    )
