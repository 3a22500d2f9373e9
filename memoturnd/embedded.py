"""A node within another program's process: on a thread with an event loop of its own, reached by a Unix socket.

    node = EmbeddedNode.start(Path("data"), {"MEMOTURN_SYNC": "full"})
    ... requests to node.socket_path ...
    node.close()

It takes no signal, and changes nothing that is the whole process's: neither the limit of descriptors nor how threads take
turns. Nobody but this process's user can open the socket. At the interpreter's exit it is stopped as `close` stops it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import structlog
import uvloop

from memoturnd.app import serve
from memoturnd.config import PREFIX, Settings
from memoturnd.errors import ConfigurationError, RetryableError
from memoturnd.serving import descriptor_limit

SOCKET_NAME: Final = "node.sock"
START_S: Final = 120.0
"""How long a start may take, with all that an earlier process left to be shipped."""
STOP_S: Final = 60.0
_MOST_PATH_BYTES: Final = 100
"""Paths of sockets are short: 108 bytes on Linux, 104 elsewhere."""


class EmbeddedNode:
    """A node that runs until `close()`."""

    def __init__(self, settings: Settings) -> None:
        self.data_dir = settings.data_dir.resolve()
        self._settings = settings
        self._folder: str | None = None
        self.socket_path = self._place()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._end: Callable[[], None] | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="memoturn-node", daemon=True)

    @classmethod
    def start(cls, data_dir: Path, environ: Mapping[str, str]) -> "EmbeddedNode":
        """Run a node on a folder, and return it once it serves. `environ` are settings by their variables' names.

        The process's own environment is not looked at. Raises ConfigurationError for wrong settings, and for a
        folder that a node, of this process or another one, runs on already; RetryableError, OSError.
        """
        settings = Settings.from_env({**environ, f"{PREFIX}DATA_DIR": str(data_dir)}, is_tty=False)
        if settings.etcd is not None:
            raise ConfigurationError(
                f"a node within a program is alone: leave out {PREFIX}ETCD, or run memoturnd"
            )
        node = cls(settings)
        for other in list(_running):
            if other.data_dir == node.data_dir:
                raise ConfigurationError(
                    f"this process runs a node on {data_dir} already: use that one, or close it"
                )
        _log_quietly()
        node._thread.start()
        try:
            node._wait()
        except BaseException:
            node.close()
            raise
        _running.add(node)
        return node

    def close(self) -> None:
        """Let requests under way end, ship what is not shipped, and stop. Safe to repeat, and from any thread.

        Raises RetryableError where that takes over STOP_S, and what ended the node if it did not end well.
        """
        with self._lock:
            end, self._end = self._end, None
        if end is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                end()
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            raise RetryableError(f"the node on {self.data_dir} did not stop in {STOP_S:g} s")
        _running.discard(self)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _wait(self) -> None:
        if not self._changed.wait(START_S):
            raise RetryableError(f"the node on {self.data_dir} did not start in {START_S:g} s")
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        within = _Within(self.socket_path, self._serving)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(self._settings, outlet=within))
        except Exception as error:  # noqa: BLE001 - whoever started it is told
            self._error = error
        finally:
            within.remove()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)
            self._changed.set()

    def _serving(self, end: Callable[[int], None]) -> None:
        loop = asyncio.get_running_loop()

        def end_from_elsewhere() -> None:
            loop.call_soon_threadsafe(end, signal.SIGTERM)

        with self._lock:
            self._end = end_from_elsewhere
        self._changed.set()

    def _place(self) -> Path:
        path = self.data_dir / SOCKET_NAME
        if len(os.fsencode(path)) <= _MOST_PATH_BYTES:
            return path
        self._folder = tempfile.mkdtemp(prefix="memoturn-")  # nobody else may enter it
        return Path(self._folder) / SOCKET_NAME


_running: Final[set[EmbeddedNode]] = set()


def _close_all() -> None:
    for node in list(_running):
        node.close()


# What `atexit` calls comes when the pools of threads that a node stops with are closed already; this comes before, since it is
# registered after them.
threading._register_atexit(_close_all)  # type: ignore[attr-defined]  # noqa: SLF001


class _Within:
    """A Unix socket, and an end by who asks for it. Implements memoturnd.serving.Outlet."""

    def __init__(self, path: Path, serving: Callable[[Callable[[int], None]], None]) -> None:
        self._path = path
        self.name = str(path)
        self.serving = serving
        self._is_bound = False

    def descriptors(self) -> int:
        """Return how many there are."""
        return descriptor_limit()

    def bind(self) -> list[socket.socket]:
        """Bind the socket, in the place of one that a dead process left. Raises OSError."""
        self._path.unlink(missing_ok=True)
        self._is_bound = True
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(str(self._path))
            self._path.chmod(0o600)  # nobody can connect before it listens
        except OSError:
            bound.close()
            raise
        return [bound]

    def remove(self) -> None:
        """Remove the socket, unless it is another node's, which was in the way of this one."""
        if self._is_bound:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def port(self, _: list[socket.socket]) -> int:
        """Return the port of the address that it announces to nobody."""
        return 0


def _log_quietly() -> None:
    """Send the node's log to the program's, by the standard library's `memoturnd` loggers, unless it has set up structlog itself."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
