"""Timelines of one branch: rows of keys in the order of their times."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from memoturn._async.address import AsyncAddress
from memoturn._core.bodies import given, listed, milliseconds
from memoturn.types import (
    Filter,
    NewRow,
    ReadOptions,
    Time,
    TimelineAppended,
    TimelineInfo,
    TimelineOrder,
    TimelineRetention,
    TimelineRow,
    TimelineWindow,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncTimeline:
    """A sequence of rows `{key, at, data}`, such as tool calls, events or counters. It is made by its first append.

    Times are unix milliseconds, or datetimes with their zone; `since` is included, `until` is not.
    """

    def __init__(self, address: AsyncAddress, name: str) -> None:
        self.name = name
        self._address = address.below("timelines", name)

    async def append(
        self, key: str, data: Any = None, *, at: Time | None = None, **options: "Unpack[WriteOptions]"
    ) -> TimelineAppended:
        """Append a row, at the time of the commit unless `at` says another; `data` is any JSON value."""
        body = {"key": key, "data": data, **given(at=milliseconds(at))}
        return await self._append(body, **options)

    async def append_many(
        self, rows: Iterable[NewRow], **options: "Unpack[WriteOptions]"
    ) -> TimelineAppended:
        """Append up to 10,000 rows as one commit. Those that are past retention already are not kept."""
        return await self._append({"rows": list(rows)}, **options)

    async def query(
        self,
        *,
        key: str | None = None,
        keys: Sequence[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        order: TimelineOrder = "desc",
        limit: int = 100,
        **options: "Unpack[ReadOptions]",
    ) -> list[TimelineRow]:
        """Return up to `limit` (at most 1000) rows of one key, of some (at most 100) or of all, by time.

        `filter` is one as of documents, on `data`; `_id` in it is the key. For more than 1000 use `iter_rows`.
        """
        body = _terms(key, keys, since, until, filter, order)
        answer = await self._address.read("POST", "query", body={**body, "limit": limit}, **options)
        return cast("list[TimelineRow]", answer.json()["rows"])

    async def iter_rows(
        self,
        *,
        key: str | None = None,
        keys: Sequence[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        order: TimelineOrder = "desc",
        limit: int | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> AsyncIterator[TimelineRow]:
        """Yield every row of a query; none comes twice while others are appended."""
        body = _terms(key, keys, since, until, filter, order)
        async for row in self._address.pages("rows", "query", body=body, most=limit, **options):
            yield cast("TimelineRow", row)

    async def aggregate(
        self,
        path: str | None = None,
        *,
        window_ms: int | None = None,
        by_key: bool = False,
        key: str | None = None,
        keys: Sequence[str] | None = None,
        since: Time | None = None,
        until: Time | None = None,
        filter: Filter | None = None,  # noqa: A002 - the field's name
        order: TimelineOrder = "desc",
        limit: int | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> list[TimelineWindow]:
        """Return what the rows of a query come to, by windows of `window_ms`, or all together.

        Each window counts its rows; with a `path` into `data` (`""` is `data` itself) it also has the sum, least,
        largest, average and last of the numbers there. With `by_key` each key has windows of its own.
        """
        asked = given(path=path, window_ms=window_ms, by_key=by_key or None)
        body = {**_terms(key, keys, since, until, filter, order), "aggregate": asked}
        rows = self._address.pages("windows", "query", body=body, most=limit, **options)
        return [cast("TimelineWindow", row) async for row in rows]

    async def info(self, **options: "Unpack[ReadOptions]") -> TimelineInfo | None:
        """Return what the timeline holds and retains, None when there is none of that name."""
        answer = await self._address.find("GET", **options)
        return None if answer is None else cast("TimelineInfo", answer.json())

    async def set_retention(
        self,
        *,
        retention_s: int | None = None,
        retention_rows: int | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> TimelineRetention:
        """Keep rows for so many seconds, and so many of each key; None is no such bound.

        What is past retention is not shown from then on, nor when the bound is raised later.
        """
        body = {"retention_s": retention_s, "retention_rows": retention_rows}
        return cast("TimelineRetention", (await self._address.write("PUT", body=body, **options)).stamped())

    async def delete(self, **options: "Unpack[WriteOptions]") -> None:
        """Delete the timeline with its rows; no error when there is none."""
        await self._address.write("DELETE", **options)

    async def _append(self, body: dict[str, Any], **options: "Unpack[WriteOptions]") -> TimelineAppended:
        answer = await self._address.write("POST", "rows", body=body, **options)
        return cast("TimelineAppended", answer.stamped())


def _terms(
    key: str | None,
    keys: Sequence[str] | None,
    since: Time | None,
    until: Time | None,
    filter: Filter | None,  # noqa: A002 - the field's name
    order: TimelineOrder,
) -> dict[str, Any]:
    return given(
        key=key,
        keys=listed(keys),
        since=milliseconds(since),
        until=milliseconds(until),
        filter=filter,
        order=order,
    )
