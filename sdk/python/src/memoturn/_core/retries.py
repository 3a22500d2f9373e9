"""Whether a request is sent again, after how long, and what is told of it in the end."""

from dataclasses import dataclass
from typing import Final, Literal

from memoturn.errors import MemoturnError, UnconfiguredError, UnknownOutcomeError, UnreachableError

RETRIES: Final = 3
DEADLINE_S: Final = 60.0
FIRST_WAIT_S: Final = 0.2
WAIT_LIMIT_S: Final = 5.0
RETRY_AFTER_LIMIT_S: Final = 30.0
_REPEATED: Final = frozenset({408, 429, 502, 503, 504})
_UNAPPLIED: Final = frozenset({429, 503})

Repeatable = Literal["always", "unapplied", "never"]
"""Reads and writes with a key may always be sent again; others where they were surely not applied, or never."""


def wait_s(
    error: MemoturnError,
    repeatable: Repeatable,
    *,
    repeats: int,
    retries: int,
    jitter: float,
    left_s: float,
) -> float | None:
    """Return how long to wait before the request is sent again, None where it is not.

    `repeats` are those so far, `jitter` is random from 0 to 1, `left_s` the time that is left of the call.
    """
    if repeats >= retries or not _may_repeat(error, repeatable):
        return None
    retry_after_s = error.retry_after or 0.0
    if retry_after_s > RETRY_AFTER_LIMIT_S:
        return None
    wait = retry_after_s + jitter * min(WAIT_LIMIT_S, FIRST_WAIT_S * 2**repeats)
    return wait if wait < left_s else None


def _may_repeat(error: MemoturnError, repeatable: Repeatable) -> bool:
    if isinstance(error, UnconfiguredError) or repeatable == "never":
        return False
    if isinstance(error, UnreachableError):
        return True
    if error.status == 0:
        return isinstance(error, UnknownOutcomeError) and repeatable == "always"
    return error.status in (_REPEATED if repeatable == "always" else _UNAPPLIED)


@dataclass
class Tries:
    """The tries of one call until its deadline, in seconds of a monotonic clock."""

    repeatable: Repeatable
    retries: int
    ends_at_s: float
    is_write: bool
    repeats: int = 0
    _may_be_applied: bool = False

    def after(self, error: MemoturnError, now_s: float, jitter: float) -> float | None:
        """Return how long to wait before the next try, None where there is none."""
        if error.status in _REPEATED - _UNAPPLIED or isinstance(error, UnknownOutcomeError):
            self._may_be_applied = self.is_write
        wait = wait_s(
            error,
            self.repeatable,
            repeats=self.repeats,
            retries=self.retries,
            jitter=jitter,
            left_s=self.ends_at_s - now_s,
        )
        self.repeats += 1
        return wait

    def verdict(self, error: MemoturnError, key: str | None) -> MemoturnError:
        """Return what the caller is told when `error` ended the last try.

        A write that an earlier try may have brought through is not told to be unsent, or turned away.
        """
        unsure = isinstance(error, UnreachableError) or error.status in _UNAPPLIED
        if self._may_be_applied and unsure:
            told = UnknownOutcomeError(
                f"an earlier try of the write may have been applied, and the last one failed: {error.message}",
                code="unknown_outcome",
                retry_after=error.retry_after,
            )
            told.__cause__ = error
            error = told
        if isinstance(error, UnknownOutcomeError):
            error.idempotency_key = key
        return error
