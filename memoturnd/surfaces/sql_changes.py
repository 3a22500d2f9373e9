"""What a user's statement changed, as the change feed tells it: the tables that SQLite's authorizer was asked about.

That says which tables a statement may have changed, its triggers included, and not which rows.
"""

from functools import lru_cache
from typing import Final

import apsw

from memoturnd.engine.connection import ProfileConnection, is_reserved
from memoturnd.engine.guard import UserStatements

_SURFACE: Final = "sql"
_ROWS: Final = frozenset({apsw.SQLITE_INSERT, apsw.SQLITE_UPDATE, apsw.SQLITE_DELETE})
_VIRTUAL: Final = frozenset({apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_DROP_VTABLE})
_MADE: Final = frozenset({apsw.SQLITE_CREATE_TABLE, apsw.SQLITE_CREATE_VTABLE, apsw.SQLITE_CREATE_VIEW})
_DROPPED: Final = frozenset({apsw.SQLITE_DROP_TABLE, apsw.SQLITE_DROP_VTABLE, apsw.SQLITE_DROP_VIEW})
_ON_TABLE: Final = frozenset(
    {
        apsw.SQLITE_ALTER_TABLE,
        apsw.SQLITE_CREATE_INDEX,
        apsw.SQLITE_CREATE_TRIGGER,
        apsw.SQLITE_DROP_INDEX,
        apsw.SQLITE_DROP_TRIGGER,
    }
)
"""Actions whose second name is the table."""
_NAMES: Final = 1024
"""Tables' names of which it is remembered whose they are."""


def note(conn: ProfileConnection, seen: UserStatements, *, rows: bool, schema: bool) -> None:
    """Note what the statement changed: `rows` of tables, or the `schema`."""
    if rows and not schema and len(seen.changing) == 1:  # most statements
        [(_, table, _)] = seen.changing
        if table and _is_users(table):
            conn.noted.put(_SURFACE, None, table)
        return
    made, dropped = _changed(seen, rows=rows, schema=schema)
    if len(made) + len(dropped) > 1:
        shadows = _shadows(conn, seen)
        made = {name for name in made if not name.lower().startswith(shadows)}
        dropped = {name for name in dropped if not name.lower().startswith(shadows)}
    conn.noted.put_all(_SURFACE, None, sorted(made - dropped))
    conn.noted.deleted_all(_SURFACE, None, sorted(dropped))
    if schema and any(action == apsw.SQLITE_ALTER_TABLE for action, _, _ in seen.changing):
        conn.noted.more(_SURFACE)  # a table may have another name now


def _changed(seen: UserStatements, *, rows: bool, schema: bool) -> tuple[set[str], set[str]]:
    """Return the tables that are there, and those that are not any more."""
    made: set[str] = set()
    dropped: set[str] = set()
    for action, first, second in seen.changing:
        if action in _ROWS:
            if rows:
                made.add(first or "")
        elif not schema:
            continue
        elif action in _MADE:
            made.add(first or "")
        elif action in _DROPPED:
            dropped.add(first or "")
        elif action in _ON_TABLE:
            made.add(second or "")
    return ({name for name in made if _is_users(name)}, {name for name in dropped if _is_users(name)})


@lru_cache(_NAMES)
def _is_users(name: str) -> bool:
    return name != "" and not is_reserved(name) and name[:7].lower() != "sqlite_"


def _shadows(conn: ProfileConnection, seen: UserStatements) -> tuple[str, ...]:
    """Return how the names of the tables begin that virtual tables keep their rows in."""
    conn.guard.look_for_virtual_tables(conn)
    named = {first or "" for action, first, _ in seen.changing if action in _VIRTUAL}
    return tuple(f"{name.lower()}_" for name in (*named, *(conn.guard.virtual or ())))
