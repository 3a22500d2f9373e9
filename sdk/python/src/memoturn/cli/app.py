"""The command as a whole: global options, exit codes, and where each group of subcommands hangs."""

from collections.abc import Sequence
from typing import Annotated

import typer

from memoturn import __version__
from memoturn.cli import audit, backup, branch, cluster, data, database, erase, kv, memory, transfer, verify
from memoturn.cli.failures import HELP, ExitCode, exit_code, hint
from memoturn.cli.output import Output
from memoturn.cli.run import NOTE, Run, current
from memoturn.client import DEFAULT_URL, Memoturn
from memoturn.errors import MemoturnError

_FLAGS = frozenset({"--json", "--durable"})
_VALUES = frozenset({"--url", "--token", "--platform-key", "--timeout"})
_OUTPUT = (
    "Prints tables and colour on a terminal, tab-separated lines without a header in a pipe, JSON with --json; "
    "txids go to stderr. The options above may stand anywhere on the line."
)

app = typer.Typer(
    name="memoturn",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"{_OUTPUT}\n\n{HELP}",
)
app.add_typer(memory.app, name="memory")
app.add_typer(database.app, name="db")
app.add_typer(branch.app, name="branch")
app.add_typer(kv.app, name="kv")
app.add_typer(erase.app, name="erase")
app.add_typer(audit.app, name="audit")
app.command("sql", epilog=NOTE)(data.sql)
app.command("sync", epilog=NOTE)(data.sync)
app.command("export", epilog=NOTE)(transfer.export_)
app.command("import", epilog=NOTE)(transfer.import_)
app.command("verify", epilog=NOTE)(verify.verify)
app.command("cluster", epilog=NOTE)(cluster.cluster)
app.command("placement", epilog=NOTE)(cluster.placement)
app.command("backup", epilog=NOTE)(backup.backup)
app.command("restore-backup", epilog=NOTE)(backup.restore)


@app.callback()
def options(
    ctx: typer.Context,
    *,
    url: Annotated[str, typer.Option(envvar="MEMOTURN_URL", help="Where the node is.")] = DEFAULT_URL,
    token: Annotated[
        str, typer.Option(envvar="MEMOTURN_TOKEN", help="Token for data.", show_envvar=True)
    ] = "",
    platform_key: Annotated[
        str, typer.Option(envvar="MEMOTURN_PLATFORM_KEY", help="Key for the control plane.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
    durable: Annotated[
        bool, typer.Option("--durable", help="Return from a write once object storage has it.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="Longest wait for an answer.")
    ] = 30.0,
) -> None:
    """Memories of agents: one small database for each profile, which forks, rewinds and survives its node."""
    client = Memoturn(url, token=token or None, platform_key=platform_key or None, timeout_s=timeout)
    ctx.call_on_close(client.close)
    ctx.obj = Run(client, Output(as_json=as_json), "durable" if durable else None)


@app.command(epilog=NOTE)
def version(ctx: typer.Context) -> None:
    """Print the version of this command."""
    current(ctx).out.done({"version": __version__}, f"memoturn {__version__}")


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        app(args=hoisted(arguments), prog_name="memoturn")
    except MemoturnError as error:
        Output(as_json=False).error(error.message, hint(error))
        return exit_code(error)
    except OSError as error:
        Output(as_json=False).error(f"{error.filename or 'a file'}: {error.strerror or error}", None)
        return ExitCode.REFUSED
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else ExitCode.OK
    return ExitCode.OK


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
