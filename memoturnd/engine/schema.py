"""The reserved tables of a profile's file, and the version that they carry.

`__memoturn_meta` is made first, so that its only row lives on page 2 of the file: capture reads the txid of
each commit round from that page in the WAL. The user's own tables are not known here.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import apsw

from memoturnd.core.turn_text import words_in
from memoturnd.engine import changes, families
from memoturnd.engine.connection import ProfileConnection, open_connection
from memoturnd.errors import ConflictError, CorruptionError, invariant

SCHEMA_VERSION: Final = 3
META_ROOT_PAGE: Final = 2
_NORMAL: Final = 1
"""What SQLite calls `PRAGMA synchronous=normal`."""

_META = """CREATE TABLE __memoturn_meta(
 id INTEGER PRIMARY KEY CHECK (id = 1), schema_version INTEGER NOT NULL, txid INTEGER NOT NULL,
 at_ms INTEGER NOT NULL, epoch INTEGER NOT NULL)"""

# `rid` ties a memory to its FTS row and its vector. `content` is canonical JSON text. A memory is active
# while `superseded_at` is null; `superseded_by` may be null again once the replacement is forgotten.
_ADDED_IN_1 = (
    """CREATE TABLE __memoturn_memories(
 rid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,
 type TEXT NOT NULL CHECK (type IN ('fact', 'event', 'instruction', 'task')),
 topic_key TEXT, summary TEXT NOT NULL, content TEXT NOT NULL, keywords TEXT NOT NULL DEFAULT '',
 session_id TEXT, source TEXT, created_at INTEGER NOT NULL, expires_at INTEGER,
 superseded_by TEXT, superseded_at INTEGER)""",
    """CREATE INDEX __memoturn_memories_topic ON __memoturn_memories(topic_key, created_at)
 WHERE topic_key IS NOT NULL""",
    """CREATE INDEX __memoturn_memories_active ON __memoturn_memories(topic_key, type)
 WHERE topic_key IS NOT NULL AND superseded_at IS NULL""",
    """CREATE INDEX __memoturn_memories_successor ON __memoturn_memories(superseded_by)
 WHERE superseded_by IS NOT NULL""",
    """CREATE INDEX __memoturn_memories_session ON __memoturn_memories(session_id)
 WHERE session_id IS NOT NULL""",
    """CREATE INDEX __memoturn_memories_expiry ON __memoturn_memories(expires_at)
 WHERE expires_at IS NOT NULL""",
    """CREATE VIRTUAL TABLE __memoturn_memories_fts USING fts5(
 summary, keywords, content='__memoturn_memories', content_rowid='rid', tokenize='porter unicode61')""",
    "INSERT INTO __memoturn_memories_fts(__memoturn_memories_fts, rank) VALUES ('secure-delete', 1)",
    """CREATE TABLE __memoturn_memory_sessions(
 id TEXT PRIMARY KEY, created_at INTEGER NOT NULL, last_active_at INTEGER NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX __memoturn_memory_sessions_active ON __memoturn_memory_sessions(last_active_at)",
    """CREATE TABLE __memoturn_kv(
 ns TEXT NOT NULL, k TEXT NOT NULL, v BLOB NOT NULL, expires_at INTEGER, PRIMARY KEY (ns, k)) WITHOUT ROWID""",
    "CREATE INDEX __memoturn_kv_expiry ON __memoturn_kv(expires_at) WHERE expires_at IS NOT NULL",
)
_VECTORS_OF_1 = "CREATE TABLE __memoturn_memory_vectors(rid INTEGER PRIMARY KEY, e BLOB NOT NULL)"
"""Where version 1 kept the embeddings of memories, of the one model that a profile had."""
_MESSAGES_OF_1 = """CREATE TABLE __memoturn_messages(
 session_id TEXT NOT NULL, seq INTEGER NOT NULL, role TEXT NOT NULL, content TEXT NOT NULL,
 embedding BLOB, created_at INTEGER NOT NULL, PRIMARY KEY (session_id, seq))"""
"""Where version 1 kept turns, each with its embedding."""

