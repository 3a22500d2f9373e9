"""What a client's file is to say: text in, text out. Nothing here reads or writes a file."""

from typing import Any, Final

from tomlkit.exceptions import TOMLKitError

from memoturn.errors import InvalidRequestError
from memoturn.mcp.install.clients import Client, Launch, environment
from memoturn.mcp.install.jsonc import BrokenFileError, get_value, remove_value, set_value
from memoturn.mcp.install.toml import UnchangeableError, get_table, remove_table, set_table, shown

_BROKEN: Final = "it is not changed; mend it, or name another file with --file"


def installed(client: Client, text: str, name: str, launch: Launch) -> str:
    """Return the file with the server under `name`. Raises InvalidRequestError for a file that is broken.

    What was under the name before is replaced as a whole, but for what the client's user has switched in it
    (`disabled`, `timeout` and the like); everything else stays as it is, to the letter.
    """
    entry = client.entry(launch, environment(client, launch))
    path = (client.key, name)
    try:
        if client.format == "json":
            before = get_value(text, path) if text.strip() else None
            return set_value(text, path, {**_kept(before, entry), **entry})
        return set_table(text, path, {**_kept(get_table(text, path), entry), **entry})
    except UnchangeableError as error:
        raise _unchangeable(
            client, f"put this into it yourself, in place of what it says of {name}:\n{shown(path, entry)}"
        ) from error
    except (BrokenFileError, TOMLKitError) as error:
        raise _refused(client, error) from error


def uninstalled(client: Client, text: str, name: str) -> str:
    """Return the file without the server; the same text where it is not there. Raises InvalidRequestError."""
    try:
        remove = remove_value if client.format == "json" else remove_table
        return remove(text, (client.key, name))
    except UnchangeableError as error:
        raise _unchangeable(client, f"take {error} out of it yourself") from error
    except (BrokenFileError, TOMLKitError) as error:
        raise _refused(client, error) from error


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


def _unchangeable(client: Client, then: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the file of {client.title} writes {client.key} in a form of which no part can be changed alone; {then}",
        code="invalid_request",
    )
