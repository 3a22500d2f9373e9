"""Changes one table of a TOML file and leaves every other character as it was.

The table is found in the text by its header, and only its own lines are written anew: a library that writes the whole file again
moves comments, and keys, too. What looks like a header may stand in a text of several lines. So the outcome is read once more, and
refused unless the rest of the file says what it said before.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import tomlkit
from tomlkit.exceptions import TOMLKitError

_HEADER: Final = re.compile(r"^[ \t]*\[\[?[ \t]*([^\[\]\n]+)\]\]?[ \t]*(?:#[^\n]*)?\r?$", re.MULTILINE)
_MARK: Final = "\ufeff"

Path = tuple[str, str]
"""The table of all servers, and the one in it."""


class UnchangeableError(ValueError):
    """The file is TOML, and its form allows no change of one table alone."""


def get_table(text: str, path: Path) -> Any:
    """Return what is at `path`, None where there is none. Raises TOMLKitError."""
    servers = _read(text).get(path[0])
    return servers.get(path[1]) if isinstance(servers, dict) else None


def set_table(text: str, path: Path, table: Mapping[str, Any]) -> str:
    """Return `text` with `table` at `path`. Raises TOMLKitError for what is no TOML, and UnchangeableError."""
    before = get_table(text, path)
    if before == table:
        return text
    span = _span(text, path)
    ways: tuple[str, ...]
    if before is None:
        ways = (_appended(text, path, table),)
    elif span is None:
        ways = ()
    else:
        start, end = span
        ways = tuple(
            text[:start] + section + text[end:]
            for section in (_changed(text[start:end], path, table), _section(text, path, table))
            if section is not None
        )
    return _first_that_keeps(text, ways, path, table)


def remove_table(text: str, path: Path) -> str:
    """Return `text` without the table at `path`; unchanged where there is none. Raises what `set_table` raises."""
    if get_table(text, path) is None:
        return text
    span = _span(text, path)
    if span is None:
        return _first_that_keeps(text, (), path, None)
    before, after = text[: span[0]], text[span[1] :].removeprefix("\r").removeprefix("\n")
    if not after or after[0] in "\r\n":
        # No two empty lines, and none at the beginning or the end.
        before = re.sub(r"\r?\n[ \t]*(\r?\n)\Z", r"\1", before)
        after = after if before else after.removeprefix("\r").removeprefix("\n")
    return _first_that_keeps(text, (before + after,), path, None)


def _read(text: str) -> dict[str, Any]:
    return dict(tomlkit.parse(text.removeprefix(_MARK)).unwrap())


def _span(text: str, path: Path) -> tuple[int, int] | None:
    """Return where the table's own lines begin and end, without comments behind them; None where they are not in one place."""
    headers: list[tuple[int, tuple[str, ...]]] = [*_headers(text), (len(text), ())]
    own = [number for number, (_, keys) in enumerate(headers) if keys[:2] == path]
    if not own or own != list(range(own[0], own[-1] + 1)):
        return None
    start, end = headers[own[0]][0], headers[own[-1] + 1][0]
    lines = text[start:end].splitlines(keepends=True)
    while lines[-1].strip() == "" or lines[-1].lstrip().startswith("#"):
        lines.pop()
    return start, start + len("".join(lines).rstrip("\r\n"))


def _headers(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    for found in _HEADER.finditer(text):
        with suppress(TOMLKitError):
            table: Any = tomlkit.parse(f"[{found.group(1)}]\n").unwrap()
            keys = []
            while table:
                ((key, table),) = table.items()
                keys.append(key)
            yield found.start(), tuple(keys)


def _changed(section: str, path: Path, table: Mapping[str, Any]) -> str | None:
    """Return the table's lines with other values, and with the comments of those that stay; None where that fails."""
    try:
        document: Any = tomlkit.parse(section)
        own = document[path[0]][path[1]]
        for key in [key for key in own if key not in table]:
            del own[key]
        for key, value in table.items():
            if key not in own or own[key] != value:
                own[key] = value
        written = tomlkit.dumps(document).rstrip("\r\n")
        return written.replace("\r\n", "\n").replace("\n", _line_end(section))
    except (TOMLKitError, ValueError, TypeError, LookupError):
        return None


def _section(text: str, path: Path, table: Mapping[str, Any]) -> str:
    own = tomlkit.table()
    for key, value in table.items():
        own[key] = value
    servers = tomlkit.table(is_super_table=True)
    servers[path[1]] = own
    written = tomlkit.dumps(tomlkit.document().add(path[0], servers)).rstrip("\n")
    return written.replace("\n", _line_end(text))


def _appended(text: str, path: Path, table: Mapping[str, Any]) -> str:
    end = _line_end(text)
    between = "" if not text.strip(_MARK + " \t\r\n") else end if text.endswith("\n") else end + end
    return text + between + _section(text, path, table) + end


def _line_end(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _first_that_keeps(before: str, ways: tuple[str, ...], path: Path, table: Mapping[str, Any] | None) -> str:
    """Return the first of `ways` that has `table` at `path`, and all else as before. Raises UnchangeableError."""
    wanted = _others(_read(before), path)
    for after in ways:
        with suppress(TOMLKitError):
            if _others(_read(after), path) == wanted and get_table(after, path) == table:
                return after
    raise UnchangeableError(".".join(path))


def _others(document: dict[str, Any], path: Path) -> dict[str, Any]:
    servers = document.get(path[0])
    rest = (
        {key: value for key, value in servers.items() if key != path[1]}
        if isinstance(servers, dict)
        else servers
    )
    others = {key: value for key, value in document.items() if key != path[0]}
    return {**others, path[0]: rest} if rest else others


def shown(path: Path, table: Mapping[str, Any]) -> str:
    """Return the lines that somebody can put into the file himself."""
    return _section("", path, table)
