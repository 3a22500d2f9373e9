"""The command as a whole: global options, exit codes, and how a line of it runs."""

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from memoturn.cli import config
from memoturn.cli.exits import HELP, ExitCode
from memoturn.cli.lazy import LazyGroup, ReaderGone
from memoturn.cli.output import Output
from memoturn.cli.run import Run

if TYPE_CHECKING:
    from memoturn.types import Durability

DEFAULT_URL = "http://127.0.0.1:8080"
_FLAGS = frozenset({"--json", "--durable"})
_VALUES = frozenset({"--url", "--token", "--platform-key", "--timeout", "--tenant"})
_OUTPUT = (
    "Prints tables and colour on a terminal (unless NO_COLOR is set), tab-separated lines without a header in a pipe, "
    "JSON with --json, and JSON Lines where things come one by one; txids and notes go to stderr. "
    "The options above may stand anywhere on the line."
)

app = typer.Typer(
    name="memoturn",
    cls=LazyGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=f'{_OUTPUT}\n\n{HELP}\n\n\b\nExamples:\n  memoturn init --db notes\n  memoturn memory ingest app alice --topic diet --summary "Alice is vegan"\n  memoturn doctor',
)


@app.callback()
def options(
    ctx: typer.Context,
    *,
    url: Annotated[
        str | None,
        typer.Option(help=f"Where the node is (MEMOTURN_URL, config; else {DEFAULT_URL}).", metavar="URL"),
    ] = None,
    token: Annotated[
        str | None, typer.Option(help="Token for data (MEMOTURN_TOKEN, config).", metavar="TOKEN")
    ] = None,
    platform_key: Annotated[
        str | None,
        typer.Option(help="Key for the control plane (MEMOTURN_PLATFORM_KEY, config).", metavar="KEY"),
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="Tenant that the platform key acts for (MEMOTURN_TENANT, config).", metavar="NAME"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    durable: Annotated[
        bool, typer.Option("--durable", help="Return from a write once object storage has it.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="Longest wait for an answer.")
    ] = 30.0,
) -> None:
    """Memories of agents: one small database for each profile, which forks, rewinds and survives its node."""
    run = settled(
        url,
        token,
        platform_key,
        tenant,
        out=Output(as_json=as_json),
        durability="durable" if durable else None,
        timeout_s=timeout,
    )
    ctx.call_on_close(run.close)
    ctx.obj = run


def settled(
    url: str | None,
    token: str | None,
    platform_key: str | None,
    tenant: str | None = None,
    *,
    out: Output | None = None,
    durability: "Durability | None" = None,
    timeout_s: float = 30.0,
) -> Run:
    """Return the run of these options, with what they leave open from the environment and the config."""
    known = config.load()
    given: dict[str, str] = {}
    unread: list[str] = []

    def first(name: str, flag: str | None, variable: str, said: str | None) -> str | None:
        for source, value in (("flag", flag), ("environment", os.environ.get(variable)), ("config", said)):
            if value:
                given[name] = source
                return value
        given[name] = "default"
        if name in known.unread:
            unread.append(known.unread[name])
        return None

    return Run(
        out=out or Output(as_json=False),
        durability=durability,
        url=first("url", url, "MEMOTURN_URL", known.url) or DEFAULT_URL,
        token=first("token", token, "MEMOTURN_TOKEN", known.token),
        platform_key=first("platform_key", platform_key, "MEMOTURN_PLATFORM_KEY", known.platform_key),
        tenant=first("tenant", tenant, "MEMOTURN_TENANT", known.tenant),
        timeout_s=timeout_s,
        given=given,
        unread=unread,
    )


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code. Where nobody reads its output any more, it has done enough."""
    _mend_streams()
    code = int(ExitCode.OK)
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except (ReaderGone, BrokenPipeError):
        _let_go()
    except OSError as error:
        Output(as_json=False).error(f"stdout: {error.strerror or error}", None)
        _let_go()
        return ExitCode.REFUSED
    return code


def _run(arguments: Sequence[str]) -> int:
    from memoturn.errors import MemoturnError

    if "_MEMOTURN_COMPLETE" in os.environ:  # a shell asks what a word may become
        from typer.completion import completion_init  # type: ignore[attr-defined]

        completion_init()
    try:
        app(args=hoisted(arguments), prog_name="memoturn")
    except MemoturnError as error:
        from memoturn.cli.failures import exit_code, hint

        Output(as_json=False).error(error.message, hint(error))
        return exit_code(error)
    except BrokenPipeError:
        raise
    except OSError as error:
        Output(as_json=False).error(f"{error.filename or 'the output'}: {error.strerror or error}", None)
        return ExitCode.REFUSED
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else ExitCode.OK
    return ExitCode.OK


def _mend_streams() -> None:
    """Stand in for streams that the process was started without, and let no character be unprintable."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - for good
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _let_go() -> None:
    """Send what is left in a broken stream nowhere: the flush at the exit would fail again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def hoisted(arguments: Sequence[str]) -> list[str]:
    """Return `arguments` with the global options first, wherever before a `--` they stood."""
    first: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest.append(argument)
            rest.extend(waiting)
        elif argument in _FLAGS or argument.partition("=")[0] in _VALUES:
            first.append(argument)
            if argument in _VALUES:
                first.extend(value for value in [next(waiting, None)] if value is not None)
        else:
            rest.append(argument)
    return first + rest
