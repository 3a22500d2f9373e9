"""One request and its answer: paths, headers, bodies and errors. Knows nothing of what a route means."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, cast
from urllib.parse import quote

import httpx

from memoturn.errors import InvalidRequestError, ServerError, UnknownOutcomeError, UnreachableError, error_for
from memoturn.types import At, Durability

DEFAULT_TIMEOUT_S: Final = 30.0
_DOTS: Final = {".": "%2E", "..": "%2E%2E"}
_FAILED: Final = 400
_OK: Final = 200
_TEXT_SHOWN: Final = 200


def path(*parts: str) -> str:
    """Join `parts` into a URL path, each percent-encoded whole.

    Raises InvalidRequestError on an empty part, which would address another route.
    """
    for part in parts:
        if not part:
            raise InvalidRequestError(
                "a name in the request is empty; give it a value", code="invalid_request"
            )
    try:
        # A bare dot segment would be removed on the way, and the request would reach another resource.
        return "/" + "/".join(_DOTS.get(part) or quote(part, safe="") for part in parts)
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"a name is not valid Unicode: {error}", code="invalid_request") from error


def revision(at: At) -> str:
    """Return a revision as it is sent. Raises InvalidRequestError for a time without a zone."""
    if not isinstance(at, datetime):
        return str(at)
    if at.utcoffset() is None:
        raise InvalidRequestError(
            f"the time {at.isoformat()} has no zone; give it one, as in datetime.now(timezone.utc)",
            code="invalid_request",
        )
    return at.astimezone(timezone.utc).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer below 400. Txids are 0 on routes that concern no branch."""

    body: bytes
    txid: int
    durable_txid: int

    def json(self) -> dict[str, Any]:
        """Return the JSON object of the body. Raises ServerError when it is something else."""
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise ServerError("the answer is not JSON; is the URL that of a Memoturn node?") from error
        if not isinstance(value, dict):
            raise ServerError("the answer is not a JSON object; is the URL that of a Memoturn node?")
        return value

    def stamped(self) -> dict[str, Any]:
        """Return the JSON object with the txids of the headers in it; fields of the body win."""
        return {"txid": self.txid, "durable_txid": self.durable_txid, **self.json()}


@dataclass(frozen=True)
class Download:
    """An answer that is taken as it comes: its body, the bytes that it has in all, and its txids."""

    chunks: Iterator[bytes]
    size_bytes: int
    txid: int
    durable_txid: int


class Position:
    """The newest txids seen in the answers of one branch."""

    __slots__ = ("durable_txid", "txid")

    def __init__(self) -> None:
        self.txid = 0
        self.durable_txid = 0

    def see(self, answer: Answer) -> Answer:
        """Take the txids of an answer; return it."""
        self.see_txids(answer.txid, answer.durable_txid)
        return answer

    def see_txids(self, txid: int, durable_txid: int) -> None:
        """Take txids that an answer had."""
        self.txid = max(self.txid, txid)
        self.durable_txid = max(self.durable_txid, durable_txid)


