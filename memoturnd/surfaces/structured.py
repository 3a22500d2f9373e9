"""Answers of a language model as data: JSON of one shape, or a second try, or an error."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar

from memoturnd.errors import UpstreamError
from memoturnd.seams.language_model import LanguageModel, Prompt

T = TypeVar("T")

ANSWER_LIMIT: Final = 64 * 1024
"""Characters of an answer that is read while it is written, which is several times what the model is asked for at most."""
_ECHO: Final = 8000
"""Characters of a wrong answer that are sent back for its repair."""


async def complete(model: LanguageModel, prompt: Prompt, decode: Callable[[str], T]) -> T:
    """Ask, and return the answer as `decode` makes it, which raises ValueError saying what is wrong.

    A wrong answer is sent back once. Raises UpstreamError, also when the second is wrong, and OverloadedError.
    """
    text = await model.complete(prompt)
    try:
        return decode(json_in(text))
    except (ValueError, RecursionError) as error:
        return await repair(model, prompt, text, str(error), decode)


async def repair(
    model: LanguageModel, prompt: Prompt, text: str, wrong: str, decode: Callable[[str], T]
) -> T:
    """Ask again with a wrong answer and what is wrong about it; see `complete`."""
    said = (
        f"That answer cannot be used: {wrong[:500]}. Answer again, with nothing but one JSON object of this "
        f"schema: {json.dumps(prompt.schema)}"
    )
    again = await model.complete(replace(prompt, repair=(text[:_ECHO] or "(nothing)", said)))
    try:
        return decode(json_in(again))
    except (ValueError, RecursionError) as error:
        raise UpstreamError(
            "the language model answered twice what is not the JSON that was asked for; try again, or use "
            "a model that takes JSON schemas"
        ) from error


def json_in(text: str) -> str:
    """Return the JSON object in an answer that may have a fence or words around it."""
    first, last = text.find("{"), text.rfind("}")
    return text[first : last + 1] if 0 <= first < last else text


def fenced(lines: list[str]) -> str:
    """Return lines of JSON as they stand between tags: with no `<` in them, so that no data can close a tag."""
    return "\n".join(line.replace("<", "\\u003c") for line in lines)


class AnswerReader:
    """Reads the string under one key of a JSON object while the object is still being written.

    What it yields is a preview: whoever uses it decodes the whole at the end.
    """

    def __init__(self, key: str) -> None:
        self._opening = f'"{key}"'
        self._text = ""
        self._at: int | None = None
        self._ended = False

    @property
    def text(self) -> str:
        """Everything that was fed so far."""
        return self._text

    def feed(self, piece: str) -> str:
        """Take a piece of the document; return what it adds to the string. Raises UpstreamError when it is too long."""
        self._text += piece
        if len(self._text) > ANSWER_LIMIT:
            raise UpstreamError(
                f"the language model's answer is over {ANSWER_LIMIT} characters; ask it for less"
            )
        if self._ended:
            return ""
        if self._at is None:
            self._at = self._find_start()
            if self._at is None:
                return ""
        return self._read_on()

    def _find_start(self) -> int | None:
        key_at = self._text.find(self._opening)
        if key_at < 0:
            return None
        rest = self._text[key_at + len(self._opening) :]
        after = rest.lstrip()
        if not after.startswith(":"):
            return None
        value = after[1:].lstrip()
        if not value:
            return None
        if value[0] != '"':
            self._ended = True  # null, or no string at all
            return None
        return len(self._text) - len(value) + 1

    def _read_on(self) -> str:
        """Decode as much of the string as is there whole: no half escape, no half surrogate pair."""
        at = start = self._at or 0
        while at < len(self._text):
            character = self._text[at]
            if character == '"':
                self._ended = True
                break
            if character != "\\":
                at += 1
                continue
            width = 6 if self._text[at + 1 : at + 2] == "u" else 2
            if self._text[at : at + 4].lower() in ("\\ud8", "\\ud9", "\\uda", "\\udb"):
                width = 12
            if len(self._text) < at + width:
                break
            at += width
        self._at = at
        try:
            decoded: str = json.loads(f'"{self._text[start:at]}"', strict=False)
            decoded.encode()
        except ValueError:
            self._ended = True  # the whole will say what is wrong
            return ""
        return decoded
