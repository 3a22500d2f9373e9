"""The embedding models of a profile: which there are, of how many dimensions, and where their vectors are.

Every model has a table of vectors of its own, so that a search looks at vectors of one kind alone. Embeddings
that a client sends without naming their model belong to the model without a name.
"""

from dataclasses import dataclass
from typing import Final

from memoturnd.engine.connection import ProfileConnection
from memoturnd.engine.families import MEMORY_VECTORS
from memoturnd.errors import InvalidRequestError

UNNAMED: Final = ""
MODELS_LIMIT: Final = 16
"""Most models of a profile: each is one more table to look after."""


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
