"""Tools about branches and history: try out, mark, go back."""

from typing import Annotated, Any, Final

from pydantic import Field

from memoturn.errors import AlreadyExistsError
from memoturn.mcp.answers import readable
from memoturn.mcp.schemas import INTEGER, STRING, Arguments, output_schema
from memoturn.mcp.tools.tool import Call, Tool

Name = Annotated[str, Field(min_length=1, max_length=128)]


class Create(Arguments):
    """Arguments of branch_create."""

    name: Name
    at: Annotated[
        str | None, Field(description="Fork a past state: checkpoint, txid, head~3 or RFC 3339 time")
    ] = None
    ttl: Annotated[int | None, Field(ge=1, description="Seconds until it is deleted")] = None


class Checkpoint(Arguments):
    """Arguments of branch_checkpoint."""

    name: Annotated[str, Field(min_length=1, max_length=128, description="Not digits alone, head or a time")]


class Rewind(Arguments):
    """Arguments of branch_rewind."""

    to: Annotated[str, Field(min_length=1, description="Checkpoint, txid, head~3 or RFC 3339 time")]


async def _create(call: Call, asked: Create) -> dict[str, Any]:
    return readable(await call.profile.fork(asked.name, at=asked.at, ttl=asked.ttl)) | {
        "txid": call.profile.last_txid
    }


async def _checkpoint(call: Call, asked: Checkpoint) -> dict[str, Any]:
    branches = call.db.branch
    async for there in branches.iter_checkpoints(call.place.branch):
        if there["checkpoint"] == asked.name:
            raise AlreadyExistsError(
                f"the checkpoint {asked.name!r} is at txid {there['txid']} already",
                status=409,
                code="already_exists",
            )
    return readable(await branches.checkpoint(call.place.branch, asked.name))


async def _rewind(call: Call, asked: Rewind) -> dict[str, Any]:
    return readable(await call.profile.rewind(asked.to))


TOOLS: Final = (
    Tool(
        "branch_create",
        "Fork the memory",
        "Fork the whole memory into a branch, at no cost, before something risky or to try out what-ifs. Then pass its name as "
        "branch to the other tools; main stays untouched. Needs an admin token, like the next two.",
        Create,
        output_schema(branch=STRING, parent=STRING, fork_txid=INTEGER),
        _create,
        needs_branches=True,
    ),
    Tool(
        "branch_checkpoint",
        "Name the present state",
        "Give the present state a name, to rewind to or to read later (at). Call it before a batch of changes.",
        Checkpoint,
        output_schema(checkpoint=STRING),
        _checkpoint,
    ),
    Tool(
        "branch_rewind",
        "Rewind the memory",
        "Bring the whole memory back to an earlier state. What came since is gone from view, everybody's, not only yours: ask the "
        "user first. Undo it by rewinding to the undo_txid that it returns.",
        Rewind,
        output_schema(rewound_to=INTEGER, undo_txid=INTEGER),
        _rewind,
        destructive=True,
        idempotent=False,
    ),
)
"""Tools about branches."""
