"""The memory of a profile from lines of JSON, as `memoturnd.surfaces.lines` writes them.

Nothing in them is trusted: every field is checked as a request's is, an id has to be that of what it names, and
links and versions have to be such as writes leave them. Lines are read one at a time, and twice: once to check
them before anything is touched, and once more by the write that stores them, which is one commit.
"""

import binascii
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

import apsw
import numpy as np

from memoturnd.core import canonical, names
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.durability import Durability
from memoturnd.engine import schema
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.families import MEMORY_VECTORS
from memoturnd.errors import ConflictError, InvalidRequestError
from memoturnd.seams.profile import Profile, Work, Written
from memoturnd.surfaces import fields, lines, memories, models, origins, reembed, transcripts, turns
from memoturnd.surfaces.lines import FORMAT, KINDS, VERSION

LINE_LIMIT_BYTES: Final = 64 * 1024 * 1024
_LONGEST = 1.001
"""Bound on the numbers of a vector, whose length is 1."""
_SESSION_BYTES = 16
_TABLES = (
    "memories",
    "memory_sessions",
    "memory_origins",
    "messages",
    "transcripts",
    "models",
)
_INSERT_MEMORY = f"INSERT INTO __memoturn_memories({', '.join(lines.MEMORY)}) VALUES ({', '.join('?' * len(lines.MEMORY))})"
_COUNTED = """INSERT INTO __memoturn_transcripts(session, last_seq) VALUES (?, ?)
 ON CONFLICT(session) DO UPDATE SET last_seq = max(last_seq, excluded.last_seq)"""
_END_TASKS = """UPDATE __memoturn_memories SET expires_at = ?1
 WHERE type = 'task' AND (expires_at IS NULL OR expires_at > ?1)"""
_RULES = {
    "is superseded by a memory that is no later version of its topic": """SELECT id FROM __memoturn_memories AS m
 WHERE superseded_by IS NOT NULL AND NOT EXISTS (SELECT 1 FROM __memoturn_memories AS s WHERE s.id = m.superseded_by
 AND s.topic_key = m.topic_key AND s.type = m.type AND s.version > m.version) LIMIT 1""",
    "has the version of another memory of its topic": """SELECT max(id) FROM __memoturn_memories
 WHERE topic_key IS NOT NULL GROUP BY topic_key, type, version HAVING count(*) > 1 LIMIT 1""",
    "is active and not the newest version of its topic": """SELECT id FROM __memoturn_memories AS m
 WHERE topic_key IS NOT NULL AND superseded_at IS NULL AND EXISTS (SELECT 1 FROM __memoturn_memories AS n
 WHERE n.topic_key = m.topic_key AND n.type = m.type AND n.version > m.version) LIMIT 1""",
}
"""Conditions that writes keep, each by what is wrong with a memory that breaks it."""


class _Line:
    """One line: its fields are taken out with their checks, and what is left over is refused."""

    __slots__ = ("_left", "kind", "where")

    def __init__(self, number: int, value: Any) -> None:
        self.where = f"line {number}"
        self._left = dict(fields.mapping(value, self.where))
        self.kind = fields.text(self.take("kind"), f"{self.where}.kind")

    def take(self, name: str) -> Any:
        if name not in self._left:
            raise InvalidRequestError(f"{self.where} has no {name}: send an export as it was written")
        return self._left.pop(name)

    def end(self) -> None:
        if self._left:
            raise InvalidRequestError(
                f"{self.where} has the field {min(self._left)[:64]!a}, which no {self.kind[:16]} has"
            )

    def count(self, name: str, *, least: int = 0, limit: int = INTEGER_MAX) -> int:
        value = fields.count(self.take(name), f"{self.where}.{name}", limit=limit)
        if value < least:
            raise InvalidRequestError(f"{self.where}.{name} is {value}: it takes {least} or more")
        return value

    def optional_count(self, name: str) -> int | None:
        value = self.take(name)
        return None if value is None else fields.count(value, f"{self.where}.{name}", limit=INTEGER_MAX)

    def text(self, name: str, *, length_limit: int | None = None) -> str:
        return fields.text(self.take(name), f"{self.where}.{name}", length_limit=length_limit)

    def optional_text(self, name: str, *, length_limit: int | None = None) -> str | None:
        return fields.optional_text(self.take(name), f"{self.where}.{name}", length_limit=length_limit)

    def content(self) -> str:
        return canonical.canonical_json(self.take("content"), where=f"{self.where}.content").decode()

    def session_id(self, value: str) -> str:
        try:
            return names.session_id(value)
        except InvalidRequestError as error:
            raise InvalidRequestError(f"{self.where}: {error}") from error

    def wrong(self, what: str) -> InvalidRequestError:
        return InvalidRequestError(f"{self.where} {what}: send an export as it was written")


