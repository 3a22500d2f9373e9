"""One request as handlers see it: decoded path parts, checked query values and headers, the body once read."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote_to_bytes

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from memoturnd.core import canonical, consistency, database_settings, names, revisions
from memoturnd.core.consistency import Consistency
from memoturnd.core.durability import LEVELS, Durability
from memoturnd.core.principal import ANONYMOUS
from memoturnd.core.revisions import Revision
from memoturnd.engine.idempotency import Once
from memoturnd.errors import (
    ForbiddenError,
    InvalidRequestError,
    PayloadTooLargeError,
    UnsupportedMediaError,
    invariant,
)
from memoturnd.http.gates import BodyMemory
from memoturnd.http.levels import LeveledProfile
from memoturnd.http.once import OnceProfile, parse_once
from memoturnd.http.ports import BranchProfile, Node
from memoturnd.http.streaming import Pace, receive_chunks, too_large
from memoturnd.surfaces import conditions
from memoturnd.surfaces.conditions import Condition

T = TypeVar("T")

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer that every JSON client can hold; txids, limits and lifetimes stay at or below it."""
MAX_LIMIT: Final = 1000
"""Most rows of one answer."""
INLINE_BODY_BYTES: Final = 128 * 1024
"""Bodies up to this size are decoded on the event loop, in about a millisecond."""

_BRANCH_HEADER: Final = b"memoturn-branch"
_DURABILITY_HEADER: Final = b"memoturn-durability"
_MIN_TXID_HEADER: Final = b"memoturn-min-txid"
_AT_HEADER: Final = b"memoturn-at"
_CONSISTENCY_HEADER: Final = b"memoturn-consistency"
_KEY_HEADER: Final = b"idempotency-key"
_IF_MATCH_HEADER: Final = b"if-match"
_IF_NONE_MATCH_HEADER: Final = b"if-none-match"
_META_HEADER: Final = b"memoturn-meta"
_MEANING: Final = (_IF_MATCH_HEADER, _IF_NONE_MATCH_HEADER, _META_HEADER)
"""Headers that are part of what a write asks for."""
_ONCE: Final = frozenset(
    {
        _BRANCH_HEADER,
        _DURABILITY_HEADER,
        _MIN_TXID_HEADER,
        _AT_HEADER,
        _CONSISTENCY_HEADER,
        _KEY_HEADER,
        *_MEANING,
        b"content-type",
        b"content-length",
        b"host",
        b"origin",
        b"authorization",
        b"memoturn-tenant",
        b"x-memoturn-internal",
    }
)
_TRUTH: Final = {"true": True, "1": True, "false": False, "0": False}
_MAX_DIGITS: Final = 16


