"""An object store in a bucket, through obstore (Rust): Google Cloud Storage, Azure Blob Storage, and S3.

The outcomes are those of `memoturnd.stores.s3`, and so is the rule of two clients: conditional writes are sent
once. A request takes about a quarter of the client's processor time that aiobotocore takes.

An etag of the seam is what the store names a version by in a condition: the etag, for Google the generation.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import AzureStore, GCSStore, S3Store

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
from memoturnd.stores.keys import check_key, check_prefix, check_range
from memoturnd.stores.location import Location
from memoturnd.stores.repeat import put_again
from memoturnd.stores.s3_answers import Answer, EtagDialect, hint, meaning

T = TypeVar("T")

CONNECT_S = 2.0
READ_S = 3.0
RETRIES = 2
SWAP_S = 8.0
WHOLE_S = 10.0
PAGE_KEYS = 1000
_CREDENTIALS_S = 300
"""How long credentials that renew themselves are used before they are asked for again."""
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w{1,64})</Code>")
_GONE = re.compile(r"Bulk delete request failed for key .*\(code: 404\)")
_BEYOND = re.compile(r"Wanted range starting at \d+, but object was only")
"""What obstore says by itself about an answer of Azure."""
_KIND = re.compile(r"kind: (Connect|Timeout)\b")
_BROKEN = {
    "Connect": "no connection to the store (check the endpoint, and that the store runs)",
    "Timeout": "no answer from the store in time",
}
_FAILURES = (BaseError, FileNotFoundError, PermissionError, ValueError, OSError)


@dataclass(frozen=True, slots=True)
class _Clients:
    """`once` is for conditional writes, `again` for everything that may be repeated."""

    once: Any
    again: Any


class ObstoreStore:
    """Objects of one bucket below one prefix. At most `connections` requests are under way."""

    def __init__(self, location: Location, *, connections: int = 32) -> None:
        self._location = location
        self._places = asyncio.Semaphore(connections)
        self._connections = connections
        self._opening = asyncio.Lock()
        self._opened: _Clients | None = None
        self._dialect = EtagDialect()
        self._version = "version" if location.scheme == "gs" else "e_tag"

    async def get(self, key: str) -> Blob:
        """Return the whole object. Raises ObjectMissingError, StoreUnavailableError."""
        check_key(key)

        async def read(clients: _Clients) -> Blob:
            answer = await clients.again.get_async(self._location.key(key))
            return Blob(bytes(await answer.bytes_async()), answer.meta[self._version])

        return await self._call("get", key, read)

    async def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return bytes [start, start+length), fewer only where the object ends. Raises ObjectMissingError."""
        check_key(key)
        check_range(key, start, length)
        try:
            # There is no empty range: one byte is read, and only tells whether there is an object.
            data = await self._call(
                "get",
                key,
                lambda c: c.again.get_range_async(
                    self._location.key(key), start=start, length=max(length, 1)
                ),
            )
        except _BeyondEndError:
            return b""
        return bytes(data)[:length]

    async def put(self, key: str, data: bytes) -> None:
        """Write an immutable object. Raises StoreUnavailableError."""
        check_key(key)
        await put_again(
            lambda: self._call(
                "put", key, lambda c: c.again.put_async(self._location.key(key), data, use_multipart=False)
            )
        )

    async def put_if_absent(self, key: str, data: bytes) -> SwapResult:
        """Create the object; Lost when the key exists."""
        check_key(key)
        return await self._put_once(key, data, "create")

    async def put_if_match(self, key: str, data: bytes, etag: str) -> SwapResult:
        """Replace exactly the version `etag`; Lost when another stands. Raises ObjectMissingError."""
        check_key(key)
        for spelled in self._dialect.spellings(etag):
            result = await self._put_once(key, data, {self._version: spelled})
            if isinstance(result, Committed):
                self._dialect.took(spelled)
            if not isinstance(result, Lost) or await self._standing_etag(key) != etag:
                return result
        return Lost()

    async def delete(self, key: str) -> None:
        """Remove the object; no error when it is already gone."""
        check_key(key)
        try:
            await self._call("delete", key, lambda c: c.again.delete_async(self._location.key(key)))
        except ObjectMissingError:
            return

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Yield every object whose key starts with `prefix`, in key order, a page at a time.

        obstore lists folders alone, so a prefix that ends inside a name lists its folder and leaves out the rest.
        """
        check_prefix(prefix)
        folder = self._location.key(prefix).rpartition("/")[0]
        clients = await self._clients()
        pages = aiter(obstore.list(clients.again, folder or None, chunk_size=PAGE_KEYS))
        while (page := await self._call("list", prefix, lambda _: anext(pages, None))) is not None:
            for row in page:
                key = self._location.relative(row["path"])
                if key is not None and key.startswith(prefix):
                    yield ObjectInfo(key, row["size"], int(row["last_modified"].timestamp() * 1000))

    async def close(self) -> None:
        """Let go of the clients; their connections go with them."""
        self._opened = None

    # ---- requests

    async def _put_once(self, key: str, data: bytes, mode: str | dict[str, str]) -> SwapResult:
        clients = await self._clients()
        try:
            async with self._places:
                answer = await clients.once.put_async(
                    self._location.key(key), data, mode=mode, use_multipart=False
                )
        except _FAILURES as error:
            said = _said(error)
            match said.meaning:
                case Answer.LOST:
                    return Lost()
                case Answer.MISSING:
                    raise self._missing(key) from None
                case Answer.REFUSED:
                    raise self._refused("conditional put", said) from None
                case _:
                    return Unknown(said.text)
        return Committed(answer[self._version])

    async def _standing_etag(self, key: str) -> str | None:
        """Return the etag that stands, None when there is no telling now. Raises ObjectMissingError."""
        try:
            meta = await self._call(
                "head", key, lambda c: c.again.head_async(self._location.key(key)), bodiless=True
            )
        except StoreUnavailableError:
            return None
        etag: str | None = meta[self._version]
        return etag

    async def _call(
        self,
        operation: str,
        key: str,
        request: Callable[[_Clients], Awaitable[T]],
        *,
        bodiless: bool = False,
    ) -> T:
        clients = await self._clients()
        try:
            async with self._places:
                return await request(clients)
        except _FAILURES as error:
            said = _said(error, bodiless=bodiless)
        match said.meaning:
            case Answer.MISSING:
                raise self._missing(key)
            case Answer.BEYOND:
                raise _BeyondEndError
            case Answer.REFUSED:
                raise self._refused(operation, said)
            case _:
                raise StoreUnavailableError(f"{operation} {key} in {self._location}: {said.text}; try again")

    def _missing(self, key: str) -> ObjectMissingError:
        return ObjectMissingError(f"no object {key!r} in {self._location}")

    def _refused(self, operation: str, said: "_Said") -> StoreRefusedError:
        return StoreRefusedError(
            f"the store refused a {operation} in {self._location} with {said.status} {said.code}: "
            f"{hint(said.status, said.code)}"
        )

    # ---- clients

    async def _clients(self) -> _Clients:
        if self._opened is None:
            async with self._opening:
                if self._opened is None:
                    # Reads configuration files, and may ask the machine for its role.
                    self._opened = await asyncio.to_thread(self._open)
        return self._opened

    def _open(self) -> _Clients:
        try:
            make: Any = {"s3": _s3, "gs": GCSStore, "az": AzureStore}[self._location.scheme]
            return _Clients(
                once=make(self._location.bucket, **_options(0, timeout=SWAP_S)),
                again=make(self._location.bucket, **_options(RETRIES, timeout=WHOLE_S, read_timeout=READ_S)),
            )
        except _FAILURES as error:
            raise StoreRefusedError(
                f"object store {self._location}: the settings do not work ({type(error).__name__}): "
                "check the endpoint and the credentials"
            ) from None


class _BeyondEndError(Exception):
    """The range asked for starts behind the object's end."""


