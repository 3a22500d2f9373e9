"""The schema table as users see it: their own objects, and none of Memoturn's.

A statement that reads `sqlite_schema` is run on a temporary view of it instead, made for that statement alone, with a
name that nobody can have written before. The guard lets that view read the schema table, and nothing else of a
user's; so what the rewriting of the text misses is refused, and never shown.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.guard import RESERVED_PREFIX

_OURS: Final = f"lower(substr(%s, 1, {len(RESERVED_PREFIX)})) = '{RESERVED_PREFIX}'"
_SHOWN: Final = (
    f"SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema"
    f" WHERE NOT ({_OURS % 'name'} OR {_OURS % 'tbl_name'})"
)
_NAME = "sqlite_(?:schema|master)"
# Literals and comments first, so that what stands in them stays as it is.
_TOKENS: Final = re.compile(
    rf"""'(?:[^']|'')*'|--[^\n]*|/\*.*?(?:\*/|$)"""
    rf"""|((?:\b|["\[`])main["\]`]?\s*\.\s*)?(?:"{_NAME}"|`{_NAME}`|\[{_NAME}\]|\b{_NAME}\b)""",
    re.IGNORECASE | re.DOTALL,
)


@contextmanager
def shown_schema(conn: ProfileConnection) -> Iterator[str]:
    """Make the view for one statement, and yield its name."""
    name = f"{RESERVED_PREFIX}schema_{conn.execute('SELECT hex(randomblob(16))').get}"
    with _writable(conn):
        conn.execute(f"CREATE TEMP VIEW {name} AS {_SHOWN}", can_cache=False)
    try:
        yield name
    finally:
        with _writable(conn):
            conn.execute(f"DROP VIEW IF EXISTS temp.{name}", can_cache=False)


@contextmanager
def _writable(conn: ProfileConnection) -> Iterator[None]:
    """Let a view be made on a connection that only reads, whatever the budget of the statement says."""
    only_reads = conn.execute("PRAGMA query_only").get
    budget = conn.guard.budget
    if budget is not None:
        budget.paused = True
    try:
        if only_reads:
            conn.execute("PRAGMA query_only=0")
        yield
    finally:
        if only_reads:
            conn.execute("PRAGMA query_only=1")
        if budget is not None:
            budget.paused = False


def on_view(sql: str, view: str) -> str:
    """Return a statement that reads `view` wherever it named the schema table."""
    return _TOKENS.sub(lambda found: found[0] if found[0][:1] in "'-/" else view, sql)
