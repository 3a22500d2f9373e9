"""The embedding models of a profile: which there are, of how many dimensions, and where their vectors are.

Every model has a table of vectors of its own, so that a search looks at vectors of one kind alone. Embeddings
that a client sends without naming their model belong to the model without a name.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from memoturnd.engine import schema
from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.families import MEMORY_VECTORS
from memoturnd.errors import InvalidRequestError, NotFoundError
from memoturnd.seams.profile import Profile, Seen, Work
from memoturnd.surfaces import fields, transcripts

UNNAMED: Final = ""
MODELS_LIMIT: Final = 16
"""Most models of a profile: each is one more table to look after."""
NAME_LENGTH_LIMIT: Final = 128
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")


@dataclass(frozen=True, slots=True)
class Model:
    """An embedding model as a profile knows it."""

    id: int
    name: str
    dimensions: int

    @property
    def table(self) -> str:
        """Return the table of its memories' vectors: `rid`, `e` (float32, little-endian)."""
        return MEMORY_VECTORS.name(str(self.id))


def parse_name(value: Any, where: str) -> str:
    """Return the name of a model that a request gives, UNNAMED for null. Raises InvalidRequestError."""
    if value is None:
        return UNNAMED
    name = fields.text(value, where, length_limit=NAME_LENGTH_LIMIT)
    if not _NAME.fullmatch(name):
        raise InvalidRequestError(
            f"{where} takes letters, digits and . _ : / @ + -, the first a letter or digit,"
            f" such as `openai/text-embedding-3-small`"
        )
    return name


def find(conn: ProfileConnection, name: str = UNNAMED) -> Model | None:
    """Return a model by name, None where the profile has nothing of it."""
    row = conn.execute(
        "SELECT id, name, dimensions FROM __memoturn_models WHERE name = ?", (name,)
    ).fetchone()
    return None if row is None else Model(*row)


def all_models(conn: ProfileConnection) -> list[Model]:
    """Return the profile's models, the oldest first."""
    return [
        Model(*row) for row in conn.execute("SELECT id, name, dimensions FROM __memoturn_models ORDER BY id")
    ]


def ensure(conn: ProfileConnection, now_ms: int, name: str, dimensions: int, where: str) -> Model:
    """Return a model by name, made with its table where the profile has none.

    Raises InvalidRequestError, about the field `where`, when the model's vectors have other dimensions, and
    when the profile has too many models.
    """
    model = find(conn, name)
    if model is None:
        count: int = conn.execute("SELECT count(*) FROM __memoturn_models").get
        if count >= MODELS_LIMIT:
            raise InvalidRequestError(
                f"{where} is of another model, and the profile has {count}: remove one first"
            )
        conn.execute(
            "INSERT INTO __memoturn_models(name, dimensions, created_at) VALUES (?, ?, ?)",
            (name, dimensions, now_ms),
        )
        model = Model(conn.last_insert_rowid(), name, dimensions)
        conn.execute(MEMORY_VECTORS.create(str(model.id)))
    if model.dimensions != dimensions:
        check(conn, model, dimensions, where)
        for table in transcripts.tables_of(conn, model.id):
            conn.execute(f"DROP TABLE {table}")  # empty, and of other dimensions
        conn.execute("UPDATE __memoturn_models SET dimensions = ? WHERE id = ?", (dimensions, model.id))
        model = Model(model.id, name, dimensions)
    return model


def check(conn: ProfileConnection, model: Model, dimensions: int, where: str) -> None:
    """Raise InvalidRequestError when a vector of `dimensions`, in the field `where`, is not of the model.

    A model without vectors takes any.
    """
    if model.dimensions != dimensions and _has_vectors(conn, model):
        raise InvalidRequestError(
            f"{where} has {dimensions} dimensions, this profile's embeddings have {model.dimensions}:"
            f" use the same embedding model, or another profile"
        )


def takes(conn: ProfileConnection, name: str, dimensions: int) -> bool:
    """Return whether vectors of `dimensions` can be stored under the model, which may have to be made for them."""
    model = find(conn, name)
    if model is None:
        count: int = conn.execute("SELECT count(*) FROM __memoturn_models").get
        return count < MODELS_LIMIT
    if model.dimensions == dimensions:
        return True
    return not _has_vectors(conn, model)


def _has_vectors(conn: ProfileConnection, model: Model) -> bool:
    """Return whether a memory or a turn has a vector of the model."""
    if conn.execute(f"SELECT 1 FROM {model.table} LIMIT 1").get is not None:
        return True
    return transcripts.has_vectors(conn, model.id)


def read_models(conn: ProfileConnection, active: str | None) -> dict[str, Any]:
    """Return `{models: [{name, dimensions, memories, turns, active, created_at}], embeddable}`, the oldest first.

    The unnamed model's `name` is null, its `dimensions` too where only turns have such vectors, of whatever number.
    `embeddable` counts the memories that may have a vector, and the turns.
    """
    turns = transcripts.count_vectors(conn)
    listed = []
    rows: list[Any] = conn.execute(
        "SELECT id, name, dimensions, created_at FROM __memoturn_models ORDER BY id"
    ).fetchall()
    for id_, name, dimensions, created_at in rows:
        memories: int = conn.execute(f"SELECT count(*) FROM {Model(id_, name, dimensions).table}").get
        of_turns = turns.pop(id_, 0) + (turns.pop(transcripts.CLIENTS, 0) if name == UNNAMED else 0)
        listed.append(_shown(name, dimensions, memories, of_turns, created_at, active))
    if turns.get(transcripts.CLIENTS):
        listed.append(_shown(UNNAMED, None, 0, turns[transcripts.CLIENTS], None, active))
    of_memories, of_turns = conn.execute(
        "SELECT (SELECT count(*) FROM __memoturn_memories WHERE type <> 'task'),"
        " (SELECT count(*) FROM __memoturn_messages)"
    ).get
    return {"models": listed, "embeddable": {"memories": of_memories, "turns": of_turns}}


def _shown(
    name: str, dimensions: int | None, memories: int, turns: int, created_at: int | None, active: str | None
) -> dict[str, Any]:
    return {
        "name": name or None,
        "dimensions": dimensions,
        "memories": memories,
        "turns": turns,
        "active": name == active,
        "created_at": created_at,
    }


def apply_drop(conn: ProfileConnection, name: str) -> tuple[None, bool]:
    """Drop a model with its vectors; memories and turns stay. Raises NotFoundError.

    Its number may be given again, so whoever keeps vectors in memory is told to forget all of them.
    """
    model = find(conn, name)
    tables = [] if model is None else [model.table, *transcripts.tables_of(conn, model.id)]
    if name == UNNAMED:
        tables += transcripts.tables_of(conn, transcripts.CLIENTS)
    if not tables:
        raise NotFoundError(f"the profile has no embedding model {name or '-'}: GET .../models lists them")
    for table in tables:
        conn.execute(f"DROP TABLE {table}")
    conn.execute("DELETE FROM __memoturn_models WHERE name = ?", (name,))
    schema.note_replaced(conn, conn.round_txid)
    conn.noted.deleted("memory", "models", name)
    return None, True


async def listing(profile: Profile, active: str | None, *, min_txid: int = 0) -> Seen[dict[str, Any]]:
    """List the models; see `read_models`."""
    return await profile.read(lambda conn, _: read_models(conn, active), min_txid=min_txid, work=Work.SCAN)
