"""Embedding again: gives what a profile holds vectors of the node's model, in the background and in small commits.

What is to be done stands in the profile's own file, in the one row of `__memoturn_reembed`, and moves with the
vectors in the same commits: so a job goes on where it was when its node was killed, a rewind takes it along, and a
fork, which is another branch, has none. `memoturnd.reembedding` does the work.
"""

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from memoturnd.core.durability import Durability
from memoturnd.core.turn_text import words_in
from memoturnd.engine.connection import Binding, ProfileConnection
from memoturnd.errors import ConflictError, InvalidRequestError
from memoturnd.seams.embedder import Vectors
from memoturnd.seams.profile import Profile, Seen, Work, Written
from memoturnd.surfaces import fields, memories, models, transcripts
from memoturnd.surfaces.embedding import text_of

SCOPES: Final = ("memories", "turns", "all")
MEMORIES: Final = "memories"
TURNS: Final = "turns"
ERROR_LENGTH_LIMIT: Final = 500

_ROW: Final = (
    "job, branch, model, scope, only_missing, state, part, cursor, total, done, failed, started_at, updated_at,"
    " finished_at, error"
)
_READ = f"SELECT {_ROW} FROM __memoturn_reembed WHERE id = 1"
_BEGIN = f"""INSERT OR REPLACE INTO __memoturn_reembed(id, {_ROW})
 VALUES (1, ?, ?, ?, ?, ?, 'running', ?, 0, ?, 0, 0, ?, ?, NULL, NULL)"""
_ADVANCE = """UPDATE __memoturn_reembed SET part = ?, cursor = ?, done = done + ?, failed = failed + ?, updated_at = ?
 WHERE id = 1"""
_END = "UPDATE __memoturn_reembed SET state = ?, error = ?, updated_at = ?, finished_at = ? WHERE id = 1"
_MEMORIES_FROM = "FROM __memoturn_memories AS m WHERE m.rid > ? AND m.type <> 'task' {missing}"
_TURNS_FROM = "FROM __memoturn_messages AS m WHERE m.mid > ? {missing}"


class Job(NamedTuple):
    """The job as its row says. `part` is what is being embedded now, up to and with row `cursor`."""

    job: str
    branch: str
    model: str
    scope: str
    only_missing: int
    state: str
    part: str
    cursor: int
    total: int
    done: int
    failed: int
    started_at: int
    updated_at: int
    finished_at: int | None
    error: str | None

    def shown(self, *, live: bool = True) -> dict[str, Any]:
        """Return the job as clients see it; one that runs nowhere just now is `waiting`."""
        return {
            "state": "waiting" if self.state == "running" and not live else self.state,
            "model": self.model,
            "scope": self.scope,
            "only_missing": bool(self.only_missing),
            "total": self.total,
            "done": self.done,
            "failed": self.failed,
            "started_at": self.started_at,
            "updated_at": self.updated_at,
            "finished_at": self.finished_at,
            "error": self.error,
        }


NOTHING: Final[dict[str, Any]] = dict.fromkeys(
    ("model", "scope", "only_missing", "started_at", "updated_at", "finished_at", "error")
) | {"state": "none", "total": 0, "done": 0, "failed": 0}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to embed again: `scope` is one of SCOPES. `model` is None where the node's is meant without naming it."""

    model: str | None
    scope: str
    only_missing: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are next, with their texts; `part` and `cursor` are where the job stands behind them."""

    job: Job
    rows: list[tuple[int, str]]
    part: str
    cursor: int
    is_last: bool


def parse(payload: Any) -> Wanted:
    """Return what a body asks for: `{model?, scope?, only_missing?}`. Raises InvalidRequestError."""
    body = fields.mapping(payload, "the body")
    scope = body.get("scope")
    scope = "all" if scope is None else fields.text(scope, "scope")
    if scope not in SCOPES:
        raise InvalidRequestError(f"scope is {scope[:32]!a}: it takes {', '.join(SCOPES)}")
    model = models.parse_name(body.get("model"), "model")
    return Wanted(model or None, scope, fields.boolean(body, "only_missing"))


def find(conn: ProfileConnection, branch_id: str) -> Job | None:
    """Return the branch's job, the last one where none runs."""
    row: Any = conn.execute(_READ).fetchone()
    job = None if row is None else Job(*row)
    return job if job is not None and job.branch == branch_id else None


