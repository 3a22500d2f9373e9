"""Bodies of requests and answers as types, one module per surface. They describe; the surfaces check.

A field of an answer that is not always there has the type `Maybe[...]` and the default UNSET. Times are unix ms.
"""

from typing import Annotated, Any, TypeAlias, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType

from memoturnd.core.bounds import INTEGER_MAX

T = TypeVar("T")

Maybe: TypeAlias = T | UnsetType
Count: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Txid: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_MAX, description="Number of a commit of the branch.")]
Time: TypeAlias = Annotated[int, Meta(description="Unix milliseconds.")]
Object: TypeAlias = dict[str, Any]
Vector: TypeAlias = Annotated[list[float], Meta(min_length=1, max_length=8192)]


class Problem(Struct):
    """Any error."""

    error: Annotated[str, Meta(description="What failed, and the next step.")]
    code: Annotated[str, Meta(description="Stable identifier.")]


class Stamped(Struct):
    """An answer of a write that says nothing but its txid."""

    txid: Txid


__all__ = [
    "UNSET", "Count", "Maybe", "Object", "Problem", "Stamped", "Struct", "Time", "Txid", "Vector",
]  # fmt: skip
