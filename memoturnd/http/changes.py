"""The routes of the change feed: a page, a page once there is one (long poll), and server-sent events."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Any, Final

import msgspec
import structlog

from memoturnd.core.principal import SURFACES
from memoturnd.engine.consistency import reading, reading_as
from memoturnd.errors import ChangesGoneError, InvalidRequestError, MemoturnError, NotFoundError
from memoturnd.feeds import End, Feeds
from memoturnd.http.addresses import database_of, profile_of
from memoturnd.http.call import MAX_INTEGER, Call
from memoturnd.http.describe import EVENTS, SINCE, Value, described
from memoturnd.http.envelope import JSON, Answer, at, read_reply
from memoturnd.http.events import Event, event_reply
from memoturnd.http.ports import FollowedBranch
from memoturnd.http.shapes import Count
from memoturnd.http.shapes import changes as shapes
from memoturnd.seams.leases import Owner
from memoturnd.seams.profile import Seen
from memoturnd.surfaces import feed
from memoturnd.surfaces.feed import Page, Wanted

WAIT_LIMIT_S: Final = 60
"""Longest that a page is waited for."""
HEARTBEAT_S: Final = 10.0
LOOK_S: Final = 5.0
"""How often a copy of a branch is read for those who follow it, where it is quiet: what nobody reads is not kept up to date."""
TOLD: Final = SURFACES - {"branches"}
_VALUES: Final = (
    SINCE,
    Value("limit", Count, "Most commits of the page, up to 1000."),
    Value("surface", str, "Of these surfaces alone, separated by commas."),
    Value("durable", bool, "Only what object storage has."),
    Value("wait_s", Count, "Seconds to wait for a change where there is none yet, up to 60."),
    Value(
        "Last-Event-ID", str, "As `since`, which it precedes: how an event source resumes.", is_header=True
    ),
)
_GIVES: Final = {200: (shapes.ChangePage, EVENTS)}
_log = structlog.get_logger(__name__)


@described(gives=_GIVES, values=_VALUES)
async def of_database(call: Call) -> Answer:
    """Tell what commits changed after `since`, by surface and key: a page, or events as they happen."""
    return await _told(call, *database_of(call))


@described(gives=_GIVES, values=_VALUES)
async def of_profile(call: Call) -> Answer:
    """Tell what commits changed after `since`, by surface and key: a page, or events as they happen."""
    return await _told(call, *profile_of(call))


async def _told(call: Call, database: str, branch: str) -> Answer:
    profile = await call.node.followed(database, branch)
    wanted, since = _wanted(call), _since(call)
    wait_s = call.integer("wait_s") or 0
    if wait_s > WAIT_LIMIT_S:
        raise InvalidRequestError(f"`wait_s` takes 0 to {WAIT_LIMIT_S} seconds")
    if call.min_txid > 0:
        await profile.read(lambda _connection, _now_ms: None, min_txid=call.min_txid)
    if not (call.wants_events or wait_s):
        return _page_reply(await feed.read(profile, since, wanted))
    following = _Following(call.node.feeds, profile, wanted)
    try:
        return await _followed(call, following, since, wait_s)
    except BaseException:
        following.close()
        raise


async def _followed(call: Call, following: "_Following", since: int | None, wait_s: int) -> Answer:
    await following.begin()
    lost: ChangesGoneError | None = None
    try:
        seen = await following.read(since)
    except ChangesGoneError as error:
        if not call.wants_events:
            raise
        lost = error
        seen = await following.read(None)
    if call.wants_events:
        answer = event_reply(_events(following, seen, lost), following.close, heartbeat_s=HEARTBEAT_S)
        return at(answer, seen.txid, seen.durable_txid)
    if seen.value.rounds or seen.value.more:
        following.close()
        return _page_reply(seen)
    late = _LatePage(following, seen.value, wait_s)
    return at(Answer(200, headers=[JSON], stream=late), seen.txid, seen.durable_txid)


def _wanted(call: Call) -> Wanted:
    grant = call.principal.grant
    allowed = None if grant is None or grant.surfaces is None else grant.surfaces & TOLD
    named = call.text("surface")
    if named is None:
        return Wanted(allowed, call.flag("durable"), max(1, call.limit("limit", feed.LIMIT_DEFAULT)))
    surfaces = frozenset(named.split(","))
    if not surfaces <= TOLD:
        raise InvalidRequestError(f"`surface` takes some of {', '.join(sorted(TOLD))}, separated by commas")
    for surface in sorted(surfaces):
        call.require_surface(surface)
    return Wanted(surfaces, call.flag("durable"), max(1, call.limit("limit", feed.LIMIT_DEFAULT)))


def _since(call: Call) -> int | None:
    last = call.header("Last-Event-ID")
    if not last:
        return call.integer("since")
    if not (last.isascii() and last.isdigit() and int(last) <= MAX_INTEGER):
        raise InvalidRequestError("Last-Event-ID takes the id of an event of this feed, which is a txid")
    return int(last)


def _body(page: Page) -> dict[str, Any]:
    return {"changes": page.rounds, "next_since": page.next_since, "more": page.more}


def _page_reply(seen: Seen[Page]) -> Answer:
    return read_reply(_body(seen.value), seen)


class _Following:
    """One who follows a branch, counted until it is closed."""

    def __init__(self, feeds: Feeds[Any], profile: FollowedBranch, wanted: Wanted) -> None:
        self._feeds = feeds
        self._profile = profile
        self._wanted = wanted
        self._asks = reading()
        """What the request asks of its reads, which go on behind the handler."""
        self._moves = 0
        self._owner: Owner | None = None
        """The other node that owns the branch, of which a copy is followed here."""
        self._held = ExitStack()

    async def begin(self) -> None:
        """Take a place. Raises OverloadedError, RetryableError."""
        self._held.enter_context(self._feeds.place(self._profile))
        self._owner = await self._feeds.owner(self._profile)

    async def read(self, since: int | None) -> Seen[Page]:
        """Return the rounds after `since`; see memoturnd.surfaces.feed.read."""
        self._moves = self._profile.moves.count
        with reading_as(self._asks):
            return await feed.read(self._profile, since, self._wanted)

    def end(self) -> str | None:
        """Return why the feed ends now, None where it goes on."""
        return self._feeds.end(self._profile)

    async def news(self, page: Page, until_s: float | None = None) -> str | None:
        """Wait for something behind a page, until a time of the event loop's; return why the feed ends, if it does."""
        loop = asyncio.get_running_loop()
        while True:
            left_s = None if until_s is None else until_s - loop.time()
            if self._owner is not None:
                left_s = LOOK_S if left_s is None else min(LOOK_S, left_s)
            end = await self._feeds.moved(self._profile, self._moves, self._owner, left_s)
            if end is None and self._owner is not None and self._profile.moves.count == self._moves:
                end = await self._look()
            self._moves = self._profile.moves.count
            is_late = until_s is not None and loop.time() >= until_s
            if end is not None or is_late or self._reached() > page.next_since:
                return end

    async def _look(self) -> End | None:
        """Read the copy, which so goes on being one; return why the feed ends, if it does."""
        try:
            with reading_as(self._asks):
                await self._profile.read(lambda _connection, _now_ms: None)
        except NotFoundError:
            return "gone"
        except MemoturnError:
            return None  # it is looked at again, and who reads it is told why
        return None

    def _reached(self) -> int:
        """Return how far the branch is known to be: it is not opened only to see that nothing is new."""
        profile = self._profile
        return min(profile.txid, profile.durable_txid) if self._wanted.durable else profile.txid

    def close(self) -> None:
        """Give the place back; may be called twice."""
        self._held.close()


