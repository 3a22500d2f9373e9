"""Which turns a memory was drawn from: a session and a range of its numbers, both ends included.

The link is kept beside the memory as it was given. The turns may be deleted later; their numbers are never
given to others.
"""

from array import array
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import apsw

from memoturnd.core import names
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.surfaces import fields

_FIND: Final = "SELECT session_id, from_seq, to_seq FROM __memoturn_memory_origins WHERE rid = ?"
_FIND_ALL: Final = """SELECT rid, session_id, from_seq, to_seq FROM __memoturn_memory_origins
 WHERE rid IN carray(?)"""
_STORE: Final = """INSERT INTO __memoturn_memory_origins(rid, session_id, from_seq, to_seq) VALUES (?, ?, ?, ?)
 ON CONFLICT(rid) DO NOTHING"""


class Origin(NamedTuple):
    """The turns `from_seq` to `to_seq` of a session."""

    session_id: str
    from_seq: int
    to_seq: int

    def shown(self) -> dict[str, Any]:
        """Return the origin as answers have it."""
        return self._asdict()


def parse(value: Any, where: str) -> Origin | None:
    """Return the origin of `{session_id, from_seq, to_seq?}`, None of null. Raises InvalidRequestError."""
    if value is None:
        return None
    body = fields.mapping(value, where)
    session_id = fields.text(body.get("session_id"), f"{where}.session_id")
    try:
        names.session_id(session_id)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"{where}.{error}") from error
    first = fields.count(body.get("from_seq"), f"{where}.from_seq", limit=INTEGER_MAX)
    to_seq = body.get("to_seq")
    last = first if to_seq is None else fields.count(to_seq, f"{where}.to_seq", limit=INTEGER_MAX)
    if last < first:
        raise InvalidRequestError(f"{where}.to_seq is {last} and from_seq {first}: from_seq comes first")
    return Origin(session_id, first, last)


def store(conn: ProfileConnection, rid: int, origin: Origin) -> None:
    """Keep the origin of the memory in row `rid`; one that has an origin keeps that."""
    conn.execute(_STORE, (rid, *origin))


def remove(conn: ProfileConnection, rid: int) -> None:
    """Let go of a memory's origin."""
    conn.execute("DELETE FROM __memoturn_memory_origins WHERE rid = ?", (rid,))


def read(conn: ProfileConnection, rid: int) -> dict[str, Any] | None:
    """Return the origin of a memory as answers have it, None where it has none."""
    row: Any = conn.execute(_FIND, (rid,)).fetchone()
    return None if row is None else Origin(*row).shown()


def read_all(conn: ProfileConnection, rids: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Return the origins of those memories that have one, by row."""
    wanted = list(rids)
    if not wanted:
        return {}
    rows: Any = conn.execute(_FIND_ALL, (apsw.carray(array("q", wanted)),))
    return {rid: Origin(*origin).shown() for rid, *origin in rows}
