"""`memoturn mcp`: serve MCP clients over stdio or HTTP, and register the server with them."""

import os
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from memoturn.cli import MCP_HINT
from memoturn.cli.run import current, examples
from memoturn.errors import InvalidRequestError
from memoturn.mcp.settings import (
    ANSWER_BYTES,
    CALL_TIMEOUT_S,
    PORT,
    SESSION_IDLE_S,
    SESSIONS_MAX,
    SESSIONS_PER_TOKEN,
    HttpSettings,
    Pin,
    Settings,
    read_token,
)


class Pinned(str, Enum):
    """What --pin takes."""

    none = "none"
    namespace = "namespace"
    profile = "profile"
    branch = "branch"


class _PortAfterHttp(TyperGroup):
    """Lets a port stand behind --http, as in `memoturn mcp --http 9000`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line."""
        spread: list[str] = []
        for argument in args:
            if spread and spread[-1] == "--http" and argument.isdecimal():
                spread += ["--port", argument]
            elif argument.startswith("--http="):
                spread += ["--http", "--port", argument.partition("=")[2]]
            else:
                spread.append(argument)
        return list(super().parse_args(ctx, spread))


app = typer.Typer(
    name="mcp",
    cls=_PortAfterHttp,
    invoke_without_command=True,
    no_args_is_help=False,
    rich_markup_mode=None,
    add_completion=False,
    help="Serve the memory to MCP clients, over stdio unless --http is given.",
)


