# Made of _async/address.py by scripts/unasync: change that one.
"""The calls below one address: every method of the client is one `read`, `find`, `write`, listing or stream of these."""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from memoturn._core.answers import Answer, json_object
from memoturn._core.calls import BYTES, EVENTS, JSON, Call, encode
from memoturn._core.paths import MAIN, QueryValue, path, query_of, revision
from memoturn._core.positions import Place
from memoturn._core.streams import Event, Events, Lines
from memoturn._sync.http import Http, Streamed
from memoturn.errors import BranchNotFoundError, DatabaseNotFoundError, NotFoundError
from memoturn.types import At, Consistency, ReadOptions, WriteOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

PAGE_LIMIT: Final = 1000


class Address:
    """A path, given by its parts, and what goes with every request below it.

    `place` is the branch whose txids the answers tell; `branch` is sent as `?branch=`, which memory routes
    take, unless it is main. `control` routes take the platform key first.
    """

    def __init__(
        self,
        http: Http,
        *parts: str,
        place: Place | None = None,
        branch: str = MAIN,
        control: bool = False,
    ) -> None:
        self.http = http
        self.place = place
        self.branch = branch
        self._parts = parts
        self._control = control

    def below(self, *parts: str) -> "Address":
        """Return an address below this one."""
        return Address(
            self.http, *self._parts, *parts, place=self.place, branch=self.branch, control=self._control
        )

    @property
    def last_txid(self) -> int:
        """Newest txid of the branch in the client's answers so far."""
        return 0 if self.place is None else self.http.positions.of(self.place).txid

    @property
    def last_durable_txid(self) -> int:
        """Newest txid of the branch that an answer reported to be in object storage."""
        return 0 if self.place is None else self.http.positions.of(self.place).durable_txid

    def read(
        self,
        method: str,
        *parts: str,
        body: object = None,
        query: Mapping[str, QueryValue] | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> Answer:
        """Send a read, by GET or by POST with a body, and return its answer.

        A floor that the client set is given up where it cannot be met. Raises what `Http.send` does.
        """
        return self.http.send(self._reading(method, parts, body, query, **options))

    def find(
        self,
        method: str,
        *parts: str,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> Answer | None:
        """Send a read of one thing; None where it is not there. Raises DatabaseNotFoundError, BranchNotFoundError."""
        call = self._reading(method, parts, None, query, **options)
        try:
            return self.http.send(replace(call, one=True, headers=headers or {}))
        except (DatabaseNotFoundError, BranchNotFoundError):
            raise
        except NotFoundError:
            return None

    def remove(self, *parts: str, **options: "Unpack[WriteOptions]") -> bool:
        """Delete one thing; False where it is not there. Raises DatabaseNotFoundError, BranchNotFoundError."""
        try:
            self.write("DELETE", *parts, **options)
        except (DatabaseNotFoundError, BranchNotFoundError):
            raise
        except NotFoundError:
            return False
        return True

    def write(
        self,
        method: str,
        *parts: str,
        body: object = None,
        data: bytes | None = None,
        query: Mapping[str, QueryValue] | None = None,
        headers: Mapping[str, str] | None = None,
        **options: "Unpack[WriteOptions]",
    ) -> Answer:
        """Send a write with a body in JSON, or `data` as it is. Raises what `Http.send` does."""
        return self.http.send(self._writing(method, parts, body, data, query, headers, **options))

    def upload(
        self,
        method: str,
        *parts: str,
        opened: Callable[[], Iterator[bytes]],
        headers: Mapping[str, str],
        query: Mapping[str, QueryValue],
        **options: "Unpack[WriteOptions]",
    ) -> Answer:
        """Send a write whose body is made as it goes; `opened` begins it anew. Raises what `Http.send` does."""
        call = self._writing(method, parts, None, None, query, headers, **options)
        return self.http.send(replace(call, opened=opened))

    def sql(
        self,
        body: object,
        *,
        at: At | None,
        min_txid: int | None,
        consistency: Consistency | None,
        **options: "Unpack[WriteOptions]",
    ) -> Answer:
        """Send statements, of which the node sees whether they read or write, so that both kinds of options hold."""
        read = self._reading("POST", ("sql",), body, None, at=at, min_txid=min_txid, consistency=consistency)
        if at is not None:
            return self.http.send(replace(read, timeout_s=options.get("timeout_s")))
        write = self._writing("POST", ("sql",), body, None, None, None, **options)
        return self.http.send(replace(write, floor=min_txid, floored=True, consistency=consistency))

    def pages(
        self,
        key: str,
        *parts: str,
        query: Mapping[str, QueryValue] | None = None,
        body: Mapping[str, Any] | None = None,
        page: int = PAGE_LIMIT,
        most: int | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> Iterator[Any]:
        """Yield the rows `key` of a listing, all or the first `most`, fetching up to `page` at a time.

        With a `body` it is sent by POST, and a page is asked for in the body.
        """
        asked: dict[str, Any] = dict((query if body is None else body) or {})
        left = most
        while left is None or left > 0:
            asked["limit"] = page if left is None else min(page, left)
            found = (self._page(parts, asked, posts=body is not None, **options)).json()
            for row in found[key]:
                yield row
            left = None if left is None else left - len(found[key])
            asked["cursor"] = found.get("next_cursor")  # a node of an earlier version answers all at once
            if not asked["cursor"]:
                return

    def _page(
        self,
        parts: tuple[str, ...],
        asked: Mapping[str, Any],
        *,
        posts: bool,
        **options: "Unpack[ReadOptions]",
    ) -> Answer:
        if posts:
            return self.read("POST", *parts, body=asked, **options)
        return self.read("GET", *parts, query=asked, **options)

    @contextmanager
    def lines(
        self,
        method: str,
        *parts: str,
        query: Mapping[str, QueryValue] | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """Send a request whose answer is lines of JSON, taken as they come."""
        with self.stream(method, *parts, query=query, **options) as streamed:
            yield _objects(streamed)

    @contextmanager
    def events(
        self,
        method: str,
        *parts: str,
        body: object = None,
        query: Mapping[str, QueryValue] | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> Iterator[Iterator[Event]]:
        """Send a read whose answer is server-sent events, taken as they happen.

        Leaving the block ends it. An answer that breaks off raises UnknownOutcomeError; nothing is resumed.
        """
        call = self._reading(method, parts, body, query, **options)
        call = replace(call, headers={**call.headers, "Accept": EVENTS})
        with self.http.stream(call) as streamed:
            yield _events(streamed)

    @contextmanager
    def stream(
        self,
        method: str,
        *parts: str,
        body: object = None,
        query: Mapping[str, QueryValue] | None = None,
        **options: "Unpack[ReadOptions]",
    ) -> Iterator[Streamed]:
        """Send a read whose answer is taken as it comes."""
        with self.http.stream(self._reading(method, parts, body, query, **options)) as streamed:
            yield streamed

    def _reading(
        self,
        method: str,
        parts: tuple[str, ...],
        body: object,
        query: Mapping[str, QueryValue] | None,
        **options: "Unpack[ReadOptions]",
    ) -> Call:
        at = options.get("at")
        return Call(
            method,
            path(*self._parts, *parts),
            query=self._query(query, at),
            headers={} if body is None else {"Content-Type": JSON},
            content=None if body is None else encode(body),
            place=self.place,
            floor=options.get("min_txid"),
            floored=at is None,  # a past state is below the floor, and meant to be
            consistency=options.get("consistency"),
            control=self._control,
            timeout_s=options.get("timeout_s"),
        )

    def _writing(
        self,
        method: str,
        parts: tuple[str, ...],
        body: object,
        data: bytes | None,
        query: Mapping[str, QueryValue] | None,
        headers: Mapping[str, str] | None,
        **options: "Unpack[WriteOptions]",
    ) -> Call:
        sent = dict(headers or {})
        durability, key = options.get("durability"), options.get("idempotency_key")
        if durability is not None:
            sent["Memoturn-Durability"] = durability
        if key is None:
            key = uuid.uuid4().hex
        if key:
            sent["Idempotency-Key"] = key
        if body is not None:
            sent["Content-Type"] = JSON
        elif data is not None:
            sent.setdefault("Content-Type", BYTES)
        return Call(
            method,
            path(*self._parts, *parts),
            query=self._query(query, None),
            headers=sent,
            content=data if body is None else encode(body),
            place=self.place,
            control=self._control,
            timeout_s=options.get("timeout_s"),
            is_write=True,
            repeatable="always" if key else "unapplied",
            key=key or None,
        )

    def _query(self, query: Mapping[str, QueryValue] | None, at: At | None) -> dict[str, str]:
        sent = query_of(query)
        if self.branch != MAIN:
            sent["branch"] = self.branch
        if at is not None:
            sent["at"] = revision(at)
        return sent


def _lines(streamed: Streamed) -> Iterator[bytes]:
    lines = Lines()
    for piece in streamed.chunks():
        for line in lines.push(piece):
            yield line
    if lines.rest():
        yield lines.rest()


def _objects(streamed: Streamed) -> Iterator[dict[str, Any]]:
    for line in _lines(streamed):
        if line:
            yield json_object(line, "a line")


def _events(streamed: Streamed) -> Iterator[Event]:
    events = Events()
    for line in _lines(streamed):
        event = events.push(line)
        if event is not None:
            yield event
