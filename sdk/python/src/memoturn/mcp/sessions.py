"""Which sessions are open over HTTP, whose they are, and which have to end. Decides; does no I/O.

A session belongs to the credential that opened it. There are at most so many in all, so many of one credential, and
none that was idle for too long: where a new one has no room, the one that was used least recently ends for it.
"""

import hashlib
import hmac
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Session(Generic[T]):
    """An open session. `busy` counts its requests under way; `used_s` is when the last of them began or ended."""

    id: str
    owner: bytes
    upstream: T
    used_s: float
    busy: int = field(default=0)


def owner_of(token: str | None) -> bytes:
    """Return what stands for a credential, so that the credential itself is kept in one place only."""
    return hashlib.sha256(b"" if token is None else b"t" + token.encode()).digest()


class Sessions(Generic[T]):
    """The open sessions, the least recently used first. `clock` tells seconds."""

    def __init__(
        self, clock: Callable[[], float], *, sessions_max: int, sessions_per_token: int, idle_s: float
    ) -> None:
        self._clock = clock
        self._sessions_max = sessions_max
        self._sessions_per_token = sessions_per_token
        self._idle_s = idle_s
        self._open: OrderedDict[str, Session[T]] = OrderedDict()
        self._opening: Counter[bytes] = Counter()

    def __len__(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def get(self, session_id: str) -> Session[T] | None:
        """Return the session of that id, None when there is none or it is over."""
        return self._open.get(session_id)

    def owned_by(self, session: Session[T], token: str | None) -> bool:
        """Return whether `token` is the credential that opened the session."""
        return hmac.compare_digest(session.owner, owner_of(token))

    def idle(self) -> list[Session[T]]:
        """Take out the sessions that were not used for too long, and return them."""
        since_s = self._clock() - self._idle_s
        return self._take([s for s in self._open.values() if not s.busy and s.used_s <= since_s])

    def admit(self, token: str | None) -> list[Session[T]] | None:
        """Keep a place for a session of `token` until `settle`; return those that end for it, None without room."""
        owner = owner_of(token)
        own = [session for session in self._open.values() if session.owner == owner]
        leaving: list[Session[T]] = []
        for crowd, opening, bound in (
            (own, self._opening[owner], self._sessions_per_token),
            (list(self._open.values()), self._opening.total(), self._sessions_max),
        ):
            staying = [session for session in crowd if session not in leaving]
            over = len(staying) + opening + 1 - bound
            if over > 0:
                free = [session for session in staying if not session.busy][:over]
                if len(free) < over:
                    return None
                leaving += free
        self._opening[owner] += 1
        return self._take(leaving)

    def settle(self, token: str | None) -> None:
        """Give up the place of `admit`: the session was added, or did not come about."""
        owner = owner_of(token)
        self._opening[owner] -= 1
        if not self._opening[owner]:
            del self._opening[owner]

    def add(self, session_id: str, token: str | None, upstream: T) -> Session[T]:
        """Register a session."""
        session = Session(session_id, owner_of(token), upstream, self._clock())
        self._open[session_id] = session
        return session

    def begin(self, session: Session[T]) -> None:
        """Note that a request of the session begins."""
        session.busy += 1
        self._touch(session)

    def end(self, session: Session[T]) -> None:
        """Note that a request of the session has ended."""
        session.busy -= 1
        self._touch(session)

    def remove(self, session_id: str) -> Session[T] | None:
        """Take a session out."""
        return self._open.pop(session_id, None)

    def clear(self) -> list[Session[T]]:
        """Take all sessions out, and return them."""
        return self._take(list(self._open.values()))

    def _touch(self, session: Session[T]) -> None:
        session.used_s = self._clock()
        if session.id in self._open:
            self._open.move_to_end(session.id)

    def _take(self, sessions: list[Session[T]]) -> list[Session[T]]:
        for session in sessions:
            del self._open[session.id]
        return sessions