# ---- reading


def _read(file: BinaryIO) -> Iterator[_Line]:
    """Yield the lines between header and end, both of which are checked. Raises InvalidRequestError."""
    file.seek(0)
    counts: Counter[str] = Counter()
    number = 0
    ended = False
    while raw := file.readline(LINE_LIMIT_BYTES + 1):
        number += 1
        if len(raw) > LINE_LIMIT_BYTES:
            raise InvalidRequestError(f"line {number} is over {LINE_LIMIT_BYTES} bytes")
        line = _Line(number, canonical.decode_json(raw, where=f"line {number}"))
        if ended:
            raise line.wrong("comes behind the end")
        if number == 1:
            _check_header(line)
        elif line.kind == "end":
            _check_end(line, counts)
            ended = True
        else:
            counts[line.kind] += 1
            yield line
    if not ended:
        raise InvalidRequestError(
            f"the lines break off after {number}, before their end: send the whole export; nothing was changed"
        )


def _check_header(line: _Line) -> None:
    if line.kind != "header" or line.take("format") != FORMAT:
        raise line.wrong(f"is not the header of {FORMAT} lines")
    version = line.count("version")
    if version != VERSION:
        raise ConflictError(
            f"the lines are of version {version}, this node reads {VERSION}: upgrade the node"
        )
    line.count("txid")
    line.end()


def _check_end(line: _Line, counts: Counter[str]) -> None:
    for kind in KINDS:
        said = line.count(kind)
        if said != counts[kind]:
            raise line.wrong(f"says {said} lines of kind {kind}, and {counts[kind]} came")
    line.end()


