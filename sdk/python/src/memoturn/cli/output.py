"""What the command prints: tables and colour on a terminal, tab-separated lines in a pipe, JSON on request.

What draws tables and colour is loaded for a terminal only: in a pipe the command is to start fast.

Data goes to stdout and nothing else does; txids, notes and errors go to stderr. Stored text is shown with
its control characters spelled out, so that a memory cannot drive the terminal.
"""

import base64
import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_IN_JSON = re.compile(r"[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_BREAKS = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n"})
_STYLES = {
    "id": "cyan",
    "score": "green",
    "type": "magenta",
    "name": "bold",
    "branch": "bold",
    "profile": "bold",
}
CODES = {
    "dim": "2",
    "bold": "1",
    "red": "1;31",
    "yellow": "1;33",
    "green": "32",
    "cyan": "36",
    "magenta": "35",
}
_WHOLE = frozenset({"id", "score", "type", "txid", "created"})
"""Columns that keep to one line: they are short, or are there to be copied."""

Cell = str | int | float | None


class Output:
    """Prints the results of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks at stdout."""
        return is_terminal(sys.stdout)

    @cached_property
    def console(self) -> "Console":
        """What draws on stdout."""
        from rich.console import Console

        return Console(highlight=False)

    @cached_property
    def errors(self) -> "Console":
        """What draws on stderr: progress."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)

    def rows(
        self,
        value: object,
        columns: Sequence[str],
        rows: Iterable[Sequence[Cell]],
        *,
        empty: str,
        under: Collection[str] = (),
    ) -> None:
        """Print a list: `value` as JSON, else `rows` under `columns`; `empty` is said where there are none.

        On a terminal the columns `under` are lines of their own in the last of the others, so that a wide
        row keeps room for its text.
        """
        if self.as_json:
            self.json(value)
            return
        listed = [[_text(cell) for cell in row] for row in rows]
        if not self.is_terminal:
            for row in listed:
                print("\t".join(_flat(cell) for cell in row))
        elif listed:
            self.console.print(_table(columns, listed, under))
        if not listed:
            self.note(empty)

    def line(self, value: object, text: str | None = None) -> None:
        """Print one of many things that come one by one, so that the reader has it at once.

        `value` as a JSON line, without --json `text` where there is one.
        """
        as_json = self.as_json or text is None
        print(_ascii_controls(compact(value)) if as_json else visible(text or ""), flush=True)

    def record(self, value: object, fields: Mapping[str, Cell]) -> None:
        """Print one thing: `value` as JSON, else its fields, one a line; fields that are None are left out."""
        if self.as_json:
            self.json(value)
            return
        shown = {name: _text(cell) for name, cell in fields.items() if cell is not None}
        if not self.is_terminal:
            for name, text in shown.items():
                print(f"{name}\t{_flat(text)}")
            return
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        for name, text in shown.items():
            grid.add_row(Text(name, style="dim"), Text(visible(text), style=_STYLES.get(name, "")))
        self.console.print(grid)

    def done(self, value: object, text: str) -> None:
        """Say that something was done: `value` as JSON, else `text`."""
        if self.as_json:
            self.json(value)
        else:
            print(visible(text))

    def json(self, value: object) -> None:
        """Print JSON, coloured on a terminal."""
        text = json.dumps(value, indent=2, ensure_ascii=_is_ascii_wanted(), default=_blob)
        text = _ascii_controls(text)
        if self.is_terminal:
            self.console.print_json(text, ensure_ascii=_is_ascii_wanted())
        else:
            print(text)

    def raw(self, value: bytes) -> None:
        """Write bytes to stdout as they are; on a terminal the next line starts afresh."""
        sys.stdout.flush()
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()
        if self.is_terminal and not value.endswith(b"\n"):
            print(file=sys.stderr)

    def txid(self, txid: int, durable_txid: int) -> None:
        """Say on stderr which txid the answer shows and how far object storage is."""
        self.note(f"txid {txid} (durable {durable_txid})")

    def note(self, text: str) -> None:
        """Say something on stderr."""
        print(coloured(visible(text), "dim", sys.stderr), file=sys.stderr)

    def error(self, text: str, hint: str | None) -> None:
        """Say on stderr what failed and the next step."""
        sys.stdout.flush()
        print(coloured("error:", "red", sys.stderr), visible(text), file=sys.stderr)
        if hint is not None:
            print(coloured("hint:", "yellow", sys.stderr), hint, file=sys.stderr)


def is_terminal(stream: IO[str]) -> bool:
    """Return whether somebody looks at what is written there."""
    try:
        return stream.isatty()
    except ValueError:  # it is closed
        return False


def wants_colour(stream: IO[str]) -> bool:
    """Return whether what is written there may be in colour."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def coloured(text: str, style: str, stream: IO[str]) -> str:
    """Return `text` in a style, where `stream` is a terminal that shows colour."""
    if not text or not wants_colour(stream):
        return text
    return f"\x1b[{CODES[style]}m{text}\x1b[0m"


def visible(text: str) -> str:
    """Return `text` with control characters, other than tab and line feed, and direction overrides spelled out."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def when(unix_ms: int | None) -> str | None:
    """Return a time in UTC, to the second."""
    if unix_ms is None:
        return None
    return datetime.fromtimestamp(unix_ms / 1000, tz=timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def compact(value: object) -> str:
    """Return a value as JSON on one line."""
    return json.dumps(value, ensure_ascii=_is_ascii_wanted(), default=_blob)


def _is_ascii_wanted() -> bool:
    """Return whether stdout cannot print every character, which JSON can spell out."""
    return "utf" not in (sys.stdout.encoding or "utf").lower()


def _ascii_controls(text: str) -> str:
    """Return JSON with the control characters and direction overrides escaped that JSON itself lets stand."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _text(cell: Cell) -> str:
    return "" if cell is None else str(cell)


def _flat(text: str) -> str:
    return visible(text.translate(_BREAKS))


def _table(columns: Sequence[str], rows: list[list[str]], under: Collection[str]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for column in columns:
        if column not in under:
            whole = column in _WHOLE
            table.add_column(
                Text(visible(column)), style=_STYLES.get(column, ""), no_wrap=whole, overflow="fold"
            )
    for row in rows:
        cells = [
            Text(visible(cell)) for column, cell in zip(columns, row, strict=True) if column not in under
        ]
        for column, cell in zip(columns, row, strict=True):
            if column in under and cell:
                cells[-1].append(f"\n{visible(cell)}", style=_STYLES.get(column, "dim"))
        table.add_row(*cells)
    return table


def _blob(value: Any) -> dict[str, str]:
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} is not JSON")
