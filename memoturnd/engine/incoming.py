"""A SQLite file from outside, checked and turned into the file of a profile.

Nothing in it is trusted: neither that it is a database, nor what its schema says. What a user may create by
SQL may come in, and nothing else: every object of the schema is created once more, in an empty profile in
memory, under the same guard as users' statements. Reserved tables come in only as Memoturn itself wrote them.

A profile's file has its meta table on page 2 and pages of 4096 bytes. A file that does not is written anew by
VACUUM INTO, which makes tables in the order of the schema table; the reserved ones are moved to its front.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import apsw
import msgspec
import numpy as np

from memoturnd.core import canonical, names, paths
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.engine import changes, families, idempotency, incoming_timelines, schema
from memoturnd.engine.connection import (
    PAGE_SIZE_BYTES,
    RESERVED_PREFIX,
    ProfileConnection,
    is_reserved,
    open_connection,
)
from memoturnd.engine.rounds import translate
from memoturnd.errors import (
    DiskFullError,
    ForbiddenError,
    InvalidRequestError,
    RequestTimeoutError,
    RetryableError,
    invariant,
)

OBJECTS_LIMIT: Final = 2000
"""Tables, indexes, views and triggers that an imported file may have."""
SCHEMA_LIMIT_BYTES: Final = 4 * 1024 * 1024
VALUE_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""Longest value or row in an imported file."""
TXID_LIMIT: Final = INTEGER_MAX // 2
"""Highest txid that a file may stand at, so that there are as many left above it."""

_MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
_JOURNAL_AT: Final = 18
_ROLLBACK_JOURNAL: Final = b"\x01\x01"
_STEPS: Final = 1000
"""SQLite steps between two looks at the clock."""
_FTS_TABLES: Final = ("__memoturn_memories_fts", "__memoturn_messages_fts")
_TERM_TABLES: Final = ("__memoturn_memory_terms",)
"""Tables without rows of their own, which show the words of another's index."""
_VECTOR_TABLES: Final = ("__memoturn_memory_vectors",)
_WRONG_VECTOR: Final = """SELECT 1 FROM {table} WHERE length(e) <> 4 * ? OR NOT length(id) OR rid < 1 OR rid >= ?
 OR exponent NOT BETWEEN -1100 AND 1100
 OR CASE WHEN json_valid(metadata) THEN json_type(metadata) <> 'object' ELSE TRUE END LIMIT 1"""
_STATISTICS: Final = frozenset({"sqlite_sequence", "sqlite_stat1", "sqlite_stat4"})
_ORDER: Final = ("table", "index", "view", "trigger")
_VIRTUAL: Final = re.compile(r"\s*create\s+virtual\s", re.IGNORECASE)
_TO_FRONT: Final = 1 << 32


class _Object(NamedTuple):
    """A row of the schema table."""

    type: Literal["table", "index", "view", "trigger"]
    name: str
    table: str
    root: int
    sql: str | None

    @property
    def reserved(self) -> bool:
        return is_reserved(self.name) or is_reserved(self.table)


def prepare(source: Path, target: Path, *, now_ms: int, expired: Callable[[], bool]) -> int:
    """Turn the file at `source` into a profile's file at `target`, and return the txid at which it stands.

    A file of Memoturn's keeps its txid, any other starts at 1. `source` is used up. Blocks: for a thread. Raises
    InvalidRequestError, ForbiddenError, ConflictError for a file of a newer release, RequestTimeoutError once
    `expired`, DiskFullError.
    """
    with _translated():
        _check_header(source)
        with closing(_open_untrusted(source, expired)) as conn:
            objects = _objects(conn)
            ours = any(o.name == "__memoturn_meta" for o in objects)
            version = 0
            _check_users(objects)
            if ours:
                version = _version(conn)
                _check_reserved(objects, version)
            elif any(o.reserved for o in objects):
                raise _reserved_error(next(o.name for o in objects if o.reserved))
            _check_integrity(conn)
            txid = _check_rows(conn, objects, version) if ours else 1
            as_it_is = ours and _fits(conn, objects)
            if not as_it_is:
                _write_anew(conn, target, ours=ours)
        if as_it_is:
            source.rename(target)
        _stamp(target, txid, now_ms)
    return txid


