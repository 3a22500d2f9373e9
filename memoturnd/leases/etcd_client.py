"""etcd over its JSON gateway: calls and watches, at whichever of several endpoints answers.

The gateway is etcd's own translation of its gRPC interface (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway): bytes
travel as base64, 64-bit numbers as text, and what is zero, empty or false is left out.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import aiohttp
import msgspec

from memoturnd.errors import OverloadedError, RetryableError

MOST_CONNECTIONS: Final = 64
MOST_CALLS: Final = 32
"""Calls at once; more wait within their own time. What keeps a lease does not wait for them."""
MOST_MESSAGE_BYTES: Final = 64 * 1024 * 1024
"""Of one message of a watch: far above what a server sends at once."""


SILENT_S: Final = 900.0
"""Etcd speaks on an idle watch every ten minutes: one that is silent for longer was cut off without a word."""


class EtcdUnavailableError(RetryableError):
    """No endpoint answered in time. What was asked may have been done."""


class EtcdRefusedError(RetryableError):
    """The server turns the node away: wrong name, password or role. Nothing was done."""


class LeaseGoneError(RetryableError):
    """The lease that a call named is not there any more."""


class CompactedError(RetryableError):
    """The revision that was asked for is not kept any more."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where the members are (`http://HOST:PORT`), and how to be let in."""

    urls: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    ca_file: str | None = None


def endpoints(setting: str, ca_file: Path | None) -> Endpoints:
    """Return what MEMOTURN_ETCD (`http(s)://[USER:PASSWORD@]HOST:PORT,HOST:PORT...`) and the file of its CA name."""
    scheme, _, rest = setting.partition("://")
    credential, _, hosts = rest.rpartition("@")
    user, _, password = credential.partition(":")
    urls = tuple(f"{scheme}://{host}" for host in hosts.split(","))
    return Endpoints(urls, unquote(user), unquote(password), None if ca_file is None else str(ca_file))


