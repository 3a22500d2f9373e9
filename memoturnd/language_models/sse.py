"""Server-sent events as providers stream their answers. Pure but for the bytes that come in."""

from collections.abc import AsyncIterable, AsyncIterator
from typing import NamedTuple


class Event(NamedTuple):
    """One event: its name (`message` unless given) and its data."""

    name: str
    data: str


async def events_in(chunks: AsyncIterable[bytes], limit_bytes: int) -> AsyncIterator[Event]:
    """Yield the events of a stream. One that is cut off before its blank line is none.

    Raises ValueError beyond `limit_bytes` and for what is not UTF-8.
    """
    lines: list[str] = []
    size_bytes = 0
    rest = b""
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > limit_bytes:
            raise ValueError(f"it is over {limit_bytes} bytes")
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            text = line.removesuffix(b"\r").decode()
            if text:
                lines.append(text)
            elif lines:
                event = _event(lines)
                lines = []
                if event is not None:
                    yield event


def _event(lines: list[str]) -> Event | None:
    name, data = "message", []
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
    return Event(name, "\n".join(data)) if data else None
