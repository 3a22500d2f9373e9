"""Answers, and the one table that maps the error tree to HTTP.

Every error is `{"error": human text, "code": stable identifier}`. The code `internal` does not say what
went wrong inside: its text names the request id under which the node's log has it. Only damaged data is named,
and with 502 the provider that failed.
"""

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from memoturnd.core.durability import Durability
from memoturnd.errors import (
    AlreadyExistsError,
    ChangesGoneError,
    ConflictError,
    ForbiddenError,
    IdempotencyKeyReusedError,
    InvalidRequestError,
    MemoturnError,
    MethodNotAllowedError,
    NotDurableError,
    NotFoundError,
    NotOwnerError,
    OutcomeUnknownError,
    OverloadedError,
    PayloadTooLargeError,
    PreconditionFailedError,
    RequestTimeoutError,
    RetryableError,
    UnansweredError,
    UnauthorizedError,
    UnconfiguredError,
    UnsupportedMediaError,
    UpstreamError,
)
from memoturnd.http.streaming import Stream
from memoturnd.seams.leases import Owner
from memoturnd.seams.profile import Seen, Written

Header = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")
TEXT: Final[Header] = (b"content-type", b"text/plain; charset=utf-8")
BYTES: Final[Header] = (b"content-type", b"application/octet-stream")
LINES: Final[Header] = (b"content-type", b"application/x-ndjson")
EVENTS: Final[Header] = (b"content-type", b"text/event-stream")
SQLITE: Final[Header] = (b"content-type", b"application/vnd.sqlite3")
REPLAYED: Final[Header] = (b"idempotent-replayed", b"true")
"""On an answer that an earlier request with the same Idempotency-Key has had."""

UNAPPLIED: Final[Header] = (b"memoturn-applied", b"false")
"""On an answer that says that nothing was applied, so that the request may be sent again without harm."""

STATUS: Final[dict[type[MemoturnError], int]] = {
    InvalidRequestError: 400,
    UnauthorizedError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    MethodNotAllowedError: 405,
    RequestTimeoutError: 408,
    AlreadyExistsError: 409,
    ConflictError: 409,
    ChangesGoneError: 410,
    NotOwnerError: 421,
    PreconditionFailedError: 412,
    PayloadTooLargeError: 413,
    UnsupportedMediaError: 415,
    IdempotencyKeyReusedError: 422,
    OverloadedError: 429,
    MemoturnError: 500,
    UpstreamError: 502,
    NotDurableError: 500,  # not 503, which clients repeat by themselves: the write is applied already
    OutcomeUnknownError: 500,
    RetryableError: 503,
    UnconfiguredError: 503,
}
"""Status of an error: that of the nearest class, upwards, that stands here."""

_RETRY_STATUSES: Final = frozenset({429, 503})
_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Answer:
    """What a handler returns: a status, the bytes of the body and the headers besides Content-Length.

    With `stream` the body is what that yields; whoever sends the answer closes it.
    """

    status: int
    body: bytes = b""
    headers: list[Header] = field(default_factory=list)
    stream: Stream | None = None

    @property
    def size_bytes(self) -> int | None:
        """Bytes of the body, None where that is not known before it is sent."""
        return len(self.body) if self.stream is None else self.stream.size_bytes


def reply(value: Any, *, status: int = 200) -> Answer:
    """Answer with JSON that concerns no branch."""
    return Answer(status, _encode(value), [JSON])


def at(answer: Answer, txid: int, durable_txid: int) -> Answer:
    """Stamp `answer` with the txid of the state that it shows and the newest durable one; return it."""
    answer.headers.append((b"memoturn-txid", b"%d" % txid))
    answer.headers.append((b"memoturn-durable-txid", b"%d" % durable_txid))
    return answer


def reached(answer: Answer, durability: Durability) -> Answer:
    """Stamp `answer` with the durability that its write has reached; return it."""
    answer.headers.append((b"memoturn-durability", durability.label.encode()))
    return answer


def from_copy(answer: Answer, age_ms: int | None) -> Answer:
    """Stamp `answer` with the age of the copy that it was read from, None where that was the newest state; return it."""
    if age_ms is not None:
        answer.headers.append((b"memoturn-replica-age-ms", b"%d" % age_ms))
    return answer


def read_reply(value: Any, seen: Seen[Any]) -> Answer:
    """Answer a read of a branch with JSON."""
    return at(reply(value), seen.txid, seen.durable_txid)


def write_reply(value: Any, written: Written[Any], *, status: int = 200) -> Answer:
    """Answer a write to a branch with JSON."""
    return reached(at(reply(value, status=status), written.txid, written.durable_txid), written.durability)


def written_nothing_to_say(written: Written[Any]) -> Answer:
    """Answer a write to a branch with 204."""
    return reached(at(Answer(204), written.txid, written.durable_txid), written.durability)


def status_of(error: MemoturnError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def error_reply(error: MemoturnError) -> Answer:
    """Answer with an error that the caller may see in full; see `internal_error_reply` for the others."""
    status = status_of(error)
    answer = reply({"error": str(error), "code": error.code}, status=status)
    if isinstance(error, RetryableError) and status in _RETRY_STATUSES:
        answer.headers.append((b"retry-after", b"%d" % max(1, error.retry_after_s)))
    if isinstance(error, RetryableError | NotOwnerError) and not isinstance(
        error, RequestTimeoutError | UnansweredError
    ):
        answer.headers.append(UNAPPLIED)
    if isinstance(error, NotOwnerError) and error.owner is not None:
        answer.headers += _owner(error.owner)
    if isinstance(error, OverloadedError) and error.limit:
        answer.headers.append((b"memoturn-limit", error.limit.encode()))
    if isinstance(error, NotDurableError):
        reached(answer, error.reached)
    if isinstance(error, UnauthorizedError):
        answer.headers.append((b"www-authenticate", b"Bearer"))
    return answer


def _owner(owner: Owner) -> list[Header]:
    return [
        (b"memoturn-owner-node", owner.node_id.encode()),
        (b"memoturn-owner", owner.address.encode()),
        (b"memoturn-owner-epoch", b"%d" % owner.epoch),
    ]


def is_internal(error: MemoturnError) -> bool:
    """Return whether the caller may not see what the error says."""
    return error.code == MemoturnError.code and not isinstance(error, UpstreamError)


def internal_error_reply(request_id: str) -> Answer:
    """Answer 500 without saying what happened."""
    text = f"internal error; the node's log has the cause under request id {request_id}"
    return reply({"error": text, "code": "internal"}, status=500)
