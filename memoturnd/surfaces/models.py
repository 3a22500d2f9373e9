"""The embedding models of a profile: which there are, of how many dimensions, and where their vectors are.

Every model has a table of vectors of its own, so that a search looks at vectors of one kind alone. Embeddings
that a client sends without naming their model belong to the model without a name.
"""

import re
from dataclasses import dataclass
from typing import Any, Final

from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.families import MEMORY_VECTORS
from memoturnd.errors import InvalidRequestError
from memoturnd.surfaces import fields

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
        conn.execute("UPDATE __memoturn_models SET dimensions = ? WHERE id = ?", (dimensions, model.id))
        model = Model(model.id, name, dimensions)
    return model


def check(conn: ProfileConnection, model: Model, dimensions: int, where: str) -> None:
    """Raise InvalidRequestError when a vector of `dimensions`, in the field `where`, is not of the model.

    A model without vectors takes any.
    """
    if (
        model.dimensions != dimensions
        and conn.execute(f"SELECT 1 FROM {model.table} LIMIT 1").get is not None
    ):
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
    return conn.execute(f"SELECT 1 FROM {model.table} LIMIT 1").get is None
