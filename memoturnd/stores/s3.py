"""An object store in an S3 bucket, through aiobotocore: AWS S3, MinIO, Ceph RGW and others of that dialect.

Two clients, because a retry means two things. Immutable objects may be sent again, so their client retries. A
conditional write may not: when the reply to the first copy is lost, the second one meets our own object and is
told that the race is lost. Its client sends once, and says `Unknown` where it heard nothing.

    S3Store(Location("s3", "bucket", "prefix/"), connections=32)

Credentials, region, endpoint and certificates come from the standard AWS_* settings. The clients are made at the
first request. An etag is passed on as the store gave it, except that Ceph RGW wants it without its quotes: which
of the two a store takes is learnt from the first swap that needs it, and the probe at start is one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)
from botocore.handlers import add_expect_header

from memoturnd.errors import StoreRefusedError, StoreUnavailableError
from memoturnd.seams.object_store import (
    Blob,
    Committed,
    Lost,
    ObjectInfo,
    ObjectMissingError,
    SwapResult,
    Unknown,
)
from memoturnd.stores.aws_settings import bundle_of, endpoint_of, region_of, shown, unusable
from memoturnd.stores.keys import check_key, check_prefix, check_range
from memoturnd.stores.location import Location
from memoturnd.stores.repeat import put_again
from memoturnd.stores.s3_answers import Answer, EtagDialect, hint, meaning

T = TypeVar("T")

CONNECT_S = 2.0
READ_S = 3.0
"""Longest silence within a request that may be sent again."""
ATTEMPTS = 3
SWAP_READ_S = 8.0
"""Longest wait for the answer to a conditional write, below the node's own limit for a request."""
PAGE_KEYS = 1000


class _SendOnceSession(AIOHTTPSession):  # type: ignore[misc]
    """An HTTP session that sends each request once.

    aiohttp sends a PUT a second time by itself when the connection breaks before the answer, below all
    settings of the client above it.
    """

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        session._retry_connection = False  # noqa: SLF001 - there is no public switch; the fault tests hold it
        return session


@dataclass(frozen=True, slots=True)
class _Clients:
    """`once` is for conditional writes, `again` for everything that may be repeated."""

    once: Any
    again: Any
    endpoint: str


