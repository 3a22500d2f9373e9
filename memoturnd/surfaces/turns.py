"""Transcripts: turns of a session in order, one or many at once, read in windows and pages, deleted one by one.

`memoturnd.surfaces.transcripts` keeps them, `memoturnd.surfaces.turn_search` finds them.
"""

from dataclasses import dataclass
from typing import Any, Final

from memoturnd.core import canonical, names
from memoturnd.core.bounds import INTEGER_MAX
from memoturnd.core.durability import Durability
from memoturnd.engine.connection import ProfileConnection
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields, memories, models, transcripts

ROLE_LENGTH_LIMIT: Final = 256
BATCH_LIMIT: Final = 1000
DELETE_LIMIT: Final = 10_000
"""Most turns that one request removes: it takes them out of the index of words one by one."""
WINDOW_LIMIT: Final = 1000
WINDOW_DEFAULT: Final = 20
_INLINE_TEXT: Final = 64 * 1024
_INLINE_TURNS: Final = 16
"""Batches up to this size are written on the event loop."""

read_nearest = transcripts.read_nearest
read_neighbours = transcripts.read_neighbours


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn to append, checked. `content` is canonical JSON, `embedding` float32 of the model `embedding_model`,
    `at` unix ms (None is now).
    """

    role: str
    content: bytes
    embedding: bytes | None
    at: int | None = None
    embedding_model: str = models.UNNAMED


@dataclass(frozen=True, slots=True)
class Page:
    """Which turns of a session are read: the last below `before`, or the first above `after`."""

    before: int | None = None
    after: int | None = None
    limit: int = WINDOW_DEFAULT


def parse_turns(payload: Any) -> tuple[list[Turn], bool]:
    """Return the turns of a body, and whether they came as a batch: `{turns: [turn]}`, else one turn.

    Raises InvalidRequestError.
    """
    body = fields.mapping(payload, "the body")
    if "turns" not in body:
        return [parse_turn(body)], False
    if "role" in body or "content" in body:
        raise InvalidRequestError("the body has both turns and a turn of its own: put that into turns")
    batch = fields.array(body["turns"], "turns")
    if not batch:
        raise InvalidRequestError("turns is empty: send at least one turn")
    if len(batch) > BATCH_LIMIT:
        raise InvalidRequestError(f"turns holds {len(batch)} turns: send at most {BATCH_LIMIT} at once")
    return [
        _parse_turn(fields.mapping(turn, f"turns[{at}]"), f"turns[{at}].") for at, turn in enumerate(batch)
    ], True


def parse_turn(payload: Any) -> Turn:
    """Return the turn of `{role, content, embedding?, at?}`. Raises InvalidRequestError."""
    return _parse_turn(fields.mapping(payload, "the body"), "")


def _parse_turn(turn: dict[str, Any], where: str) -> Turn:
    role = fields.text(turn.get("role"), f"{where}role", length_limit=ROLE_LENGTH_LIMIT)
    if not role.strip():
        raise InvalidRequestError(f"{where}role is blank: say who spoke, such as `user` or `assistant`")
    if "content" not in turn:
        raise InvalidRequestError(f"{where}content is missing: send any JSON value")
    at = turn.get("at")
    embedding = fields.optional_vector(turn.get("embedding"), f"{where}embedding")
    model = models.parse_name(turn.get("embedding_model"), f"{where}embedding_model")
    if model != models.UNNAMED and embedding is None:
        raise InvalidRequestError(
            f"{where}embedding_model goes with an embedding: leave it out, or send both"
        )
    return Turn(
        role=role,
        content=canonical.canonical_json(turn["content"], where=f"{where}content"),
        embedding=embedding,
        at=None if at is None else fields.count(at, f"{where}at", limit=INTEGER_MAX),
        embedding_model=model,
    )


# ---- append


def apply_append(
    conn: ProfileConnection,
    now_ms: int,
    session_id: str,
    turns: list[Turn],
    *,
    batch: bool = True,
) -> tuple[list[int], bool]:
    """Append turns and register the session; return their numbers in it, which count from 1.

    Raises InvalidRequestError.
    """
    first = transcripts.next_seqs(conn, session_id, len(turns))
    tables: dict[tuple[str, int], str] = {}
    for index, turn in enumerate(turns):
        created_at = now_ms if turn.at is None else turn.at
        mid = transcripts.insert(conn, session_id, first + index, turn.role, turn.content, created_at)
        if turn.embedding is None:
            continue
        kind = (turn.embedding_model, fields.dimensions(turn.embedding))
        if kind not in tables:
            where = f"turns[{index}].embedding" if batch else "embedding"
            tables[kind] = _ensure_table(conn, now_ms, *kind, where)
        transcripts.insert_vector(conn, tables[kind], mid, turn.embedding)
    _touch(conn, now_ms, session_id, turns)
    conn.noted.put_all("turns", session_id, range(first, first + len(turns)))
    return list(range(first, first + len(turns))), True


def _ensure_table(conn: ProfileConnection, now_ms: int, model: str, dimensions: int, where: str) -> str:
    """Return the table of a model's vectors. Those of the unnamed model may have any number of dimensions."""
    model_id = transcripts.CLIENTS
    if model != models.UNNAMED:
        model_id = models.ensure(conn, now_ms, model, dimensions, where).id
    return transcripts.ensure_vectors(conn, model_id, dimensions, where)


