"""Transcripts: turns of a session in order, a window of the last ones, search by embedding."""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from memoturnd.core import canonical, names
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields, memories

ROLE_LENGTH_LIMIT: Final = 256
_INLINE_TEXT: Final = 64 * 1024
WINDOW_LIMIT: Final = 1000
SEARCH_LIMIT: Final = 1000
SEARCH_DEFAULT: Final = 5

_APPEND = """INSERT INTO __memoturn_messages(session_id, seq, role, content, embedding, created_at)
 SELECT ?1, coalesce(max(seq), 0) + 1, ?2, ?3, ?4, ?5 FROM __memoturn_messages WHERE session_id = ?1
 RETURNING seq"""
_WINDOW = """SELECT seq, role, content, created_at FROM __memoturn_messages
 WHERE session_id = ? ORDER BY seq DESC LIMIT ?"""
# A null vector has no direction: it is taken to be at right angles to everything.
_SEARCH = """SELECT session_id, seq, role, content,
 coalesce(vec_distance_cosine(embedding, ?1), 1.0) AS distance
 FROM __memoturn_messages WHERE length(embedding) = length(?1) {where} ORDER BY distance, session_id, seq LIMIT ?2"""
_SEARCH_ALL = _SEARCH.format(where="")
_SEARCH_SESSION = _SEARCH.format(where="AND session_id = ?3")


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn to append, checked. `content` is canonical JSON, `embedding` float32."""

    role: str
    content: bytes
    embedding: bytes | None


def parse_turn(payload: Any) -> Turn:
    """Return the turn of `{role, content, embedding?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    role = fields.text(body.get("role"), "role", length_limit=ROLE_LENGTH_LIMIT)
    if not role.strip():
        raise InvalidRequestError("role is blank: say who spoke, such as `user` or `assistant`")
    if "content" not in body:
        raise InvalidRequestError("content is missing: send any JSON value")
    return Turn(
        role=role,
        content=canonical.canonical_json(body["content"]),
        embedding=fields.optional_vector(body.get("embedding"), "embedding"),
    )


def parse_search(payload: Any) -> tuple[bytes, int]:
    """Return (embedding, k) of `{vector, k?}`; k is 5 unless given, at most 1000. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    k = fields.clamped(body.get("k"), "k", default=SEARCH_DEFAULT, limit=SEARCH_LIMIT)
    return fields.vector(body.get("vector"), "vector"), max(k, 1)


def apply_append(conn: ProfileConnection, now_ms: int, session_id: str, turn: Turn) -> tuple[int, bool]:
    """Append a turn and register the session; return the turn's number in its session, from 1."""
    seq: int = conn.execute(
        _APPEND, (session_id, turn.role, turn.content.decode(), turn.embedding, now_ms)
    ).get
    memories.touch_session(conn, now_ms, session_id)
    return seq, True


def read_window(conn: ProfileConnection, session_id: str, last: int) -> list[dict[str, Any]]:
    """Return the last turns `{seq, role, content, created_at}`, oldest first."""
    rows = conn.execute(_WINDOW, (session_id, last)).fetchall()
    return [
        {"seq": seq, "role": role, "content": msgspec.Raw(content.encode()), "created_at": created_at}
        for seq, role, content, created_at in reversed(rows)
    ]


def read_nearest(
    conn: ProfileConnection, embedding: bytes, k: int, *, session_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the k turns `{session_id, seq, role, content, distance}` nearest by cosine, nearest first.

    Exact: every turn with an embedding of that dimension is compared, in one session or in all.
    """
    if session_id is None:
        rows = conn.execute(_SEARCH_ALL, (embedding, k))
    else:
        rows = conn.execute(_SEARCH_SESSION, (embedding, k, session_id))
    return [
        {
            "session_id": session,
            "seq": seq,
            "role": role,
            "content": msgspec.Raw(content.encode()),
            "distance": distance,
        }
        for session, seq, role, content, distance in rows
    ]


async def append(profile: Profile, session_id: str, turn: Turn, *, durable: bool = False) -> Written[int]:
    """Append a turn; see `apply_append`. Raises InvalidRequestError for a bad session id."""
    names.session_id(session_id)
    return await profile.write(
        lambda conn, now_ms: apply_append(conn, now_ms, session_id, turn),
        durable=durable,
        work=Work.POINT if len(turn.content) <= _INLINE_TEXT else Work.HEAVY,
    )


async def window(
    profile: Profile, session_id: str, *, last: int = 20, min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """Return the last turns, at most 1000; see `read_window`. Raises InvalidRequestError for a bad session id."""
    names.session_id(session_id)
    last = min(last, WINDOW_LIMIT)
    return await profile.read(
        lambda conn, _: read_window(conn, session_id, last), min_txid=min_txid, work=Work.SCAN
    )


async def search(
    profile: Profile, session_id: str, embedding: bytes, k: int, *, min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """Search one session's turns; see `read_nearest`. Raises InvalidRequestError for a bad session id."""
    names.session_id(session_id)
    return await profile.read(
        lambda conn, _: read_nearest(conn, embedding, k, session_id=session_id),
        min_txid=min_txid,
        work=Work.SCAN,
    )
