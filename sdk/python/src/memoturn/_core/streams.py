"""Lines and events of an answer that comes in pieces."""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from memoturn._core.answers import json_object
from memoturn.errors import MemoturnError, ServerError, error_for

LINE_LIMIT_BYTES: Final = 64 * 1024 * 1024


class Event(NamedTuple):
    """A server-sent event: its name, the JSON object that it carries, and the id to resume behind, "" without one."""

    name: str
    data: dict[str, Any]
    id: str


class Lines:
    """Pieces in, whole lines out. Only a line feed ends a line: JSON may hold every other separator as it is."""

    def __init__(self) -> None:
        self._begun: list[bytes] = []
        self._begun_bytes = 0

    def push(self, piece: bytes) -> Iterator[bytes]:
        """Yield the lines that a piece ends, without their ends. Raises ServerError for one without an end."""
        *ended, rest = piece.split(b"\n")
        for line in ended:
            yield b"".join([*self._begun, line]).removesuffix(b"\r")
            self._begun, self._begun_bytes = [], 0
        if rest:
            self._begun.append(rest)
            self._begun_bytes += len(rest)
        if self._begun_bytes > LINE_LIMIT_BYTES:
            raise ServerError(f"a line of the answer has over {LINE_LIMIT_BYTES} bytes")

    def rest(self) -> bytes:
        """Return what came behind the last end of a line."""
        return b"".join(self._begun)


class Events:
    """Lines in, events out."""

    def __init__(self) -> None:
        self._name = ""
        self._data: list[bytes] = []
        self._id = ""

    def push(self, line: bytes) -> Event | None:
        """Return the event that a line ends. Raises ServerError for one whose data is not a JSON object.

        An id that comes alone is an event without a name.
        """
        if not line:
            return self._ended()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"event":
            self._name = value.decode()
        elif field == b"data":
            self._data.append(value)
        elif field == b"id":
            self._id = value.decode()
        return None

    def _ended(self) -> Event | None:
        name, data, id_ = self._name, self._data, self._id
        self._name, self._data, self._id = "", [], ""
        if not (name or data or id_):
            return None  # the end of a comment
        return Event(name, json_object(b"\n".join(data), "an event") if data else {}, id_)


def error_in(event: Event) -> MemoturnError:
    """Return the error that an event tells, `{"error", "code"}`, in the midst of an answer."""
    return error_for(0, str(event.data.get("code", "internal")), str(event.data.get("error", "")), None)