# `version` counts, per type and topic, how often a memory became the active one: the active memory has the
# highest, and whatever a memory was superseded by has a higher one than it. Who is not rated has no `importance`.
# `updated_at` is that of the last change by hand, null without any; `undone_at` tells that the memory was
# superseded by undoing it.
_CHAINS_OF_2 = (
    "ALTER TABLE __memoturn_memories ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE __memoturn_memories ADD COLUMN importance REAL",
    "ALTER TABLE __memoturn_memories ADD COLUMN version INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE __memoturn_memories ADD COLUMN reason TEXT",
    "ALTER TABLE __memoturn_memories ADD COLUMN updated_at INTEGER",
    "ALTER TABLE __memoturn_memories ADD COLUMN undone_at INTEGER",
    """UPDATE __memoturn_memories SET version = counted.n FROM (SELECT rid, row_number() OVER (
 PARTITION BY topic_key, type ORDER BY superseded_at IS NULL, superseded_at, created_at, rid) AS n
 FROM __memoturn_memories WHERE topic_key IS NOT NULL) AS counted
 WHERE counted.n > 1 AND counted.rid = __memoturn_memories.rid""",
    "DROP INDEX __memoturn_memories_active",
    """CREATE INDEX __memoturn_memories_versions ON __memoturn_memories(topic_key, type, version)
 WHERE topic_key IS NOT NULL""",
    "DROP INDEX __memoturn_memories_session",
    """CREATE INDEX __memoturn_memories_session ON __memoturn_memories(session_id, created_at)
 WHERE session_id IS NOT NULL""",
    """CREATE INDEX __memoturn_memories_source ON __memoturn_memories(source, created_at)
 WHERE source IS NOT NULL""",
    "CREATE INDEX __memoturn_memories_created ON __memoturn_memories(created_at)",
    "CREATE INDEX __memoturn_memories_pinned ON __memoturn_memories(created_at) WHERE pinned = 1",
    """CREATE INDEX __memoturn_memories_importance ON __memoturn_memories(importance, created_at)
 WHERE importance IS NOT NULL""",
)

# Of a write that came with an Idempotency-Key: what it was, and what it answered. `size_bytes_before` adds up
# the answers of all rows before this one, so that first and last row tell how much is kept.
# A change of a memory other than its first insert is noted for those who keep a copy of them in memory.
# `__memoturn_memory_terms` holds nothing: it shows the index of the memories' text, word by word.
# `replaced_txid` is the commit that last replaced the whole state, as a rewind does.
# A collection of vectors is what it was at `changed_txid`, the last commit that changed it. A vector's `rid` is from
# below `next_rid`, and used once: another vector under the same id is another row.
# `meta` is a JSON object, `tag` names the put that a key's value comes from; a row of version 1 has neither.
# `mid` ties a turn to its words and vectors. The index of words has no content of its own: see core/turn_text.py.
# A transcript's row outlives its turns, so that no number is given twice; its key is a hash of the session id.
# A memory's origin are the turns that it was drawn from.
# The job that embeds again stands in one row; it is of the branch that it names, and not of the branch's forks.
_ADDED_IN_2 = (
    """CREATE TABLE __memoturn_idempotency(
 seq INTEGER PRIMARY KEY, branch TEXT NOT NULL, route TEXT NOT NULL, principal TEXT NOT NULL, key TEXT NOT NULL,
 digest BLOB NOT NULL, txid INTEGER NOT NULL, at_ms INTEGER NOT NULL, size_bytes_before INTEGER NOT NULL,
 answer BLOB NOT NULL, UNIQUE (branch, route, principal, key))""",
    "CREATE TABLE __memoturn_lineage(id INTEGER PRIMARY KEY CHECK (id = 1), replaced_txid INTEGER NOT NULL)",
    "INSERT INTO __memoturn_lineage VALUES (1, 0)",
    """CREATE TABLE __memoturn_models(
 id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, dimensions INTEGER NOT NULL, created_at INTEGER NOT NULL)""",
    "CREATE TABLE __memoturn_memory_changes(seq INTEGER PRIMARY KEY, rid INTEGER NOT NULL)",
    """CREATE TABLE __memoturn_vector_collections(
 name TEXT PRIMARY KEY, id INTEGER NOT NULL, dimensions INTEGER NOT NULL, vectors INTEGER NOT NULL,
 next_rid INTEGER NOT NULL, created_at INTEGER NOT NULL, created_txid INTEGER NOT NULL,
 changed_txid INTEGER NOT NULL) WITHOUT ROWID""",
    "ALTER TABLE __memoturn_kv ADD COLUMN meta TEXT",
    "ALTER TABLE __memoturn_kv ADD COLUMN tag BLOB",
    """CREATE TABLE __memoturn_messages(
 mid INTEGER PRIMARY KEY, session_id TEXT NOT NULL, seq INTEGER NOT NULL, role TEXT NOT NULL,
 content TEXT NOT NULL, created_at INTEGER NOT NULL, UNIQUE (session_id, seq))""",
    """CREATE VIRTUAL TABLE __memoturn_messages_fts USING fts5(text, content='', tokenize='porter unicode61')""",
    "INSERT INTO __memoturn_messages_fts(__memoturn_messages_fts, rank) VALUES ('secure-delete', 1)",
    """CREATE TABLE __memoturn_transcripts(
 session BLOB PRIMARY KEY, last_seq INTEGER NOT NULL) WITHOUT ROWID""",
    """CREATE TABLE __memoturn_memory_origins(
 rid INTEGER PRIMARY KEY, session_id TEXT NOT NULL, from_seq INTEGER NOT NULL, to_seq INTEGER NOT NULL)""",
    """CREATE TABLE __memoturn_reembed(
 id INTEGER PRIMARY KEY CHECK (id = 1), job TEXT NOT NULL, branch TEXT NOT NULL, model TEXT NOT NULL,
 scope TEXT NOT NULL, only_missing INTEGER NOT NULL, state TEXT NOT NULL, part TEXT NOT NULL,
 cursor INTEGER NOT NULL, total INTEGER NOT NULL, done INTEGER NOT NULL, failed INTEGER NOT NULL,
 started_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, finished_at INTEGER, error TEXT)""",
    *_CHAINS_OF_2,
    "CREATE VIRTUAL TABLE __memoturn_memory_terms USING fts5vocab('__memoturn_memories_fts', 'instance')",
)

