"""A root group that knows its subcommands by name and loads the module of the one that is called, no other."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from typer import Exit
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from memoturn.cli.exits import ExitCode
from memoturn.cli.table import COMMANDS, Entry

_loaded: dict[str, Any] = {}


class ReaderGone(Exception):  # noqa: N818 - no error: whoever reads what is printed has enough
    """Nobody reads what is printed any more."""


@contextmanager
def _ended_from_outside() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise ReaderGone from error
    except KeyboardInterrupt as error:
        raise Exit(ExitCode.INTERRUPTED) from error


class LazyGroup(TyperGroup):
    """The commands of `memoturn.cli.table`; the help of the root is made of that table alone."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, in the table's order."""
        del ctx
        return [entry.name for entry in COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return what the root's help shows of a command: its name and its line."""
        del ctx
        entry = _entry(cmd_name)
        return None if entry is None else TyperCommand(entry.name, help=entry.help)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read the line, and print the help where it asks for it. Raises ReaderGone as `invoke` does."""
        with _ended_from_outside():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run what is called. Raises ReaderGone for a broken pipe, which Typer would take for a failure."""
        with _ended_from_outside():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is called, loaded."""
        name, stub, rest = super().resolve_command(ctx, args)
        return name, stub if stub is None else load(stub.name or ""), rest


def load(name: str) -> Any:
    """Return the command or group of that name with all that it holds. Raises KeyError."""
    entry = _entry(name)
    if entry is None:
        raise KeyError(name)
    if name not in _loaded:
        module, _, attribute = entry.target.partition(":")
        _loaded[name] = get_command(getattr(import_module(f"memoturn.cli.{module}"), attribute or "app"))
        _loaded[name].name = name
    return _loaded[name]


def _entry(name: str) -> Entry | None:
    return next((entry for entry in COMMANDS if entry.name == name), None)