class Http:
    """Sends requests with the client's credentials.

    Control routes take the platform key first and data routes the token first; each falls back to the other.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        platform_key: str | None,
        client: httpx.Client | None,
        timeout_s: float | None,
    ) -> None:
        self._url = url.rstrip("/")
        self._data_key = token or platform_key
        self._control_key = platform_key or token
        self._owned = client is None
        self._client = client or httpx.Client(timeout=DEFAULT_TIMEOUT_S)
        self._timeout = httpx.USE_CLIENT_DEFAULT if timeout_s is None else httpx.Timeout(timeout_s)

    @property
    def url(self) -> str:
        """Where requests go, without a trailing slash."""
        return self._url

    def request(
        self,
        method: str,
        url_path: str,
        *,
        body: object = None,
        data: bytes | None = None,
        query: Mapping[str, str | int | None] | None = None,
        branch: str | None = None,
        durability: Durability | None = None,
        min_txid: int | None = None,
        at: At | None = None,
        control: bool = False,
    ) -> Answer:
        """Send one request and return its answer; `body` is sent as JSON, `data` as it is.

        Raises the MemoturnError of the answer, InvalidRequestError when the request cannot be written down,
        UnreachableError and UnknownOutcomeError.
        """
        headers = self._headers(durability, min_txid, control=control)
        params = {name: str(value) for name, value in (query or {}).items() if value is not None}
        if branch is not None:
            params["branch"] = branch
        if at is not None:
            params["at"] = revision(at)
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = _encode(body)
        elif data is not None:
            headers["Content-Type"] = "application/octet-stream"
        return _answer(self._send(method, self._url + url_path, headers, params, data))

    def close(self) -> None:
        """Close the connections, unless the HTTP client was given by the caller."""
        if self._owned:
            self._client.close()

    def _headers(self, durability: str | None, min_txid: int | None, *, control: bool) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        key = self._control_key if control else self._data_key
        if key:
            headers["Authorization"] = f"Bearer {key}"
        if durability is not None:
            headers["Memoturn-Durability"] = durability
        if min_txid is not None:
            headers["Memoturn-Min-Txid"] = str(min_txid)
        return headers

    def _send(
        self, method: str, url: str, headers: dict[str, str], params: dict[str, str], data: bytes | None
    ) -> httpx.Response:
        with self._outcomes(method):
            return self._client.request(
                method, url, headers=headers, params=params or None, content=data, timeout=self._timeout
            )

    @contextmanager
    def download(self, url_path: str, *, at: At | None = None) -> Iterator["Download"]:
        """Send a GET whose answer is taken as it comes. Raises what `request` does, while it is read, too."""
        params = {} if at is None else {"at": revision(at)}
        headers = self._headers(None, None, control=False)
        url = self._url + url_path
        with (
            self._outcomes("GET"),
            self._client.stream(
                "GET", url, headers=headers, params=params or None, timeout=self._timeout
            ) as response,
        ):
            if response.status_code != _OK:
                response.read()
                _answer(response)
                raise ServerError("the answer is no file; is the URL that of a Memoturn node?")
            yield Download(
                response.iter_bytes(),
                int(response.headers.get("Content-Length", 0)),
                _txid(response.headers, "Memoturn-Txid"),
                _txid(response.headers, "Memoturn-Durable-Txid"),
            )

    @contextmanager
    def lines(
        self, method: str, url_path: str, *, query: Mapping[str, str | int | None], control: bool = False
    ) -> Iterator[Iterator[dict[str, Any]]]:
        """Send a request whose answer is lines of JSON, taken as they come. Raises what `download` does."""
        params = {name: str(value) for name, value in query.items() if value is not None}
        headers = self._headers(None, None, control=control)
        url = self._url + url_path
        with (
            self._outcomes(method),
            self._client.stream(
                method, url, headers=headers, params=params or None, timeout=self._timeout
            ) as response,
        ):
            if response.status_code != _OK:
                response.read()
                _answer(response)
                raise ServerError("the answer has no lines; is the URL that of a Memoturn node?")
            yield (_object(line) for line in response.iter_lines() if line)

    def upload(
        self,
        url_path: str,
        chunks: Iterable[bytes],
        *,
        size_bytes: int,
        query: Mapping[str, str | int | None],
        wait_s: float,
    ) -> Answer:
        """Send a PUT of so many bytes, with the control plane's credentials, and return its answer.

        The answer may take `wait_s` after the last byte. Raises what `request` does.
        """
        headers = self._headers(None, None, control=True)
        headers |= {"Content-Type": "application/vnd.sqlite3", "Content-Length": str(size_bytes)}
        params = {name: str(value) for name, value in query.items() if value is not None}
        timeout = httpx.Timeout(DEFAULT_TIMEOUT_S, read=wait_s)
        with self._outcomes("PUT"):
            response = self._client.put(
                self._url + url_path, headers=headers, params=params or None, content=chunks, timeout=timeout
            )
        return _answer(response)

    @contextmanager
    def _outcomes(self, method: str) -> Iterator[None]:
        """Turn what may go wrong on the way into what it means for the caller."""
        try:
            yield
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeError) as error:
            raise InvalidRequestError(
                f"{self._url} cannot be requested: {error}", code="invalid_request"
            ) from error
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UnreachableError(
                f"cannot connect to {self._url}: {_cause(error)}", code="unreachable"
            ) from error
        except httpx.TimeoutException as error:
            raise UnknownOutcomeError(
                f"{self._url} did not answer {method} in time; a write may or may not have been applied",
                code="unknown_outcome",
            ) from error
        except httpx.HTTPError as error:
            raise UnknownOutcomeError(
                f"the connection to {self._url} broke during {method} ({_cause(error)}); "
                "a write may or may not have been applied",
                code="unknown_outcome",
            ) from error


def _object(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ServerError("a line is not JSON; is the URL that of a Memoturn node?") from error
    if not isinstance(value, dict):
        raise ServerError("a line is not a JSON object; is the URL that of a Memoturn node?")
    return value


def _cause(error: Exception) -> str:
    return str(error) or type(error).__name__


def _encode(body: object) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"the request is not valid JSON: {error}", code="invalid_request"
        ) from error


def _answer(response: httpx.Response) -> Answer:
    if response.status_code >= _FAILED:
        raise _error(response)
    if not response.is_success:
        raise ServerError(
            f"unexpected status {response.status_code}; is the URL that of a Memoturn node?",
            status=response.status_code,
            code="internal",
        )
    headers = response.headers
    return Answer(response.content, _txid(headers, "Memoturn-Txid"), _txid(headers, "Memoturn-Durable-Txid"))


def _error(response: httpx.Response) -> Exception:
    code, message = None, f"status {response.status_code} without an explanation"
    try:
        envelope = json.loads(response.content)
        code, message = str(envelope["code"]), str(envelope["error"])
    except (ValueError, TypeError, KeyError):
        text = " ".join(response.text.split())[:_TEXT_SHOWN]
        message = f"status {response.status_code}: {text}" if text else message
    return error_for(response.status_code, code, message, _seconds(response.headers.get("Retry-After")))


def _txid(headers: httpx.Headers, name: str) -> int:
    value = cast("str", headers.get(name, ""))
    return int(value) if value.isascii() and value.isdigit() else 0


def _seconds(value: str | None) -> float | None:
    # The other form that HTTP allows, a date, is not sent by Memoturn.
    return float(value) if value is not None and value.isascii() and value.isdigit() else None
