"""A circuit breaker: what fails again and again is left alone for a while, so that nobody waits for it in vain."""

from dataclasses import dataclass
from typing import Final

FAILURES_LIMIT: Final = 3
"""Failures in a row after which nothing is tried for a while."""
PAUSE_S: Final = 5.0
PAUSE_LIMIT_S: Final = 60.0


@dataclass(slots=True)
class Breaker:
    """Counts failures. Times are seconds of one monotonic clock."""

    failures: int = 0
    closed_again_s: float = 0.0
    """When the next try is allowed."""
    pauses: int = 0
    probing: bool = False

    @property
    def is_open(self) -> bool:
        """Whether it takes a success before everybody may try again."""
        return self.failures >= FAILURES_LIMIT

    def take(self, now_s: float) -> bool:
        """Return whether a call may be made now. While open that is one call at a time, after each pause."""
        if not self.is_open:
            return now_s >= self.closed_again_s
        if self.probing or now_s < self.closed_again_s:
            return False
        self.probing = True
        return True

    def succeeded(self) -> bool:
        """Note that a call was answered; return whether that ends an outage."""
        ended = self.is_open
        self.failures, self.pauses, self.closed_again_s, self.probing = 0, 0, 0.0, False
        return ended

    def failed(self, now_s: float, *, retry_after_s: float = 0.0) -> bool:
        """Note that a call failed; return whether an outage begins with it."""
        self.failures += 1
        self.probing = False
        began = self.failures == FAILURES_LIMIT
        pause_s = retry_after_s
        if self.is_open:
            pause_s = max(pause_s, min(PAUSE_LIMIT_S, PAUSE_S * 2.0 ** min(self.pauses, 8)))
            self.pauses += 1
        self.closed_again_s = max(self.closed_again_s, now_s + pause_s)
        return began

    def cancelled(self) -> None:
        """Note that a call was given up without an answer: the next one may try in its place."""
        self.probing = False
