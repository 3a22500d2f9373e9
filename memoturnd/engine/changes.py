"""The change feed's part of a profile's file: what each commit round changed, kept for a while.

The newest rounds stand in `__memoturn_meta`, on the page that every round writes anyway; once they are RECENT_BYTES they move
into a row of `__memoturn_changes`, whose oldest rows go. So a round costs no page of its own.
"""

from collections.abc import Iterator
from typing import Any, Final

from memoturnd.core import changes
from memoturnd.core.changes import Change
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import ChangesGoneError

RECENT_BYTES: Final = 1000
"""How much stands in `__memoturn_meta` before it is moved, about."""
LARGE_BYTES: Final = 512
"""Lines longer than this are moved at once."""
KEPT_BYTES: Final = 256 * 1024
"""How much is kept, but for the newest row."""
KEPT_MS: Final = 7 * 86_400_000
"""How long a row is kept; looked at when the next one comes."""

_STAMP: Final = """UPDATE __memoturn_meta SET txid = ?, at_ms = ?, epoch = ?, recent_changes = recent_changes || ?
 WHERE id = 1"""
_SIZE: Final = "SELECT octet_length(recent_changes) FROM __memoturn_meta"
_LAST: Final = "SELECT end_bytes FROM __memoturn_changes ORDER BY txid DESC LIMIT 1"
_MOVE: Final = """INSERT INTO __memoturn_changes(txid, at_ms, end_bytes, rounds)
 SELECT ?1, ?2, ?3 + octet_length(recent_changes), recent_changes FROM __memoturn_meta"""
_OLDEST: Final = "SELECT txid, at_ms, end_bytes FROM __memoturn_changes ORDER BY txid LIMIT 1"


def record(
    conn: ProfileConnection, txid: int, at_ms: int, epoch: int, *, lost_after: int | None = None
) -> None:
    """Stamp the commit round that is open, as schema.write_meta does, and keep what it has noted."""
    line = conn.noted.line(txid, at_ms, lost_after)
    conn.execute(_STAMP, (txid, at_ms, epoch, line))
    if conn.recent_bytes is None:
        conn.recent_bytes = conn.execute(_SIZE).get
    else:
        conn.recent_bytes += len(line)
    if conn.recent_bytes > RECENT_BYTES or len(line) > LARGE_BYTES:
        _move(conn, txid, at_ms)


def _move(conn: ProfileConnection, txid: int, at_ms: int) -> None:
    before_bytes: int = conn.execute(_LAST).get or 0
    conn.execute(_MOVE, (txid, at_ms, before_bytes))
    conn.execute("UPDATE __memoturn_meta SET recent_changes = ''")
    conn.recent_bytes = 0
    end_bytes: int = conn.execute(_LAST).get
    while True:
        row: Any = conn.execute(_OLDEST).fetchone()
        oldest, written_ms, reaches_bytes = row
        is_kept = reaches_bytes > end_bytes - KEPT_BYTES and written_ms > at_ms - KEPT_MS
        if is_kept or oldest == txid:
            return
        conn.execute("DELETE FROM __memoturn_changes WHERE txid = ?", (oldest,))
        conn.execute("UPDATE __memoturn_lineage SET changes_after = ?", (oldest,))


def forget(conn: ProfileConnection, after_txid: int) -> None:
    """Keep nothing of the rounds up to `after_txid`, which are all that there are."""
    conn.execute("DELETE FROM __memoturn_changes", can_cache=False)
    conn.execute("UPDATE __memoturn_meta SET recent_changes = ''", can_cache=False)
    conn.execute("UPDATE __memoturn_lineage SET changes_after = ?", (after_txid,), can_cache=False)
    conn.recent_bytes = None


def any_kept(conn: ProfileConnection) -> bool:
    """Return whether any round is kept."""
    sql = "SELECT recent_changes <> '' OR EXISTS (SELECT 1 FROM __memoturn_changes) FROM __memoturn_meta"
    return bool(conn.execute(sql, can_cache=False).get)


def mentions(conn: ProfileConnection, names: list[str]) -> bool:
    """Return whether a round that is kept may name one of these."""
    for name in names:
        text = changes.as_kept(name)
        row = conn.execute(
            "SELECT 1 FROM __memoturn_meta WHERE instr(recent_changes, ?1)"
            " UNION ALL SELECT 1 FROM __memoturn_changes WHERE instr(rounds, ?1) LIMIT 1",
            (text,),
            can_cache=False,
        ).fetchone()
        if row is not None:
            return True
    return False


def read_after(conn: ProfileConnection, since_txid: int, limit: int) -> list[Change]:
    """Return up to `limit` rounds after `since_txid`, in order; rounds that changed nothing to tell are not there.

    Raises ChangesGoneError where rounds after it are not kept any more, or where it is of a history that was lost.
    """
    floor: int = conn.execute("SELECT changes_after FROM __memoturn_lineage").get
    found: list[Change] = []
    for change in _lines(conn, since_txid):
        if change.txid <= since_txid:
            continue
        if not found:
            lost_after = change.lost_after
            if change.why is None and lost_after is not None and lost_after < since_txid:
                raise _gone(since_txid, "is of commits that were lost with their node")
        found.append(change)
        if len(found) == limit:
            break
    if since_txid < floor:
        raise _gone(since_txid, f"is before txid {floor}, up to which changes are not kept")
    return found


def _lines(conn: ProfileConnection, since_txid: int) -> Iterator[Change]:
    rows: list[Any] = conn.execute(
        "SELECT rounds FROM __memoturn_changes WHERE txid > ? ORDER BY txid", (since_txid,)
    ).fetchall()
    recent: Any = conn.execute("SELECT recent_changes FROM __memoturn_meta").get
    for text in (*(row[0] for row in rows), recent):
        for line in text.split("\n")[:-1]:
            yield changes.parse(line)


def _gone(since_txid: int, why: str) -> ChangesGoneError:
    return ChangesGoneError(
        f"since={since_txid} {why}: read again what you keep a copy of, and go on from the txid of that answer"
    )
