"""What the user has written down: where the node is, and where the credentials lie.

One JSON file in the user's config folder, `memoturn/config.json`, mode 0600: `{"url", "token_file", "platform_key_file", "tenant"}`,
each optional. Credentials stand in files of their own, mode 0600, which it names. Options and environment win over it.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, Final, NamedTuple

_FIELDS: Final = ("url", "token_file", "platform_key_file", "tenant")


class Config(NamedTuple):
    """What the file says, with the credentials that it leads to. `problems` are what is wrong with it."""

    path: Path
    url: str | None = None
    token: str | None = None
    platform_key: str | None = None
    tenant: str | None = None
    problems: tuple[str, ...] = ()
    exists: bool = False


def folder(kind: str = "config") -> Path:
    """Return the user's folder for Memoturn: `config`, or `state` for what may be lost."""
    named = os.environ.get(f"XDG_{kind.upper()}_HOME")
    base = Path(named) if named else Path.home() / (".config" if kind == "config" else ".local/state")
    return base / "memoturn"


def path() -> Path:
    """Return where the config file is, or would be."""
    named = os.environ.get("MEMOTURN_CONFIG")
    return Path(named) if named else folder() / "config.json"


def load() -> Config:
    """Return the config; without a file it is empty, and what cannot be read is among its problems."""
    where = path()
    try:
        text = where.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Config(where)
    except OSError as error:
        return Config(where, problems=(f"{where} cannot be read: {error.strerror}",), exists=True)
    try:
        said = json.loads(text)
    except ValueError as error:
        return Config(where, problems=(f"{where} is not JSON: {error}",), exists=True)
    if not isinstance(said, dict) or not all(isinstance(value, str | None) for value in said.values()):
        return Config(where, problems=(f"{where} takes a JSON object of strings",), exists=True)
    problems = [f"{where} has an unknown member {name!r}" for name in said if name not in _FIELDS]
    problems += open_to_others(where)
    token = _secret(where, said.get("token_file"), problems)
    platform_key = _secret(where, said.get("platform_key_file"), problems)
    return Config(
        where, said.get("url"), token, platform_key, said.get("tenant"), tuple(problems), exists=True
    )


def write(said: dict[str, str], secrets: dict[str, str]) -> Path:
    """Write the config, and each of `secrets` (by field, such as `token_file`) into a file beside it; return where it is."""
    where = path()
    where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name, secret in secrets.items():
        beside = where.parent / name.removesuffix("_file")
        _private(beside, secret + "\n")
        said = {**said, name: str(beside)}
    _private(where, json.dumps(said, indent=2) + "\n")
    return where


def open_to_others(where: Path) -> list[str]:
    """Return what is wrong with who may read a file that is for its owner alone."""
    if os.name == "posix" and stat.S_IMODE(where.stat().st_mode) & 0o077:
        return [f"{where} can be read by others: chmod 600 {where}"]
    return []


def _secret(where: Path, named: Any, problems: list[str]) -> str | None:
    if not named:
        return None
    file = where.parent / Path(named).expanduser()
    try:
        problems += open_to_others(file)
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{file}, which {where} names, cannot be read: {error}")
        return None


def _private(where: Path, text: str) -> None:
    """Write a file that nobody else can read at any moment."""
    new = where.with_name(f".{where.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(where)
