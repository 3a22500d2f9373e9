"""Regular expressions that users send, matched by RE2: in time linear in the text, whatever the pattern. Pure.

The syntax is RE2's: that of Perl without look-around and back-references, which cannot be matched so.
"""

from functools import lru_cache
from typing import Any, Final

import re2

from memoturnd.errors import InvalidRequestError

PATTERN_LENGTH_LIMIT: Final = 1000
PATTERN_MEMORY_BYTES: Final = 256 * 1024
"""Memory that one compiled pattern may take, its automaton included."""
PROGRAM_LIMIT: Final = 1000
"""Instructions of one compiled pattern: a text takes at most as many steps per byte."""
COMPILED_KEPT: Final = 128
"""Compiled patterns that are kept for the next request, as many as the library keeps itself."""
_OPTIONS: Final = "ims"

_SETTINGS = re2.Options()
_SETTINGS.max_mem = PATTERN_MEMORY_BYTES
_SETTINGS.log_errors = False
_SETTINGS.never_capture = True


def pattern(value: Any, options: Any, where: str) -> str:
    """Return a pattern with its options (`i`, `m`, `s`) inside it, as `matches` takes it.

    Raises InvalidRequestError for one that is too long, too large once compiled, or not RE2's syntax.
    """
    if not isinstance(value, str):
        raise InvalidRequestError(f"{where}.$regex must be a string")
    if len(value) > PATTERN_LENGTH_LIMIT:
        raise InvalidRequestError(
            f"{where}.$regex is {len(value)} characters long: at most {PATTERN_LENGTH_LIMIT} are taken"
        )
    flags = "" if options is None else options
    if not isinstance(flags, str) or len(set(flags)) != len(flags) or not set(flags) <= set(_OPTIONS):
        raise InvalidRequestError(f"{where}.$options takes the letters {', '.join(_OPTIONS)}, each once")
    whole = f"(?{flags}){value}" if flags else value
    try:
        size = _compiled(whole).programsize
    except (re2.error, UnicodeEncodeError) as error:
        raise InvalidRequestError(
            f"{where}.$regex is not a pattern that RE2 takes ({_reason(error)}): "
            "look-around and back-references are not part of its syntax"
        ) from error
    if size > PROGRAM_LIMIT:
        raise InvalidRequestError(
            f"{where}.$regex makes a program of {size} instructions: at most {PROGRAM_LIMIT} are taken; "
            "lower its counts of repetitions"
        )
    return whole


def matches(whole: str, text: str) -> bool:
    """Return whether a pattern, as `pattern` returned it, is found anywhere in `text`."""
    return _compiled(whole).search(text) is not None


@lru_cache(maxsize=COMPILED_KEPT)
def _compiled(whole: str) -> Any:
    return re2.compile(whole, _SETTINGS)


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args and not isinstance(error, UnicodeEncodeError) else "not valid UTF-8"
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