def running(conn: ProfileConnection, branch_id: str) -> Job | None:
    """Return the branch's job if it is not over."""
    job = find(conn, branch_id)
    return job if job is not None and job.state == "running" else None


# ---- begin and end


def apply_begin(
    conn: ProfileConnection, now_ms: int, branch_id: str, job_id: str, model: str, wanted: Wanted
) -> tuple[dict[str, Any], bool]:
    """Begin a job; the same one that is not over goes on. Raises ConflictError when another one runs."""
    job = running(conn, branch_id)
    if job is not None:
        asked = (model, wanted.scope, int(wanted.only_missing))
        if (job.model, job.scope, job.only_missing) != asked:
            raise ConflictError(
                f"a job that embeds {job.scope} with {job.model} is under way here ({job.done} of {job.total}):"
                " wait for its end, or cancel it with DELETE"
            )
        return job.shown(), False
    total = sum(
        _count(conn, part, model, only_missing=wanted.only_missing)
        for part in (MEMORIES, TURNS)
        if wanted.scope in {part, "all"}
    )
    part = TURNS if wanted.scope == TURNS else MEMORIES
    row: tuple[Binding, ...] = (
        job_id, branch_id, model, wanted.scope, wanted.only_missing, part, total, now_ms, now_ms,
    )  # fmt: skip
    conn.execute(_BEGIN, row)
    job = running(conn, branch_id)
    return ({} if job is None else job.shown()), True


def apply_end(
    conn: ProfileConnection,
    now_ms: int,
    branch_id: str,
    state: str,
    *,
    job_id: str | None = None,
    error: str | None = None,
) -> tuple[None, bool]:
    """End the job that runs, with `job_id` only that one; return whether there was one."""
    job = running(conn, branch_id)
    if job is None or job_id not in {None, job.job}:
        return None, False
    conn.execute(_END, (state, None if error is None else error[:ERROR_LENGTH_LIMIT], now_ms, now_ms))
    return None, True


# ---- one step


def _selection(conn: ProfileConnection, part: str, model: str, *, only_missing: bool) -> tuple[str, str]:
    """Return the key's column, and what selects the rows of a part above a key."""
    if part == MEMORIES:
        found = models.find(conn, model)
        missing = "" if found is None else f"AND m.rid NOT IN (SELECT rid FROM {found.table})"
        return "rid", _MEMORIES_FROM.format(missing=missing if only_missing else "")
    table = _turn_table(conn, model)
    missing = "" if table is None else f"AND m.mid NOT IN (SELECT mid FROM {table})"
    return "mid", _TURNS_FROM.format(missing=missing if only_missing else "")


def _turn_table(conn: ProfileConnection, model: str) -> str | None:
    found = models.find(conn, model)
    if found is None:
        return None
    table = transcripts.table_of(found.id, found.dimensions)
    return table if conn.table_exists("main", table) else None


def _count(conn: ProfileConnection, part: str, model: str, *, only_missing: bool) -> int:
    _, selection = _selection(conn, part, model, only_missing=only_missing)
    total: int = conn.execute(f"SELECT count(*) {selection}", (0,)).get
    return total


def read_batch(conn: ProfileConnection, branch_id: str, limit: int) -> Batch | None:
    """Return what is to be embedded next, None where no job runs (any more)."""
    job = running(conn, branch_id)
    if job is None:
        return None
    key, selection = _selection(conn, job.part, job.model, only_missing=bool(job.only_missing))
    columns = "m.summary, m.keywords" if job.part == MEMORIES else "m.content, ''"
    found: list[Any] = conn.execute(
        f"SELECT m.{key}, {columns} {selection} ORDER BY m.{key} LIMIT ?", (job.cursor, limit)
    ).fetchall()
    if job.part == MEMORIES:
        rows = [(rid, text_of(summary, keywords)) for rid, summary, keywords in found]
    else:
        rows = [(mid, words_in(content)) for mid, content, _ in found]
    part, cursor, is_last = job.part, rows[-1][0] if rows else job.cursor, False
    if len(rows) < limit:
        is_last = job.part == TURNS or job.scope == MEMORIES
        part, cursor = TURNS, 0
    return Batch(job, rows, part, cursor, is_last)


