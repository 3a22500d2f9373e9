"""The connections of a cluster, each of which can be cut by itself: fault proxies in a thread of their own.

A proxy tells its clients apart by the process behind the port that a connection comes from.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from proxy import FaultProxy, Mode

_T = TypeVar("_T")
_CALL_S = 10


class Wires:
    """Runs proxies. `processes` gives the names and process ids of who may connect."""

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        self._processes = processes
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._thread.start()
        self._proxies: list[FaultProxy] = []

    def add(self, port: int, *, host: str = "127.0.0.1", listen: str = "127.0.0.1") -> "Wire":
        """Return a wire to a server."""
        proxy = FaultProxy(host, port, listen=listen, source=self.source)
        self.run(proxy.accept())
        self._proxies.append(proxy)
        return Wire(self, proxy)

    def source(self, port: int) -> str:
        """Return the name of the process whose socket has that local port, or nothing."""
        inode = _inode(port)
        for name, pid in self._processes().items():
            if inode and inode in _sockets(pid):
                return name
        return ""

    def close(self) -> None:
        """Close every wire, and end the thread."""
        for proxy in self._proxies:
            self.run(proxy.refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_S)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run something on the loop of the proxies, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_S)


class Wire:
    """One proxy, as the thread of the test sees it."""

    def __init__(self, wires: Wires, proxy: FaultProxy) -> None:
        self._wires = wires
        self._proxy = proxy
        self.port = proxy.port

    def cut(self, source: str | None = None, mode: Mode = Mode.BLACKHOLE) -> None:
        """Let nothing more through, of everybody or of one source. Blackholed connections stay open."""

        async def cut() -> None:
            if source is None:
                self._proxy.mode = mode
            else:
                self._proxy.modes[source] = mode
            if mode is not Mode.BLACKHOLE:
                self._proxy.cut(source)

        self._wires.run(cut())

    def mend(self) -> None:
        """Let everything through again. What lost bytes meanwhile is reset."""

        async def mend() -> None:
            self._proxy.mode = Mode.PASS
            self._proxy.modes.clear()
            self._proxy.cut(robbed=True)

        self._wires.run(mend())

    def drop_replies(self, pattern: str, times: int = 1) -> None:
        """Deliver the next requests whose head matches, and reset their connections instead of answering."""

        async def drop() -> None:
            self._proxy.drop_replies(pattern, times)

        self._wires.run(drop())

    @property
    def dropped(self) -> int:
        """How many answers were not passed on."""
        return self._proxy.dropped


def _inode(port: int) -> str:
    """Return the socket whose local port that is, from the system's table of connections."""
    wanted = f":{port:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split(maxsplit=10)
        if fields[1].endswith(wanted) and fields[9] != "0":
            return fields[9]
    return ""


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            if target.startswith("socket:["):
                found.add(target[8:-1])
    except OSError:
        pass
    return found
