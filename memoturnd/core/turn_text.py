"""The words of a turn: what of its JSON content a search by words looks at. Pure.

The words of a turn leave the index by being computed once more, so what is said here of stored content must
never change without a new schema version that indexes it again.
"""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

TEXT_LIMIT: Final = 100_000
"""Most characters of one turn that are searched; what is behind them is stored, and not found by its words."""
WORD_LIMIT: Final = 256
"""Longest run of characters without a blank that counts as words: what is longer is encoded data."""

_decode = msgspec.json.Decoder().decode
_MACHINE_KEYS: Final = frozenset(
    {
        "type",
        "role",
        "id",
        "data",
        "media_type",
        "mime_type",
        "signature",
        "encrypted_content",
        "url",
        "image_url",
    }
)


def words_in(stored: str) -> str:
    """Return the text of a turn's content as it is stored, in JSON; none of what no JSON reader takes."""
    try:
        return words_of(_decode(stored))
    except (msgspec.DecodeError, RecursionError):
        return ""


def words_of(content: Any) -> str:
    """Return the text of a turn's content (of JSON's types), one line for each string in it.

    A string is itself. Of objects and arrays, such as messages in parts, every string counts, in order, but
    for those under keys that name machinery (`type`, `id` and what ends in `_id`, `data`, `url` and the like)
    and for encoded data.
    """
    if isinstance(content, str):
        return content[:TEXT_LIMIT] if _is_words(content) else ""
    lines: list[str] = []
    left = TEXT_LIMIT
    for line in _strings(content):
        lines.append(line[:left])
        left -= len(line) + 1
        if left <= 0:
            break
    return "\n".join(lines)


def _strings(content: Any) -> Iterator[str]:
    """Yield the strings in order, by a stack of our own, so that no nesting can exhaust the interpreter's."""
    stack: list[Any] = [content]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            if _is_words(value):
                yield value
        elif isinstance(value, list):
            stack.extend(reversed(value))
        elif isinstance(value, dict):
            stack.extend(
                part
                for key, part in reversed(value.items())
                if not (isinstance(part, str | dict) and (key in _MACHINE_KEYS or key.endswith("_id")))
            )


def _is_words(text: str) -> bool:
    if not text or text.isspace():
        return False
    head = text[: WORD_LIMIT + 1]
    return len(head) <= WORD_LIMIT or any(character.isspace() for character in head) or not head.isascii()
