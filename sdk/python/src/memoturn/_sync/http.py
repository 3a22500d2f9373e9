# Made of _async/http.py by scripts/unasync: change that one.
"""Sends calls and takes their answers: credentials, floors, repeats, outcomes. Knows nothing of what a route means."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import httpx

from memoturn._core.answers import FAULTS, Answer, checked, number, outcome_of
from memoturn._core.calls import Call, credential, seconds
from memoturn._core.positions import Positions
from memoturn._core.retries import DEADLINE_S, RETRIES, Tries
from memoturn._sync.seam import exchange, sleep
from memoturn.errors import MemoturnError, NotFoundError, PreconditionFailedError, ServerError

DEFAULT_TIMEOUT_S: Final = 30.0
_OK: Final = 200


@dataclass(frozen=True)
class Streamed:
    """An answer that is taken as it comes: its body, the bytes that it has in all (0: not known), its txids."""

    chunks: Callable[[], Iterator[bytes]]
    size_bytes: int
    txid: int
    durable_txid: int


class Http:
    """Sends requests with the client's credentials.

    Control routes take the platform key first and data routes the token first; each falls back to the other.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        platform_key: str | None = None,
        tenant: str | None = None,
        client: httpx.Client | None = None,
        timeout_s: float | None = None,
        retries: int = RETRIES,
        deadline_s: float = DEADLINE_S,
        read_your_writes: bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self.positions = Positions()
        self.sleep = sleep
        token, platform_key = credential(token, "token"), credential(platform_key, "platform key")
        self._data = _headers(token or platform_key, tenant)
        self._control = _headers(platform_key or token, tenant)
        self._retries = retries
        self._deadline_s = deadline_s
        self._floors = read_your_writes
        self._owned = client is None
        # Certificates take as long to load as some commands take in all, and nothing is followed from http to https.
        is_plain = self.url.lower().startswith("http://")
        self._client = client or httpx.Client(timeout=DEFAULT_TIMEOUT_S, verify=not is_plain)
        self._timeout = self._client.timeout if timeout_s is None else httpx.Timeout(seconds(timeout_s))

    def send(self, call: Call) -> Answer:
        """Send a call and return its answer, after which its branch's position is known.

        It is sent again while that may help, until the deadline. Raises the MemoturnError of the last answer,
        InvalidRequestError when the request cannot be written down, UnreachableError and UnknownOutcomeError.
        """
        response = self._floored(call, stream=False)
        return Answer(response.status_code, response.content, response.headers)

    @contextmanager
    def stream(self, call: Call) -> Iterator[Streamed]:
        """Send a call whose answer is taken as it comes. Raises what `send` does, while it is read, too.

        It is sent again until its answer begins, and not when that breaks off.
        """
        response = self._floored(call, stream=True)
        try:
            if response.status_code != _OK:
                raise ServerError("the answer is no stream; is the URL that of a Memoturn node?")
            yield Streamed(
                response.iter_bytes,
                number(response.headers, "Content-Length"),
                number(response.headers, "Memoturn-Txid"),
                number(response.headers, "Memoturn-Durable-Txid"),
            )
        except httpx.HTTPError as error:
            raise outcome_of(error, self.url, call.method) from error
        finally:
            response.close()

    def close(self, *, also_given: bool = False) -> None:
        """Close the connections, unless the HTTP client was given by the caller."""
        if self._owned or also_given:
            self._client.close()

    def _floored(self, call: Call, *, stream: bool) -> httpx.Response:
        """Send a call with the floor that the client remembers, and remember where the answer stands.

        A floor that cannot be met is given up: the name may stand for a younger database by now, which only
        the owner knows.
        """
        place = call.place
        if place is None or not call.floored:
            response = self._repeated(call, stream=stream)
            if place is not None:
                self.positions.see(place, *_txids(response))
            return response
        floor = self.positions.of(place).txid if self._floors and call.floor is None else 0
        try:
            response = self._repeated(replace(call, floor=floor) if floor else call, stream=stream)
        except (PreconditionFailedError, NotFoundError) as error:
            if not floor or (call.one and not isinstance(error, PreconditionFailedError)):
                raise
        else:
            self.positions.see(place, *_txids(response))
            return response
        response = self._repeated(replace(call, consistency="primary"), stream=stream)
        if _txids(response)[0] < floor:
            self.positions.replace(place, *_txids(response))
        else:
            self.positions.see(place, *_txids(response))
        return response

    def _repeated(self, call: Call, *, stream: bool) -> httpx.Response:
        whole_s = max(self._deadline_s, call.timeout_s or 0.0)
        tries = Tries(call.repeatable, self._retries, time.monotonic() + whole_s, call.is_write)
        while True:
            try:
                return self._once(call, tries.ends_at_s - time.monotonic(), stream=stream)
            except MemoturnError as error:
                wait_s = tries.after(error, time.monotonic(), random.random())  # noqa: S311 - spreads, hides nothing # nosec B311
                if wait_s is None:
                    told = tries.verdict(error, call.key)
                    if told is error:
                        raise
                    raise told from error
            self.sleep(wait_s)

    def _once(self, call: Call, left_s: float, *, stream: bool) -> httpx.Response:
        try:
            request = self._client.build_request(
                call.method,
                self.url + call.path,
                headers=self._headers(call),
                params=call.query or None,
                content=call.content if call.opened is None else call.opened(),
                timeout=self._timeout_of(call, left_s),
            )
            response = exchange(self._client, request, is_whole=not stream)
        except FAULTS as error:
            raise outcome_of(error, self.url, call.method) from error
        if response.status_code != _OK:
            checked(response.status_code, response.headers, response.content)
        return response

    def _headers(self, call: Call) -> dict[str, str]:
        headers = {**(self._control if call.control else self._data), **call.headers}
        if call.floor is not None:
            headers["Memoturn-Min-Txid"] = str(call.floor)
        if call.consistency is not None:
            headers["Memoturn-Consistency"] = call.consistency
        return headers

    def _timeout_of(self, call: Call, left_s: float) -> httpx.Timeout:
        """Return the bounds of each phase of a request, none of which goes beyond the call's deadline."""
        timeout = self._timeout
        if call.timeout_s is not None:
            timeout = httpx.Timeout(seconds(call.timeout_s), connect=timeout.connect, pool=timeout.pool)
        phases = timeout.as_dict()
        if all(phase is not None and phase <= left_s for phase in phases.values()):
            return timeout
        left_s = max(left_s, 0.001)
        return httpx.Timeout(
            **{name: left_s if phase is None else min(phase, left_s) for name, phase in phases.items()}
        )


def _txids(response: httpx.Response) -> tuple[int, int]:
    return number(response.headers, "Memoturn-Txid"), number(response.headers, "Memoturn-Durable-Txid")


def _headers(credential: str | None, tenant: str | None) -> dict[str, str]:
    headers = {"Accept": "application/json"}
    if credential:
        headers["Authorization"] = f"Bearer {credential}"
    if tenant is not None:
        headers["Memoturn-Tenant"] = tenant
    return headers
