"""Reading the audit stream: pages of events, and everything there is for whoever verifies it.

A page looks at the days that it is asked for and at nothing else, and at a bounded number of objects; where it stops
early, its cursor says where to go on.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from memoturnd.audit.log import AuditLog
from memoturnd.core import audit
from memoturnd.errors import CorruptionError, InvalidRequestError
from memoturnd.seams.clock import Clock
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

FLUSH_S: Final = 3.0
"""Longest that a reader waits for what this node has not flushed yet."""
OBJECTS_OF_PAGE: Final = 256
LISTINGS_OF_PAGE: Final = 64
DAY_MS: Final = 86_400_000
_SLOT_MS: Final = 10_000_000
_SLOT_DIGITS: Final = 6
_LATEST_MS: Final = 10**13 - 1
_CURSOR_CHARACTERS: Final = 1024
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for: events of [from_ms, to_ms), up to `limit`. An `action` that ends in `.` is a beginning."""

    from_ms: int
    to_ms: int
    limit: int
    action: str | None = None
    profile: str | None = None
    outcome: str | None = None
    cursor: str | None = None

    def takes(self, event: dict[str, Any]) -> bool:
        """Return whether an event is asked for."""
        action = str(event.get("action"))
        return (
            self.from_ms <= event["ts"] < self.to_ms
            and (
                self.action is None
                or action == self.action
                or (self.action.endswith(".") and action.startswith(self.action))
            )
            and self.profile in {None, event.get("profile")}
            and self.outcome in {None, event.get("outcome")}
        )


@dataclass(slots=True)
class Page:
    """Events in the order of their objects; `next_cursor` is None where the window ends."""

    events: list[dict[str, Any]] = field(default_factory=list)
    next_cursor: str | None = None
    damaged: int = 0
    """Objects and lines that could not be read."""


async def read_page(store: ObjectStore, stream: str, query: Query) -> Page:
    """Return a page. Raises InvalidRequestError for a cursor that no page had, StoreUnavailableError."""
    start_ms = max(0, query.from_ms - audit.OBJECT_SPAN_MS)
    first_key, first_line = "", 0
    if query.cursor is not None:
        first_key, first_line, start_ms = _place(stream, query.cursor)
    page, objects = Page(), 0
    for listing, (prefix, prefix_ms) in enumerate(_prefixes(stream, start_ms, query.to_ms)):
        if listing == LISTINGS_OF_PAGE:
            page.next_cursor = cursor(audit.position(stream, prefix_ms), 0)
            return page
        async for info in store.list(prefix):
            name = audit.parse_object_key(info.key)
            if name is None or info.key < first_key or name.at_ms < start_ms or name.at_ms >= query.to_ms:
                continue
            if objects == OBJECTS_OF_PAGE:
                page.next_cursor = cursor(info.key, 0)
                return page
            objects += 1
            line = first_line if info.key == first_key else 0
            if not await _take(store, info.key, line, query, page):
                return page
    return page


async def _take(store: ObjectStore, key: str, first_line: int, query: Query, page: Page) -> bool:
    """Add what is asked for of an object to the page; False when the page is full."""
    try:
        data = (await store.get(key)).data
    except ObjectMissingError:
        return True  # retention was faster
    lines = data.splitlines()
    for number in range(first_line, len(lines)):
        try:
            event = audit.shown(lines[number])
        except CorruptionError:
            page.damaged += 1
            continue
        if query.takes(event):
            if len(page.events) == query.limit:
                page.next_cursor = cursor(key, number)
                return False
            page.events.append(event)
    return True


def cursor(key: str, line: int) -> str:
    """Return the cursor of a line."""
    return base64.urlsafe_b64encode(f"{key}\n{line}".encode()).decode()


def _place(stream: str, text: str) -> tuple[str, int, int]:
    """Return (key, line, ms) of a cursor. Raises InvalidRequestError."""
    error = InvalidRequestError("`cursor` is not one that this stream gave; start again without it")
    if len(text) > _CURSOR_CHARACTERS or not text.isascii():
        raise error
    try:
        key, _, line = base64.urlsafe_b64decode(text).decode("ascii").partition("\n")
    except ValueError:
        raise error from None
    at_ms = audit.position_ms(stream, key)
    if at_ms is None or not line.isdigit() or len(line) > _SLOT_DIGITS:
        raise error
    return key, int(line), at_ms


