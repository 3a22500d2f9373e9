"""Nodes to measure: one in this process over an in-memory object store, or a child process as users run it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from control_plane.catalogs.sqlite import SqliteCatalog
from memoturnd.config import Settings
from memoturnd.leases.local import LocalLeases
from memoturnd.node import Node, running
from memoturnd.seams.clock import SystemClock, SystemRandomness
from memoturnd.seams.executor import PoolExecutor
from memoturnd.seams.object_store import ObjectStore
from memoturnd.stores.memory import MemoryStore

_START_S = 20.0
_STOP_S = 20.0
_PAUSE_S = 0.02
CHILD_SETTINGS = {"MEMOTURN_CONTROL_RATE": "1000000", "MEMOTURN_LOG_FORMAT": "json"}


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a new folder, removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="memoturn-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@asynccontextmanager
async def node_here(folder: Path, *, sync: str, store: ObjectStore | None = None) -> AsyncIterator[Node]:
    """Run a node without HTTP in this process, with its files in `folder`, on `store` or one in memory.

    The pool of hot handles is the original harness's: 1000 handles, 300 s idle.
    """
    settings = Settings.from_env(
        {
            "MEMOTURN_DATA_DIR": str(folder),
            "MEMOTURN_OBJECT_STORE": "mem://",
            "MEMOTURN_SYNC": sync,
            "MEMOTURN_HOT_CAP": "1000",
            "MEMOTURN_WARM_AFTER_S": "300",
        }
    )
    catalog = SqliteCatalog(folder / "registry.db")
    executor = PoolExecutor(settings.sqlite_threads)
    try:
        async with running(
            settings,
            store=store or MemoryStore(),
            leases=LocalLeases("bench", "http://127.0.0.1:1"),
            catalog=catalog,
            clock=SystemClock(),
            randomness=SystemRandomness(),
            executor=executor,
            boot_id="bench",
        ) as node:
            yield node
    finally:
        await catalog.close()
        executor.close()


@dataclass(frozen=True, slots=True)
class Child:
    """A node in a process of its own."""

    host: str
    port: int
    pid: int


@contextmanager
def child_node(
    folder: Path,
    *,
    module: tuple[str, ...] = ("memoturnd",),
    outside: Mapping[str, str] | None = None,
    **settings: str,
) -> Iterator[Child]:
    """Run `python -m memoturnd` on `folder` (data and local object store), stopped with SIGTERM at the end.

    `settings` are environment variables without their prefix, `outside` are such as have another one. Raises
    RuntimeError with the node's log when it does not start.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MEMOTURN_")}
    environment |= {**(outside or {}), **CHILD_SETTINGS} | {
        f"MEMOTURN_{name}": value for name, value in settings.items()
    }
    environment |= {"MEMOTURN_DATA_DIR": str(folder / "data"), "MEMOTURN_LISTEN": "127.0.0.1:0"}
    log_path = folder / "node.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", *module], env=environment, stdout=log, stderr=log)
    try:
        url = urlsplit(_announced(process, log_path))
        yield Child(url.hostname or "", url.port or 0, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _announced(process: "subprocess.Popen[bytes]", log_path: Path) -> str:
    """Return the URL that the node says it listens on."""
    deadline_s = time.monotonic() + _START_S
    while time.monotonic() < deadline_s and process.poll() is None:
        for line in log_path.read_text().splitlines():
            url = json.loads(line).get("url") if line.startswith("{") and line.endswith("}") else None
            if url and _listens(url):
                return str(url)
        time.sleep(_PAUSE_S)
    raise RuntimeError(f"the node did not start:\n{log_path.read_text()}")


def _listens(url: str) -> bool:
    """Return whether the node takes connections already: it says its address a moment before."""
    parts = urlsplit(url)
    try:
        socket.create_connection((parts.hostname, parts.port), _START_S).close()
    except ConnectionRefusedError:
        return False
    return True