class Call:
    """A request that has found its route. `params` are the path's parts, percent-decoded.

    `held_bytes` is what `read_body` has taken of the memory for bodies, to be given back with the last use.
    `file` yields the body of a route that takes a file; there `body` is empty, or its hash. `operation` is the route's
    `METHOD template`; `principal` who sends it, once it was admitted; `told` what its audit event says besides; `once` what an Idempotency-Key asked for, once the branch was opened;
    `memories_added` how many memories a write has made.
    """

    __slots__ = (
        "_file", "_headers", "_query", "_raw_query", "body", "held_bytes", "memories_added", "node", "once", "operation", "params",
        "principal", "told",
    )  # fmt: skip

    def __init__(
        self,
        node: Node,
        params: dict[str, str],
        headers: Mapping[bytes, bytes],
        query: bytes,
        *,
        operation: str = "",
    ) -> None:
        self.node = node
        self.params = params
        self.operation = operation
        self.once: Once | None = None
        self.principal = ANONYMOUS
        self.told: dict[str, Any] | None = None
        self._raw_query = query
        self.body = b""
        self.held_bytes = 0
        self.memories_added = 0
        self._file: AsyncIterator[bytes] | None = None
        self._headers = headers
        self._query = _query(query) if query else {}

    @property
    def file(self) -> AsyncIterator[bytes]:
        """The body of a route that takes a file, as it comes."""
        invariant(self._file is not None, "only a route with Body.FILE takes a file")
        return cast("AsyncIterator[bytes]", self._file)

    @property
    def durability(self) -> Durability:
        """The level that the request asks for its write. It may only raise: `local` asks for nothing.

        Raises InvalidRequestError when the header is no level.
        """
        value = self._headers.get(_DURABILITY_HEADER)
        if value is None:
            return Durability.LOCAL
        level = LEVELS.get(value.strip().lower().decode("latin-1"))
        if level is None:
            raise InvalidRequestError("Memoturn-Durability takes `local`, `replicated` or `durable`")
        return level

    @property
    def min_txid(self) -> int:
        """The txid that the answer must reach, 0 without the header. Raises InvalidRequestError."""
        value = self._headers.get(_MIN_TXID_HEADER)
        return 0 if value is None else _integer("Memoturn-Min-Txid", value.strip().decode("latin-1"))

    @property
    def consistency(self) -> Consistency | None:
        """How new a state the request asks for, None where it does not say. Raises InvalidRequestError."""
        value = self._headers.get(_CONSISTENCY_HEADER)
        header = None
        if value is not None:
            try:
                header = Consistency(value.strip().lower().decode("latin-1"))
            except ValueError:
                raise InvalidRequestError("Memoturn-Consistency takes `primary` or `cached`") from None
        return consistency.asked(header, min_txid=self.min_txid)

    @property
    def wants_events(self) -> bool:
        """Whether the client asks for server-sent events."""
        accepted = self._headers.get(b"accept", b"").lower()
        return any(part.split(b";")[0].strip() == b"text/event-stream" for part in accepted.split(b","))

    def tell(self, **facts: object) -> None:
        """Let the request's audit event say so: `count` of what was changed, `resource`, `db`, `branch`; never content."""
        self.told = {**(self.told or {}), **facts}

    def header(self, name: str) -> str | None:
        """Return a header's text without the space around it, None without it."""
        value = self._headers.get(name.lower().encode())
        return None if value is None else value.decode("latin-1").strip()

    def qualified(self, name: str) -> str:
        """Return the qualified name of a database that the request calls `name`, which is checked already."""
        invariant(names.TENANT_SEPARATOR not in name, "a database's own name has no tenant in it", name=name)
        return names.qualified(self.principal.tenant, name)

    def require_surface(self, surface: str) -> None:
        """Raise ForbiddenError where the sender's token keeps it from a surface that only the body or the query asks for."""
        if not self.principal.may_use(surface):
            raise ForbiddenError(f"the token is not for {surface}; ask for one that does, or leave that out")

    def require_every_branch(self) -> None:
        """Raise ForbiddenError where the sender's token is limited to branches, and what follows is about all."""
        if self.principal.grant is not None and self.principal.grant.branches is not None:
            raise ForbiddenError(
                "the token is limited to some branches, and this is about all; ask for one that is not"
            )

    def asks_once(self) -> Once | None:
        """Return what an Idempotency-Key asks for, None without one. Raises InvalidRequestError."""
        key = self._headers.get(_KEY_HEADER)
        if key is not None and self.once is None:
            parts = [part.encode() for part in self.params.values()]
            headers = [b"%b:%b" % (name, self._headers[name]) for name in _MEANING if name in self._headers]
            request = [*parts, *headers, self._raw_query, self.body]
            self.once = parse_once(self.operation, self.principal.name, key, request)
        return self.once

    def applying_once(self, profile: BranchProfile) -> BranchProfile:
        """Return the profile as requests write to it: at the level that is set, and with an Idempotency-Key once.

        Raises InvalidRequestError.
        """
        if profile.rules:
            template = self.operation.partition(" ")[2]
            profile = LeveledProfile(profile, database_settings.surface_of(template, self.params))
        once = self.asks_once()
        return profile if once is None else OnceProfile(profile, once)

    def condition(self, *, weak: bool = False) -> Condition | None:
        """Return what `If-Match` and `If-None-Match` ask for, None without both. Raises InvalidRequestError.

        With `weak`, as a read compares, weak ETags in `If-None-Match` count as well.
        """
        return conditions.of(
            self._tags(_IF_MATCH_HEADER, "If-Match", weak=False),
            self._tags(_IF_NONE_MATCH_HEADER, "If-None-Match", weak=weak),
        )

    def _tags(self, name: bytes, shown: str, *, weak: bool) -> frozenset[str] | None:
        value = self._headers.get(name)
        return None if value is None else conditions.parse_header(value.decode("latin-1"), shown, weak=weak)

    @property
    def metadata(self) -> Any:
        """The JSON value in Memoturn-Meta, None without the header. Raises InvalidRequestError."""
        value = self._headers.get(_META_HEADER)
        return None if value is None else canonical.decode_json(value, where="Memoturn-Meta")

    @property
    def branch(self) -> str:
        """The branch that a memory route addresses: `?branch=`, else `Memoturn-Branch`, else main."""
        value = self.text("branch")
        if value is not None:
            return value
        header = self._headers.get(_BRANCH_HEADER)
        return "main" if header is None else _utf8(header, "Memoturn-Branch")

    @property
    def at(self) -> Revision | None:
        """The past state that a read asks for: `?at=`, else `Memoturn-At`; None for the newest. Raises InvalidRequestError."""
        value = self.text("at")
        if value is None and _AT_HEADER in self._headers:
            value = _utf8(self._headers[_AT_HEADER], "Memoturn-At").strip()
        return None if value is None else revisions.parse(value)

    def text(self, name: str) -> str | None:
        """Return a query value, None when it is absent. Raises InvalidRequestError when it is given twice."""
        values = self._query.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise InvalidRequestError(f"`{name}` is given {len(values)} times in the query; give it once")
        return values[0]

    def integer(self, name: str) -> int | None:
        """Return a query value from 0 to 2^53-1, None when it is absent. Raises InvalidRequestError."""
        value = self.text(name)
        return None if value is None else _integer(f"`{name}`", value)

    def limit(self, name: str, default: int) -> int:
        """Return a query value that counts rows, clamped to 1000. Raises InvalidRequestError."""
        value = self.integer(name)
        return default if value is None else min(value, MAX_LIMIT)

    def flag(self, name: str) -> bool:
        """Return a query value `true`, `1`, `false` or `0`; false when absent. Raises InvalidRequestError."""
        value = self.text(name)
        if value is None:
            return False
        if value not in _TRUTH:
            raise InvalidRequestError(f"`{name}` takes `true` or `false`")
        return _TRUTH[value]

    def decoded(self, decode: Callable[[bytes], T]) -> T:
        """Return the JSON body. Raises InvalidRequestError when there is none."""
        if not self.body:
            raise InvalidRequestError("the body is empty; this route takes a JSON object")
        return decode(self.body)

    async def decoded_large(self, decode: Callable[[bytes], T]) -> T:
        """Like `decoded`, on a thread where the body is so large that others would wait for it."""
        if len(self.body) <= INLINE_BODY_BYTES:
            return self.decoded(decode)
        return await asyncio.to_thread(decode, self.body)

    async def parsed(self, parse: Callable[[Any], T]) -> T:
        """Return what `parse` makes of the JSON body, on a thread where it is large. Raises InvalidRequestError."""
        return await self.decoded_large(lambda body: parse(canonical.decode_json(body)))

    def require_json(self) -> None:
        """Raise UnsupportedMediaError when the body says that it is something else than plain JSON."""
        value = self._headers.get(b"content-type")
        if value:
            media = value.split(b";", 1)[0].strip().lower()
            if media != b"application/json" and not media.endswith(b"+json"):
                raise UnsupportedMediaError("this route takes `Content-Type: application/json`")
        self._refuse_encodings()

    def _refuse_encodings(self) -> None:
        if self._headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
            raise UnsupportedMediaError("encoded bodies are not taken; send it without Content-Encoding")

    def take_file(self, receive: Receive, limit_bytes: int, pace: Pace) -> None:
        """Let `file` yield the body. Raises PayloadTooLargeError where its declared length is too much."""
        declared = self._headers.get(b"content-length")
        if declared is not None and _integer("Content-Length", declared.decode("latin-1")) > limit_bytes:
            raise too_large(limit_bytes)
        self._refuse_encodings()
        self._file = receive_chunks(receive, limit_bytes, pace)

    def stand_in(self, digest: bytes) -> None:
        """Let a hash stand for the body that came as a file, wherever it is asked whether a request is the same."""
        self.body = digest

    async def read_body(self, receive: Receive, limit_bytes: int, memory: BodyMemory) -> None:
        """Read the body into `body`, its bytes taken of `memory`.

        Raises PayloadTooLargeError and OverloadedError, before reading where the length is declared, and
        ClientDisconnect.
        """
        declared = self._headers.get(b"content-length")
        if declared is not None:
            self._hold(_integer("Content-Length", declared.decode("latin-1")), limit_bytes, memory)
        message = await receive()
        if not message.get("more_body") and message["type"] == "http.request":
            self.body = message.get("body", b"")
            self._hold(len(self.body), limit_bytes, memory)
        else:
            self.body = await self._join_body(message, receive, limit_bytes, memory)

    async def _join_body(
        self, message: Message, receive: Receive, limit_bytes: int, memory: BodyMemory
    ) -> bytes:
        body = bytearray()
        while True:
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            self._hold(len(body) + len(chunk), limit_bytes, memory)
            body += chunk
            if not message.get("more_body"):
                return bytes(body)
            message = await receive()

    def _hold(self, size_bytes: int, limit_bytes: int, memory: BodyMemory) -> None:
        """Let the body be of `size_bytes`, of which some may be held already."""
        if size_bytes > limit_bytes:
            raise PayloadTooLargeError(f"the body is over {limit_bytes} bytes; send less at once")
        more_bytes = size_bytes - self.held_bytes
        if more_bytes > 0:
            memory.take(more_bytes)
            self.held_bytes = size_bytes


