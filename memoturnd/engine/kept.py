"""What a node keeps in memory of the files that it has open, so that reads need not learn it anew each time.

    Memory    the node's: a bound in bytes, and what was used least recently goes first
    Kept      one opening of one file: its connections share it, and it ends when the file is closed

What is kept is derived from the file and never the truth: whoever keeps something checks, inside the
transaction of the read, that it fits the state that is read (by txid), and does without it where it does
not. A file that is closed and opened again may have become another one meanwhile, so nothing outlives that.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol


class Keepable(Protocol):
    """Something derived from a file that is worth its memory."""

    @property
    def size_bytes(self) -> int:
        """Return about how much memory it takes now."""
        ...


class Kept:
    """What is kept of one opening of a file. For any thread."""

    __slots__ = ("_memory", "_parts", "item", "lock", "refused")

    def __init__(self, memory: "Memory | None") -> None:
        self._memory = memory
        self._parts: dict[str, Kept] = {}
        self.lock = threading.Lock()
        """Held by who changes what is kept."""
        self.item: Keepable | None = None
        """What is kept; None before anything is, and again when it had to go."""
        self.refused = False
        """Whether it was found to be too large ever to be kept."""

    def looked(self, *, hit: bool) -> None:
        """Count a read, by whether what was kept was as the read needed it."""
        memory = self._memory
        if memory is not None:
            memory.looked(hit)

    def keep(self, item: Keepable) -> bool:
        """Keep `item`, or say that it was used and may have grown; False where there is no room for it."""
        memory = self._memory
        return memory is not None and memory.keep(self, item)

    def part(self, name: str) -> "Kept":
        """Return the place for one of several things of the file, each of which goes by itself; it ends with this one."""
        part = self._parts.get(name)
        if part is None:
            part = self._parts.setdefault(name, Kept(self._memory))
        if self.is_closed:
            part.close()
        return part

    @property
    def room_bytes(self) -> int:
        """Return the most that may be kept of this file."""
        memory = self._memory
        return 0 if memory is None else memory.limit_bytes

    @property
    def is_closed(self) -> bool:
        """Return whether the file was closed, so that nothing is kept of it any more."""
        return self._memory is None

    def close(self) -> None:
        """Let go of everything, for good."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.forget(self)
        for part in list(self._parts.values()):
            part.close()


class Memory:
    """The memory of one node for what is kept: `limit_bytes` in all, 0 for none. For any thread."""

    def __init__(
        self,
        limit_bytes: int,
        *,
        evicted: Callable[[], None] = lambda: None,
        looked: Callable[[bool], None] = lambda _hit: None,
    ) -> None:
        """`evicted` is told of everything that goes for something else, `looked` of each read: whether it found what it needed."""
        self.limit_bytes = limit_bytes
        self.looked = looked
        self.size_bytes = 0
        self._evicted = evicted
        self._lock = threading.Lock()
        # Least recently kept or used first.
        self._sizes: OrderedDict[Kept, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sizes)

    def open(self) -> Kept:
        """Return the place for what is kept of a file that is opened."""
        return Kept(self)

    def keep(self, kept: Kept, item: Keepable) -> bool:
        """Count `item` at its present size, and make room for it; see Kept.keep."""
        size_bytes = item.size_bytes
        with self._lock:
            if kept.is_closed:
                return False
            if size_bytes > self.limit_bytes:
                kept.refused = True
                self._drop(kept)
                return False
            self.size_bytes += size_bytes - self._sizes.pop(kept, 0)
            self._sizes[kept] = size_bytes
            kept.item = item
            while self.size_bytes > self.limit_bytes:
                self._drop(next(iter(self._sizes)))
                self._evicted()
            return True

    def forget(self, kept: Kept) -> None:
        """Let go of what is kept of a file that was closed."""
        with self._lock:
            self._drop(kept)

    def _drop(self, kept: Kept) -> None:
        self.size_bytes -= self._sizes.pop(kept, 0)
        kept.item = None
