"""What one line of the route table says: a method of a path, who handles it, and what it needs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from memoturnd.core import coverage
from memoturnd.http.call import Call
from memoturnd.http.envelope import Answer

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
"""Methods that are told apart where requests are counted."""
Scope = coverage.Scope
Handler = Callable[[Call], Awaitable[Answer]]


class Kind(Enum):
    """What a route does, which decides the gates in front of it."""

    READ = "read"
    """Shows a state; honours Memoturn-Min-Txid and Memoturn-At."""
    WRITE = "write"
    """Changes a branch; honours Memoturn-Durability, or is always durable."""
    CONTROL = "control"
    """Changes or lists the directory of databases, or verifies one, within the control rate."""
    OPEN = "open"
    """Serves the node's operator; passes every gate, so that it answers on a busy node."""
    PEER = "peer"
    """What nodes tell one another all the time, with the cluster key: passes every gate, and is not audited. Of its body, too,
    no more is held than of all others' together."""


class Body(Enum):
    """How large a body may be, and whether it is read at all."""

    NONE = "none"
    SMALL = "small"
    """Up to 1 MiB of JSON."""
    LARGE = "large"
    """Up to MEMOTURN_MAX_BODY_BYTES of JSON."""
    RAW = "raw"
    """Up to MEMOTURN_MAX_BODY_BYTES of anything."""
    FILE = "file"
    """Up to MEMOTURN_MAX_IMPORT_BYTES of a file, which the handler takes as it comes and to which no deadline applies."""


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `parameters` are the names in `template`, in order; `operation`
    is method and template in one.

    With `anywhere` the node that is asked answers, whoever owns the branch. With `asks_model` its deadline leaves time for a language model.
    `at` is whether it takes Memoturn-At where that does not follow from its kind: reads do. A read finds the
    past state behind `call.node`, and need not know of it.
    """

    method: str
    template: str
    handler: Handler
    kind: Kind
    body: Body
    scope: Scope
    at: bool | None = None
    asks_model: bool = False
    anywhere: bool = False
    parameters: tuple[str, ...] = field(init=False)
    operation: str = field(init=False)

    def __post_init__(self) -> None:
        names = tuple(part[1:-1] for part in self.template.split("/") if part.startswith("{"))
        object.__setattr__(self, "parameters", names)
        object.__setattr__(self, "operation", f"{self.method} {self.template}")

    @property
    def may_wait(self) -> bool:
        """Whether a request may take long and all be well: for a model, for a change to happen, for a file to come."""
        return self.asks_model or self.body is Body.FILE or self.template.endswith("/changes")

    @property
    def takes_at(self) -> bool:
        """Whether the route shows past states."""
        return self.kind is Kind.READ if self.at is None else self.at
