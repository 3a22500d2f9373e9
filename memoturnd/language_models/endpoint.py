"""One provider's address: requests with a bound on how many run and wait, repeats, timeouts, and a bounded answer.

The key goes into a header and nowhere else: neither into logs nor into errors, and never to another host,
because redirects are not followed. What a provider says about a failure is logged, shortened, without the key.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import structlog

from memoturnd.errors import OverloadedError, UpstreamError
from memoturnd.language_models.sse import Event, events_in
from memoturnd.seams.clock import Clock

ATTEMPTS: Final = 3
"""Times that a request is sent where the provider is overloaded, fails or cannot be reached."""
BACKOFF_S: Final = 0.5
RETRY_AFTER_LIMIT_S: Final = 10.0
"""Longest time to wait because a provider asks for it; one that asks for more has failed."""
CONNECT_S: Final = 5.0
SILENCE_S: Final = 60.0
"""Longest time without a byte of an answer that is streamed; one that comes whole has its caller's time."""
ANSWER_LIMIT_BYTES: Final = 4 * 1024 * 1024
WAITING_PER_CALL: Final = 8
"""Calls that may wait for one that runs."""

_REPEATED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_SHOWN: Final = 300
_log = structlog.get_logger(__name__)


class RefusedError(UpstreamError):
    """The provider turns down the request itself (400, 422), as it does for what its model does not know."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a provider is and who asks. `what` is named in errors: the feature and its settings."""

    url: str
    headers: Mapping[str, str]
    what: str

    def __repr__(self) -> str:
        return f"Address({self.url!r})"


class Response:
    """An accepted request: its answer is read whole or by events, then closed. `close` may be called twice."""

    def __init__(self, response: aiohttp.ClientResponse, address: Address, gate: "Gate") -> None:
        self._response = response
        self._address = address
        self._gate: Gate | None = gate

    async def json(self) -> Any:
        """Return the answer's JSON. Raises UpstreamError."""
        try:
            body = bytearray()
            async for chunk in self._response.content.iter_any():
                body += chunk
                if len(body) > ANSWER_LIMIT_BYTES:
                    raise UpstreamError(f"{self._address.what} answered over {ANSWER_LIMIT_BYTES} bytes")
            return json.loads(body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _broken(self._address, error) from error
        except (ValueError, RecursionError) as error:
            raise UpstreamError(f"{self._address.what} answered what is no JSON") from error
        finally:
            self.close()

    async def events(self) -> AsyncIterator[Event]:
        """Yield the answer's server-sent events. Raises UpstreamError."""
        try:
            async for event in events_in(self._response.content.iter_any(), ANSWER_LIMIT_BYTES):
                yield event
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _broken(self._address, error) from error
        except ValueError as error:
            raise UpstreamError(f"{self._address.what} sent a stream that cannot be read: {error}") from error

    def close(self) -> None:
        """Give back the connection, and the place among the calls."""
        self._response.close()
        if self._gate is not None:
            self._gate.leave()
            self._gate = None


class Gate:
    """Lets so many calls run at once, and so many more wait. `called` is told of each attempt, and its seconds."""

    def __init__(
        self, running: int, called: Callable[[str, float], None] = lambda _outcome, _seconds: None
    ) -> None:
        self.called = called
        self._slots = asyncio.Semaphore(running)
        self._waiting_limit = running * WAITING_PER_CALL
        self._waiting = 0

    async def enter(self) -> None:
        """Wait for a place. Raises OverloadedError when too many wait."""
        if self._slots.locked() and self._waiting >= self._waiting_limit:
            raise OverloadedError(f"{self._waiting} calls of language models are waiting; try again later")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1

    def leave(self) -> None:
        """Give a place back."""
        self._slots.release()


class Endpoint:
    """Sends requests to one address."""

    def __init__(self, address: Address, gate: Gate, clock: Clock) -> None:
        self.address = address
        self._gate = gate
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def post(self, body: Mapping[str, Any], *, stream: bool) -> Response:
        """Send a request and return its answer once it is accepted. The caller closes it.

        Raises UpstreamError, RefusedError where the request itself is turned down, OverloadedError.
        """
        await self._gate.enter()
        try:
            response = await self._accepted(
                json.dumps(body, ensure_ascii=False).encode(errors="replace"), stream=stream
            )
        except BaseException:
            self._gate.leave()
            raise
        return Response(response, self.address, self._gate)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _accepted(self, data: bytes, *, stream: bool) -> aiohttp.ClientResponse:
        for attempt in range(1, ATTEMPTS + 1):
            pause_s, begun_s = BACKOFF_S * 2 ** (attempt - 1), self._clock.monotonic_s()
            try:
                response = await self._send(data, stream=stream)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failure = _broken(self.address, error)
                self._gate.called("failed", self._clock.monotonic_s() - begun_s)
            else:
                is_well = response.status == 200  # noqa: PLR2004 - the only status of success that the protocols have
                self._gate.called("ok" if is_well else "refused", self._clock.monotonic_s() - begun_s)
                if is_well:
                    return response
                failure, asked_s = await self._failure(response)
                if response.status not in _REPEATED or asked_s > RETRY_AFTER_LIMIT_S:
                    raise failure
                pause_s = max(pause_s, asked_s)
            if attempt == ATTEMPTS:
                raise failure
            await self._clock.sleep(pause_s)
        raise failure

    async def _send(self, data: bytes, *, stream: bool) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=CONNECT_S, sock_read=SILENCE_S if stream else None
        )
        headers = {"content-type": "application/json", **self.address.headers}
        return await self._session.post(
            self.address.url, data=data, headers=headers, allow_redirects=False, timeout=timeout
        )

    async def _failure(self, response: aiohttp.ClientResponse) -> tuple[UpstreamError, float]:
        """Return what a status of failure means, and the seconds that the provider asks to wait."""
        status = response.status
        try:
            said = (await response.content.read(2000)).decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError):
            said = ""
        finally:
            response.close()
        for secret in self.address.headers.values():
            said = said.replace(secret.removeprefix("Bearer "), "...")
        _log.warning(
            "model_refused", what=self.address.what, url=self.address.url, status=status, said=said[:_SHOWN]
        )
        text = f"{self.address.what} answered {status}"
        if status in (401, 403):
            return UpstreamError(f"{text}: check its API key at the node"), 0
        if status in (400, 422):
            return RefusedError(f"{text}: it does not take the request; the node's log has what it said"), 0
        if status not in _REPEATED:
            return UpstreamError(f"{text}: check its model and base URL at the node"), 0
        return UpstreamError(f"{text}; try again later"), _seconds(response.headers.get("retry-after", ""))


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.replace(".", "", 1).isdigit() else 0.0


def _broken(address: Address, error: Exception) -> UpstreamError:
    why = "took too long" if isinstance(error, TimeoutError) else "cannot be reached, or broke off"
    _log.warning(
        "model_unreachable", what=address.what, url=address.url, error=f"{type(error).__name__}: {error}"
    )
    return UpstreamError(f"{address.what} {why}; try again later")