@app.callback(
    epilog=examples(
        "memoturn mcp --namespace app --profile alice --pin profile",
        "memoturn mcp --http 9000",
        "memoturn mcp install claude-code --print",
    )
)
def serve(
    ctx: typer.Context,
    *,
    http: Annotated[
        bool,
        typer.Option("--http", help="Serve streamable HTTP at /mcp; a port may follow, as in --http 9000."),
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            envvar="MEMOTURN_MCP_HOST",
            help="Address for --http. Others than this machine's need a token each time.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="MEMOTURN_MCP_PORT", min=0, max=65535, help="Port for --http.")
    ] = PORT,
    namespace: Annotated[
        str | None,
        typer.Option(
            envvar="MEMOTURN_NAMESPACE", help="Namespace of calls that name none.", show_default="default"
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            envvar="MEMOTURN_PROFILE",
            help="Profile of calls that name none.",
            show_default="that of the token, else default",
        ),
    ] = None,
    branch: Annotated[
        str, typer.Option(envvar="MEMOTURN_BRANCH", help="Branch of calls that name none.")
    ] = "main",
    pin: Annotated[
        Pinned, typer.Option(envvar="MEMOTURN_MCP_PIN", help="How far a model cannot name another place.")
    ] = Pinned.none,
    read_only: Annotated[
        bool, typer.Option("--read-only", envvar="MEMOTURN_MCP_READ_ONLY", help="Offer only tools that read.")
    ] = False,
    no_destructive: Annotated[
        bool,
        typer.Option(
            "--no-destructive",
            envvar="MEMOTURN_MCP_NO_DESTRUCTIVE",
            help="Leave out tools that remove or replace what is stored.",
        ),
    ] = False,
    token_file: Annotated[
        str | None,
        typer.Option(
            envvar="MEMOTURN_TOKEN_FILE", metavar="PATH", help="File with the token, in place of --token."
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(envvar="MEMOTURN_SOURCE", help="Provenance of what is ingested.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MEMOTURN_MCP_ALLOW_HOST", help="Host that --http serves besides loopback.", metavar="NAME"
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            envvar="MEMOTURN_MCP_ALLOW_ORIGIN", help="Origin of web pages that may use --http.", metavar="URL"
        ),
    ] = None,
    sessions: Annotated[
        int,
        typer.Option(envvar="MEMOTURN_MCP_SESSIONS", min=1, help="Sessions that --http keeps open at once."),
    ] = SESSIONS_MAX,
    sessions_per_token: Annotated[
        int, typer.Option(envvar="MEMOTURN_MCP_SESSIONS_PER_TOKEN", min=1, help="Of these, for one token.")
    ] = SESSIONS_PER_TOKEN,
    session_idle: Annotated[
        float,
        typer.Option(
            envvar="MEMOTURN_MCP_SESSION_IDLE_S",
            min=1,
            metavar="SECONDS",
            help="When an unused session ends.",
        ),
    ] = SESSION_IDLE_S,
    call_timeout: Annotated[
        float,
        typer.Option(
            envvar="MEMOTURN_MCP_CALL_TIMEOUT_S", min=0.1, metavar="SECONDS", help="Longest tool call."
        ),
    ] = CALL_TIMEOUT_S,
    answer_bytes: Annotated[
        int,
        typer.Option(
            envvar="MEMOTURN_MCP_ANSWER_BYTES", min=1024, metavar="BYTES", help="Longest answer of a tool."
        ),
    ] = ANSWER_BYTES,
    log_level: Annotated[
        str,
        typer.Option(envvar="MEMOTURN_LOG_LEVEL", help="debug, info, warning or error; logs go to stderr."),
    ] = "info",
) -> None:
    """Serve the memory to MCP clients, over stdio unless --http is given."""
    if ctx.invoked_subcommand is not None:
        return
    _needs_packages()
    from memoturn.mcp.logs import LEVELS, configure

    if log_level.lower() not in LEVELS:
        raise typer.BadParameter(f"takes one of {', '.join(LEVELS)}", param_hint="--log-level")
    url, token = _node(ctx)
    settings = Settings(
        url=url,
        token=read_token(token, token_file, os.environ),
        source=source,
        namespace=namespace,
        profile=profile,
        branch=branch,
        pin=Pin[pin.name.upper()],
        read_only=read_only,
        destructive=not no_destructive,
        call_timeout_s=call_timeout,
        answer_bytes=answer_bytes,
    )
    configure(log_level)
    from memoturn.mcp import run

    if not http:
        run.stdio(settings)
        return
    run.http(
        settings,
        HttpSettings(
            host=host,
            port=port,
            hosts=tuple(allow_host or ()),
            origins=tuple(allow_origin or ()),
            sessions_max=sessions,
            sessions_per_token=sessions_per_token,
            session_idle_s=session_idle,
        ),
    )


@app.command(
    epilog=examples(
        "memoturn mcp install", "memoturn mcp install cursor --namespace app --profile alice --pin profile"
    )
)
def install(
    ctx: typer.Context,
    client: Annotated[
        str | None,
        typer.Argument(help="The client; without it the ones that are here are named.", show_default=False),
    ] = None,
    *,
    print_only: Annotated[
        bool, typer.Option("--print", help="Show what would be written, and where; write nothing.")
    ] = False,
    uninstall: Annotated[bool, typer.Option("--uninstall", help="Take the server out again.")] = False,
    name: Annotated[str, typer.Option(help="Name of the server in the client.")] = "memoturn",
    project: Annotated[
        Path | None,
        typer.Option(help="Write the file of this project's folder.", metavar="FOLDER", show_default=False),
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Write this file instead of the client's own.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Namespace of calls that name none.")] = None,
    profile: Annotated[str | None, typer.Option(help="Profile of calls that name none.")] = None,
    branch: Annotated[str | None, typer.Option(help="Branch of calls that name none.")] = None,
    pin: Annotated[Pinned, typer.Option(help="How far a model cannot name another place.")] = Pinned.none,
    read_only: Annotated[bool, typer.Option("--read-only", help="Offer only tools that read.")] = False,
    no_destructive: Annotated[
        bool, typer.Option("--no-destructive", help="Leave out tools that remove or replace what is stored.")
    ] = False,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Let the server read its token from this file, whatever the client can."
        ),
    ] = None,
) -> None:
    """Register the server in a client's configuration file; everything else in the file stays as it is."""
    _needs_packages()
    from memoturn.mcp.install import plan

    url, token = _node(ctx)
    options = plan.Options(
        name=name,
        url=url,
        token=token,
        token_file=token_file,
        namespace=namespace,
        profile=profile,
        branch=branch,
        pin=pin.value,
        read_only=read_only,
        no_destructive=no_destructive,
    )
    machine = plan.this_machine()
    out = current(ctx).out
    if client is None:
        out.done({"clients": plan.found(machine)}, plan.found_text(machine))
        return
    planned = plan.plan(client, machine, options, project=project, file=file, uninstall=uninstall)
    if print_only:
        out.done(planned.shown(), planned.text())
        return
    done = planned.carry_out()
    out.done(done.shown(), done.text())


def _node(ctx: typer.Context) -> tuple[str, str | None]:
    run = current(ctx).sure()
    return run.url, run.token or None


def _needs_packages() -> None:
    for package in ("mcp", "prometheus_client", "tomlkit"):
        if find_spec(package) is None:
            raise InvalidRequestError(MCP_HINT, code="invalid_request")