async def _events(
    following: _Following, seen: Seen[Page], lost: ChangesGoneError | None
) -> AsyncGenerator[Event, None]:
    """Yield `change` for each commit, `reset` where some cannot be told, at last `end` with the reason."""
    end: str | None = None
    page = seen.value
    try:
        while end is None:
            if lost is not None:
                yield _reset(lost, page.next_since)
                lost = None
            for round_ in page.rounds:
                yield Event("change", round_, str(round_["txid"]))
            if not page.rounds or page.rounds[-1]["txid"] != page.next_since:
                yield Event("", None, str(page.next_since))  # nothing to tell, but a place to resume from
            end = following.end() if page.more else await following.news(page)
            if end is not None:
                break
            try:
                page = (await following.read(page.next_since)).value
            except ChangesGoneError as error:
                lost = error
                page = (await following.read(None)).value
    except MemoturnError as error:
        end = error.code
    except Exception as error:  # noqa: BLE001 - the status is sent: all that is left is to say that it failed
        _log.error("feed_failed", exc_info=error)
        end = "internal"
    yield Event("end", {"reason": end})


def _reset(error: ChangesGoneError, txid: int) -> Event:
    return Event("reset", {"txid": txid, "error": str(error), "code": error.code}, str(txid))


class _LatePage:
    """A page that is waited for, as the body of an answer. Implements memoturnd.http.streaming.Stream."""

    def __init__(self, following: _Following, page: Page, wait_s: int) -> None:
        self._following = following
        self._page = page
        self._wait_s = wait_s

    @property
    def size_bytes(self) -> int | None:
        """Not known before."""
        return None

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the page, once it has a change, or empty when the time is over or the feed ends."""
        following, page = self._following, self._page
        loop = asyncio.get_running_loop()
        until_s = loop.time() + self._wait_s
        while not page.rounds and (page.more or loop.time() < until_s):
            if not page.more and await following.news(page, until_s) is not None:
                break
            try:
                page = (await following.read(page.next_since)).value
            except MemoturnError:
                break  # the status is sent; the next request is told what is the matter
        yield msgspec.json.encode(_body(page))

    def close(self) -> None:
        """Give the place back."""
        self._following.close()
