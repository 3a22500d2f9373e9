"""Sends calls and takes their answers: credentials, floors, outcomes. Knows nothing of what a route means."""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

import httpx

from memoturn._core.answers import FAULTS, Answer, checked, number, outcome_of
from memoturn._core.calls import Call
from memoturn._core.positions import Positions
from memoturn.errors import NotFoundError, PreconditionFailedError, ServerError

DEFAULT_TIMEOUT_S: Final = 30.0
_OK: Final = 200


@dataclass(frozen=True)
class AsyncStreamed:
    """An answer that is taken as it comes: its body, the bytes that it has in all (0: not known), its txids."""

    chunks: Callable[[], AsyncIterator[bytes]]
    lines: Callable[[], AsyncIterator[str]]
    size_bytes: int
    txid: int
    durable_txid: int


class AsyncHttp:
    """Sends requests with the client's credentials.

    Control routes take the platform key first and data routes the token first; each falls back to the other.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        platform_key: str | None,
        tenant: str | None,
        client: httpx.AsyncClient | None,
        timeout_s: float | None,
        read_your_writes: bool,
    ) -> None:
        self.url = url.rstrip("/")
        self.positions = Positions()
        self._data = _headers(token or platform_key, tenant)
        self._control = _headers(platform_key or token, tenant)
        self._floors = read_your_writes
        self._owned = client is None
        self._client = client or httpx.AsyncClient(timeout=DEFAULT_TIMEOUT_S)
        self._timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else httpx.Timeout(timeout_s)

    async def send(self, call: Call) -> Answer:
        """Send a call and return its answer, after which its branch's position is known.

        A floor that the client set itself and that cannot be met is given up: the name may stand for a younger
        database by now, which only the owner knows. Raises the MemoturnError of the answer,
        InvalidRequestError when the request cannot be written down, UnreachableError and UnknownOutcomeError.
        """
        floor = self._floor(call)
        try:
            answer = await self._once(call if floor is None else replace(call, floor=floor))
        except (PreconditionFailedError, NotFoundError) as error:
            if floor is None or (call.one and not isinstance(error, PreconditionFailedError)):
                raise
            answer = await self._once(replace(call, consistency="primary"))
            if call.place is not None:
                self.positions.replace(call.place, answer.txid, answer.durable_txid)
            return answer
        if call.place is not None:
            self.positions.see(call.place, answer.txid, answer.durable_txid)
        return answer

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncStreamed]:
        """Send a call whose answer is taken as it comes. Raises what `send` does, while it is read, too."""
        floor = self._floor(call)
        call = call if floor is None else replace(call, floor=floor)
        try:
            async with self._client.stream(
                call.method,
                self.url + call.path,
                headers=self._headers(call),
                params=call.query or None,
                content=call.content,
                timeout=self._timeout_of(call),
            ) as response:
                if response.status_code != _OK:
                    checked(response.status_code, response.headers, await response.aread())
                    raise ServerError("the answer is no stream; is the URL that of a Memoturn node?")
                streamed = AsyncStreamed(
                    response.aiter_bytes,
                    response.aiter_lines,
                    number(response.headers, "Content-Length"),
                    number(response.headers, "Memoturn-Txid"),
                    number(response.headers, "Memoturn-Durable-Txid"),
                )
                if call.place is not None:
                    self.positions.see(call.place, streamed.txid, streamed.durable_txid)
                yield streamed
        except FAULTS as error:
            raise outcome_of(error, self.url, call.method) from error

    async def upload(self, call: Call, chunks: AsyncIterable[bytes], *, wait_s: float) -> Answer:
        """Send a call with a body that is made as it goes; the answer may take `wait_s` after its last byte.

        Raises what `send` does.
        """
        try:
            response = await self._client.request(
                call.method,
                self.url + call.path,
                headers=self._headers(call),
                params=call.query or None,
                content=chunks,
                timeout=httpx.Timeout(DEFAULT_TIMEOUT_S, read=wait_s),
            )
        except FAULTS as error:
            raise outcome_of(error, self.url, call.method) from error
        return checked(response.status_code, response.headers, response.content)

    async def close(self) -> None:
        """Close the connections, unless the HTTP client was given by the caller."""
        if self._owned:
            await self._client.aclose()

    def _floor(self, call: Call) -> int | None:
        """Return the floor that the client sets itself, None where it sets none."""
        if not self._floors or not call.floored or call.floor is not None or call.place is None:
            return None
        return self.positions.of(call.place).txid or None

    async def _once(self, call: Call) -> Answer:
        try:
            response = await self._client.request(
                call.method,
                self.url + call.path,
                headers=self._headers(call),
                params=call.query or None,
                content=call.content,
                timeout=self._timeout_of(call),
            )
        except FAULTS as error:
            raise outcome_of(error, self.url, call.method) from error
        return checked(response.status_code, response.headers, response.content)

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {**(self._control if call.control else self._data), **call.headers}
        if call.floor:
            headers["Memoturn-Min-Txid"] = str(call.floor)
        if call.consistency is not None:
            headers["Memoturn-Consistency"] = call.consistency
        return headers

    def _timeout_of(self, call: Call) -> "httpx.Timeout | httpx._client.UseClientDefault":
        return self._timeout if call.timeout_s is None else httpx.Timeout(call.timeout_s)


def _headers(credential: str | None, tenant: str | None) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if credential:
        headers["Authorization"] = f"Bearer {credential}"
    if tenant is not None:
        headers["Memoturn-Tenant"] = tenant
    return headers
