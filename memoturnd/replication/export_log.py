"""One kind of the catalog's export in the object store: immutable objects, which any node may add to and join.

Nothing is ever changed in place and nobody needs to be alone: what several nodes write at once stands side by side,
and an object goes only after one that has all of its changes is there.
"""

import structlog

from memoturnd.core import export, layout
from memoturnd.core.export import Entry, Stored
from memoturnd.errors import CorruptionError, RetryableError
from memoturnd.seams.clock import Clock, Randomness
from memoturnd.seams.object_store import ObjectMissingError, ObjectStore

_MOST_ENTRIES = 5_000
"""Changes in one object, a megabyte or two: they are encoded and decoded on the event loop."""
_LOOKS = 4
_log = structlog.get_logger(__name__)


class ExportLog:
    """The export of one kind. What was read once is kept: a later look reads only what is new."""

    def __init__(self, store: ObjectStore, kind: str, *, clock: Clock, randomness: Randomness) -> None:
        self.damaged: set[str] = set()
        """Keys of objects that cannot be read. They stay where they are."""
        self._store = store
        self._prefix = layout.catalog_export_prefix(kind)
        self._clock = clock
        self._randomness = randomness
        self._state: dict[str, Entry] = {}
        self._seen: set[str] = set()
        self._listed: list[Stored] = []
        self._is_counted = False
        """Whether `_listed` has what earlier processes left."""

    async def append(self, entries: list[Entry]) -> None:
        """Add changes. When it returns they are in the object store. Raises StoreUnavailableError."""
        for first in range(0, len(entries), _MOST_ENTRIES):
            await self._put(entries[first : first + _MOST_ENTRIES])

    async def _put(self, entries: list[Entry]) -> None:
        key = f"{self._prefix}{self._clock.now_ms():013d}-{self._randomness.hex(8)}.json"
        data = export.encode(entries)
        await self._store.put(key, data)
        self._listed.append(Stored(key, len(data)))

    async def state(self) -> dict[str, Entry]:
        """Return the newest change of everything, by id, as the object store has them now.

        Objects that cannot be read are left out, logged and named in `damaged`. Raises StoreUnavailableError.
        """
        for _ in range(_LOOKS):
            await self._list()
            keys = {stored.key for stored in self._listed}
            self._seen &= keys
            new = sorted(keys - self._seen)
            if all([await self._read(key) for key in new]):
                self._forget_old_ends(is_changed=bool(new))
                return self._state
            # Some were joined meanwhile: what has them is listed now.
        raise RetryableError(f"the catalog's export under {self._prefix} changes while it is read; try again")

    def _forget_old_ends(self, *, is_changed: bool) -> None:
        """Keep no more of what is gone than the objects do, which forget a little earlier."""
        if is_changed:
            before_ms = self._clock.now_ms() - 2 * export.GONE_KEPT_MS
            for id_ in [i for i, e in self._state.items() if e.body is None and e.at < before_ms]:
                del self._state[id_]

    async def _list(self) -> None:
        self._listed = [Stored(i.key, i.size_bytes) async for i in self._store.list(self._prefix)]
        self._is_counted = True

    async def _read(self, key: str) -> bool:
        """Join an object into the state; False where it is gone."""
        entries = await self._entries(key)
        if entries is None:
            return False
        export.join(self._state, entries)
        self._seen.add(key)
        return True

    async def _entries(self, key: str) -> list[Entry] | None:
        """Return the changes in an object: none where it is damaged, None where it is gone."""
        try:
            return export.decode((await self._store.get(key)).data)
        except ObjectMissingError:
            return None
        except CorruptionError as error:
            if key not in self.damaged:
                _log.error("an object of the catalog's export is left out", key=key, error=str(error))
                self.damaged.add(key)
            return []

    async def join_some(self) -> int:
        """Join objects where there are many; return how many went. Raises StoreUnavailableError."""
        if self._is_counted and not export.to_join(self._listed)[0]:
            return 0
        await self._list()
        listed = self._listed
        chosen, is_all = export.to_join([stored for stored in listed if stored.key not in self.damaged])
        joined: dict[str, Entry] = {}
        read: list[str] = []
        for stored in chosen:
            entries = await self._entries(stored.key)
            if entries is not None and stored.key not in self.damaged:
                export.join(joined, entries)
                read.append(stored.key)
        if not read:
            return 0
        is_whole = is_all and len(read) == len(listed)
        kept = (
            export.without_old_ends(joined, now_ms=self._clock.now_ms())
            if is_whole
            else list(joined.values())
        )
        if kept:
            await self.append(kept)
        for key in read:
            await self._store.delete(key)
        gone = set(read)
        self._listed = [stored for stored in self._listed if stored.key not in gone]
        return len(read)
