"""What a data directory remembers of its chains: how far each one goes. So a bucket that was put back is noticed at once,
also by a process that has only just started.

    ends    a line for each flush: `{stream} {chain} {seq} {hash}`; the last one of a stream counts
"""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Final

from memoturnd.core.audit import Place

STREAMS_LIMIT: Final = 50_000
"""Streams that are remembered; the one that was flushed longest ago is forgotten."""
FILE_BYTES: Final = 16 << 20
_PARTS: Final = 4


class Ends:
    """The ends of the chains by stream. `open` comes first. Every method may raise OSError."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ends"
        self._known: OrderedDict[str, Place] = OrderedDict()
        self._fd = -1
        self._size_bytes = 0

    def open(self) -> None:
        """Read what was remembered, and write it anew."""
        if self._path.exists():
            for line in self._path.read_text("ascii", "replace").split("\n")[:-1]:
                parts = line.split(" ")
                if len(parts) == _PARTS and parts[2].isdigit():
                    self._keep(parts[0], Place(parts[1], int(parts[2]), parts[3]))
        self._rewrite()

    def get(self, stream: str) -> Place | None:
        """Return how far a stream's chain went, None where that is not known."""
        return self._known.get(stream)

    def put(self, stream: str, place: Place) -> None:
        """Remember how far a stream's chain goes."""
        self._keep(stream, place)
        if self._fd >= 0:
            self._size_bytes += os.write(self._fd, _line(stream, place))
            if self._size_bytes > FILE_BYTES:
                self._rewrite()

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _keep(self, stream: str, place: Place) -> None:
        self._known[stream] = place
        self._known.move_to_end(stream)
        if len(self._known) > STREAMS_LIMIT:
            self._known.popitem(last=False)

    def _rewrite(self) -> None:
        self.close()
        fresh = self._path.with_suffix(".new")
        data = b"".join(_line(stream, place) for stream, place in self._known.items())
        fresh.write_bytes(data)
        fresh.replace(self._path)
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._size_bytes = len(data)


def _line(stream: str, place: Place) -> bytes:
    return f"{stream} {place.chain} {place.seq} {place.hash}\n".encode("ascii")
