"""Search of turns, in one session or in all of a profile: by words, by vector, or by both.

Each channel is exact under the filters, which are part of its statement. Two channels are joined by rank.
"""

from dataclasses import dataclass
from typing import Any, Final

from memoturnd.core import names, text
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.fusion import Candidate, fuse
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import InvalidRequestError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import fields, models, transcripts
from memoturnd.surfaces.telling import telling_words
from memoturnd.surfaces.turns import ROLE_LENGTH_LIMIT

K_DEFAULT: Final = 5
K_LIMIT: Final = 1000
WINDOW_FACTOR: Final = 5
"""Candidates of each channel for each turn asked for, where there are two."""
QUERY_LENGTH_LIMIT: Final = 8192
KEYWORD: Final = "keyword"
VECTOR: Final = "vector"
HYBRID: Final = "hybrid"
_MODES: Final = (KEYWORD, VECTOR, HYBRID)

# FTS5 yields rows in order of rank; the cross join keeps it outermost, so that the scan ends at the limit.
_KEYWORD = """SELECT f.rowid, f.rank FROM __memoturn_messages_fts AS f
 CROSS JOIN __memoturn_messages AS m ON m.mid = f.rowid
 WHERE f.__memoturn_messages_fts MATCH ? AND {conditions} ORDER BY f.rank LIMIT ?"""
_KEYWORD_ALL = """SELECT f.rowid, f.rank FROM __memoturn_messages_fts AS f
 WHERE f.__memoturn_messages_fts MATCH ? ORDER BY f.rank LIMIT ?"""


@dataclass(frozen=True, slots=True)
class Search:
    """A search, checked: by `query`, by `vector` (float32), or by both. `since` and `until` are unix ms, both included.

    `mode` says which channels a query is searched by.
    """

    query: str | None
    vector: bytes | None
    k: int
    role: str | None
    since: int | None
    until: int | None
    embedding_model: str = models.UNNAMED
    """The model that the vector is of."""
    mode: str = HYBRID


def parse_search(payload: Any) -> Search:
    """Return the search of `{query?, vector?, embedding_model?, mode?, k?, role?, since?, until?}`.

    Raises InvalidRequestError.
    """
    body = fields.mapping(payload, "the body")
    given = fields.optional_text(body.get("mode"), "mode")
    mode = HYBRID if given is None else given
    if mode not in _MODES:
        raise InvalidRequestError(f"mode is {mode[:32]!a}: it takes {', '.join(_MODES)}")
    k = fields.clamped(body.get("k"), "k", default=K_DEFAULT, limit=K_LIMIT)
    search = Search(
        query=fields.optional_text(body.get("query"), "query", length_limit=QUERY_LENGTH_LIMIT),
        vector=fields.optional_vector(body.get("vector"), "vector"),
        k=max(k, 1),
        role=fields.optional_text(body.get("role"), "role", length_limit=ROLE_LENGTH_LIMIT),
        since=_time(body.get("since"), "since"),
        until=_time(body.get("until"), "until"),
        embedding_model=models.parse_name(body.get("embedding_model"), "embedding_model"),
        mode=mode,
    )
    if search.query is None and search.vector is None:
        raise InvalidRequestError("a search takes a query, a vector, or both")
    if mode == KEYWORD and (search.query is None or search.vector is not None):
        raise InvalidRequestError("mode is keyword: send a query, and no vector")
    return search


def _time(value: Any, where: str) -> int | None:
    return None if value is None else fields.count(value, where, limit=INTEGER_MAX)


def read_search(
    conn: ProfileConnection, search: Search, session_id: str | None = None
) -> list[dict[str, Any]]:
    """Return the turns found, best first, with `distance` (null where the vector did not find one).

    With a query they have a `score` and the `channels` that found them as well.
    """
    conditions, bindings = _conditions(search, session_id)
    if search.query is None and search.vector is not None:
        rows = _by_vector(conn, search, search.vector, search.k, conditions, bindings)
        return [{**transcripts.read_hit(conn, mid), "distance": distance} for mid, distance in rows]
    words = [] if search.mode == VECTOR else text.tokens(search.query or "")
    window = WINDOW_FACTOR * search.k if words and search.vector is not None else search.k
    channels: dict[str, list[Candidate]] = {}
    if words:
        found = _by_words(conn, words, window, conditions, bindings)
        channels["keyword"] = [_candidate(*row) for row in found]
    if search.vector is not None:
        near = _by_vector(conn, search, search.vector, window, conditions, bindings)
        channels["vector"] = [_candidate(*row) for row in near]
    return [
        {
            **transcripts.read_hit(conn, fused.rid),
            "distance": fused.found["vector"][1] if "vector" in fused.found else None,
            "score": fused.score,
            "channels": list(fused.found),
        }
        for fused in fuse(channels, limit=search.k)
    ]


def _by_vector(
    conn: ProfileConnection,
    search: Search,
    vector: bytes,
    limit: int,
    conditions: str,
    bindings: tuple[Binding, ...],
) -> list[tuple[int, float]]:
    model_id = model_of(conn, search.embedding_model)
    if model_id is None:
        return []
    return transcripts.read_nearest_rows(
        conn, vector, limit, conditions=conditions, bindings=bindings, model_id=model_id
    )


def model_of(conn: ProfileConnection, name: str) -> int | None:
    """Return the model whose vectors of turns are searched, None where the profile does not have it."""
    if name == models.UNNAMED:
        return transcripts.CLIENTS
    model = models.find(conn, name)
    return None if model is None else model.id


def _by_words(
    conn: ProfileConnection, words: list[str], limit: int, conditions: str, bindings: tuple[Binding, ...]
) -> list[Any]:
    """Return (row, bm25) of the turns that have any of the words, the best first."""
    telling = telling_words(conn, "__memoturn_messages", words)
    statement = _KEYWORD.format(conditions=conditions) if conditions else _KEYWORD_ALL
    found = conn.execute(statement, (text.match_expression(telling), *bindings, limit)).fetchall()
    if len(telling) < len(words) and len(found) < limit:
        found = conn.execute(statement, (text.match_expression(words), *bindings, limit)).fetchall()
    return found


def _candidate(mid: int, measure: float) -> Candidate:
    return Candidate(mid, str(mid), mid, measure)


def _conditions(search: Search, session_id: str | None) -> tuple[str, tuple[Binding, ...]]:
    wanted: dict[str, Binding] = {
        "m.session_id = ?": session_id,
        "m.role = ?": search.role,
        "m.created_at >= ?": search.since,
        "m.created_at <= ?": search.until,
    }
    given = {condition: binding for condition, binding in wanted.items() if binding is not None}
    return " AND ".join(given), tuple(given.values())


async def search(
    profile: Profile, wanted: Search, *, session_id: str | None = None, min_txid: int = 0
) -> Seen[list[dict[str, Any]]]:
    """Search one session's turns, or all; see `read_search`. Raises InvalidRequestError for a bad session id."""
    if session_id is not None:
        names.session_id(session_id)
    return await profile.read(
        lambda conn, _: read_search(conn, wanted, session_id), min_txid=min_txid, work=Work.SCAN
    )
