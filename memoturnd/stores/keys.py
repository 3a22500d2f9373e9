"""Which keys an object store takes: the one check between a name and a path or an object's address."""

import re

from memoturnd.errors import InvalidRequestError

MAX_KEY_CHARS = 1024
MAX_PART_CHARS = 200

# A part never starts with a dot. That shuts out `.` and `..`, and leaves dotted names at the root of a
# local store to the store itself.
_PART = rf"[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{MAX_PART_CHARS - 1}}}"
_KEY = re.compile(rf"{_PART}(?:/{_PART})*")
_PREFIX = re.compile(rf"(?:{_PART}/)*(?:{_PART})?")


def is_key(text: str) -> bool:
    """Return whether `text` is a key."""
    return len(text) <= MAX_KEY_CHARS and _KEY.fullmatch(text) is not None


def check_key(key: str) -> None:
    """Raise InvalidRequestError unless `key` is a key."""
    if not is_key(key):
        raise InvalidRequestError(
            f"{key[:200]!r} is not an object key: use parts of A-Z a-z 0-9 . _ - joined by /, none of them empty, "
            f"starting with a dot or over {MAX_PART_CHARS} characters, at most {MAX_KEY_CHARS} in all",
        )


def check_prefix(prefix: str) -> None:
    """Raise InvalidRequestError unless a key could start with `prefix`; the empty prefix starts every key."""
    if len(prefix) > MAX_KEY_CHARS or _PREFIX.fullmatch(prefix) is None:
        raise InvalidRequestError(
            f"{prefix[:200]!r} is not the start of an object key: no key could match it"
        )


def check_range(key: str, start: int, length: int) -> None:
    """Raise InvalidRequestError unless [start, start+length) is a range of bytes."""
    if start < 0 or length < 0:
        raise InvalidRequestError(
            f"range {start}+{length} of {key!r} is not a range: neither may be negative"
        )
