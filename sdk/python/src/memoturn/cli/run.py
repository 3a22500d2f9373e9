"""One run of the command: the client, the output and the global options, as every subcommand gets them."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from memoturn.cli.complete import databases, namespaces, profiles, specs
from memoturn.cli.output import Output, is_terminal
from memoturn.errors import InvalidRequestError

if TYPE_CHECKING:
    from memoturn.client import Memoturn
    from memoturn.types import Durability

NOTE = "Global options such as --json, --durable and --url may stand anywhere; see `memoturn --help`."
"""Closes the help of every subcommand."""

Namespace = Annotated[
    str,
    typer.Argument(
        metavar="NS", help="Namespace of the profile.", show_default=False, autocompletion=namespaces
    ),
]
Profile = Annotated[
    str,
    typer.Argument(
        metavar="PROFILE", help="Name of the profile.", show_default=False, autocompletion=profiles
    ),
]
OnBranch = Annotated[str, typer.Option("--branch", metavar="NAME", help="Branch of the profile.")]
Database = Annotated[
    str,
    typer.Argument(
        metavar="DB",
        help="Database; that of a profile is NS--PROFILE.",
        show_default=False,
        autocompletion=databases,
    ),
]
Spec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        help="Database, or DB@BRANCH; that of a profile is NS--PROFILE.",
        show_default=False,
        autocompletion=specs,
    ),
]
Lines = Annotated[str, typer.Argument(metavar="JSON", help="Objects, one a line or an array; `-` is stdin.")]
"""What `parse_lines` takes apart."""
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
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")]
Limit = Annotated[int, typer.Option(min=1, help="Most of them.")]
Filter = Annotated[
    str | None,
    typer.Option(
        "--filter",
        metavar="JSON",
        help='What has to hold, as in \'{"age": {"$gte": 18}}\'; `-` is stdin.',
        show_default=False,
    ),
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Only from then on: RFC 3339 or unix ms.", show_default=False),
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Only up to then: RFC 3339 or unix ms.", show_default=False)
]


@dataclass(frozen=True)
class Run:
    """What the global options say. `durability` is None unless --durable was given."""

    out: Output
    durability: "Durability | None"
    url: str
    token: str | None
    platform_key: str | None
    tenant: str | None
    timeout_s: float
    given: dict[str, str] = field(default_factory=dict)
    """Where url, token and platform key come from: `flag`, `environment`, `config` or `default`."""
    unread: list[str] = field(default_factory=list)
    """Why the config did not say what only it could have said."""

    @cached_property
    def client(self) -> "Memoturn":
        """The client, made when it is first used. Raises InvalidRequestError as `sure` does."""
        return self.sure().speaking_of(self.tenant)

    def sure(self) -> "Run":
        """Return itself. Raises InvalidRequestError where it would guess at what a broken config was to say."""
        if self.unread:
            raise InvalidRequestError(
                f"{self.unread[0]}; mend it, or give what it was to say by options or environment",
                code="invalid_request",
            )
        return self

    def speaking_of(self, tenant: str | None) -> "Memoturn":
        """Return a client of its own, whose names are those of a tenant."""
        from memoturn._sync.client import Memoturn  # the other half of the package is left alone

        return Memoturn(
            self.url,
            token=self.token,
            platform_key=self.platform_key,
            tenant=tenant,
            timeout_s=self.timeout_s,
        )

    def close(self) -> None:
        """Close the client, if there is one."""
        if "client" in self.__dict__:
            self.client.close()


def current(ctx: typer.Context) -> Run:
    """Return the run that the global options have set up."""
    return cast("Run", ctx.obj)


def examples(*lines: str) -> str:
    """Return what closes the help of a subcommand: examples of its use, and the note on global options."""
    shown = "\n".join(f"  {line}" for line in lines)
    return f"\b\nExample{'s' if len(lines) > 1 else ''}:\n{shown}\n\n{NOTE}"


def group(text: str) -> typer.Typer:
    """Return an empty group of subcommands."""
    return typer.Typer(
        no_args_is_help=True, help=text, epilog=NOTE, rich_markup_mode=None, add_completion=False
    )


def single(function: Callable[..., Any], *lines: str) -> typer.Typer:
    """Return a command of the root by itself, with examples of its use."""
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command(epilog=examples(*lines))(function)
    return app


def add(app: typer.Typer, name: str, function: Callable[..., Any], *lines: str) -> None:
    """Put a function into a group as its subcommand `name`, with examples of its use."""
    app.command(name, epilog=examples(*lines))(function)


def stamp(run: Run, answer: Mapping[str, Any]) -> None:
    """Say on stderr which txid an answer shows and how far object storage is."""
    run.out.txid(answer["txid"], answer["durable_txid"])


def would(run: Run, value: Mapping[str, Any], text: str) -> None:
    """Say what a dry run found, instead of doing it."""
    run.out.done({"dry_run": True, **value}, f"would {text}; nothing was changed")


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed, where somebody can answer. Raises typer.Abort on a no."""
    if not yes and is_terminal(sys.stdin):
        typer.confirm(question, abort=True, err=True)


