"""When a node that fails is left alone for a while: a circuit breaker. Pure; whoever asks says what time it is."""

from typing import Final

FAILURES: Final = 3
"""Failures in a row that open it."""
FIRST_OPEN_S: Final = 0.25
LONGEST_OPEN_S: Final = 5.0


class Breaker:
    """Closed it lets everything through; open it lets nothing through for a time, then one attempt that decides (half open)."""

    __slots__ = ("_failures", "_open_s", "_probing", "_until_s")

    def __init__(self) -> None:
        self._failures = 0
        self._open_s = 0.0
        self._until_s = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether it holds attempts back, one at most excepted."""
        return self._open_s > 0

    def admits(self, now_s: float) -> bool:
        """Return whether an attempt may be made; where that is the one that decides, it is now under way."""
        if not self._open_s:
            return True
        if self._probing or now_s < self._until_s:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        """Note that the node answered."""
        if self._failures or self._open_s:
            self._failures, self._open_s, self._probing = 0, 0.0, False

    def failed(self, now_s: float) -> None:
        """Note that it could not be connected to, or did not answer."""
        self._failures += 1
        if self._failures >= FAILURES or self._probing:
            self._open_s = min(
                LONGEST_OPEN_S, max(FIRST_OPEN_S, 2 * self._open_s if self._probing else self._open_s)
            )
            self._until_s = now_s + self._open_s
        self._probing = False

    def abandoned(self) -> None:
        """Note that an attempt was given up before its outcome was known."""
        self._probing = False
