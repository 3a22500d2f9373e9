"""Changes one member of a JSON file and leaves every other character as it was: comments, order, layout.

Takes JSON with comments and trailing commas, as editors write it.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

_SKIP: Final = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)+", re.DOTALL)
_STRING: Final = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_SCALAR: Final = re.compile(r"true|false|null|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_REMARK: Final = re.compile(r"[ \t]*(?://[^\r\n]*|/\*(?:(?!\*/)[^\n])*\*/[ \t]*)?(?=\r?\n)")
_DEPTH_MAX: Final = 100
_INDENT: Final = "  "


class BrokenFileError(ValueError):
    """The text is not JSON; the message says where."""


@dataclass(frozen=True)
class _Member:
    """A member of an object: where its key begins, and where its value begins and ends."""

    key: str
    value: Any
    start: int
    value_start: int
    end: int


@dataclass(frozen=True)
class _Object:
    """An object: where its braces are, and its members. `comma` is where a comma stands behind the last one."""

    start: int
    end: int
    members: tuple[_Member, ...]
    comma: int | None


def get_value(text: str, path: tuple[str, ...]) -> Any:
    """Return the value at `path`, None where there is none. Raises BrokenFileError."""
    value: Any = _loads(text)
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def set_value(text: str, path: tuple[str, ...], value: Any) -> str:
    """Return `text` with `value` at `path`; objects on the way are made. Raises BrokenFileError."""
    if not text.strip("\ufeff \t\r\n"):
        text = "{}\n"
    _loads(text)
    where, rest = _deepest(text, path)
    if not rest:
        member = _member(where, path[-1])
        written = _written(value, len(path), text)
        return text[: member.value_start] + written + text[member.end :]
    for key in reversed(rest[1:]):
        value = {key: value}
    return _added(text, where, rest[0], value, len(path) - len(rest) + 1)


def remove_value(text: str, path: tuple[str, ...]) -> str:
    """Return `text` without the member at `path`, with its comma; unchanged where there is none. Comments stay."""
    _loads(text or "{}")
    if not text.strip():
        return text
    where, rest = _deepest(text, path)
    if rest:
        return text
    position = max(i for i, member in enumerate(where.members) if member.key == path[-1])
    # A key that stands there twice goes twice: else the client would find the first one again.
    return remove_value(_without(text, where, position), path)


def _without(text: str, where: _Object, position: int) -> str:
    member = where.members[position]
    comma = _comma(text, member)
    before, after = text[: member.start], text[member.end if comma is None else comma + 1 :]
    if comma is None and position:  # the one before is the last now, and has no comma behind it either
        at = _comma(text, where.members[position - 1])
        assert at is not None  # there was a member behind it
        before = before[:at] + before[at + 1 :]
    if not before[where.start + 1 :].strip() and not after[: where.end - 1 - len(text)].strip():
        return before[: where.start + 1] + after[where.end - 1 - len(text) :]
    return _joined(before, after)


def _joined(before: str, after: str) -> str:
    """Return both without what would be an empty line between them, or a blank too many."""
    line, (rest, end, below) = before.rpartition("\n")[2], after.partition("\n")
    if end and not line.strip() and not rest.strip():
        return before[: len(before) - len(line)] + below
    if line.strip() and after[0] in " \t\r\n}":
        return before.rstrip(" \t") + after
    return before + after.lstrip(" \t")


def _added(text: str, where: _Object, key: str, value: Any, depth: int) -> str:
    unit, end = _unit(text), _line_end(text)
    written = f"{json.dumps(key)}: {_written(value, depth, text)}"
    line = end + unit * depth
    if not where.members:
        inner = text[where.start + 1 : where.end - 1].rstrip()
        closing = end + unit * (depth - 1)
        return f"{text[: where.start + 1]}{inner}{line}{written}{closing}{text[where.end - 1 :]}"
    last = where.members[-1].end
    after = last if where.comma is None else where.comma + 1
    comma = "," if where.comma is None else ""
    remark = _REMARK.match(text, after)  # one that stands behind the last member stays with it
    at = remark.end() if remark else after
    return f"{text[:last]}{comma}{text[last:at]}{line}{written}{text[at:]}"


def _deepest(text: str, path: tuple[str, ...]) -> tuple[_Object, tuple[str, ...]]:
    """Return the innermost object on the way along `path` that is there, and the keys that are not."""
    where = _object(text, _skip(text, 0), 0)
    for taken, key in enumerate(path):
        if all(member.key != key for member in where.members):
            return where, path[taken:]
        if taken + 1 == len(path):
            break
        member = _member(where, key)
        if text[member.value_start] != "{":
            raise BrokenFileError(f"{'.'.join(path[: taken + 1])} is not an object")
        where = _object(text, member.value_start, 0)
    return where, ()


def _member(where: _Object, key: str) -> _Member:
    return next(member for member in reversed(where.members) if member.key == key)


def _comma(text: str, member: _Member) -> int | None:
    """Return where the comma behind a member is, None where there is none."""
    at = _skip(text, member.end)
    return at if text[at : at + 1] == "," else None


def _written(value: Any, depth: int, text: str) -> str:
    unit = _unit(text)
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", _line_end(text) + unit * depth)


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _unit(text: str) -> str:
    found = re.search(r"\n([ \t]+)\S", text)
    return found.group(1) if found else _INDENT


def _loads(text: str) -> dict[str, Any]:
    start = _skip(text, 0)
    if text[start : start + 1] != "{":
        raise _broken(text, start, "it is not an object")
    value, end = _value(text, start, 0)
    if _skip(text, end) != len(text):
        raise _broken(text, _skip(text, end), "something stands behind its end")
    assert isinstance(value, dict)
    return value


def _value(text: str, at: int, depth: int) -> tuple[Any, int]:
    """Return the value that begins at `at`, and where it ends."""
    if depth > _DEPTH_MAX:
        raise _broken(text, at, "it is nested too deeply")
    if text[at : at + 1] == "{":
        where = _object(text, at, depth)
        return {member.key: member.value for member in where.members}, where.end
    if text[at : at + 1] == "[":
        return _array(text, at, depth)
    found = _STRING.match(text, at) or _SCALAR.match(text, at)
    if found is None:
        raise _broken(text, at, "a value is expected")
    return _text(text, at, found.group()), found.end()


def _text(text: str, at: int, written: str) -> Any:
    try:
        return json.loads(written)
    except ValueError:
        raise _broken(text, at, "a string has an escape that JSON does not know") from None


def _array(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    values: list[Any] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        value, at = _value(text, at, depth + 1)
        values.append(value)
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != "]":
            raise _broken(text, at, "a comma or ] is expected")
    return values, at + 1


def _object(text: str, start: int, depth: int) -> _Object:
    members: list[_Member] = []
    comma: int | None = None
    at = _skip(text, start + 1)
    while text[at : at + 1] != "}":
        key = _STRING.match(text, at)
        if key is None or (members and comma is None):
            raise _broken(text, at, "a comma, a key in double quotes or } is expected")
        colon = _skip(text, key.end())
        if text[colon : colon + 1] != ":":
            raise _broken(text, colon, "a colon is expected")
        value_start = _skip(text, colon + 1)
        value, end = _value(text, value_start, depth + 1)
        members.append(_Member(_text(text, at, key.group()), value, at, value_start, end))
        at = _skip(text, end)
        comma = at if text[at : at + 1] == "," else None
        if comma is not None:
            at = _skip(text, at + 1)
    return _Object(start, at + 1, tuple(members), comma)


def _skip(text: str, at: int) -> int:
    found = _SKIP.match(text, at)
    return found.end() if found else at


def _broken(text: str, at: int, what: str) -> BrokenFileError:
    line = text.count("\n", 0, at) + 1
    return BrokenFileError(f"line {line}, column {at - text.rfind(chr(10), 0, at)}: {what}")
