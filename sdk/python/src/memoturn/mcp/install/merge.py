"""What a client's file is to say: text in, text out. Nothing here reads or writes a file."""

from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

from memoturn.errors import InvalidRequestError
from memoturn.mcp.install.clients import Client, Launch, environment
from memoturn.mcp.install.jsonc import BrokenFileError, get_value, remove_value, set_value

_BROKEN: Final = "it is not changed; mend it, or name another file with --file"


def installed(client: Client, text: str, name: str, launch: Launch) -> str:
    """Return the file with the server under `name`. Raises InvalidRequestError for a file that is broken.

    What was under the name before is replaced as a whole, but for what the client's user has switched in it
    (`disabled`, `timeout` and the like); everything else stays as it is, to the letter.
    """
    entry = client.entry(launch, environment(client, launch))
    try:
        if client.format == "toml":
            return _toml(client, text, name, entry)
        before = get_value(text or "{}", (client.key, name)) if text.strip() else None
        return set_value(text, (client.key, name), {**_kept(before, entry), **entry})
    except (BrokenFileError, TOMLKitError) as error:
        raise _refused(client, error) from error


def uninstalled(client: Client, text: str, name: str) -> str:
    """Return the file without the server; the same text where it is not there. Raises InvalidRequestError."""
    try:
        if client.format == "json":
            return remove_value(text, (client.key, name))
        document = tomlkit.parse(text)
        servers = document.get(client.key)
        if not isinstance(servers, dict) or name not in servers:
            return text
        del servers[name]
        return tomlkit.dumps(document)
    except (BrokenFileError, TOMLKitError) as error:
        raise _refused(client, error) from error


def _toml(client: Client, text: str, name: str, entry: dict[str, Any]) -> str:
    document = tomlkit.parse(text)
    servers = document.get(client.key)
    if servers is None:
        servers = document[client.key] = tomlkit.table(is_super_table=True)
    elif not isinstance(servers, dict):
        raise BrokenFileError(f"{client.key} is not a table")
    before = servers.get(name)
    table = tomlkit.table()
    for key, value in {**_kept(before, entry), **entry}.items():
        table[key] = value
    servers[name] = table
    return tomlkit.dumps(document)


def _kept(before: Any, entry: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(before, dict):
        return {}
    ours = {
        "type",
        "command",
        "args",
        "env",
        "env_vars",
        "environment",
        "enabled",
        "url",
        "headers",
        "source",
        *entry,
    }
    return {key: value for key, value in before.items() if key not in ours}


def _refused(client: Client, error: Exception) -> InvalidRequestError:
    return InvalidRequestError(
        f"the file of {client.title} is broken ({error}); {_BROKEN}", code="invalid_request"
    )