def _prefixes(stream: str, start_ms: int, to_ms: int) -> Iterator[tuple[str, int]]:
    """Yield what to list, with the time at which it begins: the rest of the first day in parts, then whole days.

    The parts are those of equal first digits of the time, so that a page in the middle of a day lists little of what
    was read before.
    """
    at_ms, to_ms = start_ms, min(to_ms, _LATEST_MS)
    while at_ms < to_ms:
        day = audit.day_prefix(stream, audit.day_of(at_ms))
        next_day_ms = (at_ms // DAY_MS + 1) * DAY_MS
        if at_ms % DAY_MS == 0 and at_ms != start_ms:
            yield day, at_ms
            at_ms = next_day_ms
        else:
            yield f"{day}{at_ms:013d}"[: len(day) + _SLOT_DIGITS], at_ms
            at_ms = min((at_ms // _SLOT_MS + 1) * _SLOT_MS, next_day_ms)


class AuditReader:
    """Reads streams for whoever may. What waits at this node is flushed first, so that it can be seen."""

    def __init__(
        self, store: ObjectStore, log: AuditLog, clock: Clock, *, keys: Callable[[], Sequence[dict[str, str]]]
    ) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._keys = keys

    @property
    def now_ms(self) -> int:
        """Unix ms."""
        return self._clock.now_ms()

    async def page(self, stream: str, query: Query) -> tuple[Page, bool]:
        """Return a page, and whether it ends with all that there is of its window. Raises InvalidRequestError, StoreUnavailableError."""
        flushed = await self._flush(stream)
        page = await read_page(self._store, stream, query)
        return page, flushed and page.next_cursor is None and not page.damaged

    async def export(self, stream: str) -> "AuditExport":
        """Return everything that there is of a stream, to be verified."""
        await self._flush(stream)
        return AuditExport(self._store, stream, self._keys, self._clock)

    async def _flush(self, stream: str) -> bool:
        try:
            async with asyncio.timeout(FLUSH_S):
                return await self._log.flush(stream)
        except TimeoutError:
            return False


class AuditExport:
    """Everything that a stream has, as lines of JSON: heads, then objects, then heads again.

    What was put meanwhile stands between the two. `keys` gives the public keys as JWKs.
    """

    size_bytes: int | None = None

    def __init__(
        self, store: ObjectStore, stream: str, keys: Callable[[], Sequence[dict[str, str]]], clock: Clock
    ) -> None:
        self._store = store
        self._stream = stream
        self._keys = keys
        self._clock = clock

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines. Raises StoreUnavailableError."""
        yield _line(
            kind="header",
            format="memoturn-audit",
            version=audit.VERSION,
            stream=self._stream,
            at=self._clock.now_ms(),
            keys=self._keys(),
        )
        heads = objects = 0
        async for line in self._heads("before"):
            heads += 1
            yield line
        async for info in self._store.list(audit.stream_prefix(self._stream)):
            data = await self._get(info.key)
            if data is not None:
                objects += 1
                yield _line(kind="object", key=info.key, data=base64.b64encode(data).decode())
        async for line in self._heads("after"):
            yield line
        yield _line(kind="end", objects=objects, heads=heads)

    def close(self) -> None:
        """Nothing is held."""

    async def _heads(self, when: str) -> AsyncIterator[bytes]:
        async for info in self._store.list(audit.heads_prefix(self._stream)):
            data = await self._get(info.key)
            if data is not None:
                yield _line(kind="head", when=when, key=info.key, data=base64.b64encode(data).decode())

    async def _get(self, key: str) -> bytes | None:
        try:
            return (await self._store.get(key)).data
        except ObjectMissingError:
            return None


def _line(**fields: object) -> bytes:
    return _encode(fields) + b"\n"