def _touch(conn: ProfileConnection, now_ms: int, session_id: str, turns: list[Turn]) -> None:
    """Note that the session was active when its turns were made: a transcript of old says when that was."""
    times = {now_ms if turn.at is None else turn.at for turn in turns}
    for at_ms in sorted({min(times), max(times)}):
        memories.touch_session(conn, at_ms, session_id)


async def append(
    profile: Profile,
    session_id: str,
    turns: list[Turn],
    *,
    batch: bool = True,
    durability: Durability = Durability.LOCAL,
) -> Written[list[int]]:
    """Append turns as one commit; see `apply_append`. Raises InvalidRequestError for a bad session id."""
    names.session_id(session_id)
    return await profile.write(
        lambda conn, now_ms: apply_append(conn, now_ms, session_id, turns, batch=batch),
        durability=durability,
        work=work_of(turns),
    )


def work_of(turns: list[Turn]) -> Work:
    """Return how much work it is to append a batch."""
    small = len(turns) <= _INLINE_TURNS and sum(len(turn.content) for turn in turns) <= _INLINE_TEXT
    return Work.POINT if small else Work.HEAVY


# ---- read


def read_page(conn: ProfileConnection, session_id: str, page: Page) -> dict[str, Any]:
    """Return `{turns, older, newer}`: turns `{seq, role, content, created_at}`, oldest first.

    `older` is what to read `before` for those that come before them, `newer` what to read `after` for those
    that follow; each is null where there are none.
    """
    if not page.limit:
        return {"turns": [], "older": None, "newer": None}
    more = page.limit + 1
    if page.after is not None:
        turns = transcripts.read_after(conn, session_id, page.after, more)
        following, turns = len(turns) > page.limit, turns[: page.limit]
        first = turns[0]["seq"] if turns else page.after + 1
        preceding = bool(transcripts.read_before(conn, session_id, first, 1))
    else:
        end = transcripts.END if page.before is None else page.before
        turns = transcripts.read_before(conn, session_id, end, more)
        preceding, turns = len(turns) > page.limit, turns[-page.limit :]
        first = turns[0]["seq"] if turns else end
        following = bool(transcripts.read_after(conn, session_id, turns[-1]["seq"] if turns else end - 1, 1))
    last = turns[-1]["seq"] if turns else first - 1
    return {"turns": turns, "older": first if preceding else None, "newer": last if following else None}


async def read(profile: Profile, session_id: str, page: Page, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return a page of turns, at most 1000; see `read_page`. Raises InvalidRequestError."""
    names.session_id(session_id)
    if page.before is not None and page.after is not None:
        raise InvalidRequestError("a page is of turns before one or after one: send `before` or `after`")
    page = Page(page.before, page.after, min(page.limit, WINDOW_LIMIT))
    return await profile.read(
        lambda conn, _: read_page(conn, session_id, page), min_txid=min_txid, work=Work.SCAN
    )


async def get(profile: Profile, session_id: str, seq: int, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """Return one turn. Raises NotFoundError, InvalidRequestError for a bad session id."""
    names.session_id(session_id)

    def op(conn: ProfileConnection, _now_ms: int) -> dict[str, Any]:
        turn = transcripts.read_one(conn, session_id, seq)
        if turn is None:
            raise _no_turn(session_id, seq)
        return turn

    return await profile.read(op, min_txid=min_txid)


# ---- delete


def apply_delete(
    conn: ProfileConnection, session_id: str, first: int, last: int
) -> tuple[dict[str, Any], bool]:
    """Remove the turns numbered `first` to `last`, at most DELETE_LIMIT of them, the oldest; return `{deleted, more}`.

    Their numbers are not given again.
    """
    end = transcripts.end_of_batch(conn, session_id, first, last, DELETE_LIMIT)
    deleted = transcripts.delete(conn, session_id, first, last if end is None else end)
    return {"deleted": deleted, "more": end is not None}, deleted > 0


def apply_delete_one(conn: ProfileConnection, session_id: str, seq: int) -> tuple[None, bool]:
    """Remove a turn. Raises NotFoundError."""
    if not transcripts.delete(conn, session_id, seq, seq):
        raise _no_turn(session_id, seq)
    return None, True


async def delete(
    profile: Profile, session_id: str, seq: int, *, durability: Durability = Durability.LOCAL
) -> Written[None]:
    """Remove one turn. Raises NotFoundError, InvalidRequestError for a bad session id."""
    names.session_id(session_id)
    return await profile.write(lambda conn, _: apply_delete_one(conn, session_id, seq), durability=durability)


async def delete_range(
    profile: Profile,
    session_id: str,
    *,
    first: int | None,
    last: int | None,
    everything: bool,
    durability: Durability = Durability.LOCAL,
) -> Written[dict[str, Any]]:
    """Remove the turns from `first` to `last`, or `everything` there is of a transcript; see `apply_delete`.

    Raises InvalidRequestError unless it is said which.
    """
    names.session_id(session_id)
    if everything == (first is not None or last is not None):
        raise InvalidRequestError(
            "say which turns go: `from` and `to` (numbers, both included), or `all=true` for the whole transcript"
        )
    low, high = first or 0, transcripts.END if last is None else last
    if low > high:
        raise InvalidRequestError(f"`from` is {low} and `to` {high}: `from` comes first")
    return await profile.write(
        lambda conn, _: apply_delete(conn, session_id, low, high), durability=durability, work=Work.HEAVY
    )


def _no_turn(session_id: str, seq: int) -> NotFoundError:
    return NotFoundError(
        f"session {session_id[:64]!a} has no turn {seq}: it was never appended, or was deleted"
    )
