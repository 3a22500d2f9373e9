"""`memoturn doctor`: looks at the server, the way there and what is set here, and says how to mend what is wrong."""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from memoturn.cli import config
from memoturn.cli.checks import Check, State, checked, is_local, target
from memoturn.cli.exits import ExitCode
from memoturn.cli.output import coloured, visible
from memoturn.cli.run import Run, current, single

_OF_THE_CLIENT = frozenset({"URL", "TOKEN", "PLATFORM_KEY", "TENANT", "SOURCE", "CONFIG", "MCP_PORT"})
_SECRETS = frozenset({"TOKEN", "PLATFORM_KEY"})
_LITTLE_BYTES = 1 << 30
_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    ctx: typer.Context,
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="FOLDER",
            help="Data directory of a node on this machine; ./data, or MEMOTURN_DATA_DIR, where there is one.",
        ),
    ] = None,
) -> None:
    """Check the server, its parts, the clocks, the credentials and what is set here; say how to mend what is wrong.

    Exit 0 when nothing fails (warnings do not count), 6 when there is no connection, else 5. Changes nothing.
    """
    run = current(ctx)
    found: list[Check] = []
    for check in (*here(run), *local(run, data_dir)):
        _tell(run, found, check)
    for check in checked(run):
        _tell(run, found, check)
    failed = [check for check in found if check.state == "fail"]
    warned = [check for check in found if check.state == "warn"]
    if run.out.as_json:
        verdict = "fail" if failed else "warn" if warned else "ok"
        run.out.json({"verdict": verdict, "url": run.url, "checks": [asdict(check) for check in found]})
    else:
        run.out.note(f"{len(found)} checks: {len(failed)} failed, {len(warned)} warnings")
    if failed:
        is_cut_off = any(check.part in {"server", "url"} for check in failed)
        raise typer.Exit(ExitCode.UNREACHABLE if is_cut_off else ExitCode.UNAVAILABLE)


def _tell(run: Run, found: list[Check], check: Check) -> None:
    found.append(check)
    if run.out.as_json:
        return
    state = coloured(f"{check.state:4}", _STYLES[check.state], sys.stdout)
    print(f"{state}  {check.part:<14}  {visible(check.says)}", flush=True)
    if check.mend:
        print(f"{'':6}{'':16}{coloured('-> ' + visible(check.mend), 'dim', sys.stdout)}", flush=True)


def here(run: Run) -> Iterator[Check]:
    """Yield what is wrong with this machine's config file and environment, and which settings come from where."""
    known = config.load()
    for problem in known.problems:
        state: State = "fail" if problem in known.unread.values() else "warn"
        yield Check("config", state, problem, f"mend {known.path}, or write it anew with `memoturn init`")
    if not known.problems:
        yield Check(
            "config", "ok", str(known.path) if known.exists else f"none ({known.path} does not exist)"
        )
    sources = ", ".join(
        f"{name.replace('_', ' ')} from {source}" for name, source in run.given.items() if source != "default"
    )
    yield Check("environment", "ok", sources or "nothing is set; the defaults hold")
    for name in sorted(os.environ):
        short = name.removeprefix("MEMOTURN_")
        if short != name and not os.environ[name] and short in _OF_THE_CLIENT:
            yield Check(
                "environment", "warn", f"{name} is set and empty, which counts as not set", f"unset {name}"
            )
        if short in _SECRETS and os.environ[name] != os.environ[name].strip():
            yield Check("environment", "warn", f"{name} has blanks around it", "set it without them")


def local(run: Run, folder: Path | None) -> Iterator[Check]:
    """Yield how the data directory of a node on this machine is, where there is one."""
    host = target(run.url)[0] or ""
    if folder is None:
        if not is_local(host):
            return
        folder = Path(os.environ.get("MEMOTURN_DATA_DIR") or "data")
        if not (folder / ".lock").exists():
            return
    if not folder.is_dir():
        yield Check(
            "data", "fail", f"{folder} is no folder", "give the node's MEMOTURN_DATA_DIR with --data-dir"
        )
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield Check("data", "warn", f"{folder} cannot be written by you", "run this as the node's user")
    yield from _holder(run, folder)
    left = shutil.disk_usage(folder).free
    little = left < _LITTLE_BYTES
    yield Check(
        "disk",
        "warn" if little else "ok",
        f"{left / (1 << 30):.1f} GiB are free below {folder}",
        "make room: writes are refused when the disk is full" if little else "",
    )
    yield from _settings()


def _holder(run: Run, folder: Path) -> Iterable[Check]:
    try:
        said = json.loads((folder / ".lock").read_text() or "{}")
    except (OSError, ValueError):
        said = {}
    if not isinstance(said, dict):
        said = {}
    pid, listen = said.get("pid"), str(said.get("listen", ""))
    if not isinstance(pid, int):
        return [Check("data", "ok", f"{folder} is not in use")]
    if not _is_alive(pid):
        return [
            Check(
                "data",
                "warn",
                f"{folder} was held by process {pid}, which is gone",
                "start the node again: it takes up what was committed",
            )
        ]
    netloc = run.url.partition("://")[2].partition("/")[0]
    if listen and listen.rpartition(":")[2] != netloc.rpartition(":")[2]:
        return [
            Check(
                "data",
                "warn",
                f"{folder} is that of the node at {listen} (process {pid}), and you ask {netloc}",
                f"--url http://{listen} asks that one",
            )
        ]
    return [Check("data", "ok", f"{folder} is held by process {pid}, which listens on {listen}")]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _settings() -> Iterator[Check]:
    """Yield what a node would say of the settings in this environment, where the server is installed here."""
    try:
        from memoturnd.config import Settings
        from memoturnd.errors import ConfigurationError
    except ImportError:
        return
    environment = {
        name: value
        for name, value in os.environ.items()
        if name.removeprefix("MEMOTURN_") not in _OF_THE_CLIENT - {"PLATFORM_KEY"}
    }
    try:
        Settings.from_env(environment)
    except ConfigurationError as error:
        yield Check("settings", "warn", str(error), "a node that is started in this environment refuses to")
    else:
        yield Check("settings", "ok", "a node may start in this environment")


app = single(doctor, "memoturn doctor", "memoturn doctor --json | jq '.checks[] | select(.state != \"ok\")'")
