"""Where turns are kept: rows numbered within their session, an index of their words, a table of vectors for
each model and number of dimensions.

A number is given once: the transcript's counter outlives the turns, their session, and what was deleted last.
"""

from typing import Any, Final

import msgspec

from memoturnd.core.turn_text import words_in
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.engine.families import TURN_VECTORS
from memoturnd.engine.schema import transcript_key
from memoturnd.errors import InvalidRequestError

CLIENTS: Final = 0
"""The model of embeddings that clients send without naming it."""
TABLES_LIMIT: Final = 64
"""Most numbers of dimensions that turns' embeddings of no named model may have in a profile."""

REBUILD_FROM: Final = 1000
REBUILD_FACTOR: Final = 4
"""Beyond so many turns at once the index is made anew where not so many times as many stay."""

_NUMBER = """INSERT INTO __memoturn_transcripts(session, last_seq) VALUES (?, ?)
 ON CONFLICT(session) DO UPDATE SET last_seq = last_seq + excluded.last_seq RETURNING last_seq"""
_INSERT = (
    """INSERT INTO __memoturn_messages(session_id, seq, role, content, created_at) VALUES (?, ?, ?, ?, ?)"""
)
_INSERT_WORDS = "INSERT INTO __memoturn_messages_fts(rowid, text) VALUES (?, ?)"
_DELETE_WORDS = """INSERT INTO __memoturn_messages_fts(__memoturn_messages_fts, rowid, text)
 VALUES ('delete', ?, ?)"""
_RANGE = "FROM __memoturn_messages WHERE session_id = ? AND seq BETWEEN ? AND ?"
_TURN = "seq, role, content, created_at"
_LAST = f"SELECT {_TURN} FROM __memoturn_messages WHERE session_id = ? AND seq < ? ORDER BY seq DESC LIMIT ?"
_NEXT = f"SELECT {_TURN} FROM __memoturn_messages WHERE session_id = ? AND seq > ? ORDER BY seq LIMIT ?"
_ONE = f"SELECT {_TURN} FROM __memoturn_messages WHERE session_id = ? AND seq = ?"
_LOAD = f"SELECT session_id, {_TURN} FROM __memoturn_messages WHERE mid = ?"
# A null vector has no direction: it is taken to be at right angles to everything.
_DISTANCE = "coalesce(vec_distance_cosine(v.e, ?), 1.0) AS distance"
_NEAREST = f"SELECT v.mid, {_DISTANCE} FROM {{table}} AS v ORDER BY distance, v.mid LIMIT ?"
_NEAREST_IN = f"""SELECT v.mid, {_DISTANCE} FROM __memoturn_messages AS m CROSS JOIN {{table}} AS v ON v.mid = m.mid
 WHERE {{conditions}} ORDER BY distance, v.mid LIMIT ?"""
END: Final = 2**53
"""Above every number of a turn."""


def next_seqs(conn: ProfileConnection, session_id: str, count: int) -> int:
    """Take `count` numbers of a session, never to be given again; return the first."""
    last: int = conn.execute(_NUMBER, (transcript_key(session_id), count)).get
    return last - count + 1


def insert(
    conn: ProfileConnection, session_id: str, seq: int, role: str, content: bytes, created_at: int
) -> int:
    """Store a turn (`content` is JSON) under a number that `next_seqs` gave; return its row."""
    stored = content.decode()
    conn.execute(_INSERT, (session_id, seq, role, stored, created_at))
    mid = conn.last_insert_rowid()
    _insert_words(conn, mid, stored)
    return mid


def ensure_vectors(conn: ProfileConnection, model_id: int, dimensions: int, where: str) -> str:
    """Return the table of a model's vectors, made where the profile has none.

    Raises InvalidRequestError, about the field `where`, when the profile has too many.
    """
    table = table_of(model_id, dimensions)
    if not conn.table_exists("main", table):
        if model_id == CLIENTS and len(tables_of(conn, CLIENTS)) >= TABLES_LIMIT:
            raise InvalidRequestError(
                f"{where} has {dimensions} dimensions, and the profile holds turns of {TABLES_LIMIT} different"
                " kinds of embeddings: use one embedding model"
            )
        conn.execute(TURN_VECTORS.create(f"{model_id}_{dimensions}"))
    return table


