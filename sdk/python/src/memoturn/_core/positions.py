"""What a client remembers of branches: the newest txids in their answers. As a read floor it makes one read its writes."""

from collections import OrderedDict
from threading import Lock
from typing import Final, NamedTuple

LIMIT: Final = 10_000


class Place(NamedTuple):
    """A branch of a database. A profile's is that of the database `{namespace}--{profile}`."""

    database: str
    branch: str


class Position(NamedTuple):
    """The newest txid, and the newest one that object storage has."""

    txid: int
    durable_txid: int


_NOWHERE: Final = Position(0, 0)


class Positions:
    """The positions of the `limit` branches that were used last. Safe to share between threads."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._lock = Lock()
        self._known: OrderedDict[Place, Position] = OrderedDict()

    def of(self, place: Place) -> Position:
        """Return the position of a branch, that of an empty one when it is not known."""
        with self._lock:
            return self._known.get(place, _NOWHERE)

    def see(self, place: Place, txid: int, durable_txid: int) -> None:
        """Take the txids of an answer; older ones change nothing, and neither does an answer that has none."""
        if not txid and not durable_txid:
            return
        with self._lock:
            known = self._known.pop(place, _NOWHERE)
            self._known[place] = Position(max(known.txid, txid), max(known.durable_txid, durable_txid))
            self._bound()

    def replace(self, place: Place, txid: int, durable_txid: int) -> None:
        """Take the txids of an answer though they are lower: the name stands for another branch by now."""
        with self._lock:
            self._known.pop(place, None)
            self._known[place] = Position(txid, durable_txid)
            self._bound()

    def forget(self, database: str, branch: str | None = None) -> None:
        """Forget a branch, or all of a database."""
        with self._lock:
            for place in [p for p in self._known if p.database == database and branch in {None, p.branch}]:
                del self._known[place]

    def _bound(self) -> None:
        while len(self._known) > self._limit:
            self._known.popitem(last=False)
