"""What looks after the memories of a profile: lists, patches, history, topics, forgetting many."""

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, cast

from memoturn._async.address import PAGE_LIMIT, AsyncAddress
from memoturn._core.bodies import UNSET, Unset, given, joined, listed, moment, said
from memoturn.types import (
    ForgetResult,
    MemoryHistory,
    MemoryOrder,
    MemoryPage,
    MemoryPatched,
    MemoryRecord,
    MemoryType,
    MemoryUndone,
    Moment,
    ReadOptions,
    TopicalType,
    TopicHistory,
    TopicInfo,
    WriteOptions,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncUpkeep:
    """The part of a profile that looks after its memories."""

    _address: AsyncAddress

    async def list_memories(
        self,
        *,
        types: Iterable[MemoryType] | None = None,
        topic_key: str | None = None,
        topic_prefix: str | None = None,
        session_id: str | None = None,
        source: str | None = None,
        pinned: bool | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        include_superseded: bool = False,
        order: MemoryOrder = "newest",
        limit: int = 100,
        cursor: str | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> MemoryPage:
        """Return a page of up to `limit` (at most 1000) memories that match every filter, without ranking them.

        `since` and `until` are about when a memory was stored first, both included. For the next page give
        `next_cursor` as `cursor`, with the same filters; `iter_memories` does that.
        """
        query = _filters(
            types,
            topic_key,
            topic_prefix,
            session_id,
            source,
            pinned,
            since,
            until,
            include_superseded,
            order,
        )
        query |= given(limit=limit, cursor=cursor)
        return cast(
            "MemoryPage", (await self._address.read("GET", "memories", query=query, **options)).stamped()
        )

    async def iter_memories(
        self,
        *,
        types: Iterable[MemoryType] | None = None,
        topic_key: str | None = None,
        topic_prefix: str | None = None,
        session_id: str | None = None,
        source: str | None = None,
        pinned: bool | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        include_superseded: bool = False,
        order: MemoryOrder = "newest",
        limit: int | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> AsyncIterator[MemoryRecord]:
        """Yield every memory that matches the filters of `list_memories`.

        By time each comes exactly once, whatever is written meanwhile; by importance, one that is rated meanwhile
        may come twice or not at all.
        """
        query = _filters(
            types,
            topic_key,
            topic_prefix,
            session_id,
            source,
            pinned,
            since,
            until,
            include_superseded,
            order,
        )
        async for row in self._address.pages("memories", "memories", query=query, most=limit, **options):
            yield cast("MemoryRecord", row)

    async def patch(
        self,
        memory_id: str,
        *,
        pinned: bool | None = None,
        importance: "float | Unset | None" = UNSET,
        keywords: str | None = None,
        ttl: "int | Unset | None" = UNSET,
        expires_at: "Moment | Unset | None" = UNSET,
        **options: "Unpack[WriteOptions]",
    ) -> MemoryPatched:
        """Change what is said of a memory; what it says itself is corrected by ingesting another of its topic.

        `importance` is 0 to 1, None takes the rating away. `ttl` (seconds from now) or `expires_at` lets it
        expire, None lets it stay for good. `keywords` replace those that are there. Raises NotFoundError.
        """
        expires = expires_at if isinstance(expires_at, Unset) else moment(expires_at)
        body = given(pinned=pinned, keywords=keywords)
        body |= said(importance=importance, ttl=ttl, expires_at=expires)
        answer = await self._address.write("PATCH", "memories", memory_id, body=body, **options)
        return cast("MemoryPatched", answer.stamped())

    async def history(
        self,
        memory_id: str,
        *,
        limit: int = PAGE_LIMIT,
        cursor: str | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> MemoryHistory | None:
        """Return every version of what a memory says, newest first; None when there is none of that id.

        Up to `limit` (at most 1000) at once; for more give `next_cursor` as `cursor`.
        """
        query = given(limit=limit, cursor=cursor)
        answer = await self._address.find("GET", "memories", memory_id, "history", query=query, **options)
        return None if answer is None else cast("MemoryHistory", answer.stamped())

    async def undo(
        self, memory_id: str, *, reason: str | None = None, **options: "Unpack[WriteOptions]"
    ) -> MemoryUndone:
        """Undo a correction: what the active memory of a topic superseded last becomes active again.

        The correction stays in the history, and undoing that in turn brings it back. `reason` is kept with what
        comes back. Raises ConflictError when the memory is not active, or superseded nothing that is still there;
        NotFoundError.
        """
        answer = await self._address.write(
            "POST", "memories", memory_id, "undo", body=given(reason=reason), **options
        )
        return cast("MemoryUndone", answer.stamped())

    async def iter_topics(
        self,
        *,
        prefix: str = "",
        type: TopicalType | None = None,  # noqa: A002 - the field's name
        limit: int | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> AsyncIterator[TopicInfo]:
        """Yield the topics that start with `prefix`, by key and type."""
        query = {"prefix": prefix or None, "type": type}
        async for row in self._address.pages("topics", "topics", query=query, most=limit, **options):
            yield cast("TopicInfo", row)

    async def topic(
        self,
        topic_key: str,
        *,
        type: TopicalType | None = None,  # noqa: A002 - the field's name
        limit: int = PAGE_LIMIT,
        cursor: str | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> TopicHistory | None:
        """Return what a topic says and has said, for each type that has it or for one; None when none has.

        Up to `limit` (at most 1000) versions of each; for more give a `type`, and `next_cursor` as `cursor`.
        """
        query = given(type=type, limit=limit, cursor=cursor)
        answer = await self._address.find("GET", "topics", topic_key, query=query, **options)
        return None if answer is None else cast("TopicHistory", answer.stamped())

    async def forget_many(
        self,
        *,
        ids: Iterable[str] | None = None,
        all: bool = False,  # noqa: A002 - the field's name
        types: Iterable[MemoryType] | None = None,
        topic_key: str | None = None,
        topic_prefix: str | None = None,
        session_id: str | None = None,
        source: str | None = None,
        pinned: bool | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        include_superseded: bool = True,
        limit: int = 1000,
        dry_run: bool = False,
        **options: "Unpack[WriteOptions]",
    ) -> ForgetResult:
        """Forget many memories as one commit: up to 1000 `ids`, those that match every filter, or `all`.

        Exactly one of the three, so that an empty filter forgets nothing. A filter means superseded ones too,
        unless `include_superseded` is False; up to `limit` (at most 1000) go at once, the oldest, and the answer
        says whether there are `more`. With `dry_run` nothing changes: it shows what would be forgotten.
        """
        body = given(
            ids=listed(ids),
            all=all or None,
            types=listed(types),
            topic_key=topic_key,
            topic_prefix=topic_prefix,
            session_id=session_id,
            source=source,
            pinned=pinned,
            since=moment(since),
            until=moment(until),
        )
        if ids is None and not include_superseded:
            body["include_superseded"] = False
        if ids is None:
            body["limit"] = limit
        if dry_run:
            body["dry_run"] = True
        if dry_run:
            read = self._address.read(
                "POST", "memories", "forget", body=body, timeout_s=options.get("timeout_s")
            )
            return cast("ForgetResult", (await read).stamped())
        answer = await self._address.write("POST", "memories", "forget", body=body, **options)
        return cast("ForgetResult", answer.stamped())


def _filters(
    types: Iterable[MemoryType] | None,
    topic_key: str | None,
    topic_prefix: str | None,
    session_id: str | None,
    source: str | None,
    pinned: bool | None,
    since: Moment | None,
    until: Moment | None,
    include_superseded: bool,
    order: MemoryOrder,
) -> dict[str, Any]:
    return given(
        types=joined(types),
        topic_key=topic_key,
        topic_prefix=topic_prefix,
        session_id=session_id,
        source=source,
        pinned=None if pinned is None else str(pinned).lower(),  # false is said, not left out
        since=moment(since),
        until=moment(until),
        include_superseded=include_superseded or None,
        order=order,
    )