def table_of(model_id: int, dimensions: int) -> str:
    """Return the name of the table of a model's vectors, which may not be there."""
    return TURN_VECTORS.name(f"{model_id}_{dimensions}")


def insert_vector(conn: ProfileConnection, table: str, mid: int, embedding: bytes) -> None:
    """Store a turn's vector in a table that `ensure_vectors` gave."""
    conn.execute(f"INSERT OR REPLACE INTO {table}(mid, e) VALUES (?, ?)", (mid, embedding))


def vector_tables(conn: ProfileConnection) -> list[str]:
    """Return the tables of turns' vectors that the profile has."""
    prefix = TURN_VECTORS.prefix
    rows = conn.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name >= ? AND name < ?",
        (prefix, f"{prefix[:-1]}`"),
    )
    return [name for (name,) in rows]


def kind_of(table: str) -> tuple[int, int]:
    """Return the model and the number of dimensions whose vectors a table of `vector_tables` holds."""
    model_id, _, dimensions = table.removeprefix(TURN_VECTORS.prefix).partition("_")
    return int(model_id), int(dimensions)


def tables_of(conn: ProfileConnection, model_id: int) -> list[str]:
    """Return the tables of a model's vectors of turns."""
    return [table for table in vector_tables(conn) if kind_of(table)[0] == model_id]


def has_vectors(conn: ProfileConnection, model_id: int) -> bool:
    """Return whether a turn has a vector of the model."""
    return any(
        conn.execute(f"SELECT 1 FROM {table} LIMIT 1").get is not None for table in tables_of(conn, model_id)
    )


def count_vectors(conn: ProfileConnection) -> dict[int, int]:
    """Return how many turns have a vector, by the model's id."""
    counts: dict[int, int] = {}
    for table in vector_tables(conn):
        count: int = conn.execute(f"SELECT count(*) FROM {table}").get
        counts[kind_of(table)[0]] = counts.get(kind_of(table)[0], 0) + count
    return counts


def delete(conn: ProfileConnection, session_id: str, first: int = 0, last: int = END) -> int:
    """Remove the turns numbered `first` to `last` with their words and vectors; return how many there were.

    Taking the words of one turn out of the index costs as much as putting those of many in. Where most of the
    index would go, it is made anew of what stays.
    """
    wanted = (session_id, first, last)
    count: int = conn.execute(f"SELECT count(*) {_RANGE}", wanted).get
    total: int = conn.execute("SELECT count(*) FROM __memoturn_messages").get
    anew = count > REBUILD_FROM and REBUILD_FACTOR * count > total - count
    if not anew:
        _remove_words(conn, f"SELECT mid, content {_RANGE}", wanted)
    for table in vector_tables(conn):
        conn.execute(f"DELETE FROM {table} WHERE mid IN (SELECT mid {_RANGE})", wanted)
    gone: Any = conn.execute(f"DELETE {_RANGE} RETURNING seq", wanted).fetchall()
    conn.noted.deleted_all("turns", session_id, (seq for (seq,) in gone))
    if anew:
        index_anew(conn)
    return count


def index_anew(conn: ProfileConnection) -> None:
    """Make the index of words anew of the turns that are there."""
    conn.execute("INSERT INTO __memoturn_messages_fts(__memoturn_messages_fts) VALUES ('delete-all')")
    rows: Any = conn.execute("SELECT mid, content FROM __memoturn_messages ORDER BY mid")
    for mid, content in rows:
        _insert_words(conn, mid, content)


