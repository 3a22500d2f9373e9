"""The memory of a profile as lines of JSON: the format, and its writing.

The first line is a header, the last one says how many lines of each kind came between, so that what was cut off
is known. In between come models, sessions, counters of transcripts, memories with history and vectors, and turns,
each in the order of their rows: who reads them all has the same memory again. Vectors are float32, little-endian,
in base64. `memoturnd.surfaces.lines_in` reads them.
"""

import binascii
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

import msgspec

from memoturnd.engine import schema
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import DiskFullError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import models, origins, transcripts

FORMAT: Final = "memoturn-memory"
VERSION: Final = 1
KINDS: Final = ("model", "session", "transcript", "memory", "turn")

MEMORY: Final = (
    "id", "type", "topic_key", "summary", "content", "keywords", "session_id", "source", "created_at", "expires_at",
    "superseded_by", "superseded_at", "pinned", "importance", "version", "reason", "updated_at", "undone_at",
)  # fmt: skip
"""Columns of a memory that a line has, besides its origin and its vectors."""
_MEMORIES = f"SELECT rid, {', '.join(MEMORY)} FROM __memoturn_memories ORDER BY rid"
_MODELS = "SELECT name, dimensions, created_at FROM __memoturn_models ORDER BY id"
_SESSIONS = "SELECT id, created_at, last_active_at FROM __memoturn_memory_sessions ORDER BY id"
_TRANSCRIPTS = "SELECT session, last_seq FROM __memoturn_transcripts ORDER BY session"
_TURNS = "SELECT mid, session_id, seq, role, content, created_at FROM __memoturn_messages ORDER BY mid"
_WRITE_BYTES = 256 * 1024
_encode = msgspec.json.Encoder().encode


def write(conn: ProfileConnection, file: BinaryIO) -> None:
    """Write the memory of the state that `conn` shows to an empty file. Raises DiskFullError."""
    try:
        file.seek(0)
        file.truncate()
        pending = bytearray()
        for line in _lines(conn):
            pending += _encode(line)
            pending += b"\n"
            if len(pending) >= _WRITE_BYTES:
                file.write(pending)
                pending.clear()
        file.write(pending)
        file.flush()
    except OSError as error:
        raise DiskFullError(
            f"the data directory refused the export: {error.strerror}; make room, then try again"
        ) from error


def _lines(conn: ProfileConnection) -> Iterator[dict[str, Any]]:
    yield {"kind": "header", "format": FORMAT, "version": VERSION, "txid": schema.read_meta(conn).txid}
    counts = dict.fromkeys(KINDS, 0)
    for kind, lines in zip(
        KINDS,
        (_models(conn), _sessions(conn), _transcripts(conn), _memories(conn), _turns(conn)),
        strict=True,
    ):
        for line in lines:
            counts[kind] += 1
            yield {"kind": kind, **line}
    yield {"kind": "end", **counts}


def _models(conn: ProfileConnection) -> Iterator[dict[str, Any]]:
    for name, dimensions, created_at in conn.execute(_MODELS):
        yield {"name": name, "dimensions": dimensions, "created_at": created_at}


def _sessions(conn: ProfileConnection) -> Iterator[dict[str, Any]]:
    for id_, created_at, last_active_at in conn.execute(_SESSIONS):
        yield {"id": id_, "created_at": created_at, "last_active_at": last_active_at}


def _transcripts(conn: ProfileConnection) -> Iterator[dict[str, Any]]:
    for session, last_seq in conn.execute(_TRANSCRIPTS):
        yield {"session": session.hex(), "last_seq": last_seq}


def _memories(conn: ProfileConnection) -> Iterator[dict[str, Any]]:
    tables = [(model.name, f"SELECT e FROM {model.table} WHERE rid = ?") for model in models.all_models(conn)]
    for row in conn.execute(_MEMORIES):
        rid, *values = row
        memory: dict[str, Any] = dict(zip(MEMORY, values, strict=True))
        memory["content"] = msgspec.Raw(memory["content"].encode())
        memory["pinned"] = bool(memory["pinned"])
        memory["source_turns"] = origins.read(conn, rid)
        memory["vectors"] = {
            name: _text(e) for name, sql in tables if (e := conn.execute(sql, (rid,)).get) is not None
        }
        yield memory


def _turns(conn: ProfileConnection) -> Iterator[dict[str, Any]]:
    names: dict[int, str | None] = {model.id: model.name for model in models.all_models(conn)}
    names[transcripts.CLIENTS] = None
    kept = [
        (names[id_], transcripts.kind_of(table)[1], f"SELECT e FROM {table} WHERE mid = ?")
        for table in transcripts.vector_tables(conn)
        if (id_ := transcripts.kind_of(table)[0]) in names
    ]
    tables = [
        (name, sql) for name, _, sql in sorted(kept, key=lambda t: (t[0] is not None, t[0] or "", t[1]))
    ]
    for mid, session_id, seq, role, content, created_at in conn.execute(_TURNS):
        yield {
            "session_id": session_id,
            "seq": seq,
            "role": role,
            "content": msgspec.Raw(content.encode()),
            "created_at": created_at,
            "vectors": [
                [name, _text(e)] for name, sql in tables if (e := conn.execute(sql, (mid,)).get) is not None
            ],
        }


def _text(vector: Any) -> str:
    return binascii.b2a_base64(vector, newline=False).decode()


async def export(profile: Profile, file: BinaryIO, *, min_txid: int = 0) -> Seen[None]:
    """Write the memory of one state to a file; see `write`.

    It runs on a connection of its own where it takes long, so that neither the event loop nor other reads wait.
    """
    return await profile.read(lambda conn, _: write(conn, file), min_txid=min_txid, work=Work.USER)
