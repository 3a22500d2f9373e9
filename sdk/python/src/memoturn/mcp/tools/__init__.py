"""The tools: what each is for, what it takes and answers, and what it does. The order is that of the list."""

from typing import Final

from memoturn.mcp.settings import Pin, Settings
from memoturn.mcp.tools import branches, documents, key_values, memories, transcripts
from memoturn.mcp.tools.tool import Call, Tool

__all__ = ["TOOLS", "Call", "Tool", "offered", "why_not"]

TOOLS: Final[tuple[Tool, ...]] = (
    *memories.TOOLS,
    *transcripts.TOOLS,
    *documents.TOOLS,
    *key_values.TOOLS,
    *branches.TOOLS,
)
"""Every tool that there is."""

_BY_NAME: Final = {tool.name: tool for tool in TOOLS}


def offered(settings: Settings) -> dict[str, Tool]:
    """Return the tools that the settings let through, by name."""
    return {name: tool for name, tool in _BY_NAME.items() if why_not(settings, name) is None}


def why_not(settings: Settings, name: str) -> str | None:
    """Return why a tool is not offered, None where it is."""
    tool = _BY_NAME.get(name)
    if tool is None:
        return f"there is no tool {name[:64]!r}"
    if settings.read_only and not tool.read_only:
        return f"{name} changes memory, and this server only reads"
    if tool.destructive and not settings.destructive:
        return f"{name} can remove or replace what is stored, and this server leaves such tools out"
    if tool.needs_branches and settings.pin >= Pin.BRANCH:
        return f"{name} makes a branch that could not be named, since this server is fixed to one"
    return None