def end_of_batch(conn: ProfileConnection, session_id: str, first: int, last: int, limit: int) -> int | None:
    """Return the number of the turn that ends the first `limit` of a range, None where there are no more."""
    following: int | None = conn.execute(
        f"SELECT seq {_RANGE} ORDER BY seq LIMIT 1 OFFSET ?", (session_id, first, last, limit)
    ).get
    return None if following is None else following - 1


def _insert_words(conn: ProfileConnection, mid: int, content: str) -> None:
    words = words_in(content)
    if words:
        conn.execute(_INSERT_WORDS, (mid, words))


def _remove_words(conn: ProfileConnection, select: str, bindings: tuple[Binding, ...]) -> None:
    rows: Any = conn.execute(select, bindings)
    for mid, content in rows:
        words = words_in(content)
        if words:
            conn.execute(_DELETE_WORDS, (mid, words))


# ---- reads


def read_before(conn: ProfileConnection, session_id: str, before: int, limit: int) -> list[dict[str, Any]]:
    """Return the last `limit` turns `{seq, role, content, created_at}` below `before`, oldest first."""
    return [_turn(*row) for row in reversed(conn.execute(_LAST, (session_id, before, limit)).fetchall())]


def read_after(conn: ProfileConnection, session_id: str, after: int, limit: int) -> list[dict[str, Any]]:
    """Return the first `limit` turns above `after`, oldest first."""
    return [_turn(*row) for row in conn.execute(_NEXT, (session_id, after, limit))]


def read_one(conn: ProfileConnection, session_id: str, seq: int) -> dict[str, Any] | None:
    """Return a turn, None when there is none of that number."""
    row = conn.execute(_ONE, (session_id, seq)).fetchone()
    return None if row is None else _turn(*row)


def read_neighbours(
    conn: ProfileConnection, session_id: str, seq: int, before: int, after: int
) -> list[dict[str, Any]]:
    """Return the turn `seq` of a session, where it is still there, among up to so many before and after it."""
    return [
        *read_before(conn, session_id, seq, before),
        *read_after(conn, session_id, seq - 1, after + 1 if read_one(conn, session_id, seq) else after),
    ]


def read_hit(conn: ProfileConnection, mid: int) -> dict[str, Any]:
    """Return the turn in row `mid`, with its session."""
    session_id, *turn = conn.execute(_LOAD, (mid,)).fetchone()  # type: ignore[misc] # a row that a search has just found
    return {"session_id": session_id, **_turn(*turn)}


def read_nearest_rows(
    conn: ProfileConnection,
    embedding: bytes,
    limit: int,
    *,
    conditions: str = "",
    bindings: tuple[Binding, ...] = (),
    model_id: int = CLIENTS,
) -> list[tuple[int, float]]:
    """Return (row, cosine distance) of the turns nearest to a vector, of those `m` that meet the conditions.

    Exact: every vector of that model and number of dimensions is compared.
    """
    table = table_of(model_id, len(embedding) // 4)
    if not conn.table_exists("main", table):
        return []
    statement = _NEAREST_IN if conditions else _NEAREST
    sql = statement.format(table=table, conditions=conditions)
    rows: Any = conn.execute(sql, (embedding, *bindings, limit)).fetchall()
    return list(rows)


def read_nearest(
    conn: ProfileConnection,
    embedding: bytes,
    k: int,
    *,
    session_id: str | None = None,
    model_id: int = CLIENTS,
) -> list[dict[str, Any]]:
    """Return the k turns `{session_id, seq, role, content, distance}` nearest by cosine, nearest first, exactly."""
    conditions, bindings = ("m.session_id = ?", (session_id,)) if session_id is not None else ("", ())
    rows = read_nearest_rows(conn, embedding, k, conditions=conditions, bindings=bindings, model_id=model_id)
    found = []
    for mid, distance in rows:
        hit = read_hit(conn, mid)
        del hit["created_at"]
        found.append({**hit, "distance": distance})
    return found


def _turn(seq: int, role: str, content: str, created_at: int) -> dict[str, Any]:
    return {"seq": seq, "role": role, "content": msgspec.Raw(content.encode()), "created_at": created_at}
