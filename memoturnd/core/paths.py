"""Paths to fields inside JSON objects, such as `user.name`. Pure.

A path is 1 to 200 characters of A-Z, a-z, 0-9, '_', '-' and the dots between its parts. Each part is the key of
an object, also where it is all digits: elements of arrays are not addressed by position.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from memoturnd.errors import InvalidRequestError

KEY: Final = "_id"
"""The path that stands for the key of a document."""
PATH_LENGTH_LIMIT: Final = 200
_PATH = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_RULE = (
    f"1 to {PATH_LENGTH_LIMIT} characters of A-Z, a-z, 0-9, '_' and '-', with single dots between the keys"
)
_SHOWN_LENGTH = 80


def field_path(value: Any, where: str) -> str:
    """Return a path unchanged. Raises InvalidRequestError, naming `where` it stood."""
    if not isinstance(value, str) or len(value) > PATH_LENGTH_LIMIT or not _PATH.fullmatch(value):
        shown = ascii(value)
        if len(shown) > _SHOWN_LENGTH:
            shown = f"{shown[:_SHOWN_LENGTH]}..."
        raise InvalidRequestError(f"{where} has the field path {shown}: it takes {_RULE}")
    return value


def check_keys(value: Any, text: bytes, where: str) -> None:
    """Raise InvalidRequestError where `value`, which is `text` as JSON, has a key with a NUL character.

    SQLite ends a key there, so that a path would lead to it under another's name.
    """
    if b"\\u0000" in text and any("\0" in key for key in _keys(value)):
        raise InvalidRequestError(f"{where} has a key with a NUL character: remove it")


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _keys(item)


def parts(path: str) -> list[str]:
    """Return the keys of a path, outermost first."""
    return path.split(".")


def literal(path: str) -> str:
    """Return a checked path as SQL text: a literal of SQLite's JSON path, each key quoted.

    It is a literal and no bound value, because SQLite recognises an indexed expression by its text alone.
    """
    keys = ".".join(f'"{key}"' for key in path.split("."))
    return f"'$.{keys}'"
