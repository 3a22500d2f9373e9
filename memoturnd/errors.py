"""The error tree, by what the caller should do next.

    MemoturnError
      InvalidRequestError        fix the request                              400 invalid_request
        PayloadTooLargeError     send less at once                            413 payload_too_large
        UnsupportedMediaError    send another content type                    415 unsupported_media_type
        IdempotencyKeyReusedError  use a new key                              422 idempotency_key_reused
      UnauthorizedError          send a credential                            401 unauthorized
      ForbiddenError             ask for another scope, or do not do that     403 forbidden
      NotFoundError              name something that exists                   404 not_found
        DatabaseNotFoundError                                                 404 database_not_found
        BranchNotFoundError                                                   404 branch_not_found
        ChangesGoneError         read all of it again, and go on from there   410 changes_gone
      MethodNotAllowedError      use another method                           405 method_not_allowed
      AlreadyExistsError         choose another name                          409 already_exists
      ConflictError              read again, then decide                      409 conflict
        FencedError              another node owns the branch now             409 conflict
        NotOwnerError            ask its owner, which the error names         421 not_owner
      PreconditionFailedError    the state asked for is not here (yet)        412 precondition_failed
      RetryableError             send the same request again later            503 unavailable
        OverloadedError          ... after `retry_after_s`                    429 overloaded
        RequestTimeoutError      ... or with less work in it                  408 request_timeout
        UnansweredError          ... which may be applied, and does no harm   503 unavailable
        StoreUnavailableError    ... once the object store answers            503 unavailable
          StoreRefusedError      ... once its settings are right              503 unavailable
        DiskFullError            ... once the node's disk has room            503 unavailable
      NotDurableError            do not repeat it; POST .../sync waits        500 not_durable
      OutcomeUnknownError        read, then decide whether to send it again   500 outcome_unknown
      UnconfiguredError          switch the feature on at the node            503 unconfigured
      UpstreamError              try again later, or look at the provider     502 internal
      CorruptionError            stop and look: stored bytes are not right    500 internal
      InvariantError             a bug of ours                                500 internal
      ConfigurationError         fix the settings; the node does not start    -

`memoturnd.http.envelope` maps the tree to HTTP in one table, by the nearest class named there.
"""

from typing import TYPE_CHECKING

from memoturnd.core.durability import Durability

if TYPE_CHECKING:
    from memoturnd.seams.leases import Owner


class MemoturnError(Exception):
    """Base of every error that Memoturn raises on purpose. The message names what failed and the next step."""

    code = "internal"


class InvalidRequestError(MemoturnError):
    """The request is wrong; sending it again unchanged cannot succeed. Nothing was changed."""

    code = "invalid_request"


class PayloadTooLargeError(InvalidRequestError):
    """The body or a value in it is over its limit."""

    code = "payload_too_large"


class UnsupportedMediaError(InvalidRequestError):
    """The body's content type is not the one that the route takes."""

    code = "unsupported_media_type"


class IdempotencyKeyReusedError(InvalidRequestError):
    """The Idempotency-Key came with another request before."""

    code = "idempotency_key_reused"


class UnauthorizedError(MemoturnError):
    """No valid credential came with the request."""

    code = "unauthorized"


class ForbiddenError(MemoturnError):
    """The request reaches for something that it may not touch."""

    code = "forbidden"


class NotFoundError(MemoturnError):
    """The thing named by the request does not exist."""

    code = "not_found"


class DatabaseNotFoundError(NotFoundError):
    """No database of that name exists."""

    code = "database_not_found"


class BranchNotFoundError(NotFoundError):
    """No branch or checkpoint of that name exists."""

    code = "branch_not_found"


class ChangesGoneError(NotFoundError):
    """The change feed does not reach back to where it was asked to go on from."""

    code = "changes_gone"


class MethodNotAllowedError(MemoturnError):
    """The route exists, but not with this method."""

    code = "method_not_allowed"


class AlreadyExistsError(MemoturnError):
    """The name is taken."""

    code = "already_exists"


class ConflictError(MemoturnError):
    """The state does not allow this now; read again and decide."""

    code = "conflict"


class FencedError(ConflictError):
    """Another node has raised the branch's epoch: this node no longer owns the branch."""


class NotOwnerError(ConflictError):
    """Another node owns the branch: nothing was applied here. `owner` says which; None where it is not known."""

    code = "not_owner"

    def __init__(self, message: str, owner: "Owner | None" = None) -> None:
        super().__init__(message)
        self.owner = owner


class PreconditionFailedError(MemoturnError):
    """A condition sent with the request (Memoturn-Min-Txid, If-Match) does not hold."""

    code = "precondition_failed"


class RetryableError(MemoturnError):
    """The request was not applied and may be sent again after `retry_after_s` seconds."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OverloadedError(RetryableError):
    """A bounded queue or window is full, or a limit is reached: `limit` names it, empty for the node's own bounds."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after_s: int = 1, limit: str = "") -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit


class RequestTimeoutError(RetryableError):
    """The request or a statement in it ran past its deadline."""

    code = "request_timeout"


class UnansweredError(RetryableError):
    """The node that was asked did not answer. It may have done what it was asked for, which does no harm when it is asked again."""


class StoreUnavailableError(RetryableError):
    """The object store did not do what was asked, and nothing says that it never will."""


class StoreRefusedError(StoreUnavailableError):
    """The object store turns the node away: wrong credentials, bucket, region or policy. Nothing was done."""


class DiskFullError(RetryableError):
    """The node's disk has no room; the write was rolled back."""


class NotDurableError(MemoturnError):
    """The write is applied, at the level `reached`, and did not become durable in time. It must not be repeated.

    Its status is 500, because clients repeat a 503 by themselves and would so apply the write twice.
    """

    code = "not_durable"

    def __init__(self, message: str, *, reached: Durability = Durability.LOCAL) -> None:
        super().__init__(message)
        self.reached = reached


class OutcomeUnknownError(MemoturnError):
    """The write was sent to the node that owns the branch, and no answer came: it may have been applied, or not.

    Its status is 500, as that of NotDurableError, so that no client repeats it by itself. With an Idempotency-Key it
    would have been repeated safely.
    """

    code = "outcome_unknown"


class UnconfiguredError(MemoturnError):
    """The feature is not switched on at this node."""

    code = "unconfigured"


class UpstreamError(MemoturnError):
    """A provider that the node asked (of a language model) failed, refused, or answered what is of no use."""


class CorruptionError(MemoturnError):
    """Stored bytes fail their checksum or break their format. Never repaired silently."""


class InvariantError(MemoturnError):
    """Something that must always hold does not: a bug in Memoturn."""


class ConfigurationError(MemoturnError):
    """The settings are wrong; the message says which one and what it takes."""


def invariant(condition: object, message: str, **facts: object) -> None:
    """Raise InvariantError unless `condition` is true; unlike `assert` it also runs under -O."""
    if not condition:
        detail = ", ".join(f"{name}={value!r}" for name, value in facts.items())
        raise InvariantError(f"{message} ({detail})" if detail else message)
