"""`database.json`, the register of a database."""

from random import Random

import golden
from fuzz_json import changed_and_sealed
from fuzz_target import GOLDEN, BreachError, Target, same

from memoturnd.core import layout, register
from memoturnd.core.register import Register
from memoturnd.errors import CorruptionError
from memoturnd.stores.keys import is_key


def read(data: bytes) -> Register | None:
    """Decode."""
    try:
        return register.decode(data)
    except CorruptionError:
        return None


def again(known: Register) -> None:
    """Encode and compare; every branch that it names has a manifest that a store can be asked for."""
    same(known, register.decode(register.encode(known)))
    for branch in filter(None, known.branches.values()):
        key = layout.manifest_key(known.uuid, branch.id)
        if not is_key(key):
            raise BreachError(f"the register names a manifest by {key!r}")


def mutate(data: bytes, rng: Random) -> bytes:
    """Change one value of the document."""
    return changed_and_sealed(data, rng)


def seeds() -> list[bytes]:
    """Return the golden register, and one without forks."""
    return [(GOLDEN / "database.json").read_bytes(), register.encode(golden.full_register())]


TARGET = Target(
    name="register",
    modules=("memoturnd.core.register", "memoturnd.core.names"),
    read=read,
    again=again,
    mutate=mutate,
    seeds=seeds,
    multiple=32,
    constant=256 << 10,
)