# `recent_changes` and `__memoturn_changes` hold what the last rounds changed; see memoturnd.engine.changes. `end_bytes` adds up
# the rows up to this one. Of the rounds up to `changes_after` nothing is kept.
_ADDED_IN_3 = (
    "ALTER TABLE __memoturn_meta ADD COLUMN recent_changes TEXT NOT NULL DEFAULT ''",
    """CREATE TABLE __memoturn_changes(
 txid INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, end_bytes INTEGER NOT NULL, rounds TEXT NOT NULL)""",
    "ALTER TABLE __memoturn_lineage ADD COLUMN changes_after INTEGER NOT NULL DEFAULT 0",
)

_READ_META = "SELECT schema_version, txid, at_ms, epoch FROM __memoturn_meta"
_WRITE_META = "UPDATE __memoturn_meta SET txid = ?, at_ms = ?, epoch = ? WHERE id = 1"


def _to_2(conn: apsw.Connection) -> None:
    """Let embeddings belong to a model, which has no name here: they were the clients' own. Index the words of turns."""
    conn.execute("ALTER TABLE __memoturn_messages RENAME TO __memoturn_messages_of_1", can_cache=False)
    for statement in _ADDED_IN_2:
        conn.execute(statement, can_cache=False)
    _move_turns(conn)
    _move_vectors(conn)