class _Reader:
    """Checks lines in their order and hands on what they hold; `sink` gets (kind, values)."""

    def __init__(self, sink: Callable[[str, tuple[Any, ...]], None]) -> None:
        self._sink = sink
        self._dimensions: dict[str, int] = {}

    def read(self, file: BinaryIO) -> dict[str, int]:
        """Read all lines; return how many of each kind there were. Raises InvalidRequestError."""
        counts = dict.fromkeys(KINDS, 0)
        of_kind = {
            "model": self._model,
            "session": self._session,
            "transcript": self._transcript,
            "memory": self._memory,
            "turn": self._turn,
        }
        for line in _read(file):
            if line.kind not in of_kind:
                raise line.wrong(f"is of kind {line.kind[:32]!a}, which is none of {', '.join(KINDS)}")
            values = of_kind[line.kind](line)
            line.end()
            counts[line.kind] += 1
            try:
                self._sink(line.kind, values)
            except apsw.ConstraintError as error:
                raise line.wrong(f"comes twice ({error})") from error
        return counts

    def _model(self, line: _Line) -> tuple[Any, ...]:
        name = line.text("name")
        if name != models.UNNAMED:
            models.parse_name(name, f"{line.where}.name")
        if name in self._dimensions:
            raise line.wrong("names a model for the second time")
        if len(self._dimensions) >= models.MODELS_LIMIT:
            raise InvalidRequestError(
                f"{line.where} is of one model more than the {models.MODELS_LIMIT} of a profile"
            )
        dimensions = line.count("dimensions", least=1, limit=fields.DIMENSIONS_LIMIT)
        self._dimensions[name] = dimensions
        return name, dimensions, line.count("created_at")

    def _session(self, line: _Line) -> tuple[Any, ...]:
        return line.session_id(line.text("id")), line.count("created_at"), line.count("last_active_at")

    def _transcript(self, line: _Line) -> tuple[Any, ...]:
        try:
            session = bytes.fromhex(line.text("session"))
        except ValueError as error:
            raise line.wrong("has a session that is not hexadecimal") from error
        if len(session) != _SESSION_BYTES:
            raise line.wrong("has a session that is no hash of one")
        return session, line.count("last_seq")

    def _memory(self, line: _Line) -> tuple[Any, ...]:
        type_ = line.text("type")
        if type_ not in memories.TYPES:
            raise line.wrong(f"is of type {type_[:32]!a}")
        topic_key = line.optional_text("topic_key", length_limit=memories.TOPIC_LENGTH_LIMIT)
        if topic_key is not None and (not topic_key or type_ not in memories.TOPICAL):
            raise line.wrong("has a topic that a memory of its type cannot have")
        summary, content, id_ = line.text("summary"), line.content(), line.text("id")
        if not summary.strip():
            raise line.wrong("has a blank summary")
        _check_id(line, id_, type_, topic_key, content, summary)
        session_id = line.optional_text("session_id")
        row = {
            "id": id_,
            "type": type_,
            "topic_key": topic_key,
            "summary": summary,
            "content": content,
            "keywords": line.text("keywords"),
            "session_id": None if session_id is None else line.session_id(session_id),
            "source": line.optional_text("source", length_limit=memories.SOURCE_LENGTH_LIMIT),
            "created_at": line.count("created_at"),
            "expires_at": line.optional_count("expires_at"),
            "superseded_by": line.optional_text("superseded_by"),
            "superseded_at": line.optional_count("superseded_at"),
            "pinned": fields.optional_boolean(line.take("pinned"), f"{line.where}.pinned"),
            "importance": fields.optional_share(line.take("importance"), f"{line.where}.importance"),
            "version": line.count("version", least=1),
            "reason": line.optional_text("reason", length_limit=memories.REASON_LENGTH_LIMIT),
            "updated_at": line.optional_count("updated_at"),
            "undone_at": line.optional_count("undone_at"),
        }
        row["pinned"] = bool(row["pinned"])
        if row["superseded_at"] is None and (row["superseded_by"] or row["undone_at"] is not None):
            raise line.wrong("is superseded at no time")
        if row["superseded_at"] is not None and topic_key is None:
            raise line.wrong("is superseded without a topic")
        origin = origins.parse(line.take("source_turns"), f"{line.where}.source_turns")
        vectors = [
            (name, self._vector(line, name, text))
            for name, text in fields.mapping(line.take("vectors"), f"{line.where}.vectors").items()
        ]
        return tuple(row[name] for name in lines.MEMORY), origin, vectors

    def _turn(self, line: _Line) -> tuple[Any, ...]:
        session_id = line.session_id(line.text("session_id"))
        seq = line.count("seq", least=1)
        role = line.text("role", length_limit=turns.ROLE_LENGTH_LIMIT)
        if not role.strip():
            raise line.wrong("has a blank role")
        row = (session_id, seq, role, line.content(), line.count("created_at"))
        vectors = []
        for pair in fields.array(line.take("vectors"), f"{line.where}.vectors"):
            match pair:
                case [None | str() as name, text]:
                    vectors.append((name, self._vector(line, name, text)))
                case _:
                    raise line.wrong("has vectors that are not pairs of a model and a vector")
        if len({(name, len(vector)) for name, vector in vectors}) < len(vectors):
            raise line.wrong("has two vectors of one model")
        return row, vectors

    def _vector(self, line: _Line, name: str | None, value: Any) -> bytes:
        """Return a vector of a model, or of none where a client sent it with a turn."""
        text = fields.text(value, f"{line.where}.vectors")
        try:
            vector = binascii.a2b_base64(text.encode(), strict_mode=True)
        except ValueError as error:
            raise line.wrong("has a vector that is not base64") from error
        if name is not None and name not in self._dimensions:
            raise line.wrong(f"has a vector of the model {name[:64]!a}, which no line before it names")
        size = len(vector) // 4 if name is None else self._dimensions[name]
        if len(vector) != 4 * size or not 1 <= size <= fields.DIMENSIONS_LIMIT:
            raise line.wrong(f"has a vector of {len(vector)} bytes, which is none of its model")
        largest = float(np.abs(np.frombuffer(vector, "<f4")).max())
        if not largest <= _LONGEST:  # NaN too
            raise line.wrong("has a vector that is longer than 1")
        return vector


def _check_id(line: _Line, id_: str, type_: str, topic_key: str | None, content: str, summary: str) -> None:
    raw = content.encode()
    if id_ == canonical.memory_id(type_, topic_key, raw):
        return
    if memories.told_by_summary(type_, raw) and id_ == canonical.memory_id_with_summary(
        type_, topic_key, raw, summary
    ):
        return
    raise line.wrong(f"has the id {id_[:40]!a}, which is not that of what it says")


def check(file: BinaryIO) -> dict[str, int]:
    """Check all lines but for how they fit together; return how many of each kind there are.

    Blocks: for a thread. Raises InvalidRequestError, ConflictError for lines of a newer release.
    """
    return _Reader(lambda _kind, _values: None).read(file)


# ---- storing


