"""What follows when a request was sent to a node: whether the answer is the client's, or where it is tried again. Pure.

The one rule: a write is sent a second time only where it surely was not applied the first time, or where it carries an
Idempotency-Key, by which the owner applies it once. Reads may always be repeated.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final

FIRST_WAIT_S: Final = 0.02
LONGEST_WAIT_S: Final = 0.5
UNAVAILABLE_ATTEMPTS: Final = 3
"""Times that a node may answer 503 before the client has it: it says by itself when to come again."""
LOST_ATTEMPTS: Final = 4
"""Times that a repeatable request may be sent without an answer: what kills each node that gets it ends here."""
CACHED_ATTEMPT_S: Final = 1.0
"""How long the first node is waited for by a read that any node may answer: many times what one takes, and well below a lease."""
_MISDIRECTED: Final = 421
_UNAVAILABLE: Final = 503


class Event(Enum):
    """What became of one attempt."""

    UNCONNECTED = "unconnected"
    """No connection came about: nothing was sent."""
    LOST = "lost"
    """It was sent, in part or whole, and no answer came."""
    ANSWERED = "answered"


class Act(Enum):
    """What to do."""

    ANSWER = "answer"
    """Give the client what the node has answered."""
    HINT = "hint"
    """Send it to the owner that the node named."""
    AGAIN = "again"
    """Look up afresh who is to have it, and send it there."""
    UNAVAILABLE = "unavailable"
    """Say that it was not applied, and may be sent again."""
    UNKNOWN = "unknown"
    """Say that nobody knows whether it was applied."""
    UNANSWERED = "unanswered"
    """Say that no answer came in time, and that it may be sent again: it is a read, or carries a key."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What matters of a request: whether it only reads, carries an Idempotency-Key, can be sent again as it was, and whether
    any node may answer it, from a replica.
    """

    reads: bool
    keyed: bool
    replayable: bool = True
    anywhere: bool = False

    @property
    def repeatable(self) -> bool:
        """Whether it does no harm to apply it twice."""
        return self.reads or self.keyed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an attempt. `unapplied` is that the node says that it did not apply it, `hinted` that it names another owner."""

    event: Event
    status: int = 0
    unapplied: bool = False
    hinted: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What to do, after waiting `wait_s` or until what is known of the owner has changed."""

    act: Act
    wait_s: float = 0.0


def decide(asked: Asked, outcome: Outcome, *, attempts: int, left_s: float, lost: bool = False) -> Step:
    """Return what follows on the last of `attempts` (1 for the first), with `left_s` seconds until the request's deadline.

    With `lost` an earlier attempt got no answer and may have been applied: then nothing that a later one says of itself makes
    the request unapplied.
    """
    if outcome.event is Event.LOST:
        return _after_silence(asked, attempts=attempts, left_s=left_s)
    if outcome.event is Event.ANSWERED and not _was_turned_away(outcome, attempts):
        return Step(Act.UNANSWERED if lost and outcome.unapplied else Act.ANSWER)
    wait_s = backoff_s(attempts)
    if left_s <= wait_s or not asked.replayable:
        return Step(Act.UNANSWERED) if lost else _given_up(outcome)
    if outcome.hinted and attempts <= 2:  # noqa: PLR2004 - two nodes that name each other are asked once more, then waited for
        return Step(Act.HINT)
    return Step(Act.AGAIN, wait_s)


def _was_turned_away(outcome: Outcome, attempts: int) -> bool:
    if outcome.status == _MISDIRECTED:
        return True
    return outcome.status == _UNAVAILABLE and outcome.unapplied and attempts < UNAVAILABLE_ATTEMPTS


def _given_up(outcome: Outcome) -> Step:
    # A 503 of the node's own says more than ours; nobody is shown a 421.
    return Step(Act.ANSWER if outcome.status == _UNAVAILABLE else Act.UNAVAILABLE)


def _after_silence(asked: Asked, *, attempts: int, left_s: float) -> Step:
    if not asked.repeatable:
        return Step(Act.UNKNOWN)
    wait_s = backoff_s(attempts)
    if left_s <= wait_s or attempts >= LOST_ATTEMPTS or not asked.replayable:
        return Step(Act.UNANSWERED)
    return Step(Act.AGAIN, wait_s)


def attempt_s(asked: Asked, *, attempts: int, longest_s: float, left_s: float) -> float:
    """Return how long the next attempt may take, behind `attempts` of them; `longest_s` bounds one that can be repeated.

    What any node may answer is taken from one that is silent soon, and each further one is waited for twice as long: should all of
    them be slow, there is an answer all the same.
    """
    if not asked.repeatable:
        return left_s
    if asked.anywhere:
        longest_s = min(longest_s, CACHED_ATTEMPT_S * 2.0 ** min(attempts, 16))
    return min(left_s, longest_s)


def backoff_s(attempts: int) -> float:
    """Return how long to wait after the last of `attempts`: doubling, up to half a second."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempts - 1, 16))
