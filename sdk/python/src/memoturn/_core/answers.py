"""What an answer says: its body, the txids of its headers, and the error that it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from memoturn.errors import (
    InvalidRequestError,
    MemoturnError,
    ServerError,
    UnknownOutcomeError,
    UnreachableError,
    error_for,
)

_FAILED: Final = 400
_UNCHANGED: Final = 304
_TEXT_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer below 400. Txids are 0 on routes that concern no branch."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def txid(self) -> int:
        """Txid of the state that it shows or made."""
        return number(self.headers, "Memoturn-Txid")

    @property
    def durable_txid(self) -> int:
        """Newest txid that object storage has."""
        return number(self.headers, "Memoturn-Durable-Txid")

    def json(self) -> dict[str, Any]:
        """Return the JSON object of the body. Raises ServerError when it is something else."""
        return json_object(self.body, "the answer")

    def stamped(self) -> dict[str, Any]:
        """Return the JSON object with what the headers say of it; fields of the body win.

        `txid` and `durable_txid`; of a write the level `durability` that it reached; of a read from a copy
        its `replica_age_ms`.
        """
        said: dict[str, Any] = {"txid": self.txid, "durable_txid": self.durable_txid}
        durability = self.headers.get("Memoturn-Durability")
        if durability is not None:
            said["durability"] = durability
        if self.headers.get("Memoturn-Replica-Age-Ms") is not None:
            said["replica_age_ms"] = number(self.headers, "Memoturn-Replica-Age-Ms")
        return {**said, **self.json()}


def checked(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Raise the MemoturnError that an answer is, if it is one."""
    if status >= _FAILED:
        raise error_of(status, headers, body)
    if not 200 <= status < 300 and status != _UNCHANGED:  # noqa: PLR2004
        raise ServerError(
            f"unexpected status {status}; is the URL that of a Memoturn node?", status=status, code="internal"
        )


def error_of(status: int, headers: Mapping[str, str], body: bytes) -> MemoturnError:
    """Return the error that an answer is."""
    code, message = None, f"status {status} without an explanation"
    try:
        envelope = json.loads(body)
        if isinstance(envelope["code"], str) and isinstance(envelope["error"], str):
            code, message = envelope["code"], envelope["error"]
    except (ValueError, TypeError, KeyError, RecursionError):
        text = " ".join(body.decode("utf-8", "replace").split())[:_TEXT_SHOWN]
        message = f"status {status}: {text}" if text else message
    return error_for(
        status,
        code,
        message,
        _seconds(headers.get("Retry-After")),
        request_id=headers.get("Memoturn-Request-Id"),
        limit=headers.get("Memoturn-Limit"),
    )


def json_object(text: bytes | str, what: str) -> dict[str, Any]:
    """Return a JSON object. Raises ServerError when it is something else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"{what} is not JSON; is the URL that of a Memoturn node?") from error
    if not isinstance(value, dict):
        raise ServerError(f"{what} is not a JSON object; is the URL that of a Memoturn node?")
    return value


def number(headers: Mapping[str, str], name: str) -> int:
    """Return a header that is a number, 0 where it is not there or something else."""
    value = headers.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 0


def _seconds(value: str | None) -> float | None:
    # The other form that HTTP allows, a date, is not sent by Memoturn.
    return float(value) if value is not None and value.isascii() and value.isdigit() else None


def outcome_of(error: Exception, url: str, method: str) -> MemoturnError:
    """Return what something that went wrong on the way means for the caller."""
    cause = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)):
        return UnreachableError(f"cannot connect to {url}: {cause}", code="unreachable")
    if isinstance(error, httpx.TimeoutException):
        return UnknownOutcomeError(
            f"{url} did not answer {method} in time; a write may or may not have been applied",
            code="unknown_outcome",
        )
    if isinstance(error, httpx.HTTPError) and not isinstance(error, _UNSENT):
        return UnknownOutcomeError(
            f"the connection to {url} broke during {method} ({cause}); "
            "a write may or may not have been applied",
            code="unknown_outcome",
        )
    return InvalidRequestError(f"{url} cannot be requested: {error}", code="invalid_request")


_UNSENT: Final = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""What httpx raises for a request that it cannot write down whole: no node takes a part of one."""

FAULTS: Final = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)
"""What httpx raises for a request that got no answer."""
