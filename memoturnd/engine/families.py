"""Reserved tables that are made when they are first written: one per collection, model and the like.

A surface makes them inside its write op. An import takes them in only if their schema is what is said here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from memoturnd.core import names


@dataclass(frozen=True, slots=True)
class Family:
    """Reserved objects (`kind`: table or index) of one shape, each of its own suffix.

    `suffix` and `table` are regular expressions, of what follows `prefix` in the object's name and of the name
    of the table that an index is of. `sql` is the statement that makes one, with `{name}` for its name and
    `{table}` for its table's; `sql_pattern`, where the statement varies further, is an expression with the same
    two fields.
    Columns declare the type that all of their values have (INTEGER, REAL, TEXT, BLOB), or ANY.
    """

    kind: str
    prefix: str
    suffix: str
    sql: str = ""
    sql_pattern: str = ""

    def name(self, suffix: str) -> str:
        """Return the name of the object with that suffix."""
        return self.prefix + suffix

    def names(self, name: str) -> bool:
        """Return whether an object of the family may have that name."""
        return re.fullmatch(re.escape(self.prefix) + self.suffix, name) is not None

    def create(self, suffix: str, *, table: str = "") -> str:
        """Return the statement that makes the object with that suffix."""
        return self.sql.format(name=self.name(suffix), table=table)

    def fits(self, kind: str, name: str, table: str, sql: str | None) -> bool:
        """Return whether an object found in a file is one of this family, as Memoturn writes it."""
        if kind != self.kind or not self.names(name):
            return False
        if not self.sql_pattern:
            return sql == self.sql.format(name=name, table=table)
        pattern = self.sql_pattern.format(name=re.escape(name), table=re.escape(table))
        return sql is not None and re.fullmatch(pattern, sql) is not None


MEMORY_VECTORS: Final = Family(
    "table",
    "__memoturn_memory_vectors_",
    "[1-9][0-9]*",
    "CREATE TABLE {name}(rid INTEGER PRIMARY KEY, e BLOB NOT NULL)",
)
"""Embeddings of memories by one model; the suffix is the model's id."""

TURN_VECTORS: Final = Family(
    "table",
    "__memoturn_turn_vectors_",
    "(?:0|[1-9][0-9]*)_[1-9][0-9]*",
    "CREATE TABLE {name}(mid INTEGER PRIMARY KEY, e BLOB NOT NULL)",
)
"""Embeddings of turns by one model, of one number of dimensions; the suffix is the model's id (0 for those that
clients send, of whatever model) and that number."""

VECTORS: Final = Family(
    "table",
    "__memoturn_vectors_",
    "[1-9][0-9]*",
    "CREATE TABLE {name}(rid INTEGER PRIMARY KEY, id TEXT NOT NULL, metadata TEXT NOT NULL,"
    " exponent INTEGER NOT NULL, replaces INTEGER, e BLOB NOT NULL)",
)
"""The vectors of one collection; the suffix is its id in `__memoturn_vector_collections`. What was sent is
`e` (float32, little-endian) times two to the `exponent`; `replaces` is the row that had the same id before."""

VECTOR_IDS: Final = Family(
    "index", "__memoturn_vectors_", "[1-9][0-9]*_id", "CREATE UNIQUE INDEX {name} ON {table}(id)"
)

DOCUMENTS: Final = Family(
    "table",
    "__memoturn_docs_",
    names.SUFFIX_PATTERN,
    "CREATE TABLE {name}(id TEXT NOT NULL PRIMARY KEY, doc TEXT NOT NULL)",
)
"""Collections of documents, each a JSON object with its `_id`; the suffix is the collection's name."""
DOCUMENT_INDEXES: Final = Family(
    "index",
    "__memoturn_docix_",
    f"{names.SUFFIX_PATTERN}__{names.SUFFIX_PATTERN}",
    sql_pattern=r"""CREATE (?:UNIQUE )?INDEX {name} ON {table}\(\(doc ->> '\$(?:\."[A-Za-z0-9_-]+")+'\)(?:, id)?\)""",
)
"""Indexes of collections; the suffix is the collection's name and the field's path. `id` keeps equal values in order."""


def _alone(kind: str, name: str, sql: str) -> Family:
    """Return the family of the one object `name`."""
    return Family(kind, name, "", sql)


# `seq` counts the arrivals in a timeline. A key's rows are found through two tables: the newest arrivals of all keys
# lie close together in `young` (memoturnd.surfaces.timelines). A timeline without a name is deleted, and only
# waits to be removed, as are the `hidden` oldest rows of a key, those below its floor.
TIMELINES: Final = (
    _alone(
        "table",
        "__memoturn_timelines",
        """CREATE TABLE {name}(
 id INTEGER PRIMARY KEY, name TEXT, created_at INTEGER NOT NULL, next_seq INTEGER NOT NULL, rows INTEGER NOT NULL,
 keys INTEGER NOT NULL, retention_s INTEGER, retention_rows INTEGER, gone_at INTEGER NOT NULL)""",
    ),
    _alone(
        "index",
        "__memoturn_timelines_name",
        "CREATE UNIQUE INDEX {name} ON __memoturn_timelines(name)",
    ),
    _alone(
        "table",
        "__memoturn_timeline_keys",
        """CREATE TABLE {name}(
 id INTEGER PRIMARY KEY, timeline_id INTEGER NOT NULL, key TEXT NOT NULL, rows INTEGER NOT NULL,
 young INTEGER NOT NULL, hidden INTEGER NOT NULL, floor_at INTEGER, floor_seq INTEGER)""",
    ),
    _alone(
        "index",
        "__memoturn_timeline_keys_key",
        "CREATE UNIQUE INDEX {name} ON __memoturn_timeline_keys(timeline_id, key)",
    ),
    _alone(
        "index",
        "__memoturn_timeline_keys_hidden",
        "CREATE INDEX {name} ON __memoturn_timeline_keys(timeline_id) WHERE hidden > 0",
    ),
    _alone(
        "table",
        "__memoturn_timeline_rows",
        """CREATE TABLE {name}(
 timeline_id INTEGER NOT NULL, at INTEGER NOT NULL, seq INTEGER NOT NULL, key_id INTEGER NOT NULL,
 data TEXT NOT NULL, PRIMARY KEY (timeline_id, at, seq)) WITHOUT ROWID""",
    ),
    _alone(
        "table",
        "__memoturn_timeline_young",
        """CREATE TABLE {name}(
 key_id INTEGER NOT NULL, at INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key_id, at, seq)) WITHOUT ROWID""",
    ),
    _alone(
        "table",
        "__memoturn_timeline_index",
        """CREATE TABLE {name}(
 key_id INTEGER NOT NULL, at INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (key_id, at, seq)) WITHOUT ROWID""",
    ),
)
"""Everything of a profile's timelines; made together, when the first one is."""

FAMILIES: Final[Iterable[Family]] = (
    MEMORY_VECTORS,
    TURN_VECTORS,
    VECTORS,
    VECTOR_IDS,
    DOCUMENTS,
    DOCUMENT_INDEXES,
    *TIMELINES,
)


def fits_any(kind: str, name: str, table: str, sql: str | None) -> bool:
    """Return whether an object found in a file is one that Memoturn makes on first use, as it makes it.

    The index that SQLite makes by itself for a table's key goes with the table.
    """
    if kind == "index" and sql is None and name.startswith("sqlite_autoindex_"):
        return any(family.kind == "table" and family.names(table) for family in FAMILIES)
    return any(family.fits(kind, name, table, sql) for family in FAMILIES)
