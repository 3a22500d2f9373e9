"""Small segments that this node put lately, so that joining them asks the object store for nothing.

A branch that is written now and then has its segments joined a few at a time, soon after they were put. Reading
each of them back would cost a GET per ship, which is a third of what shipping costs the node. They are named by
their content, so what is kept here is what the store has; a segment that is not here is read from there.
"""

from collections import OrderedDict
from collections.abc import Sequence

from memoturnd.replication.ranged import fetch
from memoturnd.seams.object_store import ObjectStore

RECENT_BYTES = 16 * 1024 * 1024
"""Bytes of segments that a node keeps; the oldest make room."""
RECENT_SEGMENT_BYTES = 64 * 1024
"""Stored size up to which a segment is kept: larger ones are few, and reading them costs little beside their bytes."""


class RecentSegments:
    """One per node. `keep` what was put, `fetch` what is to be joined, `drop` what was joined."""

    def __init__(self, store: ObjectStore, *, most_bytes: int = RECENT_BYTES) -> None:
        self._store = store
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._room_bytes = most_bytes

    def keep(self, key: str, data: bytes) -> None:
        """Keep a segment that the store has, where it is small."""
        if len(data) > RECENT_SEGMENT_BYTES or key in self._kept:
            return
        self._kept[key] = data
        self._room_bytes -= len(data)
        while self._room_bytes < 0:
            _, oldest = self._kept.popitem(last=False)
            self._room_bytes += len(oldest)

    async def fetch(self, keys: Sequence[str]) -> list[bytes]:
        """Return the bytes of segments. Raises CorruptionError naming one that is lost, StoreUnavailableError."""
        found = {key: self._kept[key] for key in keys if key in self._kept}
        missing = [key for key in keys if key not in found]
        if missing:
            found.update(zip(missing, await fetch(self._store, missing), strict=True))
        return [found[key] for key in keys]

    def drop(self, keys: Sequence[str]) -> None:
        """Forget segments that nobody will join any more."""
        for key in keys:
            self._room_bytes += len(self._kept.pop(key, b""))
