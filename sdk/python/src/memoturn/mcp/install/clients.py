"""The MCP clients that can be told of the server: where each keeps its servers, in which form, and how it names a secret."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Final, Literal

from memoturn.errors import InvalidRequestError

Format = Literal["json", "toml"]
TOKEN: Final = "MEMOTURN_TOKEN"  # noqa: S105 - its name
TOKEN_FILE: Final = "MEMOTURN_TOKEN_FILE"  # noqa: S105 - its name


@dataclass(frozen=True)
class Machine:
    """Where files are: the platform as `sys.platform` says it, the home folder, and the environment."""

    platform: str
    home: PurePath
    environ: Mapping[str, str]

    @property
    def config(self) -> PurePath:
        """The folder of applications' settings."""
        if self.platform == "darwin":
            return self.home / "Library" / "Application Support"
        if self.platform == "win32":
            return type(self.home)(self.environ.get("APPDATA") or self.home / "AppData" / "Roaming")
        return self.xdg

    @property
    def xdg(self) -> PurePath:
        """The folder of settings of what keeps to the XDG rules on every Unix."""
        return type(self.home)(self.environ.get("XDG_CONFIG_HOME") or self.home / ".config")


@dataclass(frozen=True)
class Launch:
    """How a client starts the server. `credential` says where its token comes from: nowhere, the environment, or a file."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]
    credential: Literal["none", "environment", "file"] = "none"
    token_file: str = ""


@dataclass(frozen=True)
class Client:
    """A client. `reference` is how its file names an environment variable, None where it cannot.

    `project` is its file in a project's folder, None where it has none. `entry` makes what is written of a launch
    and the environment with its references.
    """

    name: str
    title: str
    path: Callable[[Machine], PurePath]
    key: str
    reference: str | None
    entry: Callable[[Launch, Mapping[str, str]], dict[str, Any]]
    project: str | None = None
    format: Format = "json"
    after: str = "Restart it, or reload its MCP servers."


def environment(client: Client, launch: Launch) -> dict[str, str]:
    """Return the variables that the client is told to set, a secret by reference alone."""
    env = dict(launch.env)
    if launch.credential == "file":
        env[TOKEN_FILE] = launch.token_file
    elif launch.credential == "environment" and client.reference:
        env[TOKEN] = client.reference.format(TOKEN)
    return env


def _plain(launch: Launch, env: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"command": launch.command, "args": list(launch.args)}
    return {**entry, "env": dict(env)} if env else entry


def _typed(launch: Launch, env: Mapping[str, str]) -> dict[str, Any]:
    return {"type": "stdio", **_plain(launch, env)}


def _codex(launch: Launch, env: Mapping[str, str]) -> dict[str, Any]:
    """Codex passes variables on by name, and takes no references in `env`."""
    own = {name: value for name, value in env.items() if name != TOKEN}
    entry = _plain(launch, own)
    return {**entry, "env_vars": [TOKEN]} if TOKEN in env else entry


def _opencode(launch: Launch, env: Mapping[str, str]) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "local", "command": [launch.command, *launch.args], "enabled": True}
    return {**entry, "environment": dict(env)} if env else entry


def _zed(machine: Machine) -> PurePath:
    folder = machine.config / "Zed" if machine.platform == "win32" else machine.xdg / "zed"
    return folder / "settings.json"


CLIENTS: Final[Mapping[str, Client]] = {
    client.name: client
    for client in (
        Client(
            name="claude-desktop",
            title="Claude Desktop",
            path=lambda machine: machine.config / "Claude" / "claude_desktop_config.json",
            key="mcpServers",
            reference=None,
            entry=_plain,
            after="Quit it and start it again.",
        ),
        Client(
            name="claude-code",
            title="Claude Code",
            path=lambda machine: machine.home / ".claude.json",
            key="mcpServers",
            reference="${{{}}}",
            entry=_typed,
            project=".mcp.json",
            after="Start a new session; /mcp lists the servers.",
        ),
        Client(
            name="cursor",
            title="Cursor",
            path=lambda machine: machine.home / ".cursor" / "mcp.json",
            key="mcpServers",
            reference="${{env:{}}}",
            entry=_plain,
            project=".cursor/mcp.json",
        ),
        Client(
            name="vscode",
            title="VS Code",
            path=lambda machine: machine.config / "Code" / "User" / "mcp.json",
            key="servers",
            reference="${{env:{}}}",
            entry=_typed,
            project=".vscode/mcp.json",
            after="Run the command MCP: List Servers, and start it there.",
        ),
        Client(
            name="windsurf",
            title="Windsurf",
            path=lambda machine: machine.home / ".codeium" / "windsurf" / "mcp_config.json",
            key="mcpServers",
            reference="${{env:{}}}",
            entry=_plain,
            after="Press refresh in its list of MCP servers.",
        ),
        Client(
            name="zed",
            title="Zed",
            path=_zed,
            key="context_servers",
            reference=None,
            entry=_plain,
            project=".zed/settings.json",
            after="It starts the server at once; see Settings, AI, MCP Servers.",
        ),
        Client(
            name="codex",
            title="Codex",
            path=lambda machine: _folder(machine, "CODEX_HOME", ".codex") / "config.toml",
            key="mcp_servers",
            reference="{}",
            entry=_codex,
            project=".codex/config.toml",
            format="toml",
            after="Start a new session; /mcp lists the servers.",
        ),
        Client(
            name="gemini",
            title="Gemini CLI",
            path=lambda machine: machine.home / ".gemini" / "settings.json",
            key="mcpServers",
            reference="${{{}}}",
            entry=_plain,
            project=".gemini/settings.json",
            after="Start it again; /mcp lists the servers.",
        ),
        Client(
            name="opencode",
            title="opencode",
            path=lambda machine: machine.xdg / "opencode" / "opencode.json",
            key="mcp",
            reference="{{env:{}}}",
            entry=_opencode,
            project="opencode.json",
        ),
        Client(
            name="lmstudio",
            title="LM Studio",
            path=lambda machine: machine.home / ".lmstudio" / "mcp.json",
            key="mcpServers",
            reference=None,
            entry=_plain,
        ),
    )
}
"""Every client, by name."""


def client_of(name: str) -> Client:
    """Return a client. Raises InvalidRequestError, with the names that there are."""
    client = CLIENTS.get(name.lower())
    if client is None:
        raise InvalidRequestError(
            f"there is no client {name!r}; there are {', '.join(CLIENTS)}", code="invalid_request"
        )
    return client


def file_of(client: Client, machine: Machine, project: PurePath | None) -> PurePath:
    """Return the file, in the folder `project` if given. Raises InvalidRequestError for a client without such a file."""
    if project is None:
        return client.path(machine)
    if client.project is None:
        raise InvalidRequestError(
            f"{client.title} has no file in projects; leave out --project", code="invalid_request"
        )
    return project / client.project


def _folder(machine: Machine, variable: str, name: str) -> PurePath:
    return type(machine.home)(machine.environ.get(variable) or machine.home / name)