def apply_batch(
    conn: ProfileConnection, now_ms: int, branch_id: str, batch: Batch, vectors: Vectors
) -> tuple[bool, bool]:
    """Store the vectors of a batch and move the job on; return whether it goes on.

    Nothing is stored of a memory whose text is another one by now: whoever changed it sees to its vector. Raises
    InvalidRequestError when the profile does not take the model's vectors.
    """
    job = running(conn, branch_id)
    if (
        job is None
        or job.job != batch.job.job
        or (job.part, job.cursor) != (batch.job.part, batch.job.cursor)
    ):
        return job is not None, False
    made = [
        (row, text, vector)
        for (row, text), vector in zip(batch.rows, vectors, strict=True)
        if vector is not None
    ]
    if made:
        model = models.ensure(conn, now_ms, job.model, fields.dimensions(made[0][2]), "the node's embedding")
        store = _store_memory if job.part == MEMORIES else _store_turn
        for row, text, vector in made:
            store(conn, model, row, text, vector)
    without = sum(
        1 for (_, text), vector in zip(batch.rows, vectors, strict=True) if vector is None and text.strip()
    )
    conn.execute(_ADVANCE, (batch.part, batch.cursor, len(batch.rows), without, now_ms))
    if batch.is_last:
        conn.execute(_END, ("done", None, now_ms, now_ms))
    return not batch.is_last, True


def _store_memory(conn: ProfileConnection, model: models.Model, rid: int, text: str, vector: bytes) -> None:
    row: Any = conn.execute(
        "SELECT summary, keywords FROM __memoturn_memories WHERE rid = ?", (rid,)
    ).fetchone()
    if row is not None and text_of(*row) == text:
        conn.execute(f"INSERT OR REPLACE INTO {model.table}(rid, e) VALUES (?, ?)", (rid, vector))
        memories.note_change(conn, rid)


def _store_turn(conn: ProfileConnection, model: models.Model, mid: int, _text: str, vector: bytes) -> None:
    if conn.execute("SELECT 1 FROM __memoturn_messages WHERE mid = ?", (mid,)).get is not None:
        table = transcripts.ensure_vectors(conn, model.id, model.dimensions, "the node's embedding")
        transcripts.insert_vector(conn, table, mid, vector)


# ---- what routes call


async def begin(
    profile: Profile,
    branch_id: str,
    job_id: str,
    model: str,
    wanted: Wanted,
    *,
    durability: Durability = Durability.LOCAL,
) -> Written[dict[str, Any]]:
    """Begin a job; see `apply_begin`."""
    return await profile.write(
        lambda conn, now_ms: apply_begin(conn, now_ms, branch_id, job_id, model, wanted),
        durability=durability,
        work=Work.HEAVY,
    )


async def cancel(
    profile: Profile, branch_id: str, *, durability: Durability = Durability.LOCAL
) -> Written[None]:
    """Cancel the job that runs, if there is one; what it made stays."""
    return await profile.write(
        lambda conn, now_ms: apply_end(conn, now_ms, branch_id, "cancelled"), durability=durability
    )


async def progress(
    profile: Profile, branch_id: str, *, live: bool, min_txid: int = 0
) -> Seen[dict[str, Any]]:
    """Return the branch's job, or NOTHING; see `Job.shown`."""

    def op(conn: ProfileConnection, _now_ms: int) -> dict[str, Any]:
        job = find(conn, branch_id)
        return NOTHING if job is None else job.shown(live=live)

    return await profile.read(op, min_txid=min_txid)


async def drop_model(
    profile: Profile, branch_id: str, name: str, *, durability: Durability = Durability.LOCAL
) -> Written[None]:
    """Drop a model with its vectors; see `models.apply_drop`. Raises ConflictError while a job embeds with it."""

    def op(conn: ProfileConnection, _now_ms: int) -> tuple[None, bool]:
        job = running(conn, branch_id)
        if job is not None and job.model == name:
            raise ConflictError(
                f"a job embeds with {name} just now: cancel it first, with DELETE .../reembed"
            )
        return models.apply_drop(conn, name)

    return await profile.write(op, durability=durability, work=Work.HEAVY)