def _move_vectors(conn: apsw.Connection) -> None:
    size_bytes = conn.execute("SELECT length(e) FROM __memoturn_memory_vectors LIMIT 1", can_cache=False).get
    if size_bytes is None:
        conn.execute("DROP TABLE __memoturn_memory_vectors", can_cache=False)
        return
    conn.execute("INSERT INTO __memoturn_models VALUES (1, '', ?, 0)", (size_bytes // 4,), can_cache=False)
    conn.execute(families.MEMORY_VECTORS.create("1"), can_cache=False)
    conn.execute(
        "INSERT INTO __memoturn_memory_vectors_1 SELECT rid, e FROM __memoturn_memory_vectors",
        can_cache=False,
    )
    conn.execute("DROP TABLE __memoturn_memory_vectors", can_cache=False)


def _move_turns(conn: apsw.Connection) -> None:
    conn.execute(
        "INSERT INTO __memoturn_messages(session_id, seq, role, content, created_at)"
        " SELECT session_id, seq, role, content, created_at FROM __memoturn_messages_of_1 ORDER BY rowid",
        can_cache=False,
    )
    last: Any = conn.execute("SELECT session_id, max(seq) FROM __memoturn_messages GROUP BY session_id")
    for session_id, seq in last.fetchall():
        conn.execute("INSERT INTO __memoturn_transcripts VALUES (?, ?)", (transcript_key(session_id), seq))
    turns: Any = conn.execute("SELECT mid, content FROM __memoturn_messages")
    for mid, content in turns:
        words = words_in(content)
        if words:
            conn.execute("INSERT INTO __memoturn_messages_fts(rowid, text) VALUES (?, ?)", (mid, words))
    sizes: Any = conn.execute(
        "SELECT DISTINCT length(embedding) FROM __memoturn_messages_of_1 WHERE length(embedding)"
    )
    for (size_bytes,) in sizes.fetchall():
        suffix = f"0_{size_bytes // 4}"
        conn.execute(families.TURN_VECTORS.create(suffix), can_cache=False)
        conn.execute(
            f"INSERT INTO {families.TURN_VECTORS.name(suffix)}(mid, e)"
            " SELECT m.mid, o.embedding FROM __memoturn_messages_of_1 AS o"
            " JOIN __memoturn_messages AS m ON m.session_id = o.session_id AND m.seq = o.seq"
            " WHERE length(o.embedding) = ? ORDER BY m.mid",
            (size_bytes,),
            can_cache=False,
        )
    conn.execute("DROP TABLE __memoturn_messages_of_1", can_cache=False)


def transcript_key(session_id: str) -> bytes:
    """Return the key under which a session's last number is kept, also when nothing else of it is."""
    return hashlib.blake2b(session_id.encode(), digest_size=16).digest()


def _to_3(conn: apsw.Connection) -> None:
    """Make room for what rounds change; of those that were before nothing is known."""
    for statement in _ADDED_IN_3:
        conn.execute(statement, can_cache=False)
    conn.execute(
        "UPDATE __memoturn_lineage SET changes_after = (SELECT txid FROM __memoturn_meta)", can_cache=False
    )


Migration = Callable[[ProfileConnection], None]
MIGRATIONS: Final[Sequence[Migration]] = (_to_2, _to_3)
"""`MIGRATIONS[n]` takes a file from version n + 1 to n + 2, inside an open transaction."""


class Meta(NamedTuple):
    """The one row about the file: versions, the last commit round (wall time in unix ms) and its epoch."""

    schema_version: int
    txid: int
    at_ms: int
    epoch: int


EMPTY: Final = Meta(SCHEMA_VERSION, 0, 0, 0)
"""What a file without reserved tables reads as."""


def create(conn: ProfileConnection) -> None:
    """Make every reserved table in an empty file, inside the transaction that is open.

    Tables of collections are made when they are first written (memoturnd.engine.families).
    """
    create_anywhere(conn)
    root = conn.execute(
        "SELECT rootpage FROM sqlite_schema WHERE name = '__memoturn_meta'", can_cache=False
    ).get
    invariant(root == META_ROOT_PAGE, "the meta table is not on page 2: the file was not empty", root=root)


def create_anywhere(conn: apsw.Connection, *, version: int = SCHEMA_VERSION) -> None:
    """Make every reserved table that a file of `version` has, behind whatever the file holds already."""
    invariant(conn.in_transaction, "the schema is made inside a transaction")
    conn.execute(_META, can_cache=False)
    conn.execute("INSERT INTO __memoturn_meta VALUES (1, ?, 0, 0, 0)", (version,), can_cache=False)
    added = (*_ADDED_IN_1, _VECTORS_OF_1, _MESSAGES_OF_1) if version == 1 else (*_ADDED_IN_1, *_ADDED_IN_2)
    if version > 2:  # noqa: PLR2004 - what version 3 added
        added = (*added, *_ADDED_IN_3)
    for statement in added:
        conn.execute(statement, can_cache=False)


def create_as_commit(conn: ProfileConnection, *, txid: int, at_ms: int, epoch: int) -> None:
    """Make every reserved table in an empty file, as commit `txid` by the writer of `epoch`.

    The pages are copied from a profile in memory, which takes a fraction of what the statements take. SQLite's
    hook does not speak of the commit. Safe on any thread. Raises apsw.Error, and changes nothing then.
    """
    invariant(conn.pragma("page_count") <= 1, "the file was not empty", file=conn.filename)
    template = _take_template()
    try:
        if txid > 1:  # commits before it were lost with their node, if there were any
            changes.record(template, txid, at_ms, epoch, lost_after=0)
        else:
            write_meta(template, txid, at_ms, epoch)
        with _log_without_fsync(conn), conn.backup("main", template, "main") as backup:
            backup.step(-1)
    finally:
        if txid > 1:
            template.close()  # what it says of lost commits is this profile's alone
        else:
            _TEMPLATES.append(template)


_TEMPLATES: Final[list[ProfileConnection]] = []
"""Profiles without data that nobody copies now: as many as threads ever did at once."""


def _take_template() -> ProfileConnection:
    try:
        return _TEMPLATES.pop()
    except IndexError:
        template = open_connection(":memory:", read_only=False, sync="normal", cache_kib=256)
    template.execute("BEGIN")
    create(template)
    template.execute("COMMIT")
    return template


@contextmanager
def _log_without_fsync(conn: ProfileConnection) -> Iterator[None]:
    """Let the first commit of a file begin its log without an fsync, where later commits do without it.

    The fsync at the beginning of a log keeps older frames apart from its own, and a new log has none.
    """
    level: int = conn.pragma("synchronous")
    if level != _NORMAL:
        yield
        return
    conn.pragma("synchronous", 0)
    try:
        yield
    finally:
        conn.pragma("synchronous", level)


def read_meta(conn: ProfileConnection) -> Meta:
    """Return the file's meta row; EMPTY for a file without reserved tables. Raises CorruptionError."""
    try:
        row = conn.execute(_READ_META).fetchone()
    except apsw.SQLError:
        if not conn.table_exists("main", "__memoturn_meta"):
            return EMPTY
        raise
    if row is None:
        raise CorruptionError(f"{conn.filename} has no meta row: restore the branch from object storage")
    return Meta(*row)


def write_meta(conn: ProfileConnection, txid: int, at_ms: int, epoch: int) -> None:
    """Stamp the commit round that is open: its txid, wall time in unix ms and the writer's epoch."""
    conn.execute(_WRITE_META, (txid, at_ms, epoch))


def replaced_txid(conn: ProfileConnection) -> int:
    """Return the commit that last replaced the whole state, 0 when none did.

    What was learnt of an earlier state says nothing about later ones.
    """
    txid: int = conn.execute("SELECT replaced_txid FROM __memoturn_lineage").get
    return txid


def note_replaced(conn: ProfileConnection, txid: int) -> None:
    """Note that commit `txid` replaces the whole state."""
    conn.execute("UPDATE __memoturn_lineage SET replaced_txid = ?", (txid,))


def check_version(meta: Meta) -> None:
    """Raise ConflictError when a newer Memoturn made the file."""
    if meta.schema_version > SCHEMA_VERSION:
        raise ConflictError(
            f"the profile has schema version {meta.schema_version}, this node knows up to {SCHEMA_VERSION}:"
            f" upgrade the node before it opens this profile"
        )


def migrate(conn: ProfileConnection, meta: Meta, *, migrations: Sequence[Migration] = MIGRATIONS) -> bool:
    """Bring an older file to the newest version inside the open transaction; return whether anything changed.

    The version that is reached is one more than the number of `migrations`.
    """
    invariant(conn.in_transaction, "a migration runs inside a transaction")
    for migration in migrations[meta.schema_version - 1 :]:
        migration(conn)
    reached = len(migrations) + 1
    if reached <= meta.schema_version:
        return False
    conn.execute("UPDATE __memoturn_meta SET schema_version = ? WHERE id = 1", (reached,), can_cache=False)
    return True
