"""The order of documents in an answer, and cursors that mark a place in it. Pure.

Every order ends with the key of the document, so that no two documents tie: an answer is the same each time, and
the place behind a document is one place. The key goes in the direction of the field before it.
"""

import base64
import binascii
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from memoturnd.core import paths
from memoturnd.core.filters import Binding, Clause, extracted
from memoturnd.errors import InvalidRequestError

FIELDS_LIMIT: Final = 8
"""Fields of one sort."""
CURSOR_LENGTH_LIMIT: Final = 64 * 1024
CURSOR_VALUES_LENGTH: Final = 4096
"""Most characters of the sorted fields that a cursor carries; of longer ones it names only the document."""

_LOWEST: Final = float("-inf")
_VERSION: Final = 1
_DIGEST_BYTES: Final = 6
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[int, str, str, list[int | float | str | None] | None]).decode


@dataclass(frozen=True, slots=True)
class Cursor:
    """The place behind document `key`, whose sorted fields held `values`; None where they have to be looked up."""

    key: str
    values: tuple[Binding, ...] | None


@dataclass(frozen=True, slots=True)
class Order:
    """Fields, each with whether it descends, the last of them the key; and the SQL of the columns, as filters have it."""

    fields: tuple[tuple[str, bool], ...] = ((paths.KEY, False),)
    doc: str = "doc"
    key: str = "id"

    @property
    def sql(self) -> str:
        """Return what follows ORDER BY."""
        return ", ".join([f"{sql} DESC" if is_descending else sql for sql, is_descending in self._columns()])

    @property
    def extracted(self) -> list[str]:
        """Return the SQL of each field but the key: the values of a cursor, in order."""
        return [extracted(self.doc, path) for path, _ in self.fields[:-1]]

    def without(self, equal: Collection[str]) -> "Order":
        """Return the same order for documents that are alike in the fields `equal`, which are not sorted by then."""
        *before, last = self.fields
        kept = [part for part in before if part[0] not in equal]
        return self if len(kept) == len(before) else Order((*kept, last), self.doc, self.key)

    def cursor(self, key: str, values: Sequence[Binding]) -> str:
        """Return the text of the cursor behind a document."""
        length = sum(len(value) for value in values if isinstance(value, str))
        kept = list(values) if length <= CURSOR_VALUES_LENGTH else None
        packed = _encode((_VERSION, self._digest(), key, kept))
        return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()

    def parse_cursor(self, text: str) -> Cursor:
        """Return a cursor that `cursor` made for the same order. Raises InvalidRequestError."""
        try:
            packed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
            version, digest, key, values = _decode(packed)
        except (ValueError, binascii.Error, msgspec.DecodeError, UnicodeError) as error:
            raise _no_cursor() from error
        if version != _VERSION or digest != self._digest():
            raise _no_cursor()
        if values is not None and len(values) != len(self.extracted):
            raise _no_cursor()
        if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in values or ()):
            raise _no_cursor()
        return Cursor(key, None if values is None else tuple(values))

    def behind(self, key: str, values: Sequence[Binding]) -> list[Clause]:
        """Return conditions whose documents, one condition after the other, are those behind a place, in order.

        Each bounds the first field from one side, so that an index on it leads straight to the place.
        """
        columns = self._columns()
        place = (*values, key)
        if len(columns) == 1:
            return [_after(*columns[0], key)]
        (first, is_descending), value = columns[0], place[0]
        ties = _behind(columns[1:], place[1:])
        if value is None:
            null = (f"({first} IS NULL AND {ties[0]})", ties[1])
            return [null] if is_descending else [null, (f"{first} >= ?", (_LOWEST,))]
        sign = "<" if is_descending else ">"
        rest = (
            f"({first} {sign}= ? AND ({first} {sign} ? OR ({first} = ? AND {ties[0]})))",
            (value, value, value, *ties[1]),
        )
        return [rest, (f"{first} IS NULL", ())] if is_descending else [rest]

    def _columns(self) -> list[tuple[str, bool]]:
        return [
            (self.key if path == paths.KEY else extracted(self.doc, path), is_descending)
            for path, is_descending in self.fields
        ]

    def _digest(self) -> str:
        return hashlib.blake2s(repr(self.fields).encode(), digest_size=_DIGEST_BYTES).hexdigest()


def parse_sort(payload: Any, *, where: str = "sort") -> Order:
    """Return the order of `{field: 1 or -1, ...}`, by the first field first. Raises InvalidRequestError.

    What follows `_id` is not looked at any more. None sorts by `_id`, ascending.
    """
    if payload is None:
        return Order()
    if not isinstance(payload, dict):
        raise InvalidRequestError(f"{where} must be an object of field paths, each 1 or -1")
    if len(payload) > FIELDS_LIMIT:
        raise InvalidRequestError(f"{where} has {len(payload)} fields: at most {FIELDS_LIMIT} are taken")
    fields: list[tuple[str, bool]] = []
    for path, direction in payload.items():
        paths.field_path(path, where)
        if isinstance(direction, bool) or not isinstance(direction, int) or direction not in (1, -1):
            raise InvalidRequestError(f"{where}.{path} must be 1 for ascending or -1 for descending")
        fields.append((path, direction < 0))
    found = next((at for at, (path, _) in enumerate(fields) if path == paths.KEY), None)
    if found is None:
        return Order((*fields, (paths.KEY, bool(fields) and fields[-1][1])))
    return Order(tuple(fields[: found + 1]))


def _behind(columns: Sequence[tuple[str, bool]], place: Sequence[Binding]) -> Clause:
    """Return the condition of what comes behind a place, by the columns from the first on."""
    (column, is_descending), value = columns[0], place[0]
    after = _after(column, is_descending, value)
    if len(columns) == 1:
        return after
    ties = _behind(columns[1:], place[1:])
    same: Clause = (f"{column} IS NULL", ()) if value is None else (f"{column} = ?", (value,))
    return f"({after[0]} OR ({same[0]} AND {ties[0]}))", (*after[1], *same[1], *ties[1])


def _after(column: str, is_descending: bool, value: Binding) -> Clause:
    if value is None:
        return ("FALSE" if is_descending else f"{column} IS NOT NULL"), ()
    if is_descending:
        return f"({column} < ? OR {column} IS NULL)", (value,)
    return f"{column} > ?", (value,)


def _no_cursor() -> InvalidRequestError:
    return InvalidRequestError("cursor is not one that a find with this sort gave; start again without it")