class _Store:
    """Puts what lines hold into a profile without memory."""

    def __init__(self, conn: ProfileConnection) -> None:
        self._conn = conn
        self._models: dict[str | None, int] = {None: transcripts.CLIENTS}
        self._of_kind: dict[str, Callable[..., None]] = {
            "model": self._model,
            "session": self._session,
            "transcript": self._transcript,
            "memory": self._memory,
            "turn": self._turn,
        }

    def put(self, kind: str, values: tuple[Any, ...]) -> None:
        self._of_kind[kind](*values)

    def _model(self, name: str, dimensions: int, created_at: int) -> None:
        self._conn.execute(
            "INSERT INTO __memoturn_models(name, dimensions, created_at) VALUES (?, ?, ?)",
            (name, dimensions, created_at),
        )
        id_ = self._models[name] = self._conn.last_insert_rowid()
        self._conn.execute(MEMORY_VECTORS.create(str(id_)))

    def _session(self, id_: str, created_at: int, last_active_at: int) -> None:
        self._conn.execute(
            "INSERT INTO __memoturn_memory_sessions(id, created_at, last_active_at) VALUES (?, ?, ?)",
            (id_, created_at, last_active_at),
        )

    def _transcript(self, session: bytes, last_seq: int) -> None:
        self._conn.execute(_COUNTED, (session, last_seq))

    def _memory(
        self, row: tuple[Any, ...], origin: origins.Origin | None, vectors: list[tuple[str, bytes]]
    ) -> None:
        conn = self._conn
        conn.execute(_INSERT_MEMORY, row)
        rid = conn.last_insert_rowid()
        memories.index(conn, rid, row[lines.MEMORY.index("summary")], row[lines.MEMORY.index("keywords")])
        if origin is not None:
            origins.store(conn, rid, origin)
        for name, vector in vectors:
            table = MEMORY_VECTORS.name(str(self._models[name]))
            conn.execute(f"INSERT INTO {table}(rid, e) VALUES (?, ?)", (rid, vector))

    def _turn(self, row: tuple[Any, ...], vectors: list[tuple[str | None, bytes]]) -> None:
        conn = self._conn
        session_id, seq, role, content, created_at = row
        conn.execute(_COUNTED, (schema.transcript_key(session_id), seq))
        mid = transcripts.insert(conn, session_id, seq, role, content.encode(), created_at)
        for name, vector in vectors:
            table = transcripts.ensure_vectors(conn, self._models[name], len(vector) // 4, "a turn's vector")
            transcripts.insert_vector(conn, table, mid, vector)


def apply_import(
    conn: ProfileConnection,
    file: BinaryIO,
    *,
    branch_id: str,
    replace: bool,
    tasks_end_ms: int | None = None,
) -> tuple[dict[str, int], bool]:
    """Store what the lines hold; return how many lines of each kind there were. Tasks end at `tasks_end_ms` at the latest.

    Raises ConflictError for a profile that has memory already, unless that is to be replaced, or that is being
    embedded again, and InvalidRequestError.
    """
    if reembed.running(conn, branch_id) is not None:
        raise ConflictError(
            "the profile is being embedded again: wait for the end, or cancel it with DELETE .../reembed"
        )
    if _holds_memory(conn):
        if not replace:
            raise ConflictError(
                "the profile has memories, sessions or turns already: import into a new one, or replace them"
            )
        _clear(conn)
    counts = _Reader(_Store(conn).put).read(file)
    for what, rule in _RULES.items():
        id_ = conn.execute(rule).get
        if id_ is not None:
            raise InvalidRequestError(f"the memory {id_} {what}: send an export as it was written")
    if tasks_end_ms is not None:
        conn.execute(_END_TASKS, (tasks_end_ms,))
    schema.note_replaced(conn, conn.round_txid)
    conn.noted.why = "imported"
    return counts, True


def _holds_memory(conn: ProfileConnection) -> bool:
    return any(conn.execute(f"SELECT 1 FROM __memoturn_{table} LIMIT 1").get is not None for table in _TABLES)


def _clear(conn: ProfileConnection) -> None:
    """Remove all memory, with its words and vectors."""
    for model in models.all_models(conn):
        conn.execute(f"DROP TABLE {model.table}")
    for table in transcripts.vector_tables(conn):
        conn.execute(f"DROP TABLE {table}")
    for table in ("memories", "messages"):
        conn.execute(f"INSERT INTO __memoturn_{table}_fts(__memoturn_{table}_fts) VALUES ('delete-all')")
    for table in _TABLES:
        conn.execute(f"DELETE FROM __memoturn_{table}")


async def take(
    profile: Profile,
    branch_id: str,
    file: BinaryIO,
    *,
    replace: bool = False,
    task_ttl_max_s: int | None = None,
    durability: Durability = Durability.LOCAL,
) -> Written[dict[str, int]]:
    """Store what the lines hold as one commit, no task to live longer than `task_ttl_max_s` from now; see `apply_import`."""

    def op(conn: ProfileConnection, now_ms: int) -> tuple[dict[str, int], bool]:
        end_ms = None if task_ttl_max_s is None else now_ms + 1000 * task_ttl_max_s
        return apply_import(conn, file, branch_id=branch_id, replace=replace, tasks_end_ms=end_ms)

    return await profile.write(op, durability=durability, work=Work.HEAVY)
