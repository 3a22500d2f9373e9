"""The seam between surfaces (memories, key-values, turns, SQL) and the engine that owns a branch's file.

A surface never opens a connection. It hands the engine a function; the engine decides on which thread and
in which transaction the function runs, and answers with the txid and the durability that were reached.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from memoturnd.core.durability import Durability
from memoturnd.engine.connection import ProfileConnection

T = TypeVar("T")


class Work(Enum):
    """How much a function may cost, which decides where it runs."""

    POINT = "point"
    """A handful of indexed statements: on the event loop."""
    SCAN = "scan"
    """Reads in proportion to the file: on the event loop while the file is small, else in the pool."""
    HEAVY = "heavy"
    """Large batches: in the pool."""
    USER = "user"
    """Statements that a user wrote: alone in its round; tried on the event loop within a small budget of
    SQLite steps, rolled back and run again in the pool under a deadline where that is not enough. The
    function may therefore run twice and must have no effect but on the connection."""
    OPAQUE = "opaque"
    """Like USER where SQLite's steps do not show the cost, as with patterns: in the pool at once."""

    @property
    def is_users(self) -> bool:
        """Whether it runs alone and under a deadline, because a user says what it takes."""
        return self is Work.USER or self is Work.OPAQUE


class ElsewhereError(Exception):
    """Raised by a function that turns out to take longer than the event loop may be held: run it again as HEAVY."""


@dataclass(frozen=True, slots=True)
class Written(Generic[T]):
    """The result of a write: the op's value, the txid whose state holds it, and what is durable."""

    value: T
    txid: int
    durable_txid: int
    durability: Durability
    """The level that was reached."""

    @property
    def durable(self) -> bool:
        """Return whether object storage has it."""
        return self.durability is Durability.DURABLE


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """The result of a read: the op's value and the txid of the state that it saw."""

    value: T
    txid: int
    durable_txid: int


WriteOp = Callable[[ProfileConnection, int], tuple[T, bool]]
"""Gets the connection, inside an open transaction, and the round's wall time in unix ms; returns its value
and whether it changed anything. Raising undoes only this op."""

ReadOp = Callable[[ProfileConnection, int], T]
"""Gets a connection on one consistent state and the wall time in unix ms. Must not write."""


class Profile(Protocol):
    """A branch of a database, as surfaces see it."""

    async def write(
        self, op: WriteOp[T], *, durability: Durability = Durability.LOCAL, work: Work = Work.POINT
    ) -> Written[T]:
        """Apply `op` in a commit round, and return when it has reached the level asked for or a higher one.

        Raises whatever `op` raised, OverloadedError when the queue or the unshipped window is full,
        DiskFullError, FencedError.
        """
        ...

    async def read(self, op: ReadOp[T], *, min_txid: int = 0, work: Work = Work.POINT) -> Seen[T]:
        """Run `op` on one state at or above `min_txid`, waiting up to 2 s for it.

        Raises PreconditionFailedError when the state is not reached in time, and whatever `op` raised.
        A branch that was never written reads as an empty profile with txid 0.
        """
        ...
