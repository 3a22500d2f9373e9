"""Keeps a node from waiting again and again for a database that does not answer."""

from memoturnd.errors import RetryableError
from memoturnd.seams.clock import Clock

PAUSE_S = 1.0
"""How long nobody asks after the database has not answered; then one caller finds out."""


class Breaker:
    """Counts nothing: one call that gets no answer stops the others for a moment, one that does lets them go on."""

    def __init__(self, clock: Clock, *, call_s: float) -> None:
        self._clock = clock
        self._call_s = call_s
        self._silent_until_s = 0.0
        self.is_down = False

    def check(self) -> None:
        """Raise RetryableError while nobody is to ask. Of those who come after that, one goes through."""
        if not self.is_down:
            return
        now_s = self._clock.monotonic_s()
        if now_s < self._silent_until_s:
            raise RetryableError(
                "the catalog has not answered a moment ago, and is asked again in a second; try again then"
            )
        self._silent_until_s = now_s + self._call_s

    def answered(self) -> None:
        """Note that the database has answered, if only with an error."""
        self.is_down = False

    def failed(self) -> None:
        """Note that it has not."""
        self.is_down = True
        self._silent_until_s = self._clock.monotonic_s() + PAUSE_S