class S3Store:
    """Objects of one bucket below one prefix. `connections` is the size of each client's pool."""

    def __init__(self, location: Location, *, connections: int = 32) -> None:
        self._location = location
        self._connections = connections
        self._opening = asyncio.Lock()
        self._exits = AsyncExitStack()
        self._opened: _Clients | None = None
        self._dialect = EtagDialect()

    async def get(self, key: str) -> Blob:
        """Return the whole object. Raises ObjectMissingError, StoreUnavailableError."""
        check_key(key)
        return await self._read(key, {})

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length), fewer only where the object ends. Raises ObjectMissingError."""
        check_key(key)
        check_range(key, start, length)
        # S3 has no empty range: one byte is read, and only tells whether there is an object.
        last = start + max(length, 1) - 1
        try:
            blob = await self._read(key, {"Range": f"bytes={start}-{last}"})
        except _BeyondEndError:
            return b""
        return blob.data[:length]

    async def put(self, key: str, data: bytes) -> None:
        """Write an immutable object. Raises StoreUnavailableError."""
        check_key(key)
        await put_again(
            lambda: self._call("put", key, lambda c: c.again.put_object(**self._named(key), Body=data))
        )

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object; Lost when the key exists."""
        check_key(key)
        return await self._put_once(key, data, {"IfNoneMatch": "*"})

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`; Lost when another stands. Raises ObjectMissingError.

        A store may say "lost" also for an object that is not there, and for an etag that it wants spelled
        otherwise, so that answer is checked by a look at the object.
        """
        check_key(key)
        for spelled in self._dialect.spellings(etag):
            result = await self._put_once(key, data, {"IfMatch": spelled})
            if isinstance(result, Committed):
                self._dialect.took(spelled)
            if not isinstance(result, Lost) or await self._standing_etag(key) != etag:
                return result
        return Lost()

    async def delete(self, key: str) -> None:
        """Remove the object; no error when it is already gone."""
        check_key(key)
        try:
            await self._call("delete", key, lambda c: c.again.delete_object(**self._named(key)))
        except ObjectMissingError:
            return

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order, a page at a time."""
        check_prefix(prefix)
        page: dict[str, Any] = {"NextContinuationToken": ""}
        while (token := page.get("NextContinuationToken")) is not None:
            asked = {"ContinuationToken": token} if token else {}
            page = await self._list_page(prefix, asked)
            for row in page.get("Contents", ()):
                key = self._location.relative(row["Key"])
                if key is not None:
                    yield ObjectInfo(key, row["Size"], int(row["LastModified"].timestamp() * 1000))

    async def close(self) -> None:
        """Close both clients and their connections. Safe to repeat."""
        self._opened = None
        await self._exits.aclose()

    # ---- requests

    def _named(self, key: str) -> dict[str, Any]:
        return {"Bucket": self._location.bucket, "Key": self._location.key(key)}

    async def _list_page(self, prefix: str, asked: dict[str, str]) -> dict[str, Any]:
        return await self._call(
            "list",
            prefix,
            lambda c: c.again.list_objects_v2(
                Bucket=self._location.bucket,
                Prefix=self._location.key(prefix),
                MaxKeys=PAGE_KEYS,
                **asked,
            ),
        )

    async def _read(self, key: str, asked: dict[str, str]) -> Blob:
        """Return the body of a GET. The client retries until the headers came; a body cut off is up to us."""

        async def fetch(clients: _Clients) -> Blob:
            for attempt in range(1, ATTEMPTS + 1):
                answer = await clients.again.get_object(**self._named(key), **asked)
                try:
                    async with answer["Body"] as body:
                        return Blob(await body.read(), answer["ETag"])
                except _CUT_OFF:
                    if attempt == ATTEMPTS:
                        raise
            raise AssertionError("unreachable")

        return await self._call("get", key, fetch)

    async def _put_once(self, key: str, data: bytes, condition: dict[str, str]) -> SwapResult:
        clients = await self._clients()
        try:
            answer = await clients.once.put_object(**self._named(key), Body=data, **condition)
        except ClientError as error:
            said = _said(error)
            match said.meaning:
                case Answer.LOST:
                    return Lost()
                case Answer.MISSING:
                    raise self._missing(key) from None
                case Answer.CONFLICT | Answer.UNCLEAR:
                    return Unknown(f"the store answered {said.status} {said.code}")
                case _:
                    raise self._refused("conditional put", said, clients) from None
        except _BROKEN as error:
            return Unknown(_broken(error, clients.endpoint))
        except BotoCoreError as error:
            raise unusable(error) from None
        return Committed(answer["ETag"])

    async def _standing_etag(self, key: str) -> str | None:
        """Return the etag that stands, None when there is no telling now. Raises ObjectMissingError."""
        try:
            answer = await self._call(
                "head", key, lambda c: c.again.head_object(**self._named(key)), bodiless=True
            )
        except StoreUnavailableError:
            return None
        etag: str = answer["ETag"]
        return etag

    async def _call(
        self,
        operation: str,
        key: str,
        request: Callable[[_Clients], Awaitable[T]],
        *,
        bodiless: bool = False,
    ) -> T:
        """Make a request that may be repeated. Raises ObjectMissingError, StoreUnavailableError."""
        clients = await self._clients()
        try:
            return await request(clients)
        except ClientError as error:
            said = _said(error, bodiless=bodiless)
            match said.meaning:
                case Answer.MISSING:
                    raise self._missing(key) from None
                case Answer.BEYOND:
                    raise _BeyondEndError from None
                case Answer.REFUSED:
                    raise self._refused(operation, said, clients) from None
                case _:
                    raise StoreUnavailableError(
                        f"the object store answered {said.status} {said.code} to {operation} {key}; try again"
                    ) from None
        except _BROKEN as error:
            raise StoreUnavailableError(
                f"{operation} {key}: {_broken(error, clients.endpoint)}; try again"
            ) from None
        except BotoCoreError as error:
            raise unusable(error) from None

    def _missing(self, key: str) -> ObjectMissingError:
        return ObjectMissingError(f"no object {key!r} in {self._location}")

    def _refused(self, operation: str, said: "_Said", clients: _Clients) -> StoreRefusedError:
        return StoreRefusedError(
            f"{clients.endpoint} refused a {operation} in {self._location} with {said.status} {said.code}: "
            f"{hint(said.status, said.code)}"
        )

    # ---- clients

    async def _clients(self) -> _Clients:
        if self._opened is None:
            async with self._opening:
                if self._opened is None:
                    self._opened = await self._open()
        return self._opened

    async def _open(self) -> _Clients:
        try:
            session = AioSession()
            bundle_of(
                session
            )  # the client itself would say at the first request only that it could not connect
            again = await self._client(session, _config(self._connections, ATTEMPTS, READ_S))
            once = await self._client(session, _once_config(self._connections))
        except (BotoCoreError, StoreRefusedError, ValueError) as error:
            await self._exits.aclose()
            raise unusable(error) from None
        return _Clients(once=once, again=again, endpoint=shown(again.meta.endpoint_url))

    async def _client(self, session: AioSession, config: AioConfig) -> Any:
        client = await self._exits.enter_async_context(
            session.create_client(
                "s3", region_name=region_of(session), endpoint_url=endpoint_of(session), config=config
            )
        )
        # Asking first whether the body is welcome costs a round trip, and nothing bounds the wait for the answer.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client


class _BeyondEndError(Exception):
    """The range asked for starts behind the object's end."""


@dataclass(frozen=True, slots=True)
class _Said:
    status: int
    code: str
    meaning: Answer


_CUT_OFF = (aiohttp.ClientError, HTTPClientError, TimeoutError, OSError)
_BROKEN = (*_CUT_OFF, EndpointConnectionError, ConnectionClosedError)
"""What a request ends with that got no whole answer. botocore's timeouts and TLS failures are HTTPClientErrors."""


def _said(error: ClientError, *, bodiless: bool = False) -> _Said:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code", ""))[:64]
    return _Said(status, code, meaning(status, code, bodiless=bodiless))


def _broken(error: BaseException, endpoint: str) -> str:
    """Say how a request broke, without the library's text: that quotes URLs."""
    match error:
        case EndpointConnectionError():
            return f"no connection to {endpoint} (check AWS_ENDPOINT_URL, and that the store runs)"
        case ConnectTimeoutError():
            return f"no connection to {endpoint} within {CONNECT_S:g} s"
        case SSLError():
            return f"no TLS connection to {endpoint} (check the certificate and AWS_CA_BUNDLE)"
        case ReadTimeoutError() | TimeoutError():
            return f"no answer from {endpoint} in time"
        case _:
            return f"the connection to {endpoint} broke"


def _config(connections: int, attempts: int, read_s: float, **more: Any) -> AioConfig:
    return AioConfig(
        connect_timeout=CONNECT_S,
        read_timeout=read_s,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        max_pool_connections=connections,
        s3={"addressing_style": "path"},
        # Segments and snapshots carry checksums of their own, which survive the store too.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **more,
    )


def _once_config(connections: int) -> AioConfig:
    return _config(connections, 1, SWAP_READ_S, http_session_cls=_SendOnceSession)
