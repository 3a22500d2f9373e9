"""`memoturn init`: from nothing to a database to write to, and a config so that nothing has to be said twice."""

import os
import shutil
import subprocess  # it starts our own node # nosec B404
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from memoturn.cli import config
from memoturn.cli.exits import ExitCode
from memoturn.cli.run import Run, current, read_stdin, single

if TYPE_CHECKING:
    from memoturn import Memoturn

_START_S = 30.0
_STEP_S = 0.1
_nodes: list["subprocess.Popen[bytes]"] = []
"""What was started here and runs on: it is not waited for."""


def init(
    ctx: typer.Context,
    *,
    db: Annotated[
        str | None,
        typer.Option("--db", metavar="NAME", help="Database to create, or NS--PROFILE.", show_default=False),
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start a node here if none answers.")] = False,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", metavar="FOLDER", help="Data directory of that node.")
    ] = Path("data"),
    token_stdin: Annotated[
        bool, typer.Option("--token-stdin", help="Keep the token that is on stdin.")
    ] = False,
    keep_credentials: Annotated[
        bool, typer.Option("--keep-credentials", help="Keep the token and platform key that are given.")
    ] = False,
    save: Annotated[bool, typer.Option("--save/--no-save", help="Write the config file.")] = True,
) -> None:
    """Make sure of a node, create a database, write the config file (mode 0600), and say what comes next."""
    run = current(ctx)
    with run.speaking_of(run.tenant) as client:  # whatever is wrong with a config that is written anew
        node = _made_sure(run, client, data_dir, start=start)
        created = _created(client, db)
    where = _saved(run, token_stdin=token_stdin, keep_credentials=keep_credentials) if save else None
    told = {"url": run.url, "node": node, "database": db, "created": created, "config": where and str(where)}
    if run.out.as_json:
        run.out.json(told)
        return
    lines = [f"{run.url} answers" + (f"; process {node['pid']}, log {node['log']}" if node else "")]
    if db is not None:
        lines.append(f"database {db} is {'created' if created else 'there'}")
    if where is not None:
        lines.append(f"wrote {where}")
    run.out.done(told, "\n".join([*lines, "", "Next:", *(f"  {step}" for step in _next(db))]))


def _next(db: str | None) -> list[str]:
    if db is None or "--" in db:
        ns, _, profile = (db or "app--alice").partition("--")
        return [
            f'memoturn memory ingest {ns} {profile} --topic diet --summary "Alice is vegan"',
            f'memoturn memory recall {ns} {profile} "what does Alice eat"',
            f"memoturn shell {ns}--{profile}",
            "memoturn doctor",
        ]
    return [
        f'memoturn docs insert {db} people \'{{"name": "Ann"}}\'',
        f'memoturn sql {db} "create table t(a); insert into t values (1)"',
        f"memoturn shell {db}",
        "memoturn doctor",
    ]


def _made_sure(run: Run, client: "Memoturn", data_dir: Path, *, start: bool) -> dict[str, str | int] | None:
    """Return what was started, None where a node answers already. Raises UnreachableError."""
    from memoturn import UnreachableError

    try:
        client.health()
    except UnreachableError:
        if not start:
            raise
    else:
        return None
    return _started(run, client, data_dir)


def _started(run: Run, client: "Memoturn", data_dir: Path) -> dict[str, str | int]:
    from memoturn import MemoturnError

    url = urlsplit(run.url)
    if url.scheme != "http" or url.hostname not in {"127.0.0.1", "localhost"}:
        raise typer.BadParameter(
            f"{run.url} is not of this machine; start a node there", param_hint="--start"
        )
    beside = Path(sys.executable).with_name("memoturnd")
    command = str(beside) if beside.exists() else shutil.which("memoturnd")
    if command is None:
        run.out.error("memoturnd is not installed here", "in a checkout: pip install .")
        raise typer.Exit(ExitCode.UNREACHABLE)
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = data_dir / "memoturnd.log"
    environment = {
        **os.environ,
        "MEMOTURN_LISTEN": f"127.0.0.1:{url.port or 80}",
        "MEMOTURN_DATA_DIR": str(data_dir),
    }
    for name in ("URL", "TOKEN", "TENANT", "CONFIG", "SOURCE"):
        environment.pop(f"MEMOTURN_{name}", None)
    with log.open("ab") as out:
        node = subprocess.Popen(  # noqa: S603 - our own command # nosec B603
            [command],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    _nodes.append(node)
    until = time.monotonic() + _START_S
    while time.monotonic() < until and node.poll() is None:
        try:
            client.health()
        except MemoturnError:
            time.sleep(_STEP_S)
        else:
            return {"pid": node.pid, "log": str(log), "data_dir": str(data_dir)}
    if node.poll() is None:
        node.terminate()
    run.out.error("the node that was started does not answer", f"see {log}")
    raise typer.Exit(ExitCode.UNREACHABLE)


def _created(client: "Memoturn", db: str | None) -> bool:
    """Create the database unless it is there; a profile's is made by its first memory. Return whether it was made."""
    from memoturn import AlreadyExistsError

    if db is None or "--" in db:
        return False
    try:
        client.create_database(db)
    except AlreadyExistsError:
        return False
    return True


def _saved(run: Run, *, token_stdin: bool, keep_credentials: bool) -> Path:
    known = config.load()
    said = {"url": run.url, **({"tenant": run.tenant} if run.tenant else {})}
    secrets = {}
    token = read_stdin().strip() if token_stdin else run.token if keep_credentials else None
    if token:
        secrets["token_file"] = token
    elif known.token_file:
        said["token_file"] = known.token_file
    if keep_credentials and run.platform_key:
        secrets["platform_key_file"] = run.platform_key
    elif known.platform_key_file:
        said["platform_key_file"] = known.platform_key_file
    return config.write(said, secrets)


app = single(
    init,
    "memoturn init --db notes",
    "memoturn init --start",
    "memoturn init --url https://memory.example --token-stdin < token",
)