def forget_log(path: Path) -> None:
    """Say in a database file that no log belongs to it. It must not be open anywhere, and have none."""
    with path.open("r+b") as file:
        file.seek(_JOURNAL_AT)
        file.write(_ROLLBACK_JOURNAL)


def empty_log(conn: apsw.Connection) -> None:
    """Move the whole log into the file."""
    frames, done = conn.wal_checkpoint("main", mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    invariant(frames == done == 0, "a log that nobody reads is emptied whole", frames=frames, done=done)


def _check_header(path: Path) -> None:
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
    if len(head) < _HEADER_BYTES or not head.startswith(_MAGIC):
        raise InvalidRequestError(
            "the file is not a SQLite database: send one as sqlite3 or an export wrote it"
        )
    if int.from_bytes(head[56:60], "big") > 1:
        raise InvalidRequestError(
            "the database keeps its text as UTF-16, and a profile UTF-8; "
            "convert it: sqlite3 old.db .dump | sqlite3 new.db"
        )


def _open_untrusted(path: Path, expired: Callable[[], bool]) -> apsw.Connection:
    """Open a file of which nothing is known, without extensions, triggers, or trust in its schema."""
    conn = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
        conn.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        conn.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        conn.config(apsw.SQLITE_DBCONFIG_ENABLE_VIEW, 0)
        conn.limit(apsw.SQLITE_LIMIT_LENGTH, VALUE_LIMIT_BYTES)
        conn.limit(apsw.SQLITE_LIMIT_SQL_LENGTH, SCHEMA_LIMIT_BYTES)
        conn.set_progress_handler(expired, _STEPS)
        for pragma in ("mmap_size=0", "cell_size_check=1", "synchronous=off", "temp_store=memory"):
            conn.execute(f"PRAGMA {pragma}")
    except BaseException:
        conn.close()
        raise
    return conn


# ---- the schema


def schema_size(conn: apsw.Connection) -> tuple[int, int]:
    """Return how many objects the schema has, and the bytes of their SQL."""
    [(count, size_bytes)] = conn.execute(
        "SELECT count(*), coalesce(sum(length(CAST(sql AS BLOB))), 0) FROM main.sqlite_schema"
    )
    return count, size_bytes


def _objects(conn: apsw.Connection) -> list[_Object]:
    count, size_bytes = schema_size(conn)
    if count > OBJECTS_LIMIT or size_bytes > SCHEMA_LIMIT_BYTES:
        raise InvalidRequestError(
            f"the schema has {count} objects in {size_bytes} bytes of SQL; "
            f"a profile takes {OBJECTS_LIMIT} in {SCHEMA_LIMIT_BYTES}"
        )
    objects = []
    for row in conn.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema"):
        try:
            objects.append(msgspec.convert(row, _Object))
        except msgspec.ValidationError as error:
            raise InvalidRequestError(f"the schema table of the database is damaged: {error}") from error
    return objects


def _check_users(objects: list[_Object]) -> None:
    """Create every object that is not ours in an empty profile, as a user would. Raises what is refused."""
    users = [o for o in objects if not o.reserved]
    for o in users:
        if o.sql is not None and RESERVED_PREFIX in o.sql.lower():
            raise _reserved_error(o.name)
    virtual = [o for o in users if o.sql is not None and _VIRTUAL.match(o.sql)]
    plain = sorted((o for o in users if o not in virtual), key=lambda o: _ORDER.index(o.type))
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    with closing(conn):
        conn.execute("BEGIN")
        schema.create(conn)
        for o in (*virtual, *plain):
            if o.name in _STATISTICS or (o.sql is None and o.type == "index"):
                continue
            if o.type == "table" and o not in virtual and conn.table_exists("main", o.name):
                continue  # a table that its virtual table has just made
            _create(conn, o)


def _create(conn: ProfileConnection, o: _Object) -> None:
    try:
        with conn.user_statements(read_only=False) as user:
            user.execute(o.sql or "").fetchall()
    except ForbiddenError as error:
        raise ForbiddenError(f"{o.type} {o.name} cannot come into a profile: {error}") from error
    except (apsw.Error, InvalidRequestError) as error:
        raise InvalidRequestError(f"{o.type} {o.name} cannot come into a profile: {error}") from error


def _version(conn: apsw.Connection) -> int:
    """Return the schema version that the file says it has. Raises InvalidRequestError, ConflictError."""
    versions = conn.execute("SELECT schema_version FROM __memoturn_meta").fetchall()
    if len(versions) != 1 or not isinstance(versions[0][0], int):
        raise InvalidRequestError(
            "__memoturn_meta does not hold its one row: send an export as it was written"
        )
    version = versions[0][0]
    schema.check_version(schema.Meta(version, 0, 0, 0))
    if version < 1:
        raise InvalidRequestError(f"__memoturn_meta says version {version}, which no node writes")
    return version


def _check_reserved(objects: list[_Object], version: int) -> None:
    """Let the reserved objects be exactly those that a release with that version of the schema makes.

    Raises InvalidRequestError.
    """
    found = {
        (o.type, o.name, o.table): _as_written(o)
        for o in objects
        if o.reserved and not families.fits_any(o.type, o.name, o.table, o.sql)
    }
    conn = open_connection(":memory:", read_only=False, sync="normal", cache_kib=64)
    with closing(conn):
        conn.execute("BEGIN")
        schema.create_anywhere(conn, version=version)
        expected = {(o.type, o.name, o.table): _as_written(o) for o in _objects(conn)}
    for key in (*expected, *found):
        if found.get(key, "") != expected.get(key, ""):
            raise InvalidRequestError(
                f"the reserved {key[0]} {key[1]} is not as Memoturn writes it; "
                f"names that start {RESERVED_PREFIX} come in from an export alone, unchanged"
            )


def _as_written(o: _Object) -> str | None:
    # What FTS5 calls its own tables is its business, and may change with SQLite.
    return None if o.name.startswith(tuple(f"{name}_" for name in _FTS_TABLES)) else o.sql


def _reserved_error(name: str) -> ForbiddenError:
    return ForbiddenError(
        f"{name} takes or names a reserved name: what starts {RESERVED_PREFIX} is Memoturn's own; rename it"
    )


# ---- the contents


def _check_integrity(conn: apsw.Connection) -> None:
    found = [str(row[0]) for row in conn.execute("PRAGMA integrity_check(10)")]
    if found != ["ok"]:
        raise InvalidRequestError(f"the database is damaged: {found[0][:200]}")


def _check_rows(conn: apsw.Connection, objects: list[_Object], version: int) -> int:
    """Hold the rows of the reserved tables to their types, and return the txid. Raises InvalidRequestError."""
    txid = conn.execute("SELECT txid FROM __memoturn_meta").get
    if not isinstance(txid, int) or not 0 <= txid <= TXID_LIMIT:
        raise InvalidRequestError(f"__memoturn_meta says txid {txid}, which no node writes")
    tables = [o.name for o in objects if o.type == "table" and is_reserved(o.name)]
    for table in tables:
        if not table.startswith((*_FTS_TABLES, *_TERM_TABLES)) and table != "__memoturn_meta":
            _check_types(conn, table)
    rules = {
        "content that is not JSON": "__memoturn_memories WHERE NOT json_valid(content)",
        "content of a turn that is not JSON": "__memoturn_messages WHERE NOT json_valid(content)",
    }
    if "__memoturn_models" in tables:
        rules["metadata of a key that is no JSON object"] = (
            "__memoturn_kv WHERE CASE WHEN json_valid(meta) THEN json_type(meta) <> 'object' ELSE meta IS NOT NULL END"
        )
        rules["a memory whose version, importance or pin no node writes"] = (
            f"__memoturn_memories WHERE version NOT BETWEEN 1 AND {INTEGER_MAX}"
            " OR importance NOT BETWEEN 0 AND 1 OR pinned NOT IN (0, 1)"
        )
        rules["a tag that names no put of a key"] = "__memoturn_kv WHERE length(tag) <> 8"
    if version == 1:
        rules["an embedding of a turn that is no row of numbers"] = (
            "__memoturn_messages WHERE length(embedding) % 4"
        )
    for what, rule in rules.items():
        if conn.execute(f"SELECT 1 FROM {rule} LIMIT 1").fetchone() is not None:
            raise InvalidRequestError(f"the reserved tables hold {what}: send an export as it was written")
    for table in tables:
        if table.startswith(_VECTOR_TABLES):
            _check_vectors(conn, table, tables)
        elif table.startswith(families.TURN_VECTORS.prefix):
            _check_turn_vectors(conn, table)
        elif table.startswith(families.DOCUMENTS.prefix):
            _check_documents(conn, table)
    if "__memoturn_models" in tables:
        _check_collections(conn, objects)
    incoming_timelines.check(conn, [o.name for o in objects if o.reserved])
    return max(1, txid)


def _check_vectors(conn: apsw.Connection, table: str, tables: list[str]) -> None:
    """Let a table of embeddings hold vectors of one length, that of its model."""
    lengths = {length for (length,) in conn.execute(f"SELECT DISTINCT length(e) FROM {table} LIMIT 3")}
    wrong = any(not length or length % 4 for length in lengths) or len(lengths) > 1
    if not wrong and "__memoturn_models" in tables:
        model_id = table.rpartition("_")[2]
        dimensions = conn.execute("SELECT dimensions FROM __memoturn_models WHERE id = ?", (model_id,)).get
        wrong = dimensions is None or not lengths <= {4 * dimensions}
    if wrong:
        raise InvalidRequestError(
            f"{table} holds embeddings that are not of one model's dimensions: send an export as it was written"
        )
    _check_numbers(conn, table)


def _check_turn_vectors(conn: apsw.Connection, table: str) -> None:
    """Let a table of turns' embeddings hold vectors of the dimensions in its name."""
    dimensions = int(table.rpartition("_")[2])
    if conn.execute(f"SELECT 1 FROM {table} WHERE length(e) <> ? LIMIT 1", (4 * dimensions,)).get is not None:
        raise InvalidRequestError(
            f"{table} holds embeddings of other dimensions: send an export as it was written"
        )
    _check_numbers(conn, table)


def _check_numbers(conn: apsw.Connection, table: str) -> None:
    """Let vectors, whose length is checked, be of numbers: an infinity or NaN has no place in any order."""
    vectors: Any = conn.execute(f"SELECT e FROM {table}")
    if not all(np.isfinite(np.frombuffer(e, "<f4")).all() for (e,) in vectors):
        raise InvalidRequestError(
            f"{table} holds a vector with an infinity or NaN: send an export as it was written"
        )


def _check_collections(conn: apsw.Connection, objects: list[_Object]) -> None:
    """Let every collection of vectors have its table, and every table be as its collection says."""
    family, index = families.VECTORS, families.VECTOR_IDS
    unknown = {o.name for o in objects if family.fits(o.type, o.name, o.table, o.sql)}
    indexes = {(o.name, o.table) for o in objects if o.type == "index"}
    collections: list[Any] = conn.execute(
        "SELECT id, name, dimensions, vectors, next_rid FROM __memoturn_vector_collections"
    ).fetchall()
    for id_, name, dimensions, count, next_rid in collections:
        names.collection(name)
        table = family.name(str(id_))
        right = table in unknown and (index.name(f"{id_}_id"), table) in indexes
        right = right and 0 < next_rid <= TXID_LIMIT and id_ <= TXID_LIMIT
        right = right and conn.execute(f"SELECT count(*) FROM {table}").get == count
        if not right or conn.execute(_WRONG_VECTOR.format(table=table), (dimensions, next_rid)).get:
            raise InvalidRequestError(
                f"the collection {name} does not hold vectors as Memoturn writes them: send an export as it was written"
            )
        _check_numbers(conn, table)
        unknown.remove(table)
    if unknown:
        raise InvalidRequestError(f"{min(unknown)} is of no collection: send an export as it was written")


def _check_documents(conn: apsw.Connection, table: str) -> None:
    """Let a collection hold documents as an insert takes them, each under its `_id`. Raises InvalidRequestError."""
    for key, text in conn.execute(f"SELECT id, doc FROM {table}"):
        try:
            doc = canonical.decode_json(str(text).encode(), where="it")
            canonical.check(doc, "it")
            is_document = isinstance(doc, dict) and doc.get(paths.KEY) == key
        except InvalidRequestError:
            is_document = False
        if not is_document:
            raise InvalidRequestError(
                f"{table} holds what is no document of its {paths.KEY}: send an export as it was written"
            )


def _check_types(conn: apsw.Connection, table: str) -> None:
    columns = [(name, kind) for _, name, kind, *_ in conn.execute(f"PRAGMA table_info({table})")]
    wrong = " OR ".join(f"typeof({name}) NOT IN ('{kind.lower()}', 'null')" for name, kind in columns)
    if conn.execute(f"SELECT 1 FROM {table} WHERE {wrong} LIMIT 1").fetchone() is not None:
        raise InvalidRequestError(f"{table} holds a value of another type: send an export as it was written")
    texts = ", ".join(name for name, kind in columns if kind == "TEXT")
    if texts:
        try:
            for _ in conn.execute(f"SELECT {texts} FROM {table}"):
                pass
        except UnicodeDecodeError as error:
            raise InvalidRequestError(f"{table} holds text that is not UTF-8: {error}") from error


# ---- the file


def _fits(conn: apsw.Connection, objects: list[_Object]) -> bool:
    """Return whether the file is built as a profile's file is."""
    meta = next(o for o in objects if o.name == "__memoturn_meta")
    return (
        meta.root == schema.META_ROOT_PAGE
        and conn.execute("PRAGMA page_size").get == PAGE_SIZE_BYTES
        and conn.execute("PRAGMA auto_vacuum").get == 0
    )


def _write_anew(conn: apsw.Connection, target: Path, *, ours: bool) -> None:
    """Write the database to `target` with the reserved tables first, and pages as a profile has them."""
    conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 0)
    conn.execute("BEGIN IMMEDIATE")
    if not ours:
        schema.create_anywhere(conn)
    conn.execute("PRAGMA writable_schema=1")
    conn.execute(
        "UPDATE sqlite_schema SET rowid = rowid - ? WHERE substr(lower(tbl_name), 1, ?) = ?",
        (_TO_FRONT, len(RESERVED_PREFIX), RESERVED_PREFIX),
    )
    conn.execute("COMMIT")
    conn.execute("PRAGMA writable_schema=0")
    conn.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    conn.execute(f"PRAGMA page_size={PAGE_SIZE_BYTES}")
    conn.execute("PRAGMA auto_vacuum=0")
    conn.execute("VACUUM INTO ?", (str(target),))