@dataclass(frozen=True, slots=True)
class _Said:
    status: int
    code: str
    meaning: Answer
    text: str


def _said(error: Exception, *, bodiless: bool = False) -> _Said:
    """Read status and code out of an error's text, which is the only place that has them.

    The text itself is not passed on: it quotes the request.
    """
    text = str(error)
    found, coded = _STATUS.search(text), _CODE.search(text)
    if _GONE.search(text) is not None:
        return _Said(404, "", Answer.MISSING, "no such object")
    if _BEYOND.search(text) is not None:
        return _Said(416, "", Answer.BEYOND, "the object has ended")
    if found is None:
        lost = isinstance(error, AlreadyExistsError | PreconditionError)
        kind = _KIND.search(text)
        broke = _BROKEN.get(kind[1] if kind else "", "the connection to the store broke")
        return _Said(0, "", Answer.LOST if lost else Answer.UNCLEAR, broke)
    status, code = int(found[1]), coded[1] if coded else ""
    return _Said(
        status, code, meaning(status, code, bodiless=bodiless), f"the store answered {status} {code}".rstrip()
    )


def _options(retries: int, **seconds: float) -> dict[str, Any]:
    timeouts = {name: timedelta(seconds=value) for name, value in seconds.items()}
    return {
        "client_options": {
            "connect_timeout": timedelta(seconds=CONNECT_S),
            "allow_http": True,  # an endpoint that says http:// is meant so
            **timeouts,
        },
        "retry_config": {"max_retries": retries, "retry_timeout": timedelta(seconds=WHOLE_S)},
    }


def _s3(bucket: str, **options: Any) -> S3Store:
    """Return an S3 client with the standard AWS_* settings, read by botocore as for the other S3 client."""
    from botocore.credentials import RefreshableCredentials
    from botocore.exceptions import BotoCoreError, NoCredentialsError
    from botocore.session import Session

    from memoturnd.stores.aws_settings import bundle_of, endpoint_of, region_of, unusable

    try:
        session = Session()
        credentials = session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        if endpoint := endpoint_of(session):
            options["endpoint"] = endpoint
        if bundle := bundle_of(session):
            options["client_options"]["root_certificate"] = bundle
        options["region"] = region_of(session)
    except BotoCoreError as error:
        raise unusable(error) from None
    renewing = isinstance(credentials, RefreshableCredentials)

    async def provide() -> Any:
        frozen = await asyncio.to_thread(credentials.get_frozen_credentials)
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=_CREDENTIALS_S) if renewing else None,
        }

    return S3Store(
        bucket,
        credential_provider=provide,
        disable_bulk_delete=True,
        virtual_hosted_style_request=False,
        **options,
    )
