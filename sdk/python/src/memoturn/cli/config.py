"""What the user has written down: where the node is, and where the credentials lie.

One JSON file in the user's config folder, `memoturn/config.json`, mode 0600: `{"url", "token_file", "platform_key_file", "tenant"}`,
each optional. Credentials stand in files of their own, mode 0600, which it names. Options and environment win over it.
"""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

_FIELDS: Final = ("url", "token_file", "platform_key_file", "tenant")


class Config(NamedTuple):
    """What the file says, with the credentials that it leads to, and the names of their files.

    `problems` are all that is wrong with it, `unread` those of them that keep it from saying one of its members.
    """

    path: Path
    url: str | None = None
    token: str | None = None
    platform_key: str | None = None
    tenant: str | None = None
    token_file: str | None = None
    platform_key_file: str | None = None
    problems: tuple[str, ...] = ()
    unread: Mapping[str, str] = MappingProxyType({})
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
        said = json.loads(where.read_bytes())  # UTF-8, UTF-16 and UTF-32, as editors leave it
    except FileNotFoundError:
        return Config(where)
    except OSError as error:
        return _broken(where, f"cannot be read: {error.strerror}")
    except (ValueError, RecursionError) as error:
        return _broken(where, f"is not JSON: {error}")
    if not isinstance(said, dict) or not all(isinstance(value, str | None) for value in said.values()):
        return _broken(where, "takes a JSON object of strings")
    problems = [f"{where} has an unknown member {name!r}" for name in said if name not in _FIELDS]
    problems += open_to_others(where)
    unread: dict[str, str] = {}
    token = _secret(where, said.get("token_file"), "token", problems, unread)
    platform_key = _secret(where, said.get("platform_key_file"), "platform_key", problems, unread)
    return Config(
        where,
        url=said.get("url"),
        token=token,
        platform_key=platform_key,
        tenant=said.get("tenant"),
        token_file=said.get("token_file"),
        platform_key_file=said.get("platform_key_file"),
        problems=(*problems, *unread.values()),
        unread=unread,
        exists=True,
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


def _broken(where: Path, why: str) -> Config:
    """Return the config of a file that says nothing: where the node is, is the least that it was to say."""
    problem = f"{where} {why}"
    return Config(where, problems=(problem,), unread={"url": problem}, exists=True)


def _secret(
    where: Path, named: str | None, what: str, problems: list[str], unread: dict[str, str]
) -> str | None:
    if not named:
        return None
    file = where.parent / Path(named).expanduser()
    try:
        problems += open_to_others(file)
        return file.read_text(encoding="utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        unread[what] = f"{file}, which {where} names, cannot be read: {why}"
        return None


def _private(where: Path, text: str) -> None:
    """Write a file that nobody else can read at any moment."""
    new = where.with_name(f".{where.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(where)