def _stamp(path: Path, txid: int, now_ms: int) -> None:
    """Bring the schema up to date, and stamp the state as one commit of no branch so far, all of it in the file itself."""
    conn = open_connection(str(path), read_only=False, sync="normal", cache_kib=256)
    with closing(conn):
        conn.execute("BEGIN IMMEDIATE")
        schema.migrate(conn, schema.read_meta(conn))
        idempotency.forget_all(conn)
        schema.write_meta(conn, txid, now_ms, 0)
        changes.forget(conn, txid)
        conn.execute("COMMIT")
        root = conn.execute("SELECT rootpage FROM sqlite_schema WHERE name = '__memoturn_meta'").get
        invariant(root == schema.META_ROOT_PAGE, "the meta table is on page 2", root=root)
        empty_log(conn)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn SQLite's errors into what the sender of the file should hear."""
    try:
        yield
    except OSError as error:
        raise DiskFullError(
            f"the data directory refused the file: {error.strerror}; make room, then try again"
        ) from error
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"the database holds names that are not UTF-8: {error}") from error
    except apsw.Error as error:
        translated = translate(error)
        if isinstance(translated, RequestTimeoutError):
            raise RequestTimeoutError("checking the file took too long; it was not imported") from error
        if isinstance(translated, RetryableError):
            raise translated from error
        raise InvalidRequestError(f"SQLite refuses the file: {error}") from error
