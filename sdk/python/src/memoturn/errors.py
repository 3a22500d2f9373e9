"""The client's error tree, by what the caller should do next.

MemoturnError
  InvalidRequestError          fix the request                               400, 405, 413, 415, 422
    IdempotencyKeyReusedError  use a new key for another request             422
  UnauthorizedError            send a credential                             401
  ForbiddenError               ask for another scope, or do not do that      403
  NotFoundError                name something that exists                    404
    DatabaseNotFoundError
    BranchNotFoundError
  ConflictError                read again, then decide                       409
    AlreadyExistsError         choose another name
  ChangesGoneError             read again what you keep a copy of            410
  PreconditionFailedError      the state asked for is not there (yet)        412
  RetryableError               send it again after `retry_after` seconds     408, 429, 502, 503, 504
    OverloadedError                                                          429
    RequestTimeoutError                                                      408
    UnavailableError                                                         502, 503, 504
  UnconfiguredError            switch the feature on at the node             503 unconfigured
  NotDurableError              do not repeat it; `sync` waits for it         500 not_durable
  ServerError                  look into the node's log                      other 5xx, unreadable answers
  UnreachableError             start the node; the request was not sent      -
  UnknownOutcomeError          send it again under its key, or look first    500 outcome_unknown
  InvalidReceiptError          do not believe it                             -
  BackupError                  look at the backup's folder                   -
  EmbeddedError                make room for the node in this process        -

What may pass was repeated by the client already (`retries`), so it is told when that did not help.
"""

from typing import Final


class MemoturnError(Exception):
    """Base of all errors of this package.

    `status` is the HTTP status, 0 when there was no answer; `code` the stable identifier of the error;
    `message` the text for people; `retry_after` the seconds that the server asks to wait, None when it
    does not say; `request_id` is under which the node's log has it; `limit` names the limit of a tenant,
    namespace or token that was in the way.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        code: str = "",
        retry_after: float | None = None,
        request_id: str | None = None,
        limit: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.request_id = request_id
        self.limit = limit


class InvalidRequestError(MemoturnError):
    """The request is wrong; sending it again unchanged cannot succeed. Nothing was changed."""


class IdempotencyKeyReusedError(InvalidRequestError):
    """The idempotency key came with another request before."""


class UnauthorizedError(MemoturnError):
    """No valid credential came with the request."""


class ForbiddenError(MemoturnError):
    """The credential does not cover the request, or the request reaches for what is reserved."""


class NotFoundError(MemoturnError):
    """The thing named by the request does not exist."""


class DatabaseNotFoundError(NotFoundError):
    """No database or profile of that name exists."""


class BranchNotFoundError(NotFoundError):
    """No branch or checkpoint of that name exists."""


class ConflictError(MemoturnError):
    """The state does not allow this now."""


class AlreadyExistsError(ConflictError):
    """The name is taken."""


class ChangesGoneError(MemoturnError):
    """The feed does not reach back to the changes that were asked for: read again what you keep a copy of.

    `txid` is where the feed is now, to go on from; None where the answer does not say.
    """

    txid: int | None = None


class PreconditionFailedError(MemoturnError):
    """A condition sent with the request (`min_txid`) does not hold."""


class RetryableError(MemoturnError):
    """The server could not do it now; the same request may be sent again."""


class OverloadedError(RetryableError):
    """A bounded queue of the server is full."""


class RequestTimeoutError(RetryableError):
    """The request ran past the server's deadline."""


class UnavailableError(RetryableError):
    """The store, the disk or a change of owner is in the way."""


class NotDurableError(MemoturnError):
    """The write is applied on the node, and did not reach object storage in time.

    It must never be sent again, which would apply it twice: `sync` waits until it is durable.
    """


class UnconfiguredError(MemoturnError):
    """The feature is not switched on at the server."""


class ServerError(MemoturnError):
    """The server failed, or what answered is not a Memoturn server."""


class UnreachableError(MemoturnError):
    """No connection could be made; the request was not sent."""


class UnknownOutcomeError(MemoturnError):
    """The request was sent and no whole answer came back; a write may or may not have been applied.

    Sent again with `idempotency_key`, which is None for what has none, it takes effect once in any case.
    """

    idempotency_key: str | None = None


class InvalidReceiptError(MemoturnError):
    """A receipt of an erasure that is not genuine, or that nothing at hand can prove."""


class EmbeddedError(MemoturnError):
    """A node cannot run in this process."""


class BackupError(MemoturnError):
    """The folder does not hold the backup that was asked for, or it is damaged."""


BY_CODE: Final[dict[str, type[MemoturnError]]] = {
    "already_exists": AlreadyExistsError,
    "branch_not_found": BranchNotFoundError,
    "changes_gone": ChangesGoneError,
    "conflict": ConflictError,
    "database_not_found": DatabaseNotFoundError,
    "forbidden": ForbiddenError,
    "internal": ServerError,
    "invalid_request": InvalidRequestError,
    "method_not_allowed": InvalidRequestError,
    "not_durable": NotDurableError,
    "not_found": NotFoundError,
    "outcome_unknown": UnknownOutcomeError,
    "overloaded": OverloadedError,
    "payload_too_large": InvalidRequestError,
    "precondition_failed": PreconditionFailedError,
    "request_timeout": RequestTimeoutError,
    "unauthorized": UnauthorizedError,
    "unavailable": UnavailableError,
    "unconfigured": UnconfiguredError,
    "unsupported_media_type": InvalidRequestError,
    "idempotency_key_reused": IdempotencyKeyReusedError,
}
"""Class of an error by the server's code."""

CODE_BY_STATUS: Final[dict[int, str]] = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    410: "changes_gone",
    412: "precondition_failed",
    413: "payload_too_large",
    415: "unsupported_media_type",
    422: "invalid_request",
    429: "overloaded",
    502: "unavailable",
    503: "unavailable",
    504: "unavailable",
}
"""Code that stands in where an answer carries none, as from a proxy in between."""


def error_for(
    status: int,
    code: str | None,
    message: str,
    retry_after: float | None,
    *,
    request_id: str | None = None,
    limit: str | None = None,
) -> MemoturnError:
    """Return the error for an answer; `code` None is derived from the status. Unknown codes go by status."""
    by_status = CODE_BY_STATUS.get(status, "invalid_request" if 400 <= status < 500 else "internal")  # noqa: PLR2004
    code = code or by_status
    cls = BY_CODE.get(code) or BY_CODE[by_status]
    return cls(message, status=status, code=code, retry_after=retry_after, request_id=request_id, limit=limit)