def decode_part(part: bytes) -> str:
    """Percent-decode one part of a path. Raises InvalidRequestError on NUL and on bytes that are not UTF-8."""
    return _utf8(unquote_to_bytes(part) if b"%" in part else part, "the path")


def headers_of(raw: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return headers by lower-case name. Raises InvalidRequestError when one that carries meaning comes twice."""
    headers = dict(raw)
    if len(headers) != len(raw):
        seen: set[bytes] = set()
        for name, _ in raw:
            if name in seen and name in _ONCE:
                raise InvalidRequestError(f"the header {name.decode('latin-1')} is given twice; give it once")
            seen.add(name)
    return headers


def _query(raw: bytes) -> dict[str, list[str]]:
    values: dict[str, list[str]] = {}
    for pair in raw.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            values.setdefault(_unquote_plus(name), []).append(_unquote_plus(value))
    return values


def _unquote_plus(raw: bytes) -> str:
    return _utf8(unquote_to_bytes(raw.replace(b"+", b" ")), "the query")


def _utf8(raw: bytes, where: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequestError(f"{where} is not valid UTF-8") from error
    if "\0" in text:
        raise InvalidRequestError(f"{where} holds a NUL character")
    return text


def _integer(what: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and (value := int(text)) <= MAX_INTEGER:
        return value
    raise InvalidRequestError(f"{what} must be an integer from 0 to 2^53-1")
