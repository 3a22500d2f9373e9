"""What the commands on a profile's memories share."""

from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer

from memoturn.cli.exits import ExitCode
from memoturn.cli.run import Run

if TYPE_CHECKING:
    from memoturn import MemoryProfile


class Kind(str, Enum):
    """The kinds of memory, as the choices of an option."""

    FACT = "fact"
    EVENT = "event"
    INSTRUCTION = "instruction"
    TASK = "task"


MemoryId = Annotated[str, typer.Argument(metavar="ID", help="Id of the memory.", show_default=False)]
Kinds = Annotated[
    list[Kind] | None, typer.Option("--type", help="Only fact, event, instruction or task; repeatable.")
]


def profile_of(run: Run, ns: str, profile: str, branch: str) -> "MemoryProfile":
    """Return the profile on that branch."""
    return run.client.memory(ns, profile).on_branch(branch)


def stamped(run: Run, memories: "MemoryProfile") -> None:
    """Say on stderr which txid the last answer showed and how far object storage is."""
    run.out.txid(memories.last_txid, memories.last_durable_txid)


def missing(run: Run, memories: "MemoryProfile", what: str) -> typer.Exit:
    """Say that there is no such memory or topic; return the exit to raise."""
    where = f"{memories.namespace}/{memories.profile}"
    run.out.error(f"{where} has no {what}", "`memoturn memory recall NS PROFILE QUERY` finds ids.")
    return typer.Exit(ExitCode.NOT_FOUND)