def read_stdin() -> str:
    """Return the text on stdin, without the mark that some editors begin a file with. Raises typer.BadParameter."""
    try:
        return sys.stdin.read().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise typer.BadParameter(f"is not text in {error.encoding}: {error}", param_hint="stdin") from error


def parse_json(text: str, option: str) -> Any:
    """Return the JSON value of an option; `-` reads it from stdin. Raises typer.BadParameter."""
    try:
        return json.loads(read_stdin() if text == "-" else text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"not valid JSON: {error}", param_hint=option) from error


def parse_object(text: str, option: str) -> dict[str, Any]:
    """Return the JSON object of an option; `-` reads it from stdin. Raises typer.BadParameter."""
    value = parse_json(text, option)
    if not isinstance(value, dict):
        raise typer.BadParameter("takes a JSON object, as in '{\"a\": 1}'", param_hint=option)
    return value


def parse_filter(text: str | None) -> dict[str, Any] | None:
    """Return the filter of `--filter`, None when it is not given. Raises typer.BadParameter."""
    return None if text is None else parse_object(text, "--filter")


def parse_lines(text: str, option: str) -> list[dict[str, Any]]:
    """Return JSON objects: one, an array of them, or one a line; `-` reads stdin. Raises typer.BadParameter."""
    given = read_stdin() if text == "-" else text
    try:
        whole = json.loads(given)
        found = whole if isinstance(whole, list) else [whole]
    except (ValueError, RecursionError):
        found = [parse_json(line, option) for line in given.splitlines() if line.strip()]
    if not found or not all(isinstance(one, dict) for one in found):
        raise typer.BadParameter("takes JSON objects: one, an array, or one a line", param_hint=option)
    return found


def parse_time(text: str | None, option: str) -> int | datetime | None:
    """Return a time, unix ms or RFC 3339, None when it is not given. Raises typer.BadParameter."""
    if text is None or (text.isascii() and text.isdigit()):
        return None if text is None else int(text)
    try:
        when = datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)
    except ValueError as error:
        raise typer.BadParameter(f"is no time: {error}", param_hint=option) from error
    if when.tzinfo is None:
        raise typer.BadParameter("needs a zone, as in 2026-11-28T02:00:00Z", param_hint=option)
    return when


def parse_embedding(text: str | None, option: str = "--embedding") -> list[float] | None:
    """Return the numbers of an embedding, None when it is not given. Raises typer.BadParameter."""
    if text is None:
        return None
    value = parse_json(text, option)
    if not isinstance(value, list) or not all(type(number) in (int, float) for number in value):
        raise typer.BadParameter("takes a JSON array of numbers, as in '[0.1, 0.9]'", param_hint=option)
    return cast("list[float]", value)
