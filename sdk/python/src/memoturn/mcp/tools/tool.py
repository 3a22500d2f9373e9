"""What a tool is, and what it is called with."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mcp_types import ToolAnnotations

from memoturn import AsyncDb, AsyncMemoryProfile, AsyncMemoturn
from memoturn.mcp.places import Place
from memoturn.mcp.schemas import Arguments, input_schema


@dataclass(frozen=True)
class Call:
    """One call: through which client, and of which branch of which profile."""

    client: AsyncMemoturn
    place: Place

    @property
    def profile(self) -> AsyncMemoryProfile:
        """The profile, on the branch."""
        return self.client.memory(self.place.namespace, self.place.profile).on_branch(self.place.branch)

    @property
    def db(self) -> AsyncDb:
        """The profile's database, on the branch."""
        return self.client.db(self.place.spec)


@dataclass(frozen=True)
class Tool:
    """A tool. `run` gets its arguments as `arguments` and returns the answer, which has the txid that it shows or made.

    `destructive` tools may remove or replace what is stored; `idempotent` ones may be called again without harm.
    """

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    output: Mapping[str, Any]
    run: Callable[[Call, Any], Awaitable[dict[str, Any]]]
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    needs_branches: bool = False

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The schema of the arguments, without those that say where."""
        return input_schema(self.arguments)

    @property
    def annotations(self) -> ToolAnnotations:
        """The hints that clients show, and by which they ask before a call."""
        if self.read_only:
            return ToolAnnotations(read_only_hint=True, open_world_hint=False)
        return ToolAnnotations(
            read_only_hint=False,
            destructive_hint=self.destructive,
            idempotent_hint=self.idempotent,
            open_world_hint=False,
        )
