"""Plans what `memoturn mcp install` does, shows it, and carries it out."""

import hashlib
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from memoturn.errors import InvalidRequestError
from memoturn.mcp.install import files
from memoturn.mcp.install.clients import (
    CLIENTS,
    TOKEN,
    TOKEN_FILE,
    Client,
    Launch,
    Machine,
    client_of,
    file_of,
)
from memoturn.mcp.install.merge import installed, uninstalled
from memoturn.mcp.settings import Pin, Settings

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DEFAULT_URL: Final = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Options:
    """What the command line says about the server that is registered."""

    name: str = "memoturn"
    url: str = _DEFAULT_URL
    token: str | None = None
    token_file: Path | None = None
    namespace: str | None = None
    profile: str | None = None
    branch: str | None = None
    pin: str = "none"
    read_only: bool = False
    no_destructive: bool = False


@dataclass(frozen=True)
class Plan:
    """One change of one file. `secret` is a token and the file of its own that it goes to, `leftover` such a file that goes."""

    client: Client
    path: Path
    name: str
    before: str
    after: str
    notes: tuple[str, ...] = ()
    secret: tuple[Path, str] | None = None
    leftover: Path | None = None
    uninstall: bool = False

    def shown(self) -> dict[str, Any]:
        """Return the plan for machines; secrets are not in it."""
        return {
            "client": self.client.name,
            "path": str(self.path),
            "changed": self.before != self.after,
            "content": self.after,
            "token_file": str(self.secret[0]) if self.secret else None,
            "notes": list(self.notes),
        }

    def text(self) -> str:
        """Return the plan for people: where, and the file as it would be."""
        secret = [f"# the token would go to {self.secret[0]}, which only you may read"] if self.secret else []
        lines = [f"# {self.path}", *secret, *(f"# {note}" for note in self.notes), self.after.rstrip("\n")]
        return "\n".join(lines)

    def carry_out(self) -> "Done":
        """Write. Raises InvalidRequestError; then the client's file is as it was."""
        if self.secret is not None:
            files.write_private(*self.secret)
        written = files.write(self.path, self.before, self.after)
        if self.leftover is not None:
            self.leftover.unlink(missing_ok=True)
        return Done(self, written)


@dataclass(frozen=True)
class Done:
    """What was done."""

    plan: Plan
    written: files.Written

    def shown(self) -> dict[str, Any]:
        """Return what was done, for machines."""
        backup = str(self.written.backup) if self.written.backup else None
        shown = {key: value for key, value in self.plan.shown().items() if key != "content"}
        return {**shown, "path": str(self.written.path), "backup": backup}

    def text(self) -> str:
        """Return what was done, for people."""
        path, plan = self.written.path, self.plan
        if not self.written.changed and not plan.secret and not plan.leftover:
            return f"{path} says so already; nothing was changed"
        lines = [f"{plan.name} is {'no more in' if plan.uninstall else 'in'} {path}"]
        if self.written.backup:
            lines.append(f"the file as it was: {self.written.backup}")
        if plan.secret:
            lines.append(f"the token: {plan.secret[0]}, which only you may read")
        if plan.leftover:
            lines.append(f"its token is deleted: {plan.leftover}")
        return "\n".join([*lines, *plan.notes])


def this_machine() -> Machine:
    """Return where files are on this machine."""
    return Machine(sys.platform, Path.home(), os.environ)


def found(machine: Machine) -> list[dict[str, Any]]:
    """Return every client with its file, and whether it seems to be installed here."""
    rows = []
    for client in CLIENTS.values():
        path = Path(client.path(machine))
        # A file straight in the home folder has to be there itself; the folder of others is made by their client.
        here = path.exists() or (path.parent != Path(machine.home) and path.parent.is_dir())
        rows.append({"client": client.name, "title": client.title, "path": str(path), "found": here})
    return rows


def found_text(machine: Machine) -> str:
    """Return the same for people."""
    lines = [
        f"{row['client']:<16}{'here    ' if row['found'] else '-       '}{row['path']}"
        for row in found(machine)
    ]
    return "\n".join(["Name one of these clients: memoturn mcp install CLIENT [--print]", *lines])


def plan(
    name: str,
    machine: Machine,
    options: Options,
    *,
    project: Path | None = None,
    file: Path | None = None,
    uninstall: bool = False,
) -> Plan:
    """Return what would be done; nothing is written. Raises InvalidRequestError, also for a file that is broken."""
    client = client_of(name)
    if not _NAME.fullmatch(options.name):
        raise InvalidRequestError("--name takes 1 to 64 letters, digits, _ and -", code="invalid_request")
    path = file or Path(file_of(client, machine, project))
    before = files.read(path)
    if uninstall:
        after = uninstalled(client, before, options.name)
        ours = _secret_file(client, machine, path, options.name)
        leftover = ours if ours.exists() else None
        return Plan(client, path, options.name, before, after, leftover=leftover, uninstall=True)
    launch, secret, notes = _launch(client, machine, path, options)
    after = installed(client, before, options.name, launch)
    return Plan(client, path, options.name, before, after, (*notes, client.after), secret)


def _launch(
    client: Client, machine: Machine, path: Path, options: Options
) -> tuple[Launch, tuple[Path, str] | None, list[str]]:
    pin = Pin[options.pin.upper()]
    Settings(namespace=options.namespace, profile=options.profile, pin=pin)  # refuses a pin on nothing
    command, first = _command()
    args = [*first, "--url", options.url, "mcp"]
    for option, value in (
        ("--namespace", options.namespace),
        ("--profile", options.profile),
        ("--branch", options.branch),
        ("--pin", None if pin == Pin.NONE else options.pin),
    ):
        args += [option, value] if value else []
    args += ["--read-only"] if options.read_only else []
    args += ["--no-destructive"] if options.no_destructive else []
    launch = Launch(command, tuple(args), {})
    if options.token_file is not None:
        where = options.token_file.expanduser().absolute()
        note = f"the server reads its token from {where}"
        return Launch(command, launch.args, {}, "file", str(where)), None, [note]
    if not options.token:
        return launch, None, []
    if client.reference and machine.environ.get(TOKEN) == options.token:
        note = (
            f"{TOKEN} has to be in the environment that {client.title} is started from; else use --token-file"
        )
        return Launch(command, launch.args, {}, "environment"), None, [note]
    where = _secret_file(client, machine, path, options.name)
    note = f"the server finds its token by {TOKEN_FILE}: the token itself is not in the client's file"
    return Launch(command, launch.args, {}, "file", str(where)), (where, options.token + "\n"), [note]


def _secret_file(client: Client, machine: Machine, path: Path, name: str) -> Path:
    """Return where the token of an entry is kept: each client's file has its own, as entries of a project may have others."""
    which = f"{client.name}-{name}"
    if path != Path(client.path(machine)):
        which += "-" + hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:12]
    return Path(machine.config) / "memoturn" / f"mcp-{which}.token"


def _command() -> tuple[str, list[str]]:
    """Return how this command is started, by an absolute path: clients have other search paths than shells."""
    beside = Path(sys.executable).with_name("memoturn.exe" if sys.platform == "win32" else "memoturn")
    if beside.exists():
        return str(beside), []
    installed_at = shutil.which("memoturn")
    return (str(Path(installed_at).absolute()), []) if installed_at else (sys.executable, ["-m", "memoturn"])