class EtcdClient:
    """Calls within `timeout_s`, at the endpoint that answered last; one that fails is left for the next."""

    def __init__(self, endpoints: Endpoints, *, timeout_s: float) -> None:
        self._endpoints = endpoints
        self._timeout_s = timeout_s
        # Half of a call's time is left for another endpoint.
        self._attempt_s = timeout_s if len(endpoints.urls) == 1 else timeout_s / 2
        self._at = 0
        self._token: str | None = None
        self._slots = asyncio.Semaphore(MOST_CALLS)
        self._session: aiohttp.ClientSession | None = None

    async def call(self, path: str, body: Mapping[str, Any], *, is_urgent: bool = False) -> dict[str, Any]:
        """POST to `/v3/{path}` and return the answer. May be done twice where the first answer was lost.

        Raises EtcdUnavailableError, EtcdRefusedError, LeaseGoneError, CompactedError; OverloadedError where an `is_urgent`
        one would have been sent.
        """
        sent = is_urgent
        try:
            async with asyncio.timeout(self._timeout_s):
                if is_urgent:
                    return await self._call(path, body)
                async with self._slots:
                    sent = True
                    return await self._call(path, body)
        except TimeoutError as error:
            if not sent:
                raise OverloadedError(
                    f"{MOST_CALLS} calls of etcd are under way, and none ended within {self._timeout_s:g} s; try again"
                ) from error
            self._leave(self._at)
            raise EtcdUnavailableError(
                f"etcd did not answer {path} within {self._timeout_s:g} s: {self._told()}"
            ) from error

    async def watch(
        self, key: str, end: str, *, from_revision: int, silence_s: float
    ) -> AsyncGenerator[list[dict[str, Any]], None]:
        """Yield the events of keys from `key` to below `end`, some at a time, as etcd gives them.

        A silent stream is not known to be alive: after `silence_s` its endpoint is asked whether it still is of the
        cluster. Raises EtcdUnavailableError where it is not, CompactedError, EtcdRefusedError.
        """
        at = self._at
        create = {
            "key": key,
            "range_end": end,
            "start_revision": str(from_revision),
            "prev_kv": True,
            "progress_notify": True,
        }
        try:
            async with asyncio.timeout(
                self._attempt_s
            ):  # the stream itself may be as long and as silent as it likes
                answer = await self._open().post(
                    self._url(at, "watch"),
                    json={"create_request": create},
                    headers=await self._headers(at),
                )
            async with answer:
                lines = _lines(answer.content)
                following: asyncio.Task[bytes] | None = None
                silent_s = 0.0
                try:
                    while True:
                        following = following or asyncio.ensure_future(anext(lines, b""))
                        done, _ = await asyncio.wait({following}, timeout=silence_s)
                        if not done and silent_s < SILENT_S:
                            silent_s += silence_s
                            await self._ping(at)
                            continue
                        line = following.result() if done else b""
                        following, silent_s = (None, 0.0) if done else (following, silent_s)
                        if not line:
                            raise EtcdUnavailableError(f"etcd at {self._endpoints.urls[at]} ended a watch")
                        events = self._events(msgspec.json.decode(line), answer.status)
                        if events:
                            yield events
                finally:
                    if following is not None:
                        following.cancel()
                        await asyncio.gather(following, return_exceptions=True)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, msgspec.MsgspecError) as error:
            self._leave(at)
            raise EtcdUnavailableError(
                f"the watch of etcd at {self._endpoints.urls[at]} broke: {error or type(error).__name__}"
            ) from error
        except EtcdUnavailableError:
            self._leave(at)
            raise

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _call(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Go round the endpoints until one answers, or the caller's time is up."""
        rounds = 0
        while True:
            at = self._at
            try:
                return await self._attempt(at, path, body)
            except (aiohttp.ClientError, TimeoutError, OSError, EtcdUnavailableError) as error:
                self._leave(at)
                rounds += 1
                if rounds >= 2 * len(self._endpoints.urls):
                    raise EtcdUnavailableError(
                        f"no endpoint of etcd answers {path} ({error or type(error).__name__}): {self._told()}"
                    ) from error
                if rounds % len(self._endpoints.urls) == 0:
                    await asyncio.sleep(self._timeout_s / 20)  # all of them: a leader is being chosen

    async def _attempt(self, at: int, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        for again in (True, False):
            async with (
                asyncio.timeout(self._attempt_s),
                self._open().post(self._url(at, path), json=body, headers=await self._headers(at)) as answer,
            ):
                text = await answer.read()
            try:
                return self._told_by(answer.status, msgspec.json.decode(text))
            except msgspec.MsgspecError as error:
                raise EtcdUnavailableError(f"{answer.status} {text[:200]!r}") from error
            except EtcdRefusedError:
                if not (again and self._token):
                    raise
                self._token = None  # tokens end: after minutes, and with every restart of a server
        raise AssertionError("unreachable")

    def _told_by(self, status: int, answer: Any) -> dict[str, Any]:
        """Return an answer, or raise what its error says."""
        if not isinstance(answer, dict):
            raise EtcdUnavailableError(f"{status}: no JSON object")
        failure = answer.get("error")
        if status == 200 and failure is None:  # noqa: PLR2004
            return answer
        if isinstance(failure, dict):  # as streams have it
            code, said = failure.get("grpc_code", failure.get("code")), failure.get("message")
        else:
            code, said = answer.get("code"), failure
        match code:
            case 5:
                raise LeaseGoneError(f"etcd: {said}")
            case 11:
                raise CompactedError(f"etcd: {said}")
            case 3 | 7 | 9 | 16:
                raise EtcdRefusedError(
                    f"etcd refuses the node: {said}; look at the name, the password and the role in MEMOTURN_ETCD"
                )
            case _:
                raise EtcdUnavailableError(f"etcd: {status} {said}")

    def _events(self, message: dict[str, Any], status: int) -> list[dict[str, Any]]:
        result = self._told_by(status, message).get("result", {})
        if "compact_revision" in result:
            raise CompactedError(f"etcd has compacted up to revision {result['compact_revision']}")
        if result.get("canceled"):
            raise EtcdUnavailableError(f"etcd cancelled a watch: {result.get('cancel_reason', 'no reason')}")
        found: list[dict[str, Any]] = result.get("events", [])
        return found

    async def _ping(self, at: int) -> None:
        """Return if the endpoint takes part in its cluster. Raises EtcdUnavailableError, TimeoutError, ClientError."""
        await self._attempt(at, "kv/range", {"key": "AA==", "count_only": True})

    async def _headers(self, at: int) -> dict[str, str]:
        """Return what lets the node in; a token is had first where there is a name."""
        # A member that has lost its leader then ends a watch.
        headers = {"Grpc-Metadata-hasleader": "true"}
        if not self._endpoints.user:
            return headers
        if not self._token:
            credential = {"name": self._endpoints.user, "password": self._endpoints.password}
            async with (
                asyncio.timeout(self._attempt_s),
                self._open().post(self._url(at, "auth/authenticate"), json=credential) as answer,
            ):
                told = self._told_by(answer.status, await answer.json(content_type=None))
            self._token = str(told["token"])
        return headers | {"Authorization": self._token}

    def _url(self, at: int, path: str) -> str:
        return f"{self._endpoints.urls[at]}/v3/{path}"

    def _leave(self, at: int) -> None:
        """Go on at the next endpoint, unless another call has done so."""
        if self._at == at:
            self._at = (at + 1) % len(self._endpoints.urls)

    def _told(self) -> str:
        return f"see that it runs at {', '.join(self._endpoints.urls)}, and has a leader"

    def _open(self) -> aiohttp.ClientSession:
        """Return the session, which can only be made while the event loop runs."""
        if self._session is None:
            context = True if self._endpoints.ca_file is None else _context(self._endpoints.ca_file)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MOST_CONNECTIONS, ssl=context),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._attempt_s),
            )
        return self._session


def _context(ca_file: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_file)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, of whatever length: one message of a watch is one line. Raises ValueError."""
    parts: list[bytes] = []
    size_bytes = 0
    async for chunk in content.iter_any():
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join([*parts, end])
            parts, size_bytes = [], 0
            if line:
                yield line
        if rest:
            parts.append(rest)
            size_bytes += len(rest)
            if size_bytes > MOST_MESSAGE_BYTES:
                raise ValueError("a message of a watch is too large")
