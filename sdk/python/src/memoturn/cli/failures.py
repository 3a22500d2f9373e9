"""What an error means on the command line: its exit code, and a hint for the next step."""

from memoturn.cli.exits import ExitCode
from memoturn.errors import (
    AlreadyExistsError,
    BranchNotFoundError,
    ConflictError,
    DatabaseNotFoundError,
    ForbiddenError,
    MemoturnError,
    NotDurableError,
    NotFoundError,
    OverloadedError,
    PreconditionFailedError,
    RetryableError,
    ServerError,
    UnauthorizedError,
    UnknownOutcomeError,
    UnreachableError,
)

_CODES: tuple[tuple[type[MemoturnError], ExitCode], ...] = (
    (UnreachableError, ExitCode.UNREACHABLE),
    (NotFoundError, ExitCode.NOT_FOUND),
    (ConflictError, ExitCode.CONFLICT),
    (PreconditionFailedError, ExitCode.CONFLICT),
    (RetryableError, ExitCode.UNAVAILABLE),
    (UnknownOutcomeError, ExitCode.UNAVAILABLE),
    (NotDurableError, ExitCode.UNAVAILABLE),
    (ServerError, ExitCode.UNAVAILABLE),
    (MemoturnError, ExitCode.REFUSED),
)

_HINTS: tuple[tuple[type[MemoturnError], str], ...] = (
    (
        UnreachableError,
        (
            "Is a node running there? Start one with `memoturnd` (in a checkout: `make run`), "
            "or say where it is with --url or MEMOTURN_URL."
        ),
    ),
    (
        DatabaseNotFoundError,
        "`memoturn db list` shows what exists; a profile begins with its first `memory ingest`.",
    ),
    (
        BranchNotFoundError,
        "`memoturn branch list DB` and `memoturn branch checkpoints DB BRANCH` show what exists.",
    ),
    (AlreadyExistsError, "Choose another name, or delete the old one first."),
    (ConflictError, "Look at the state again before you repeat this."),
    (PreconditionFailedError, "Wait a moment and read again, or leave the floor out."),
    (
        UnauthorizedError,
        "Pass a credential with --token or --platform-key (MEMOTURN_TOKEN, MEMOTURN_PLATFORM_KEY).",
    ),
    (ForbiddenError, "This credential does not cover it; reserved tables are never open to SQL."),
    (OverloadedError, "Nothing was changed; try again."),
    (UnknownOutcomeError, "Look whether it was applied before you repeat a write; --timeout waits longer."),
    (NotDurableError, "It is applied: do not repeat it, run `memoturn sync DB` to wait until it is durable."),
    (RetryableError, "Nothing was changed; try again."),
    (ServerError, "The node's log has the cause."),
)


_TLS_HINTS: tuple[tuple[str, str], ...] = (
    ("WRONG_VERSION_NUMBER", "What listens there speaks no TLS: write http:// instead of https://."),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "Its certificate is not trusted here: name a file with that of its authority in SSL_CERT_FILE.",
    ),
)


def tls_hint(error: MemoturnError) -> str | None:
    """Return the next step where an encrypted connection failed for a known reason, else None."""
    return next((text for reason, text in _TLS_HINTS if reason in error.message), None)


def exit_code(error: MemoturnError) -> ExitCode:
    """Return the exit code of an error."""
    return next(code for cls, code in _CODES if isinstance(error, cls))


def hint(error: MemoturnError) -> str | None:
    """Return the next step after an error, None where its message says it all."""
    text = next((text for cls, text in _HINTS if isinstance(error, cls)), None)
    if isinstance(error, UnreachableError):
        text = tls_hint(error) or text
    if text is not None and error.retry_after is not None:
        return f"{text} The server asks to wait {error.retry_after:g} s."
    return text
