"""One run of the command: the client, the output and the global options, as every subcommand gets them."""

import json
import sys
from dataclasses import dataclass
from typing import Annotated, Any, cast

import typer

from memoturn.cli.output import Output
from memoturn.client import Memoturn
from memoturn.types import Durability

NOTE = "Global options such as --json, --durable and --url may stand anywhere; see `memoturn --help`."
"""Closes the help of every subcommand."""

Namespace = Annotated[str, typer.Argument(metavar="NS", help="Namespace of the profile.", show_default=False)]
Profile = Annotated[str, typer.Argument(metavar="PROFILE", help="Name of the profile.", show_default=False)]
OnBranch = Annotated[str, typer.Option("--branch", metavar="NAME", help="Branch of the profile.")]
Database = Annotated[
    str, typer.Argument(metavar="DB", help="Database; that of a profile is NS--PROFILE.", show_default=False)
]
Spec = Annotated[
    str, typer.Argument(metavar="SPEC", help="Database, or DB@BRANCH; that of a profile is NS--PROFILE.")
]
At = Annotated[
    str | None,
    typer.Option(
        "--at",
        metavar="REVISION",
        help="Show a past state: a txid, checkpoint, head~N, or time.",
        show_default=False,
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@dataclass(frozen=True)
class Run:
    """What the global options say. `durability` is None unless --durable was given."""

    client: Memoturn
    out: Output
    durability: Durability | None


def current(ctx: typer.Context) -> Run:
    """Return the run that the global options have set up."""
    return cast("Run", ctx.obj)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed, where somebody can answer. Raises typer.Abort on a no."""
    if not yes and sys.stdin.isatty():
        typer.confirm(question, abort=True, err=True)


def parse_json(text: str, option: str) -> Any:
    """Return the JSON value of an option. Raises typer.BadParameter."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise typer.BadParameter(f"not valid JSON: {error}", param_hint=option) from error


def parse_embedding(text: str | None) -> list[float] | None:
    """Return the numbers of `--embedding`, None when it is not given. Raises typer.BadParameter."""
    if text is None:
        return None
    value = parse_json(text, "--embedding")
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        raise typer.BadParameter(
            "takes a JSON array of numbers, as in '[0.1, 0.9]'", param_hint="--embedding"
        )
    return cast("list[float]", value)
